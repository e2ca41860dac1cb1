"""A sound card that never waits: a ring of samples, filled by the clock and read by the daemon.

It plays faster than real time, against a host clock that runs as fast. What is not fetched before
the ring comes round is overwritten, lost and counted, so that a daemon that stands still for a
broker or a disk shows it.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

from node.timing import HostClock
from node.types import NS_PER_S, Block, ClockQuality, HostReading
from tests.faults.firing_range import Pcm

BLOCK_FRAMES: Final = 4096
RING_S: Final = 5.0
"""Seconds of the host's time that the ring holds; the real card's queue
(`node.capture.portaudio.QUEUE_S`) holds more."""
QUALITY: Final = ClockQuality("ntp", 1e-3, 3e-3)


class RingCard:
    """Play a stretch of sound over and over, at a multiple of real time.

    Parameters
    ----------
    frames
        Shape [n, channels].
    sample_rate_hz
        Nominal rate in hertz.
    speed
        Seconds of sound in a second of the host's.
    tell
        Told, before each block, up to which sample all was taken in, how many samples were lost so
        far, and the longest that sound has waited, in seconds of the host's.
    """

    def __init__(
        self,
        frames: Pcm,
        sample_rate_hz: int,
        speed: float,
        tell: Callable[[int, int, float], None],
    ) -> None:
        self._frames = frames
        self._rate = sample_rate_hz
        self._speed = speed
        self._tell = tell
        self._ring = round(RING_S * speed * sample_rate_hz)
        self._ear, self._bell = os.pipe()
        self.start_ns = 0
        self.lost = 0

    @property
    def sample_rate_hz(self) -> int:
        return self._rate

    @property
    def channels(self) -> int:
        return int(self._frames.shape[1])

    def monotonic_ns(self) -> int:
        """Give the clock by which the card plays in real time."""
        now_ns = time.monotonic_ns()
        start_ns = self.start_ns or now_ns
        return start_ns + round((now_ns - start_ns) * self._speed)

    def __enter__(self) -> Self:
        self.start_ns = time.monotonic_ns()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        os.write(self._bell, b"!")

    def blocks(self) -> Iterator[Block]:
        taken, waited_s = 0, 0.0
        while True:
            self._tell(taken, self.lost, waited_s)
            lost = 0
            while (ready := self._converted() - taken) < BLOCK_FRAMES:
                wait_s = (BLOCK_FRAMES - ready) / self._rate / self._speed
                # Not an event with a time-out: libfaketime breaks those.
                if select.select([self._ear], [], [], wait_s)[0]:
                    return
            if select.select([self._ear], [], [], 0)[0]:
                return
            waited_s = max(waited_s, (ready - BLOCK_FRAMES) / self._rate / self._speed)
            if ready > self._ring:
                lost = ready - self._ring
                taken += lost
                self.lost += lost
            yield Block(
                first_sample=taken,
                frames=self._stretch(taken),
                sample_rate_hz=self._rate,
                host_time_ns=self.start_ns + taken * NS_PER_S // self._rate,
                lost_before=lost,
            )
            taken += BLOCK_FRAMES

    def _converted(self) -> int:
        return (self.monotonic_ns() - self.start_ns) * self._rate // NS_PER_S

    def _stretch(self, first: int) -> Pcm:
        loop = len(self._frames)
        begin = first % loop
        stretch = self._frames[begin : begin + BLOCK_FRAMES]
        missing = BLOCK_FRAMES - len(stretch)
        if not missing:
            return stretch
        return self._frames.take(range(begin, begin + BLOCK_FRAMES), axis=0, mode="wrap")


class FastClock:
    """The host's clocks for a fast card: UTC from a given moment on, stepped as the host's is.

    Parameters
    ----------
    card
        Gives the monotonic clock.
    shift_ns
        How far UTC is from the host's own.
    tell
        Told whenever UTC minus monotonic has changed, in ns.
    """

    def __init__(self, card: RingCard, shift_ns: int, tell: Callable[[int], None]) -> None:
        self._card = card
        self._shift_ns = shift_ns
        self._tell = tell
        self._host = HostClock()
        self._last_ns: int | None = None

    def read(self) -> HostReading:
        host = self._host.read()
        offset_ns = host.utc_minus_monotonic_ns + self._shift_ns
        # The host's two clocks are read a moment apart, so that they differ by some µs each time.
        if self._last_ns is None or abs(offset_ns - self._last_ns) > NS_PER_S // 100:
            self._last_ns = offset_ns
            self._tell(offset_ns)
        return HostReading(self._card.monotonic_ns(), self._last_ns, 0, QUALITY)
