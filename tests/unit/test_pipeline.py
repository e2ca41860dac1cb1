"""The pure middle: what it keeps of the sound, and that blocks do not matter."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.history import History
from node.messages import Detection, Origin, to_json
from node.pipeline import MAX_WINDOWS, Pipeline
from node.settings import DetectSettings
from node.timing import RecordingClock
from node.types import (
    NS_PER_S,
    Block,
    ClockQuality,
    Grade,
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

    def judge(self, windows: list[npt.NDArray[np.float32]], sample_rate_hz: int) -> Judgement:
        self.windows.append(windows)
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
    **options: Any,
) -> tuple[list[Detection], Listener]:
    listener = Listener(grade)
    under_test = pipeline(listener, clock, channels=sound.shape[1], **options)
    heard: list[Detection] = []
    edges = [0, *sorted(cuts), len(sound)]
    for first, end in itertools.pairwise(edges):
        if first < end:
            heard += under_test.push(Block(first, sound[first:end], RATE_HZ))
    return heard + under_test.flush(), listener


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6 * RATE_HZ - 1), max_size=12))
def test_the_same_bytes_come_out_however_the_sound_is_cut_into_blocks(cuts: list[int]) -> None:
    sound = street((1.0, 3.0))
    whole, _ = run(sound, [])
    pieces, _ = run(sound, cuts)
    assert [to_json(d) for d in pieces] == [to_json(d) for d in whole]
    assert len(whole) == 2


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


@pytest.mark.parametrize(("burst_s", "events"), [(0.0, 2), (0.8, 2), (1.0, 1)])
def test_a_burst_goes_on_for_as_long_a_pause_as_is_set(burst_s: float, events: int) -> None:
    settings = DetectSettings(burst_s=burst_s)
    heard, _ = run(street((1.0, 1.95)), [], "gunfire", settings=settings)
    assert len({d.event_id for d in heard}) == events


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


def _by_event(heard: list[Detection]) -> list[list[Detection]]:
    return [[d for d in heard if d.event_id == e] for e in {d.event_id for d in heard}]
