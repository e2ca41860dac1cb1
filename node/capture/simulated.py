"""Samples from memory, delivered as a sound card would: for `gunfire-node demo` and for tests.

One of the project's shipped fakes: it stands where a device stands, at the seam "where samples
come from".
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import Self

from node.types import NS_PER_S, Block, PcmArray


class SimulatedSource:
    """An array of samples as a source of blocks.

    Parameters
    ----------
    frames
        Samples, shape [n, channels], int16, int32 or float32.
    sample_rate_hz
        Rate in hertz.
    paced
        Whether to deliver in real time, each block when its last frame has been "converted",
        with host time stamps; else as fast as it is read, without.
    block_frames
        Frames in a block; the last one may be shorter.
    lead_s
        Seconds from entering to the first frame, if paced.

    Attributes
    ----------
    frame0_monotonic_ns
        CLOCK_MONOTONIC of the first frame in ns; None before entering, and where not paced.
    """

    def __init__(
        self,
        frames: PcmArray,
        sample_rate_hz: int,
        *,
        paced: bool,
        block_frames: int = 4096,
        lead_s: float = 0.0,
    ) -> None:
        if frames.ndim != 2:
            raise ValueError(f"frames have the shape [n, channels], not {frames.shape}")
        self._frames = frames
        self._rate = sample_rate_hz
        self._paced = paced
        self._block_frames = block_frames
        self._lead_s = lead_s
        self._closing: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closed = False
        self._stream = -1  # counts the openings, from 0
        self.frame0_monotonic_ns: int | None = None

    @property
    def sample_rate_hz(self) -> int:
        """Rate in hertz."""
        return self._rate

    @property
    def channels(self) -> int:
        """Channels in a frame."""
        return int(self._frames.shape[1])

    @property
    def frames(self) -> int:
        """Frames in all."""
        return len(self._frames)

    def __enter__(self) -> Self:
        self._closing = queue.SimpleQueue()
        self._closed = False
        self._stream += 1
        if self._paced:
            self.frame0_monotonic_ns = time.monotonic_ns() + round(self._lead_s * NS_PER_S)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End `blocks` at once; may be called from another thread or from a signal handler."""
        self._closed = True
        self._closing.put(None)

    def blocks(self) -> Iterator[Block]:
        """Yield the frames in blocks, until their end or `close`."""
        for first in range(0, len(self._frames), self._block_frames):
            frames = self._frames[first : first + self._block_frames]
            self._wait_for(first + len(frames))
            if self._closed:
                return
            yield Block(
                first_sample=first,
                frames=frames,
                sample_rate_hz=self._rate,
                host_time_ns=self._converted_ns(first),
                stream=self._stream,
            )

    def _converted_ns(self, sample: int) -> int | None:
        if self.frame0_monotonic_ns is None:
            return None
        return self.frame0_monotonic_ns + sample * NS_PER_S // self._rate

    def _wait_for(self, sample: int) -> None:
        due_ns = self._converted_ns(sample)
        if due_ns is None:
            return
        wait_s = (due_ns - time.monotonic_ns()) / NS_PER_S
        if wait_s <= 0:
            return
        try:
            self._closing.get(timeout=wait_s)
        except queue.Empty:
            return
