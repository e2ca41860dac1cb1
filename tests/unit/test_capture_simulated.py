"""The shipped fake of a sound device."""

import threading
import time

import numpy as np
import pytest

from node.capture import SimulatedSource

RATE_HZ = 8_000


def test_unpaced_it_gives_all_frames_at_once_and_no_host_time() -> None:
    frames = np.arange(20_000, dtype=np.int32).reshape(-1, 2)
    with SimulatedSource(frames, RATE_HZ, paced=False, block_frames=999) as source:
        blocks = list(source.blocks())
    assert np.array_equal(np.concatenate([b.frames for b in blocks]), frames)
    assert [b.first_sample for b in blocks] == list(range(0, 10_000, 999))
    assert {b.host_time_ns for b in blocks} == {None}
    assert source.frame0_monotonic_ns is None


def test_paced_it_gives_each_block_when_its_last_frame_has_been_converted() -> None:
    frames = np.zeros((RATE_HZ // 2, 1), np.int16)
    with SimulatedSource(frames, RATE_HZ, paced=True, block_frames=800, lead_s=0.1) as source:
        assert source.frame0_monotonic_ns is not None
        for block in source.blocks():
            read_ns = time.monotonic_ns()
            due_ns = source.frame0_monotonic_ns + block.end_sample * 1_000_000_000 // RATE_HZ
            assert block.host_time_ns == due_ns - 100_000_000
            assert due_ns <= read_ns < due_ns + 100_000_000


def test_close_from_another_thread_ends_the_wait() -> None:
    frames = np.zeros((RATE_HZ * 60, 1), np.int16)
    with SimulatedSource(frames, RATE_HZ, paced=True, block_frames=RATE_HZ * 30) as source:
        threading.Timer(0.1, source.close).start()
        started = time.monotonic()
        assert list(source.blocks()) == []
    assert time.monotonic() - started < 5


def test_frames_without_a_channel_axis_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        SimulatedSource(np.zeros(10, np.int16), RATE_HZ, paced=False)
