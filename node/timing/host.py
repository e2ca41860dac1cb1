"""The host's clocks, and what disciplines them. The only file that reads the wall clock.

Stands at the live end: the daemon reads it about once a second and hands the reading to the sample
clock. `FakeHostClock` is the shipped fake of this seam ("what time it is").
"""

from __future__ import annotations

import ctypes
import logging
import os
import time
from collections.abc import Callable
from typing import Final, Protocol

from node.types import NS_PER_S, ClockQuality, HostReading

log = logging.getLogger(__name__)

BRACKETS: Final = 5
# A difference of the host's two clocks that changes by more was stepped (signal.md 1.1).
STEP_NS: Final = 5_000
MICROSECOND: Final = 1e-6

# An undisciplined clock starts where a battery, or the last file saved, left it: days off at
# worst. An hour is what its σ says; nothing that compares nodes can use such a time.
FREE_SIGMA_S: Final = 3600.0
FREE: Final = ClockQuality(source="free", sigma_s=FREE_SIGMA_S)
# NTP over a network is good to some ms, whatever the kernel has been told (signal.md 1.1);
# systemd-timesyncd tells it an error of 0.
LEAST_NTP_SIGMA_S: Final = 1e-3
# The kernel's maxerror is meant as a bound, as is chrony's root distance.
SIGMAS_IN_BOUND: Final = 3.0

_STA_UNSYNC: Final = 0x0040  # <sys/timex.h>
_TIME_ERROR: Final = 5


class HostClockReader(Protocol):
    """What time it is: the seam that `HostClock` and `FakeHostClock` fill."""

    def read(self) -> HostReading:
        """Read UTC, the monotonic clock and the discipline, together."""


class HostClock:
    """The host's own clocks, by bracketed reads and adjtimex(2)."""

    def __init__(self) -> None:
        self._kernel_answers = True

    def read(self) -> HostReading:
        """Read UTC between two reads of the monotonic clock; the narrowest of five counts."""
        width_ns, monotonic_ns, utc_ns = min(_bracket() for _ in range(BRACKETS))
        return HostReading(
            monotonic_ns=monotonic_ns,
            utc_minus_monotonic_ns=utc_ns - monotonic_ns,
            width_ns=width_ns,
            quality=self._kernel_quality(),
        )

    def _kernel_quality(self) -> ClockQuality:
        try:
            return kernel_quality()
        except OSError as error:
            # A sandbox may forbid even to ask (systemd's ProtectClock does, rightly: 0023); what is
            # not known to be disciplined is free.
            if self._kernel_answers:
                log.info("the kernel does not tell the clock's discipline: %s", error)
                self._kernel_answers = False
            return FREE


def step_ns(before: HostReading, now: HostReading) -> int:
    """Give by how much the host's clock was stepped between two readings; 0 if it was not."""
    change_ns = now.utc_minus_monotonic_ns - before.utc_minus_monotonic_ns
    return change_ns if abs(change_ns) > STEP_NS + (before.width_ns + now.width_ns) // 2 else 0


class FakeHostClock:
    """A host clock that says what it is told, for tests and simulation.

    Parameters
    ----------
    utc_minus_monotonic_ns
        The offset between the two clocks.
    quality
        What it says of its discipline.
    monotonic_ns
        Gives CLOCK_MONOTONIC; the host's own unless a test has one.
    """

    def __init__(
        self,
        utc_minus_monotonic_ns: int,
        quality: ClockQuality,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.utc_minus_monotonic_ns = utc_minus_monotonic_ns
        self.quality = quality
        self._monotonic_ns = monotonic_ns

    def read(self) -> HostReading:
        """Give the offset and quality set last."""
        return HostReading(self._monotonic_ns(), self.utc_minus_monotonic_ns, 0, self.quality)

    def step(self, seconds: float) -> None:
        """Set the clock forward (or back), as an administrator would."""
        self.utc_minus_monotonic_ns += round(seconds * NS_PER_S)


def utc_now_ns() -> int:
    """Give the wall clock, in ns since 1970; only for `transport.published_utc`."""
    return time.time_ns()


def kernel_quality() -> ClockQuality:
    """Say what the kernel knows of the clock's discipline (adjtimex(2)).

    Raises
    ------
    OSError
        The kernel does not answer.
    """
    state, timex = _adjtimex()
    if state == _TIME_ERROR or timex.status & _STA_UNSYNC:
        return FREE
    bound_s = max(timex.maxerror * MICROSECOND, LEAST_NTP_SIGMA_S * SIGMAS_IN_BOUND)
    sigma_s = max(timex.esterror * MICROSECOND, bound_s / SIGMAS_IN_BOUND)
    return ClockQuality(source="ntp", sigma_s=sigma_s, bound_s=bound_s)


def _bracket() -> tuple[int, int, int]:
    before_ns = time.monotonic_ns()
    utc_ns = time.time_ns()
    after_ns = time.monotonic_ns()
    return after_ns - before_ns, (before_ns + after_ns) // 2, utc_ns


class _Timeval(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_usec", ctypes.c_long))


class _Timex(ctypes.Structure):
    """`struct timex` of <sys/timex.h>."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Timeval),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


_libc = ctypes.CDLL(None, use_errno=True)


def _adjtimex() -> tuple[int, _Timex]:
    timex = _Timex()  # modes 0: read only
    state: int = _libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"adjtimex: {os.strerror(number)}")
    return state, timex
