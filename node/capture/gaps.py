"""How many frames a sound card lost, found from the time stamps of what it did deliver.

Stands between the sound device's callback and the `Block`s that capture hands on. Pure: no clock,
no thread. An overrun that the driver flags says nothing of its size, and a loss in a driver or on
a bus shows no flag at all; but both make *every* later block late by what was lost. A time stamp
may be late for many other reasons and is never early, so one single punctual block proves that
nothing was lost before it, and a run of blocks that are all late proves by the least of them how
much was. Only blocks under suspicion are held back, so sound passes without delay while all is
well, and no frame changes its index once it has been released.

Where a loss lies is known less well than its size. PortAudio fills a block with what it had left
over from before an overrun, so the block that carries the flag is a splice at an unknown frame: it
is discarded, and counted as lost. A loss without a flag lies somewhere in the blocks that were read
while it happened: their frames take the index that is right after it, so that every later time is
right, and between which frames it lies is told, so that what is heard there has an error to match.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from node.types import NS_PER_S

# A run of late blocks is believed when it is this long, both in blocks and in seconds: a stalled
# process gets what had piled up in a few short steps, and the last of those is punctual again.
RUN_BLOCKS: Final = 6
RUN_S: Final = 0.25

# Lateness that may always occur in a punctual block. The converter's own stamps are good to some
# 10 us on a PCI or I2S card; USB tells them at its 1 ms frames, which a block length that is a
# whole number of milliseconds hides until the phase slips by a whole frame; the moment at which
# Python's callback was entered wanders by some ms (signal.md 1.3).
CONVERTER_STAMP_S: Final = 0.5e-3
USB_FRAME_STAMP_S: Final = 1.25e-3
CALLBACK_STAMP_S: Final = 5e-3
JITTERS: Final = 4.0

# An overrun flag with no more than this behind it was no splice.
SPLICE_S: Final = 0.2e-3

BIN_S: Final = 0.5
RATE_WINDOW_BINS: Final = 40
OFFSET_WINDOW_BINS: Final = 4
RATE_KNOWN_BINS: Final = 5
LARGEST_RATE_ERROR: Final = 500e-6  # no crystal in a sound card is worse


@dataclass(frozen=True, slots=True)
class Arrival:
    """What one callback handed over.

    Attributes
    ----------
    data
        The PCM bytes.
    frames
        Frames in them.
    host_time_ns
        CLOCK_MONOTONIC of the first frame's conversion in ns; late but never early.
    by_converter
        Whether that time comes from the converter's position (or from the callback's entry).
    overrun
        Whether the driver flagged that frames were lost before this block.
    dropped_before
        Frames that arrived, and that we ourselves dropped before this block.
    """

    data: bytes
    frames: int
    host_time_ns: int
    by_converter: bool
    overrun: bool = False
    dropped_before: int = 0


class Reach(NamedTuple):
    """Where so many frames were lost: from `back` frames before an arrival until `on` after."""

    frames: int
    back: int
    on: int


class Placement(NamedTuple):
    """An arrival whose place on the sample counter is sure.

    Attributes
    ----------
    arrival
        What came.
    lost
        Frames lost before it.
    reach
        Between which frames what had no flag was lost; None where that is known.
    """

    arrival: Arrival
    lost: int
    reach: Reach | None


class GapFinder:
    """Places arrivals on the sample counter.

    Parameters
    ----------
    sample_rate_hz
        Nominal rate.
    block_frames
        Frames in a usual block.

    Attributes
    ----------
    lost_frames
        Frames known to be lost up to now, those included that we dropped or discarded.
    """

    def __init__(self, sample_rate_hz: int, block_frames: int) -> None:
        self._rate = sample_rate_hz
        self._run_blocks = max(RUN_BLOCKS, math.ceil(RUN_S * sample_rate_hz / block_frames))
        in_step_with_usb = (block_frames * 1000) % sample_rate_hz == 0
        self._converter_stamp_s = USB_FRAME_STAMP_S if in_step_with_usb else CONVERTER_STAMP_S
        self._punctual = _PunctualLine(sample_rate_hz)
        self._held: deque[Arrival] = deque()
        self._next = 0
        self._pending_loss = 0
        # Where the latest began, how late they were, and what was lost unseen before each.
        self._released: deque[tuple[int, float, int]] = deque(maxlen=self._run_blocks)
        self._started = False
        self._first: Arrival | None = None
        self.lost_frames = 0

    def push(self, arrival: Arrival) -> list[Placement]:
        """Take an arrival; give those whose place is now sure."""
        self._held.append(arrival)
        if not self._started and not self._start():
            return []
        placed: list[Placement] = []
        while self._held:
            proven = self._proven_in_place()
            if proven:
                placed.extend(self._release(0) for _ in range(proven))
            elif len(self._held) >= self._run_blocks:
                lost = self._lost_frames()
                if self._held[0].overrun and lost > SPLICE_S * self._rate:
                    self._discard(lost)
                else:
                    placed.append(self._release(lost))
            else:
                break
        return placed

    def flush(self) -> list[Placement]:
        """Give what is still held, at the end of a stream, as if nothing had been lost."""
        return [self._release(0) for _ in range(len(self._held))]

    def _start(self) -> bool:
        # The very first stamps of a stream may be wrong in either direction while the card starts,
        # so that the line begins at the best of a run, without the first.
        if len(self._held) < self._run_blocks:
            return False
        for n, arrival in list(zip(self._indices(), self._held, strict=True))[1:]:
            self._punctual.observe(n, arrival.host_time_ns)
        self._first = self._held[0]
        self._started = True
        return True

    def _indices(self) -> list[int]:
        n = self._next
        indices = []
        for arrival in self._held:
            n += arrival.dropped_before
            indices.append(n)
            n += arrival.frames
        return indices

    def _lateness_s(self) -> list[float]:
        return [
            self._punctual.lateness_s(n, arrival.host_time_ns)
            for n, arrival in zip(self._indices(), self._held, strict=True)
        ]

    def _tolerance_s(self, arrival: Arrival) -> float:
        floor = self._converter_stamp_s if arrival.by_converter else CALLBACK_STAMP_S
        return floor + JITTERS * self._punctual.jitter_s

    def _proven_in_place(self) -> int:
        """Count the held arrivals before which a later punctual one proves that nothing is lost."""
        proven = 0
        for i, (arrival, late_s) in enumerate(zip(self._held, self._lateness_s(), strict=True)):
            if arrival.overrun:
                # What came late just before a flagged overrun was late by the load that led to
                # it. How much the overrun lost, only a whole run can tell.
                return i
            if late_s <= self._tolerance_s(arrival):
                proven = i + 1
        return proven

    def _lost_frames(self) -> int:
        """Size the loss before the first held arrival by the most punctual one of its run."""
        least_s = min(self._lateness_s()[: self._run_blocks])
        return max(0, round(least_s / self._punctual.frame_s))

    def _release(self, unflagged: int) -> Placement:
        reach = self._reach(unflagged) if unflagged else None
        arrival = self._place(unflagged)
        if self._started:
            first = self._next - arrival.frames
            late_s = self._punctual.lateness_s(first, arrival.host_time_ns)
            self._released.append((first, late_s, unflagged))
        lost, self._pending_loss = self._pending_loss, 0
        return Placement(arrival, lost, reach)

    def _reach(self, lost: int) -> Reach:
        """Say where they may have been lost.

        After the last arrival that was too punctual to have all of them before it, and before the
        end of the second that comes near to be as late as they make it: one alone may be so by the
        load, as those between are. What was found shortly before is part of them: where the load
        had made blocks late before a loss, it is found in parts, each too early.
        """
        late_s = lost * self._punctual.frame_s
        indices = self._indices()
        here = indices[0]
        punctual = (first for first, was_s, _ in reversed(self._released) if was_s < late_s / 2)
        before = next(punctual, self._released[0][0] if self._released else here)
        parts = sum(part for _, _, part in self._released)
        ends = [first + arrival.frames for first, arrival in zip(indices, self._held, strict=True)]
        near = [
            end
            for end, arrival, is_s in zip(ends, self._held, self._lateness_s(), strict=True)
            if is_s <= late_s + self._tolerance_s(arrival)
        ]
        after = near[1] if len(near) > 1 else ends[-1]
        return Reach(lost + parts, here + lost - before, after - here)

    def _discard(self, lost: int) -> None:
        arrival = self._place(lost)
        self._pending_loss += arrival.frames
        self.lost_frames += arrival.frames

    def _place(self, lost: int) -> Arrival:
        arrival = self._held.popleft()
        lost += arrival.dropped_before
        self._next += lost
        self._pending_loss += lost
        self.lost_frames += lost
        if self._started and arrival is not self._first:
            self._punctual.observe(self._next, arrival.host_time_ns)
        self._next += arrival.frames
        return arrival


class _PunctualLine:
    """When a frame is due: the lower edge of the time stamps of the last seconds.

    The offset comes from the minimum over 2 s, the rate from the minima of the first and of the
    last third of up to 20 s; before it is known, 2 s at 100 ppm are 0.2 ms.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._bin_frames = round(BIN_S * sample_rate_hz)
        self._minima: deque[tuple[int, int]] = deque(maxlen=RATE_WINDOW_BINS)
        self._bin = -1
        self._slope = 0.0
        self.jitter_s = 0.0

    @property
    def frame_s(self) -> float:
        """How long a frame truly takes."""
        return 1 / self._rate + self._slope / NS_PER_S

    def observe(self, n: int, host_time_ns: int) -> None:
        excess_ns = host_time_ns - n * NS_PER_S // self._rate
        bin_ = n // self._bin_frames
        if bin_ > self._bin:
            self._bin = bin_
            self._learn()
            self._minima.append((n, excess_ns))
        elif bin_ == self._bin and excess_ns < self._minima[-1][1]:
            self._minima[-1] = (n, excess_ns)
        # Of an earlier bin is what the line began with, and has seen: twice the same frame, it
        # would have no rate between them.

    def lateness_s(self, n: int, host_time_ns: int) -> float:
        excess_ns = host_time_ns - n * NS_PER_S // self._rate
        due_ns = min(
            least_ns + self._slope * (n - m)
            for m, least_ns in list(self._minima)[-OFFSET_WINDOW_BINS:]
        )
        return (excess_ns - due_ns) / NS_PER_S

    def _learn(self) -> None:
        if len(self._minima) < RATE_KNOWN_BINS:
            return
        first_n, first_ns = self._minima[0]
        n = np.array([m - first_n for m, _ in self._minima], np.float64)
        excess_ns = np.array([ns - first_ns for _, ns in self._minima], np.float64)
        third = len(n) // 3
        flat_ns = excess_ns - self._slope * n
        i = int(np.argmin(flat_ns[:third]))
        j = len(n) - third + int(np.argmin(flat_ns[-third:]))
        steepest = LARGEST_RATE_ERROR * NS_PER_S / self._rate
        slope = float((excess_ns[j] - excess_ns[i]) / (n[j] - n[i]))
        self._slope = min(max(slope, -steepest), steepest)
        flat_ns = excess_ns - self._slope * n
        self.jitter_s = float(np.median(flat_ns - flat_ns.min())) / NS_PER_S
