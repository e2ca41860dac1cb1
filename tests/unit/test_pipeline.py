"""The pure middle: what it keeps of the sound, and that blocks do not matter."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.messages import Detection, Origin, to_json
from node.pipeline import MAX_WINDOWS, History, Pipeline
from node.settings import DetectSettings
from node.timing import RecordingClock
from node.types import Block, ClockQuality, Judgement, ModelIdentity, Scores

RATE_HZ = 12_000


class Listener:
    """A classifier that keeps what it was given to judge."""

    identity = ModelIdentity("listener", "1", "0" * 64, 0.9, 0.5)

    def __init__(self) -> None:
        self.windows: list[list[npt.NDArray[np.float32]]] = []

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        return sample_rate_hz // 10, sample_rate_hz // 2

    def judge(self, windows: list[npt.NDArray[np.float32]], sample_rate_hz: int) -> Judgement:
        self.windows.append(windows)
        return Judgement(Scores(0.7, 0.1, 0.1, 0.1), "gunfire", False, "probable_gunfire")


def pipeline(classifier: Listener, channels: int = 1) -> Pipeline:
    return Pipeline(
        origin=Origin("site", "node", "00000000-0000-4000-8000-000000000000", "0"),
        settings=DetectSettings(),
        clock=RecordingClock(10**18, RATE_HZ, ClockQuality(source="free", sigma_s=0.001)),
        classifier=classifier,
        sample_rate_hz=RATE_HZ,
        channels=channels,
    )


def street(shots_s: tuple[float, ...], seconds: float = 6.0) -> npt.NDArray[np.int16]:
    """Make noise with sharp decaying bursts, shape [n, 1]."""
    rng = np.random.default_rng(1)
    sound = rng.normal(0, 30, round(seconds * RATE_HZ))
    n = np.arange(RATE_HZ // 10)
    for at_s in shots_s:
        first = round(at_s * RATE_HZ)
        sound[first : first + len(n)] += 9000 * np.exp(-n / 200) * rng.normal(0, 1, len(n))
    return sound.clip(-32768, 32767).astype(np.int16)[:, None]


def run(sound: npt.NDArray[np.int16], cuts: list[int]) -> tuple[list[Detection], Listener]:
    listener = Listener()
    under_test = pipeline(listener)
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
