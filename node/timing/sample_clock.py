"""From the sample counter to UTC.

Stands beside the pipeline: it is fed each block's host time stamp and each reading of the host's
clocks, and answers when a (fractional) sample was converted, and how far off that may be. Pure: it
reads no clock itself.

Method (signal.md 1.3). The host stamps a block when it learns of it: late by a scheduler, a bus or
an interrupt, but never early. With z = host time − n / nominal rate, every point lies on or above
the line that the card's true clock draws, so that line is the *lower edge* of the points: the edge
of their lower convex hull that spans their mean, which is the line under all points with the least
total distance to them. A mean (regression, delay-locked loop) moves by the mean lateness as soon as
the load changes; an edge does not.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from node.timing.clock_filter import CALM_S, DRIFT_WALK
from node.timing.host import step_ns
from node.timing.leap import LeapTable
from node.timing.misplaced import Misplaced
from node.types import NS_PER_S, Block, ClockQuality, HostReading, Instant, ReceiverReading

log = logging.getLogger(__name__)

WINDOW_BINS: Final = 60  # of one second each
# A stamp this far below the line was not late: what came before it says nothing any more.
EARLY_NS: Final = 1_000_000
# Where every stamp of some seconds is this late and none is less, frames were lost and not counted;
# where they are less late, nobody knows why, and the error covers it.
LATE_NS: Final = 20_000_000
LATE_BINS: Final = 3
# How many frames were lost is told by the stamps of a fraction of a second, to some frames; those
# of the seconds after it tell it to the frame.
LEVEL_BINS: Final = 3
LEAST_BINS_TO_LEVEL: Final = 5
LOSS_SIGMA_S: Final = 60e-6  # before they have: three frames
# What a converter's filters and a driver delay by is constant but not known: the group delay of
# a delta-sigma converter is 5 to 40 frames by data sheet, 0.1 to 0.8 ms at 48 kHz.
DEVICE_DELAY_SIGMA_S: Final = 200e-6
# Of a recording's crystal, which nothing disciplines.
RECORDED_RATE_SIGMA: Final = 30e-6
# Before the rate is known: sound cards' crystals are specified to ±50 or ±100 ppm.
RATE_SIGMA: Final = 60e-6
LARGEST_RATE_ERROR: Final = 500e-6  # no crystal in a sound card is worse
# What a crystal's rate wanders by within a window's length (sun and clouds, signal.md 1.2), and
# over hours: the walk that the pulse's filter takes a crystal for.
RATE_WANDER: Final = 0.2e-6
RATE_WALK: Final = DRIFT_WALK * CALM_S  # 1 / sqrt(s)
# The host's monotonic clock runs by its own crystal while nobody disciplines it, and by UTC's rate
# after; processor boards' are specified to ±30 or ±50 ppm.
HOST_RATE_SIGMA: Final = 30e-6
# Lateness of a lone stamp, whose company could not vouch for it.
LONE_STAMP_SIGMA_S: Final = 5e-3
# A USB card stamps at its 1 ms frames. Until a window is full, the blocks may all have met the
# same phase of them, and be late by up to a frame together.
PHASE_SIGMA_S: Final = 0.5e-3


class HostSampleClock:
    """Sample counter → UTC by the host time stamps of blocks.

    Parameters
    ----------
    sample_rate_hz
        Nominal rate.
    device_delay_sigma_s
        Standard error of the constant delay of converter and driver, in s.
    """

    def __init__(
        self, sample_rate_hz: int, *, device_delay_sigma_s: float = DEVICE_DELAY_SIGMA_S
    ) -> None:
        self._rate = sample_rate_hz
        self._device_delay_sigma_s = device_delay_sigma_s
        self._stream: int | None = None
        self._misplaced = Misplaced(sample_rate_hz)
        self._minima: deque[tuple[int, int]] = deque(maxlen=WINDOW_BINS)
        self._line: _Line | None = None
        self._loss_at = -1
        self._newest = 0
        self._reading: HostReading | None = None
        self._free: tuple[int, int] | None = None  # samples between which it last was so

    def observe_block(self, block: Block) -> None:
        """Learn from a block's host time stamp; another stream begins from nothing."""
        self._misplaced.observe(block)
        if block.stream != self._stream:
            self._stream = block.stream
            self._minima.clear()
            self._line = None
            self._loss_at = -1
            self._free = None
        elif block.lost_before:
            self._loss_at = block.first_sample
        self._newest = block.end_sample
        if block.host_time_ns is None:
            return
        n = block.first_sample
        excess_ns = block.host_time_ns - n * NS_PER_S // self._rate
        if self._line and excess_ns < self._line.at_ns(n) - EARLY_NS:
            if len(self._minima) > 1:
                log.warning("sample %d came before its time; the clock begins anew", n)
            self._minima.clear()
        last = self._minima[-1][0] if self._minima else -1
        if n // self._rate != last // self._rate or last < self._loss_at <= n:
            self._level_after_loss()
            self._forget_if_late()
            self._minima.append((n, excess_ns))
        elif excess_ns < self._minima[-1][1]:
            self._minima[-1] = (n, excess_ns)
        else:
            return
        self._line = _lower_edge(list(self._minima), self._rate)

    def _host_rate_sigma_s(self, sample: float) -> float:
        """Give what the host's own crystal may have made of the time from a sample until now."""
        if self._free is None:
            return 0.0
        since, until = self._free
        return HOST_RATE_SIGMA * max(0.0, until - max(since, sample)) / self._rate

    def _loss_sigma_s(self, sample: float) -> float:
        settled = self._loss_at + (LEVEL_BINS + 1) * self._rate <= self._newest
        return 0.0 if self._loss_at < 0 or settled or sample < self._loss_at else LOSS_SIGMA_S

    def _level_after_loss(self) -> None:
        """Move what was seen before a loss by the frames that it was counted wrongly by."""
        before = [point for point in self._minima if point[0] < self._loss_at]
        after = [point for point in self._minima if point[0] >= self._loss_at]
        if len(before) < LEAST_BINS_TO_LEVEL or not 1 <= len(after) <= LEVEL_BINS:
            return
        line = _lower_edge(before, self._rate)
        off_ns = min(excess_ns - line.at_ns(n) for n, excess_ns in after)
        frames = round(off_ns * self._rate / NS_PER_S)
        if frames and abs(off_ns) < LATE_NS:
            by_ns = frames * NS_PER_S // self._rate
            moved = [(n, excess_ns + by_ns) for n, excess_ns in before]
            self._minima = deque([*moved, *after], maxlen=WINDOW_BINS)

    def _forget_if_late(self) -> None:
        recent = list(self._minima)[-LATE_BINS:]
        if self._line is None or len(recent) < LATE_BINS:
            return
        if all(excess_ns - self._line.at_ns(n) > LATE_NS for n, excess_ns in recent):
            log.warning(
                "frames before sample %d were not counted; the clock begins anew", recent[0][0]
            )
            self._minima = deque(recent, maxlen=WINDOW_BINS)

    def observe_host(self, reading: HostReading) -> None:
        """Learn the host's UTC offset and discipline."""
        held = self._reading
        if reading.quality.source == "free":
            goes_on = held is not None and held.quality.source == "free"
            since = self._free[0] if self._free and goes_on else self._newest
            self._free = since, self._newest
        if held is not None and not step_ns(held, reading) and held.width_ns < reading.width_ns:
            # The same offset, which the earlier reading has told more sharply.
            reading = replace(
                reading,
                utc_minus_monotonic_ns=held.utc_minus_monotonic_ns,
                width_ns=held.width_ns,
            )
        self._reading = reading

    def observe_receiver(self, reading: ReceiverReading) -> None:
        """Take no notice: whoever disciplines the host's clock has weighed it."""

    def at(self, sample: float) -> Instant:
        """Give the UTC of a (fractional) sample index of the stream observed last.

        Raises
        ------
        RuntimeError
            No block with a host time stamp, or no reading of the host's clocks, came before.
        """
        line, reading = self._line, self._reading
        if line is None or reading is None:
            raise RuntimeError("observe a block with a host time and a host reading first")
        whole = math.floor(sample)
        nominal_ns = whole * NS_PER_S // self._rate
        rest_ns = line.at_ns(sample) - line.excess_ns + (sample - whole) * NS_PER_S / self._rate
        monotonic_ns = nominal_ns + line.excess_ns + round(rest_ns)
        return Instant(
            utc_ns=monotonic_ns + reading.utc_minus_monotonic_ns,
            sigma_s=math.hypot(
                line.sigma_s(sample),
                self._loss_sigma_s(sample),
                self._misplaced.sigma_s(sample),
                self._host_rate_sigma_s(sample),
                self._device_delay_sigma_s,
                reading.width_ns / NS_PER_S,
                reading.quality.sigma_s,
            ),
        )

    @property
    def rate_ppm(self) -> float | None:
        """By how much the card runs fast by the host's clock; None before it is known."""
        line = self._line
        if line is None or line.bins < 2:
            return None
        return -1e6 * line.slope_ns * self._rate / NS_PER_S

    def sample_at_monotonic(self, monotonic_ns: int) -> float | None:
        """Give the (fractional) sample converted at a CLOCK_MONOTONIC; None before the first."""
        line = self._line
        if line is None:
            return None
        since_ns = monotonic_ns - line.excess_ns - line.n0 * NS_PER_S // self._rate
        return line.n0 + since_ns / (NS_PER_S / self._rate + line.slope_ns)

    def quality(self) -> ClockQuality:
        """Say what disciplines the clock, with the error of the newest sample's time.

        Before the first block with a host time stamp it is that of the host's clock alone.

        Raises
        ------
        RuntimeError
            No reading of the host's clocks came before.
        """
        if self._reading is None:
            raise RuntimeError("observe a host reading first")
        quality = self._reading.quality
        if self._line is None:
            return quality
        ours_s = math.hypot(
            self._line.sigma_s(self._newest),
            self._loss_sigma_s(self._newest),
            self._device_delay_sigma_s,
        )
        bound_s = None if quality.bound_s is None else quality.bound_s + 3 * ours_s
        return replace(quality, sigma_s=math.hypot(quality.sigma_s, ours_s), bound_s=bound_s)


class RecordingClock:
    """Sample counter → UTC where the start is given, and the rate as nominal as crystals are.

    Parameters
    ----------
    start_utc_ns
        UTC of sample 0 in ns since 1970.
    sample_rate_hz
        Rate in hertz.
    quality
        What is known of the clock that told the start.
    leaps
        Leap seconds, for a recording that goes on through one.
    """

    def __init__(
        self,
        start_utc_ns: int,
        sample_rate_hz: int,
        quality: ClockQuality,
        leaps: LeapTable | None = None,
    ) -> None:
        self._leaps = leaps or LeapTable()
        self._start_tai_ns = self._leaps.tai_ns(start_utc_ns)
        self._rate = sample_rate_hz
        self._quality = quality

    def observe_block(self, block: Block) -> None:
        """Take no notice: a recording's blocks carry no host time."""

    def observe_host(self, reading: HostReading) -> None:
        """Take no notice: the host's clock has nothing to do with a recording."""

    def observe_receiver(self, reading: ReceiverReading) -> None:
        """Take no notice: nothing else tells a recording its time."""

    def at(self, sample: float) -> Instant:
        """Give the UTC of a (fractional) sample index, rounded to the nearest ns, exactly."""
        since_start_ns = round(Fraction(sample) * NS_PER_S / self._rate)
        utc_ns = self._leaps.utc_ns(self._start_tai_ns + since_start_ns)
        ran_s = RECORDED_RATE_SIGMA * sample / self._rate
        return Instant(utc_ns, math.hypot(self._quality.sigma_s, ran_s))

    def sample_at_monotonic(self, monotonic_ns: int) -> float | None:
        """Know nothing: a recording's samples have no host time."""
        return None

    def quality(self) -> ClockQuality:
        """Say what was given: the error of the start."""
        return self._quality


@dataclass(frozen=True, slots=True)
class _Line:
    """excess(n) = excess_ns + slope_ns · (n − n0), and what its error is made of.

    `late_ns` is by how much every stamp of the newest seconds is above it. They may have been late,
    or a rate has changed at once: the card's, or the host's, as chrony sets it. The stamps do not
    tell which before most of a window has passed.
    """

    n0: int
    excess_ns: int
    slope_ns: float
    scatter_ns: float
    first: int
    last: int
    bins: int
    rate: int
    late_ns: float

    def at_ns(self, n: float) -> float:
        return self.excess_ns + self.slope_ns * (n - self.n0)

    def sigma_s(self, n: float) -> float:
        if self.bins < 2:
            reach_s = abs(n - self.n0) / self.rate
            return math.hypot(LONE_STAMP_SIGMA_S, RATE_SIGMA * reach_s)
        span_s = (self.last - self.first) / self.rate
        outside_s = max(0.0, n - self.last, self.first - n) / self.rate
        scatter_s = self.scatter_ns / NS_PER_S
        # A card tells its position in whole frames.
        level_s = math.hypot(scatter_s / math.sqrt(self.bins), 1 / (self.rate * math.sqrt(12)))
        rate_sigma = min(RATE_SIGMA, 2 * level_s / span_s)
        return math.hypot(
            level_s,
            self.late_ns / NS_PER_S,
            PHASE_SIGMA_S * (1 - self.bins / WINDOW_BINS),
            rate_sigma * (span_s / 2 + outside_s),
            RATE_WANDER * (span_s / 4 + outside_s),
            RATE_WALK * math.sqrt(outside_s**3 / 3),
        )


def _lower_edge(points: list[tuple[int, int]], rate: int) -> _Line:
    """Fit the line under all points (n, excess in ns) with the least total distance to them."""
    hull: list[tuple[int, int]] = []
    for n, z in points:
        while len(hull) > 1 and _is_above(hull[-2], hull[-1], (n, z)):
            hull.pop()
        hull.append((n, z))
    mean_n = sum(n for n, _ in points) / len(points)
    right = next((i for i, (n, _) in enumerate(hull) if n > mean_n), len(hull) - 1)
    (n1, z1), (n2, z2) = hull[max(0, right - 1)], hull[right]
    slope_ns = (z2 - z1) / (n2 - n1) if n2 > n1 else 0.0
    steepest_ns = LARGEST_RATE_ERROR * NS_PER_S / rate
    if abs(slope_ns) > steepest_ns:
        # Few points, some of them late. The line that a crystal can draw passes under all of them.
        slope_ns = math.copysign(steepest_ns, slope_ns)
        n1, z1 = min(hull, key=lambda point: point[1] - slope_ns * (point[0] - n1))
    above_ns = [z - z1 - slope_ns * (n - n1) for n, z in points]
    scatter_ns = sum(above_ns) / len(points)
    late_ns = min(above_ns[-LATE_BINS:])
    first, last = points[0][0], points[-1][0]
    return _Line(n1, z1, slope_ns, scatter_ns, first, last, len(points), rate, late_ns)


def _is_above(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> bool:
    """Whether `b` lies on or above the chord from `a` to `c`."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])
