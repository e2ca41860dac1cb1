"""The pure middle: what it keeps of the sound, and that blocks do not matter."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.capture import make_geometry
from node.detect import ChannelOrder
from node.detect.direction import sound_speed_m_s
from node.history import History
from node.messages import Detection, Origin, to_json
from node.pipeline import (
    AGAIN_PER_S,
    HURRY_S,
    MAX_WINDOWS,
    Array,
    Pipeline,
    _bearing,
)
from node.settings import DetectSettings
from node.timing import RecordingClock
from node.types import (
    NS_PER_S,
    Block,
    ClockQuality,
    Direction,
    Grade,
    Impulse,
    Instant,
    Judgement,
    ModelIdentity,
    SampleClock,
    Scores,
)
from node.utc import parse_utc_ns

RATE_HZ = 12_000


class Listener:
    """A classifier that keeps what it was given to judge."""

    identity = ModelIdentity("listener", "1", "0" * 64, 0.9, 0.5)

    def __init__(self, grade: Grade = "not_gunfire") -> None:
        self.grade = grade
        self.windows: list[list[npt.NDArray[np.float32]]] = []

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        return sample_rate_hz // 10, sample_rate_hz // 2

    def judge(self, windows: Iterable[npt.NDArray[np.float32]], sample_rate_hz: int) -> Judgement:
        self.windows.append(list(windows))
        return self.verdict(Scores(0.7, 0.1, 0.1, 0.1))

    def verdict(self, scores: Scores) -> Judgement:
        return Judgement(scores, "gunfire", False, self.grade)


class Clock(RecordingClock):
    """A clock that says when it can be trusted."""

    def __init__(self, trusted_from: int = 0) -> None:
        self.trusted_from = trusted_from
        self.heard = 0
        super().__init__(10**18, RATE_HZ, ClockQuality(source="free", sigma_s=0.001))

    def observe_block(self, block: Block) -> None:
        self.heard = block.end_sample

    def at(self, sample: float) -> Instant:
        instant = super().at(sample)
        late_ns = 0 if self.heard >= self.trusted_from else 7 * NS_PER_S
        return replace(instant, utc_ns=instant.utc_ns + late_ns)

    def quality(self) -> ClockQuality:
        if self.heard >= self.trusted_from:
            return ClockQuality(source="gps", sigma_s=1e-6)
        return ClockQuality(source="free", sigma_s=3600.0)


def pipeline(classifier: Listener, clock: SampleClock | None = None, **options: Any) -> Pipeline:
    known = RecordingClock(10**18, RATE_HZ, ClockQuality(source="free", sigma_s=0.001))
    return Pipeline(
        origin=Origin("site", "node", "00000000-0000-4000-8000-000000000000", "0"),
        settings=options.pop("settings", DetectSettings()),
        clock=known if clock is None else clock,
        classifier=classifier,
        sample_rate_hz=RATE_HZ,
        **({"channels": 1} | options),
    )


def street(
    shots_s: tuple[float, ...], seconds: float = 6.0, alike: bool = True
) -> npt.NDArray[np.int16]:
    """Make noise with sharp decaying bursts, alike as shots from one place are, shape [n, 1]."""
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 30, round(seconds * RATE_HZ))
    n = np.arange(RATE_HZ // 10)
    for at_s in shots_s:
        first = round(at_s * RATE_HZ)
        same = np.random.default_rng(2) if alike else rng
        sound[first : first + len(n)] += 9000 * np.exp(-n / 200) * same.normal(0, 1, len(n))
    return sound.clip(-32768, 32767).astype(np.int16)[:, None]


def run(
    sound: npt.NDArray[np.int16],
    cuts: list[int],
    grade: Grade = "not_gunfire",
    clock: SampleClock | None = None,
    waiting_s: float = 0.0,
    **options: Any,
) -> tuple[list[Detection], Listener]:
    listener = Listener(grade)
    under_test = pipeline(listener, clock, channels=sound.shape[1], **options)
    heard: list[Detection] = []
    edges = [0, *sorted(cuts), len(sound)]
    for first, end in itertools.pairwise(edges):
        if first < end:
            waiting = round(waiting_s * RATE_HZ)
            heard += under_test.push(
                Block(first, sound[first:end], RATE_HZ, waiting_frames=waiting)
            )
    return heard + under_test.flush(), listener


def busy_street(seed: int, seconds: float = 10.0) -> npt.NDArray[np.int16]:
    """Make noise with dozens of bursts, every other one alike, each at one of three levels."""
    rng = np.random.default_rng(seed)
    sound = rng.normal(0, 30, round(seconds * RATE_HZ))
    fade = np.exp(-np.arange(RATE_HZ // 10) / 200)
    same = np.random.default_rng(2).normal(0, 1, len(fade))
    for at_s in rng.uniform(0.6, seconds - 1.5, rng.integers(6, 40)):
        first = round(at_s * RATE_HZ)
        one = same if rng.random() < 0.5 else rng.normal(0, 1, len(fade))
        sound[first : first + len(fade)] += rng.choice([9000, 3000, 1500]) * fade * one
    return sound.clip(-32768, 32767).astype(np.int16)[:, None]


@settings(max_examples=20)
@given(st.lists(st.integers(1, 6 * RATE_HZ - 1), max_size=12))
def test_the_same_bytes_come_out_however_the_sound_is_cut_into_blocks(cuts: list[int]) -> None:
    sound = street((1.0, 3.0))
    whole, _ = run(sound, [])
    pieces, _ = run(sound, cuts)
    assert [to_json(d) for d in pieces] == [to_json(d) for d in whole]
    assert len(whole) == 2


@pytest.mark.parametrize("seed", [1, 2, 5])
@pytest.mark.parametrize("size", [256, 1024, 7000, 30_000])
def test_the_same_bytes_come_out_of_a_busy_street_in_blocks_of_any_size(
    seed: int, size: int
) -> None:
    sound = busy_street(seed)
    whole, _ = run(sound, [], "gunfire")
    pieces, _ = run(sound, list(range(size, len(sound), size)), "gunfire")
    assert [to_json(d) for d in pieces] == [to_json(d) for d in whole]


@settings(max_examples=20)
@given(st.integers(0, 1000), st.lists(st.integers(1, 10 * RATE_HZ - 1), max_size=40))
def test_the_same_bytes_come_out_of_a_busy_street_however_it_is_cut(
    seed: int, cuts: list[int]
) -> None:
    sound = busy_street(seed)
    whole, _ = run(sound, [], "gunfire")
    pieces, _ = run(sound, cuts, "gunfire")
    assert [to_json(d) for d in pieces] == [to_json(d) for d in whole]


@pytest.mark.parametrize("event_s", [4.0, 6.0])
def test_no_sound_is_wanted_that_was_let_go(
    event_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = []

    class Watched(History):
        def window(self, first_sample: int, end_sample: int) -> npt.NDArray[np.float32]:
            wanted.append(self._blocks[0].first_sample <= max(0, first_sample))
            return super().window(first_sample, end_sample)

    monkeypatch.setattr("node.pipeline.History", Watched)
    # A burst that goes on for nearly as long as it may, then clatter for as long again.
    burst = tuple(np.arange(2.0, 2.0 + event_s - 0.6, 0.45))
    clatter = tuple(np.arange(2.0 + event_s - 0.1, 2.0 + 2 * event_s - 0.15, 0.45))
    seconds = 2 * event_s + 5
    sound = street(burst, seconds) // 2 + street(clatter, seconds, alike=False) // 2
    settings = DetectSettings(event_s=event_s)
    heard, _ = run(sound, list(range(256, len(sound), 256)), "gunfire", settings=settings)
    assert len({d.event_id for d in heard}) == 2
    assert wanted
    assert all(wanted)


def test_the_window_to_be_judged_is_the_sound_round_the_onset() -> None:
    sound = street((2.0,))
    _, listener = run(sound, [RATE_HZ, 2 * RATE_HZ + 7, 3 * RATE_HZ])
    window = listener.windows[0][0]
    assert window.shape == (RATE_HZ // 10 + RATE_HZ // 2, 1)
    first_loud = int(np.argmax(np.abs(window[:, 0]) > 0.05))
    assert first_loud == pytest.approx(RATE_HZ // 10, abs=12)


def test_an_event_of_many_impulses_is_judged_by_a_few() -> None:
    _, listener = run(street(tuple(1 + 0.2 * i for i in range(12))), [])
    assert 1 <= len(listener.windows[0]) <= MAX_WINDOWS


def test_a_shot_at_the_very_end_is_judged_with_silence_after_it() -> None:
    heard, listener = run(street((5.9,)), [])
    assert len(heard) == 1
    assert np.all(listener.windows[0][0][-RATE_HZ // 4 :] == 0)


def test_history_forgets_what_is_old_and_reads_lost_frames_as_zeros() -> None:
    history = History(1.0, RATE_HZ, 1)
    ones = np.full((4000, 1), 16384, np.int16)
    history.push(Block(0, ones, RATE_HZ))
    history.push(Block(5000, ones, RATE_HZ, lost_before=1000))
    assert history.end_sample == 9000
    got = history.window(3990, 5010)[:, 0]
    assert np.all(got[:10] == 0.5)
    assert np.all(got[10:1010] == 0)
    assert np.all(got[1010:] == 0.5)
    for first in range(9000, 60_000, 4000):
        history.push(Block(first, ones, RATE_HZ))
    assert np.all(history.window(0, 100) == 0)


def test_a_burst_that_goes_on_after_a_pause_is_told_again_with_all_its_rounds() -> None:
    heard, _ = run(street((1.0, 1.9)), list(range(1200, 72_000, 1200)))
    assert [(d.revision, d.type, d.round_count) for d in heard] == [(0, "new", 1), (1, "update", 2)]
    assert heard[0].event_id == heard[1].event_id
    assert heard[0].onset_utc == heard[1].onset_utc


def test_another_sound_soon_after_is_another_event() -> None:
    heard, _ = run(street((1.0, 1.9), alike=False), [])
    assert [(d.revision, d.round_count) for d in heard] == [(0, 1), (0, 1)]
    assert heard[0].event_id != heard[1].event_id


def test_what_does_not_go_on_a_burst_is_judged_once() -> None:
    heard, listener = run(street((1.0, 1.9, 2.8), alike=False), [], "gunfire")
    assert [(d.revision, d.round_count) for d in heard] == [(0, 1), (0, 1), (0, 1)]
    assert len(listener.windows) == 3


@pytest.mark.parametrize(("burst_s", "events"), [(0.0, 2), (0.8, 2), (1.0, 1)])
def test_a_burst_goes_on_for_as_long_a_pause_as_is_set(burst_s: float, events: int) -> None:
    settings = DetectSettings(burst_s=burst_s)
    heard, _ = run(street((1.0, 1.95)), [], "gunfire", settings=settings)
    assert len({d.event_id for d in heard}) == events


def with_echo(at_s: float, weaker_db: float) -> npt.NDArray[np.int16]:
    """Make a shot at 0.5 s, and something weaker that sounds otherwise."""
    first, second = street((0.5,)), street((at_s,), alike=False)
    quiet = street(())
    echo = (second.astype(float) - quiet) * 10 ** (-weaker_db / 20)
    return (first + echo).clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize("at_s", [1.2, 1.9])
def test_a_late_echo_of_a_shot_is_no_detection_of_its_own(at_s: float) -> None:
    heard, _ = run(with_echo(at_s, 12.0), [], "gunfire")
    assert [(d.revision, d.round_count, d.round_count_is_minimum) for d in heard] == [(0, 1, False)]


def test_one_that_is_nearly_as_loud_may_be_another_gun_and_leaves_a_minimum() -> None:
    heard, _ = run(with_echo(1.2, 4.5), [], "gunfire")
    assert len({d.event_id for d in heard}) == 1
    assert [(d.round_count, d.round_count_is_minimum) for d in heard] == [(1, False), (1, True)]


def test_what_is_as_loud_or_comes_too_late_or_follows_no_gunfire_is_an_event() -> None:
    for sound, grade in (
        (with_echo(1.2, 0.0), "gunfire"),
        (with_echo(2.5, 12.0), "gunfire"),
        (with_echo(1.2, 12.0), "not_gunfire"),
    ):
        heard, _ = run(sound, [], grade)  # type: ignore[arg-type]
        assert len({d.event_id for d in heard}) == 2


def test_a_burst_does_not_outgrow_the_longest_event() -> None:
    heard, _ = run(street((0.5, 1.3, 2.1, 2.9, 3.7, 4.5, 5.3)), [], "gunfire")
    assert len({d.event_id for d in heard}) == 2
    assert sum(max(d.round_count for d in g) for g in _by_event(heard)) == 7


def test_what_was_told_before_the_clock_could_be_trusted_is_told_again_with_the_better_time() -> (
    None
):
    cuts = list(range(1200, 72_000, 1200))
    heard, _ = run(street((1.0, 4.0)), cuts, clock=Clock(trusted_from=36_000))
    first, again, later = heard
    assert (first.revision, first.clock.source) == (0, "free")
    assert (again.revision, again.type, again.clock.source) == (1, "update", "gps")
    assert again.event_id == first.event_id
    assert parse_utc_ns(first.onset_utc) - parse_utc_ns(again.onset_utc) == 7 * NS_PER_S
    assert again.clock.sigma_s < first.clock.sigma_s
    assert (later.revision, later.clock.source) == (0, "gps")


def test_many_are_told_again_a_few_a_second_and_none_is_lost() -> None:
    clock = Clock(trusted_from=10**9)
    under_test = pipeline(Listener("gunfire"), clock)
    sound = street(tuple(1 + 2.5 * i for i in range(20)), seconds=52.0, alike=False)
    first = [d for at in range(0, len(sound), 1200) for d in push(under_test, sound, at, 1200)]
    assert len(first) == 20
    clock.trusted_from = 0
    quiet = street((), seconds=60.0)
    again = [push(under_test, quiet, at, 1200, len(sound)) for at in range(0, 24_000, 1200)]
    assert sum(map(len, again)) == 2 * AGAIN_PER_S
    assert max(map(len, again[:10])) <= AGAIN_PER_S
    assert not any(again[1:10])
    left = under_test.flush()
    told = [d for some in again for d in some] + left
    assert [(d.event_id, d.revision) for d in told] == [(d.event_id, 1) for d in first]
    assert {d.clock.source for d in told} == {"gps"}


def test_what_waits_to_be_told_again_waits_until_the_clock_can_be_trusted_again() -> None:
    clock = Clock(trusted_from=10**9)
    under_test = pipeline(Listener("gunfire"), clock)
    sound = street(tuple(1 + 2.5 * i for i in range(12)), seconds=32.0, alike=False)
    first = [d for at in range(0, len(sound), 1200) for d in push(under_test, sound, at, 1200)]
    quiet = street((), seconds=60.0)
    told = []
    for second, trusted in enumerate((True, False, False, True)):
        clock.trusted_from = 0 if trusted else 10**9
        told.append(push(under_test, quiet, second * RATE_HZ, RATE_HZ, len(sound)))
    assert [len(some) for some in told] == [AGAIN_PER_S, 0, 0, 12 - AGAIN_PER_S]
    assert [d.event_id for some in told for d in some] == [d.event_id for d in first]


def test_what_a_revision_has_told_by_a_better_clock_is_not_told_once_more_for_it() -> None:
    clock = Clock(trusted_from=10**9)
    under_test = pipeline(Listener("gunfire"), clock)
    # Enough before it to keep the last one waiting, which then goes on as a burst.
    others = tuple(1 + 2.5 * i for i in range(AGAIN_PER_S))
    last_s = others[-1] + 2.5
    sound = street(others, last_s + 8, alike=False) + street((last_s, last_s + 0.9), last_s + 8)
    trusted = round((last_s + 0.85) * RATE_HZ)
    heard = []
    for at in range(0, len(sound), 600):
        clock.trusted_from = 0 if at >= trusted else 10**9
        heard += push(under_test, sound, at, 600)
    burst = [d for d in heard if d.event_id == heard[AGAIN_PER_S].event_id]
    assert [(d.revision, d.round_count, d.clock.source) for d in burst] == [
        (0, 1, "free"),
        (1, 2, "gps"),
    ]


def push(
    under_test: Pipeline, sound: npt.NDArray[np.int16], at: int, frames: int, after: int = 0
) -> list[Detection]:
    return under_test.push(Block(after + at, sound[at : at + frames], RATE_HZ))


@pytest.mark.parametrize("burst_s", [0.0, 1.5])
def test_what_waits_for_a_better_clock_keeps_no_echoes(burst_s: float) -> None:
    clock = Clock(trusted_from=10**9)
    under_test = pipeline(Listener("gunfire"), clock, settings=DetectSettings(burst_s=burst_s))
    # An echo that clips, so that it has to be remembered that one did.
    sound = street((1.0,), seconds=8.0) // 2
    for echo in range(20):
        sound += street((1.2 + 0.07 * echo,), seconds=8.0, alike=False) // 3
    sound[round(1.35 * RATE_HZ) : round(1.35 * RATE_HZ) + 60] = 32_767
    (first,) = push(under_test, sound, 0, len(sound))
    (kept,) = under_test._untrusted
    assert len(kept.event.impulses) <= 1 + first.round_count
    assert first.audio.clipped
    clock.trusted_from = 0
    (again,) = push(under_test, street((), 8.0), 0, 1200, len(sound))
    told_anew = {"revision", "type", "onset_utc", "rounds", "clock"}
    assert again.model_dump(exclude=told_anew) == first.model_dump(exclude=told_anew)
    assert [r.snr_db for r in again.rounds] == [r.snr_db for r in first.rounds]


def test_a_channel_that_is_no_microphone_is_not_listened_to() -> None:
    shots, pulse = street((2.0,)), street((3.5,))
    both = np.column_stack((pulse, shots))
    heard, listener = run(both, [], microphones=(1,))
    assert len(heard) == 1
    assert heard[0].audio.channels == 1
    assert listener.windows[0][0].shape[1] == 1
    alone, _ = run(shots, [])
    assert to_json(heard[0]) == to_json(alone[0])


def test_another_opening_of_the_device_ends_what_was_open_and_revises_nothing_of_it() -> None:
    clock = Clock(trusted_from=30_000)
    under_test = pipeline(Listener("gunfire"), clock)
    sound = street((1.0,), seconds=2.0)
    heard = under_test.push(Block(0, sound[:14_000], RATE_HZ))
    heard += under_test.push(Block(0, street((0.5,), seconds=3.0), RATE_HZ, stream=1))
    assert [d.revision for d in heard] == [0, 0]
    assert heard[0].event_id != heard[1].event_id


# An array that can be worked by hand: a microphone in the middle, and one along each axis, so far
# out that sound takes ten samples. What comes along the east axis reaches that one ten earlier.
REACH = 10
REACH_M = REACH / RATE_HZ * sound_speed_m_s(DetectSettings().air_temperature_c)
CROSS = make_geometry("cross", REACH_M * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]))
FROM_EAST = (0, REACH, 0, 0)
# Of a triangle 3, 4, 5: from the east, 53.13 degrees above the horizon.
FROM_EAST_ABOVE = (0, 6, 0, 8)


def at_cross(early: tuple[int, ...], sound: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Give a sound as the cross hears it: earlier by so many samples, with noise of its own."""
    heard = np.column_stack([np.roll(sound[:, 0], -samples) for samples in early])
    noise = np.random.default_rng(4).normal(0, 3, heard.shape).astype(np.int16)
    return np.clip(heard, -30_000, 30_000) + noise


def cross(order: ChannelOrder | None = None) -> Array:
    array = Array.of(CROSS, RATE_HZ, settings=DetectSettings(), order=order)
    assert array is not None
    return array


def with_pulse(sound: npt.NDArray[np.int16], channel: int) -> npt.NDArray[np.int16]:
    """Put a channel with a pulse a second, 0.1 s wide, in place before a channel."""
    high = np.arange(500, 500 + len(sound)) % RATE_HZ < RATE_HZ // 10
    noise = np.random.default_rng(3).normal(0, 3, len(sound))
    return np.insert(sound, channel, (high * 9000 + noise).astype(np.int16), axis=1)


BLOCKS = list(range(1200, 72_000, 1200))


def test_an_array_whose_order_needs_no_proof_tells_where_a_sound_came_from() -> None:
    heard, _ = run(at_cross(FROM_EAST_ABOVE, street((2.0,))), BLOCKS, array=cross())
    (direction,) = [d.direction for d in heard]
    assert direction is not None
    assert direction.azimuth_deg == pytest.approx(90, abs=0.5)
    assert direction.elevation_deg == pytest.approx(53.13, abs=0.5)
    assert direction.airborne_probability is not None
    assert direction.airborne_probability > 0.9


def test_no_direction_is_told_while_nothing_proves_the_order_of_the_channels() -> None:
    unmarked = ChannelOrder(4, RATE_HZ)
    heard, _ = run(at_cross(FROM_EAST, street((2.0, 5.0))), BLOCKS, array=cross(unmarked))
    assert unmarked.state.proven is None
    assert [d.direction for d in heard] == [None, None]


@pytest.mark.parametrize(("pulse_on", "proven"), [(4, True), (0, False)])
def test_the_pulse_where_it_belongs_proves_the_order_and_elsewhere_disproves_it(
    pulse_on: int, proven: bool
) -> None:
    order = ChannelOrder(5, RATE_HZ, pps_channel=4)
    sound = with_pulse(at_cross(FROM_EAST, street((0.6, 5.0))), pulse_on)
    heard, _ = run(sound, BLOCKS, array=cross(order), microphones=(0, 1, 2, 3))
    assert order.state.proven is proven
    early, late = heard
    assert early.direction is None
    if proven:
        assert late.direction is not None
        assert late.direction.azimuth_deg == pytest.approx(90, abs=0.5)
    else:
        assert late.direction is None


def test_whoever_vouches_for_a_card_is_believed_as_soon_as_all_microphones_hear() -> None:
    vouched = ChannelOrder(4, RATE_HZ, fixed=True)
    heard, _ = run(at_cross(FROM_EAST, street((2.0,))), BLOCKS, array=cross(vouched))
    assert vouched.state.proven is True
    assert heard[0].direction is not None


def test_a_stream_that_is_opened_anew_has_its_order_to_prove_again() -> None:
    order = ChannelOrder(5, RATE_HZ, pps_channel=4)
    under_test = pipeline(Listener(), channels=5, microphones=(0, 1, 2, 3), array=cross(order))
    sound = with_pulse(at_cross(FROM_EAST, street((4.5,))), 4)
    again = with_pulse(at_cross(FROM_EAST, street((0.7,), seconds=2.0)), 4)
    told = [
        detection
        for stream, frames in enumerate((sound, again))
        for first in range(0, len(frames), 1200)
        for detection in under_test.push(
            Block(first, frames[first : first + 1200], RATE_HZ, stream=stream)
        )
    ] + under_test.flush()
    before, after = told
    assert before.direction is not None
    assert after.direction is None


@pytest.mark.parametrize(
    ("early", "gunfire", "fireworks"),
    [
        # Odds of fireworks times 5: 0.7 / (0.9 + 5 * 0.1) and 5 * 0.1 / (0.9 + 5 * 0.1).
        (FROM_EAST_ABOVE, 0.5, 0.357143),
        # Halved: 0.7 / (0.9 + 0.1 / 2) and 0.1 / 2 / (0.9 + 0.1 / 2).
        (FROM_EAST, 0.736842, 0.052632),
    ],
)
def test_elevation_moves_the_scores_and_what_is_not_fireworks_keeps_its_shares(
    early: tuple[int, ...], gunfire: float, fireworks: float
) -> None:
    heard, _ = run(at_cross(early, street((2.0,))), BLOCKS, array=cross())
    scores = heard[0].scores
    assert scores.gunfire == pytest.approx(gunfire, abs=2e-6)
    assert scores.fireworks == pytest.approx(fireworks, abs=2e-6)
    assert scores.backfire == pytest.approx(gunfire / 7, abs=2e-6)


class Grader(Listener):
    """A listener that hears one thing, and grades it by the thresholds of its identity."""

    def __init__(self, scores: Scores, abstains: bool = False) -> None:
        super().__init__()
        self.scores = scores
        self.abstains = abstains

    def judge(self, windows: Iterable[npt.NDArray[np.float32]], sample_rate_hz: int) -> Judgement:
        return self.verdict(self.scores)

    def verdict(self, scores: Scores) -> Judgement:
        bars = {"gunfire": self.identity.gunfire_threshold, "probable_gunfire": 0.5}
        met = [grade for grade, bar in bars.items() if scores.gunfire >= bar]
        grade: Any = met[0] if met else "not_gunfire"
        return Judgement(scores, "gunfire", self.abstains, grade)


def judged(classifier: Listener, early: tuple[int, ...]) -> Detection:
    under_test = pipeline(classifier, channels=4, array=cross())
    heard = under_test.push(Block(0, at_cross(early, street((2.0,))), RATE_HZ))
    (detection,) = heard + under_test.flush()
    return detection


def test_a_shot_from_a_tower_that_sounds_like_one_stays_one() -> None:
    sure = Grader(Scores(0.96, 0.02, 0.01, 0.01))
    # 0.96 / (0.98 + 5 * 0.02)
    assert judged(sure, FROM_EAST_ABOVE).scores.gunfire == pytest.approx(0.888889, abs=2e-6)
    surer = Grader(Scores(0.98, 0.01, 0.005, 0.005))
    assert judged(surer, FROM_EAST_ABOVE).grade == "gunfire"


def test_a_burst_above_that_sounds_half_like_a_shot_is_graded_down() -> None:
    unsure = Grader(Scores(0.6, 0.3, 0.05, 0.05))
    assert judged(unsure, FROM_EAST).grade == "probable_gunfire"
    assert judged(unsure, FROM_EAST_ABOVE).grade == "not_gunfire"


def test_elevation_does_not_speak_for_a_classifier_that_abstains() -> None:
    abstaining = Grader(Scores(0.6, 0.3, 0.05, 0.05), abstains=True)
    told = judged(abstaining, FROM_EAST_ABOVE)
    assert told.abstained
    assert told.scores.gunfire == pytest.approx(0.6)


def test_other_bearings_make_another_event_of_what_sounds_alike_soon_after() -> None:
    one, other = street((1.0,)), street((1.9,))
    # From the east, then from the north.
    sound = at_cross(FROM_EAST, one) // 2 + at_cross((0, 0, REACH, 0), other) // 2
    heard, _ = run(sound, BLOCKS, array=cross())
    assert [(d.revision, d.round_count) for d in heard] == [(0, 1), (0, 1)]
    azimuths = [d.direction.azimuth_deg for d in heard if d.direction]
    assert azimuths[0] == pytest.approx(90, abs=0.5)
    assert off_north(azimuths[1]) < 0.5


def test_a_burst_of_one_bearing_goes_on_as_a_revision_with_that_bearing() -> None:
    heard, _ = run(at_cross(FROM_EAST, street((1.0, 1.9))), BLOCKS, array=cross())
    assert [(d.revision, d.type, d.round_count) for d in heard] == [(0, "new", 1), (1, "update", 2)]
    for detection in heard:
        assert detection.direction is not None
        assert detection.direction.azimuth_deg == pytest.approx(90, abs=0.5)


def off_north(azimuth_deg: float) -> float:
    return abs((azimuth_deg + 180) % 360 - 180)


def _by_event(heard: list[Detection]) -> list[list[Detection]]:
    return [[d for d in heard if d.event_id == e] for e in {d.event_id for d in heard}]


def test_a_bearing_that_only_a_later_round_has_is_not_told_alone() -> None:
    def shot(at: float, azimuth_deg: float | None) -> Impulse:
        direction = None if azimuth_deg is None else Direction(azimuth_deg, None, 2.0)
        return Impulse(at, 1.0, 30.0, -20.0, direction=direction)

    assert _bearing([shot(0, None)]) is None
    assert _bearing([shot(0, None), shot(9, 151.0)]) is None
    assert _bearing([shot(0, None), shot(9, 151.0), shot(18, 40.0)]) is None
    agreed = _bearing([shot(0, None), shot(9, 41.0), shot(18, 40.0)])
    assert agreed is not None
    led = _bearing([shot(0, 30.0), shot(9, 31.0)])
    assert led == Direction(30.0, None, 2.0)


def test_a_cadence_is_of_the_rounds_that_are_told_with_it() -> None:
    """Of a long burst the rest is told alone, though counted by what came before it."""
    heard, _ = run(street((0.5, 1.3, 2.1, 2.9, 3.7, 4.5, 5.3)), [], "gunfire")
    told = (group[-1] for group in _by_event(heard))
    first, rest = sorted(told, key=lambda detection: detection.onset_utc)
    assert (first.round_count, rest.round_count) == (5, 2)
    assert first.cadence_rpm == pytest.approx(75, abs=1)
    assert rest.cadence_rpm is None
    assert all(d.cadence_rpm is None for d in heard if d.round_count < 3)


BURST_S = (1.0, 1.2, 1.4, 1.6)


def test_a_node_that_is_behind_judges_an_event_by_one_impulse() -> None:
    at_leisure, _ = run(street(BURST_S), [], "gunfire")
    in_haste, listener = run(street(BURST_S), [], "gunfire", waiting_s=HURRY_S)
    assert [len(windows) for windows in listener.windows] == [1]
    assert [(d.grade, d.round_count, d.round_count_is_minimum) for d in in_haste] == [
        ("gunfire", 1, True)
    ]
    assert in_haste[0].event_id == at_leisure[0].event_id
    assert in_haste[0].rounds[0] == at_leisure[0].rounds[0]


def test_a_node_that_is_not_behind_is_not_hasty() -> None:
    at_leisure, _ = run(street(BURST_S), [], "gunfire")
    nearly, _ = run(street(BURST_S), [], "gunfire", waiting_s=HURRY_S - 0.1)
    assert [to_json(d) for d in nearly] == [to_json(d) for d in at_leisure]


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_haste_loses_no_event_and_puts_none_down_to_an_echo(seed: int) -> None:
    sound = busy_street(seed)
    at_leisure, _ = run(sound, [], "gunfire")
    in_haste, _ = run(sound, [], "gunfire", waiting_s=HURRY_S)
    assert {d.event_id for d in at_leisure} <= {d.event_id for d in in_haste}


def test_what_is_weak_does_not_lead_an_event_understood_in_haste() -> None:
    weak, loud = street((1.0,)) // 8, street((1.3,))
    heard, _ = run(weak + loud, [], "gunfire", waiting_s=HURRY_S)
    (first,), _ = run(loud, [], "gunfire")
    apart_s = (parse_utc_ns(heard[0].onset_utc) - parse_utc_ns(first.onset_utc)) / NS_PER_S
    assert abs(apart_s) < 1e-3


def test_the_next_event_is_understood_as_ever_once_a_node_has_caught_up() -> None:
    sound = street((1.0, 4.0), seconds=8.0)
    listener = Listener("gunfire")
    under_test = pipeline(listener)
    heard = []
    for first in range(0, len(sound), 1200):
        waiting = round(HURRY_S * RATE_HZ) if first < 3 * RATE_HZ else 0
        heard += under_test.push(
            Block(first, sound[first : first + 1200], RATE_HZ, waiting_frames=waiting)
        )
    heard += under_test.flush()
    assert [d.round_count_is_minimum for d in heard] == [True, False]
    assert under_test.hasty == 1
