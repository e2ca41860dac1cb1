"""The soak's street is the same for the same seed, differs by the hour, and sounds as planned."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from node.types import NS_PER_S
from tests.hil.soak.card import BOOTED_NS, Mixer, StreetCard, StreetClock, true_rate_hz
from tests.hil.soak.library import Bed, Library, Sound
from tests.hil.soak.real import loop
from tests.hil.soak.rendering import VEHICLES, make
from tests.hil.soak.street import CALM_END_S, DAY_S, HOUR_S, SLOT_S, Street, Trouble, life_at

RATE_HZ = 16_000
START_NS = 1_780_000_000 * NS_PER_S


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return make(tmp_path_factory.mktemp("library"), RATE_HZ, 1, lambda _: None)


@pytest.fixture
def plan() -> Street:
    """Give a street of three days over sounds that are not there."""
    beds = tuple(Bed(vehicles, 0, 90 * RATE_HZ) for vehicles in VEHICLES)
    kinds = ("shot", "firework", "backfire", "clatter")
    sounds = tuple(Sound(kind, 0, 3 * RATE_HZ, 100.5, kind == "shot") for kind in kinds)
    return Street(Library(Path(), RATE_HZ, 1, 125 * RATE_HZ, beds, sounds), 72)


def test_the_same_seed_is_the_same_street(plan: Street):
    again = Street(plan.library, 72, plan.seed)
    other = Street(plan.library, 72, plan.seed + 1)

    assert list(plan.onsets()) == list(again.onsets()) != list(other.onsets())
    assert plan.troubles() == again.troubles() != other.troubles()


def test_nights_are_still_and_the_hour_before_midnight_is_not(plan: Street):
    by_hour = {h: len(plan.sounds((h - 18) % 24)) for h in range(24)}

    assert max(by_hour, key=lambda h: by_hour[h]) == 23
    assert by_hour[3] < by_hour[12] < by_hour[23]
    assert plan.gain_db(9 * HOUR_S) == life_at(3).gain_db < plan.gain_db(18 * HOUR_S)


def test_gain_goes_from_hour_to_hour_without_a_step(plan: Street):
    gain_db = np.array([plan.gain_db(at_s) for at_s in np.arange(0, DAY_S, 1.0)])

    assert np.max(np.abs(np.diff(gain_db))) < 0.02


def test_each_shot_is_an_event_of_its_own(plan: Street):
    firsts = [sound.first for hour in range(72) for sound in plan.sounds(hour)]

    # A slot less the part of it in which a sound may begin.
    assert np.min(np.diff(firsts)) >= (SLOT_S - 4.0) * RATE_HZ - 1


def test_minutes_differ(plan: Street):
    assert len({plan.bed(minute) for minute in range(1000)}) == 1000


def test_whatever_goes_wrong_is_mended_well_before_the_end(plan: Street):
    troubles = plan.troubles()

    assert {t.kind for t in troubles} == {
        "broker stopped", "broker killed", "pulse away", "clock stepped", "clock adrift",
    }  # fmt: skip
    assert max(t.end_s for t in troubles) < plan.seconds - CALM_END_S
    brokers = [t for t in troubles if t.kind.startswith("broker")]
    assert all(a.end_s < b.at_s for a, b in pairwise(brokers))


def test_a_shot_is_heard_where_the_truth_has_it(library: Library):
    street = Street(library, 1)
    onset = next(o for o in street.onsets() if o > 60 * RATE_HZ)
    mixer = Mixer(street)
    hop = RATE_HZ // 8
    sound = np.concatenate([mixer.frames(at, hop) for at in range(0, int(onset) + RATE_HZ, hop)])
    mixer.close()

    about = np.abs(sound[int(onset) - 800 : int(onset) + 800, 0].astype(float))
    assert np.argmax(about > 10 * np.max(about[:700])) == pytest.approx(800, abs=20)


def test_the_card_says_when_its_samples_were_and_brings_a_pulse_each_true_second(library: Library):
    street = Street(library, 0.1)
    clock = StreetClock(START_NS, street.troubles())
    told: list[float] = []
    card = StreetCard(street, clock, lambda at_s, waited_s: told.append(at_s))
    rate_hz = true_rate_hz(RATE_HZ)

    blocks = list(card.blocks())

    late_ns = [
        b.host_time_ns - BOOTED_NS - b.first_sample * NS_PER_S / rate_hz
        for b in blocks
        if b.host_time_ns is not None
    ]
    assert min(late_ns) > -1
    assert max(late_ns) < 2e6
    assert told == pytest.approx([60, 120, 180, 240, 300, 360], abs=2)
    pulse = np.concatenate([b.frames[:, 1] for b in blocks]) / 2**31
    rises = np.flatnonzero((pulse[1:] > 0.2) & (pulse[:-1] <= 0.2)) + 1
    late = rises - np.round(rises / rate_hz) * rate_hz  # by what the edge takes to rise so far
    assert len(rises) == 361
    assert np.ptp(late) < 1
    assert np.max(np.abs(late)) < 4


def test_the_clock_is_stepped_and_left_alone_as_planned():
    clock = StreetClock(
        START_NS, [Trouble("clock stepped", 100, 50, -1.7), Trouble("clock adrift", 200, 50)]
    )

    def read(at_s: float) -> tuple[float, str]:
        clock.now_ns = BOOTED_NS + round(at_s * NS_PER_S)
        reading = clock.read()
        utc_ns = reading.monotonic_ns + reading.utc_minus_monotonic_ns
        return (utc_ns - START_NS) / NS_PER_S - at_s, reading.quality.source

    assert read(99) == (0.0, "ntp")
    assert read(120) == (pytest.approx(-1.7), "ntp")
    assert read(150) == (0.0, "ntp")
    assert read(220) == (0.0, "free")


def test_a_loop_for_a_real_card_has_no_seam(library: Library):
    frames = loop(Street(library, 0.25))
    turn = np.concatenate((frames[-RATE_HZ:], frames[:RATE_HZ])) / 2**31

    step = np.abs(np.diff(turn[:, 0]))
    assert step[RATE_HZ - 1] < 5 * np.median(step) + 1e-6
    rises = np.flatnonzero((turn[1:, 1] > 0.2) & (turn[:-1, 1] <= 0.2)) + 1
    # The last pulse of a turn lies within the second before the seam, the next one on it.
    assert np.diff(rises)[0] == pytest.approx(true_rate_hz(RATE_HZ), abs=1)
