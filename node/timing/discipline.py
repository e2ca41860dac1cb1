"""What disciplines the clock, judged from all who have a word in it.

Between the live end (`Timekeeper`) and the sample clock: chrony's word or the kernel's, a second
opinion by NTP, the receiver's second, and whether the host's clock was stepped. What is suspect
falls at once; what is better again counts only once it has lasted (decision 0014). Pure.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from node.timing.chrony import Tracking
from node.timing.host import FREE, FREE_SIGMA_S, step_ns
from node.timing.leap import LeapTable
from node.timing.ntp import Opinion, weigh
from node.timing.pps import LONGEST_HOLDOVER_S
from node.types import NS_PER_S, ClockQuality, ClockSource, HostReading, ReceiverReading

log = logging.getLogger(__name__)

RANK: Final[dict[ClockSource, int]] = {"free": 0, "ntp": 1, "gps": 2, "pps": 3}
RISE_S: Final = 10.0
# After a step chrony has to measure anew, so often; where only the kernel speaks, whoever
# disciplines it (timesyncd) asks at least once in 2048 s.
MEASURED_ANEW: Final = 2
KERNEL_ASKS_S: Final = 2 * 2048.0
# A reference that measures nothing for so many of its intervals leaves the clock in holdover.
HOLDOVER_INTERVALS: Final = 4.0
LEAST_HOLDOVER_S: Final = 16.0
# Chrony's measurements lie in the past, and its dispersion grows with their age by 1 ppm and more
# (chrony.conf(5), maxclockerror).
AHEAD_S: Final = 1.0
LEAST_GROWTH: Final = 0.5e-6
# A receiver's message names the second that began before it came; so late at most.
EARLIEST_S: Final = -0.05
LATEST_S: Final = 0.99
# The kernel's step at a leap second comes at it, and is a second.
LEAP_S: Final = 3
LEAP_SLACK_S: Final = 0.01
CONTRADICTIONS: Final = 3
# For so long its last valid word counts, for the host's second or against it.
RECEIVER_SAID_S: Final = 60.0
STEPS_REMEMBERED: Final = 64


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known at one moment.

    Attributes
    ----------
    host
        The host's clocks, with what the kernel says of its discipline.
    tracking
        What chrony says; None where it is silent.
    opinion
        The second opinion by NTP, if there is one.
    receiver
        The receiver's readings since the moment before.
    """

    host: HostReading
    tracking: Tracking | None = None
    opinion: Opinion | None = None
    receiver: Sequence[ReceiverReading] = ()


@dataclass(slots=True)
class _Step:
    """A step of the host's clock that nobody has vouched for since."""

    seconds: float
    monotonic_ns: int
    updates: set[float]


class Discipline:
    """Judges, moment by moment, what disciplines the host's clock.

    Parameters
    ----------
    leaps
        Leap seconds: the kernel steps its clock at one, and is right to.

    Attributes
    ----------
    steps
        How often the host's clock was seen to be stepped.
    """

    def __init__(self, leaps: LeapTable | None = None) -> None:
        self._leaps = leaps or LeapTable()
        self._source: ClockSource = "free"
        self._better_since_ns: int | None = None
        self._host: HostReading | None = None
        self._sigma_s = FREE_SIGMA_S
        self._bound_s: float | None = None
        self._claimed = FREE  # what chrony or the kernel said at the moment before
        self._step: _Step | None = None
        self._moves: deque[tuple[int, float]] = deque(maxlen=STEPS_REMEMBERED)  # when, s
        self._contradicted = 0
        self._contradicted_ns = 0  # CLOCK_MONOTONIC when it did last
        self._off_s = 0.0
        self._agreed_ns: int | None = None
        self.steps = 0

    def judge(self, evidence: Evidence) -> tuple[ClockQuality, tuple[str, ...]]:
        """Give the host clock's quality, and in words what is wrong with it."""
        now_ns = evidence.host.monotonic_ns
        reasons: list[str] = []
        self._notice_step(evidence)
        quality = self._claimed = _told(evidence)
        quality, disagreement = weigh(quality, self._current(evidence.opinion), now_ns)
        if disagreement:
            reasons.append(disagreement)
            quality = replace(quality, source="free")
        quality = self._by_receiver(quality, evidence, reasons)
        quality = self._by_steps(quality, evidence, reasons)
        quality = self._lasting(quality, now_ns)
        self._sigma_s, self._bound_s = quality.sigma_s, quality.bound_s
        return quality, tuple(reasons)

    def _notice_step(self, evidence: Evidence) -> None:
        """Compare the host's two clocks with the moment before."""
        host, tracking = evidence.host, evidence.tracking
        before, self._host = self._host, host
        step_s = step_ns(before, host) / NS_PER_S if before else 0.0
        self.steps += step_s != 0
        if not step_s or self._is_leap(step_s, host):
            return
        self._moves.append((host.monotonic_ns, step_s))
        self._agreed_ns = None
        # One within the error told before says nothing new. Nor does one by whoever takes over a
        # clock that nobody had vouched for; but while a source rises somebody has.
        rising = self._source == "free"
        believed = self._claimed.source if rising else self._source
        sigma_s = self._claimed.sigma_s if rising else self._sigma_s
        if believed != "free" and abs(step_s) > sigma_s:
            log.warning("the host's clock was stepped by %+.6f s", step_s)
            before_s = self._step.seconds if self._step else 0.0
            updates = {tracking.updated_s} if tracking else set()
            self._step = _Step(before_s + step_s, host.monotonic_ns, updates)
        elif self._step:
            self._step.seconds += step_s
        self._sigma_s = math.hypot(self._sigma_s, step_s)

    def _current(self, opinion: Opinion | None) -> Opinion | None:
        """Give an opinion unless the clock that it was of has been stepped since."""
        if opinion is None:
            return None
        moved_s = sum(step_s for at_ns, step_s in self._moves if at_ns >= opinion.monotonic_ns)
        return None if abs(moved_s) > opinion.uncertainty_s else opinion

    def _by_receiver(
        self, quality: ClockQuality, evidence: Evidence, reasons: list[str]
    ) -> ClockQuality:
        """Weigh the whole second against the receiver's."""
        said_ns = evidence.host.monotonic_ns - round(RECEIVER_SAID_S * NS_PER_S)
        if self._contradicted_ns <= said_ns:
            self._contradicted = 0
        for reading in evidence.receiver:
            if not reading.valid:
                continue
            host_ns = reading.monotonic_ns + evidence.host.utc_minus_monotonic_ns
            off_s = (host_ns - reading.utc_ns) / NS_PER_S
            if EARLIEST_S <= off_s <= LATEST_S:
                self._contradicted = 0
                self._agreed_ns = reading.monotonic_ns
            else:
                self._contradicted += 1
                self._contradicted_ns = reading.monotonic_ns
                self._off_s = off_s
        if self._contradicted >= CONTRADICTIONS:
            # A message is late by a varying part of a second: whole ones do not change with it.
            whole_s = math.floor(self._off_s - EARLIEST_S)
            reasons.append(
                f"the host's clock is {whole_s:+d} s off by the receiver; see `chronyc sources` "
                "and `cgps`"
            )
            sigma_s = math.hypot(quality.sigma_s, self._off_s)
            return replace(
                quality, source="free", sigma_s=sigma_s, bound_s=None, second_confirmed=False
            )
        recently = self._agreed_ns is not None and self._agreed_ns > said_ns
        # Where only the kernel speaks, the clock may follow this very receiver.
        network = evidence.tracking is not None and evidence.tracking.source == "ntp"
        if quality.source == "ntp" and network and recently:
            return replace(quality, second_confirmed=True)
        return quality

    def _by_steps(
        self, quality: ClockQuality, evidence: Evidence, reasons: list[str]
    ) -> ClockQuality:
        """Believe nothing after a step until somebody has measured anew."""
        host, tracking = evidence.host, evidence.tracking
        step = self._step
        if step is None:
            return quality
        if tracking is not None:
            step.updates.add(tracking.updated_s)
        opinion = evidence.opinion
        measured = len(step.updates) > MEASURED_ANEW
        asked = opinion is not None and opinion.monotonic_ns > step.monotonic_ns
        waited_s = (host.monotonic_ns - step.monotonic_ns) / NS_PER_S
        if measured or (asked and quality.second_confirmed) or waited_s > KERNEL_ASKS_S:
            self._step = None
            return quality
        reasons.append(
            f"the host's clock was stepped by {step.seconds:+.6g} s, and nobody has measured it "
            "since"
        )
        sigma_s = math.hypot(quality.sigma_s, step.seconds)
        return replace(
            quality, source="free", sigma_s=sigma_s, bound_s=None, second_confirmed=False
        )

    def _is_leap(self, step_s: float, host: HostReading) -> bool:
        utc_s = (host.monotonic_ns + host.utc_minus_monotonic_ns) // NS_PER_S
        before, after = (self._leaps.tai_minus_utc_s(utc_s + s) for s in (-LEAP_S, LEAP_S))
        return before != after and abs(step_s - (before - after)) < LEAP_SLACK_S

    def _lasting(self, quality: ClockQuality, now_ns: int) -> ClockQuality:
        """Let a source fall at once, and rise when it has lasted."""
        if RANK[quality.source] <= RANK[self._source]:
            if RANK[quality.source] < RANK[self._source]:
                log.warning("the clock's source falls from %s to %s", self._source, quality.source)
            self._source = quality.source
            self._better_since_ns = None
            return quality
        if self._better_since_ns is None:
            self._better_since_ns = now_ns
        if now_ns - self._better_since_ns >= RISE_S * NS_PER_S:
            log.info("the clock's source rises from %s to %s", self._source, quality.source)
            self._source = quality.source
            self._better_since_ns = None
            return quality
        if self._source == "free":
            return replace(FREE, sigma_s=min(self._sigma_s, FREE_SIGMA_S))
        # The better error comes with the better source.
        sigma_s, bound_s = max(quality.sigma_s, self._sigma_s), None
        if quality.bound_s is not None and self._bound_s is not None:
            bound_s = max(quality.bound_s, self._bound_s)
        return replace(quality, source=self._source, sigma_s=sigma_s, bound_s=bound_s)


def _told(evidence: Evidence) -> ClockQuality:
    """Give the word of chrony, or where it is silent the kernel's."""
    tracking = evidence.tracking
    if tracking is None:
        return evidence.host.quality
    quality = tracking.quality()
    if quality is None:
        return FREE
    host_s = (evidence.host.monotonic_ns + evidence.host.utc_minus_monotonic_ns) / NS_PER_S
    age_s = host_s - tracking.updated_s
    if age_s < -AHEAD_S:
        return FREE  # what chrony measures is not the clock that we read
    if age_s < max(LEAST_HOLDOVER_S, HOLDOVER_INTERVALS * tracking.interval_s):
        return quality
    if tracking.root_dispersion_s < LEAST_GROWTH * age_s:
        return FREE  # nor is this one
    if age_s > LONGEST_HOLDOVER_S and tracking.is_refclock:
        return replace(quality, source="free", bound_s=None, holdover_s=age_s)
    return replace(quality, holdover_s=age_s)
