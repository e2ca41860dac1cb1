"""What a GNSS receiver says, through gpsd: second, fix, pulse, and where the node stands.

Reports of gpsd come in (gpsd_json(5)); readings of the second go out to the sample clock, and a
state for health and `check`. A receiver can be wrong: its clock battery, its memory of the leap
seconds and its count of weeks all give a time that looks like one. So its UTC counts only with a
fix, when it runs as time does, when it is not before this software, and when its leap seconds are
known to be right. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from node.timing.leap import LeapTable
from node.types import NS_PER_S, ReceiverReading
from node.utc import parse_utc_ns

# No receiver is right that names a time before this software was made: its count of weeks rolled
# over (each 1024 weeks), or it starts from its own making.
MADE_UTC_S: Final = 1_767_225_600  # 2026-01-01
# A GPS satellite tells the leap seconds once in 12.5 minutes (IS-GPS-200, subframe 4, page 18).
ALMANAC_S: Final = 750.0
# So long its time has to run as time does. It comes by a serial line, late by a varying part of a
# second.
STEADY_S: Final = 5.0
JUMP_S: Final = 0.7
FRESH_S: Final = 5.0
PULSE_FRESH_S: Final = 3.0

EARTH_M: Final = 6_371_008.8
# Errors of one frequency stay alike for this long, by ionosphere and orbits; and what averaging
# never takes away.
CORRELATED_S: Final = 1200.0
LEAST_SIGMA_M: Final = 1.0
# Above the ellipsoid. No node stands elsewhere, nor has a message a place for it.
HEIGHTS_M: Final = (-500.0, 9000.0)
UNSTATED_SIGMA_M: Final = 10.0
# A message comes within a second after the moment that it names, by a host's clock that is right to
# a fraction of one: of a second that is one too late it would come before.
EARLY_NS: Final = -NS_PER_S // 4
# A fix so far off the average, for so long, and the node has been moved.
MOVED_M: Final = 50.0
MOVED_S: Final = 45.0
SIGMAS: Final = 6.0
# No figure of a report that is used here is as large.
MOST: Final = 1e9


@dataclass(frozen=True, slots=True)
class Fix:
    """A place (WGS 84), with its standard error along each axis in m."""

    lat_deg: float
    lon_deg: float
    alt_m: float
    sigma_m: float

    def metres_to(self, lat_deg: float, lon_deg: float) -> float:
        """Give the distance over ground to a place near by, in m."""
        turn = (lon_deg - self.lon_deg + 180) % 360 - 180
        east = math.radians(turn) * math.cos(math.radians(self.lat_deg))
        return EARTH_M * math.hypot(east, math.radians(lat_deg - self.lat_deg))


@dataclass(frozen=True, slots=True)
class ReceiverState:
    """How the receiver does.

    Attributes
    ----------
    fix
        0 not known, 1 none, 2 without height, 3 with it.
    satellites_used, satellites_seen
        None while not told.
    utc_valid
        Whether its UTC is believed.
    reason
        Why not; empty if it is.
    pps_seen
        Whether gpsd or the kernel sees its pulse.
    position
        Averaged since it has stood still; None before a fix.
    """

    fix: int
    satellites_used: int | None
    satellites_seen: int | None
    utc_valid: bool
    reason: str
    pps_seen: bool
    position: Fix | None


class Receiver:
    """Takes gpsd's reports, and says what may be believed.

    Parameters
    ----------
    leaps
        Leap seconds.
    made_utc_s
        A time before this one is wrong.
    """

    def __init__(self, leaps: LeapTable, made_utc_s: int = MADE_UTC_S) -> None:
        self._leaps = leaps
        self._made_ns = made_utc_s * NS_PER_S
        self._average = _Average()
        self._pulse_ns: int | None = None
        self.forget()

    def forget(self) -> None:
        """Begin anew: gpsd or the receiver was started anew. Its place it keeps."""
        self._fix = 0
        self._used: int | None = None
        self._seen: int | None = None
        self._last: tuple[int, int] | None = None  # monotonic, utc
        self._steady_ns: int | None = None  # monotonic since when its time runs as time does
        self._fixed_s = 0.0
        self._jump_s = 0.0  # by so much its time went wrong, or was put right, once it was believed
        self._why = "it has told no time yet"

    def take(
        self, report: Mapping[str, Any], monotonic_ns: int, host_utc_ns: int | None = None
    ) -> ReceiverReading | None:
        """Take a report; give the reading in it, if it is one of the time.

        Parameters
        ----------
        report
            As gpsd sent it.
        monotonic_ns
            CLOCK_MONOTONIC when it was read.
        host_utc_ns
            UTC at that moment by a host's clock that others than this receiver discipline; None
            where there is none.
        """
        kind = report.get("class")
        if kind == "PPS":
            self._pulse_ns = monotonic_ns
        elif kind == "SKY":
            self._sky(report)
        elif kind == "DEVICE" and report.get("activated") in (0, "0", None):
            self.forget()
        elif kind == "TPV":
            return self._time(report, monotonic_ns, host_utc_ns)
        return None

    def pulse_seen(self, monotonic_ns: int) -> None:
        """Note that the kernel saw a pulse."""
        self._pulse_ns = monotonic_ns

    def state(self, monotonic_ns: int) -> ReceiverState:
        """Say how it does now."""
        last_s = None if self._last is None else (monotonic_ns - self._last[0]) / NS_PER_S
        fresh = last_s is not None and last_s <= FRESH_S
        pulse = self._pulse_ns
        return ReceiverState(
            fix=self._fix if fresh else 0,
            satellites_used=self._used,
            satellites_seen=self._seen,
            utc_valid=fresh and not self._why,
            reason=self._why if fresh or last_s is None else f"silent for more than {FRESH_S:g} s",
            pps_seen=pulse is not None and monotonic_ns - pulse <= PULSE_FRESH_S * NS_PER_S,
            position=self._average.position,
        )

    def _sky(self, report: Mapping[str, Any]) -> None:
        satellites = report.get("satellites")
        if isinstance(satellites, list):
            self._seen = len(satellites)
            self._used = sum(bool(s.get("used")) for s in satellites if isinstance(s, dict))
        if _is_count(report.get("nSat")):
            self._seen = report["nSat"]
        if _is_count(report.get("uSat")):
            self._used = report["uSat"]

    def _time(
        self, report: Mapping[str, Any], monotonic_ns: int, host_utc_ns: int | None
    ) -> ReceiverReading | None:
        mode = report.get("mode")
        self._fix = min(mode, 3) if type(mode) is int and mode >= 0 else 0
        try:
            utc_ns = parse_utc_ns(str(report["time"]))
        except (KeyError, ValueError):
            if self._fix < 2:
                self._why = "it has no fix"
            return None
        last, self._last = self._last, (monotonic_ns, utc_ns)
        if self._fix < 2:
            self._steady_ns = None
        elif last is not None and self._steady_ns is not None:
            passed_s = (monotonic_ns - last[0]) / NS_PER_S
            jump_s = (utc_ns - last[1]) / NS_PER_S - passed_s
            if abs(jump_s) > JUMP_S:
                if not self._why:
                    self._jump_s = jump_s
                self._steady_ns = monotonic_ns
                self._fixed_s = 0.0
            else:
                self._fixed_s += min(passed_s, FRESH_S)  # in a silence nobody saw a fix
        else:
            self._steady_ns = monotonic_ns
        self._why = self._doubt(report, monotonic_ns, utc_ns, host_utc_ns)
        if not self._why:
            self._jump_s = 0.0
        if self._fix >= 2:
            self._average.add(report, self._fix, monotonic_ns)
        return ReceiverReading(monotonic_ns, utc_ns, valid=not self._why)

    def _doubt(
        self,
        report: Mapping[str, Any],
        monotonic_ns: int,
        utc_ns: int,
        host_utc_ns: int | None,
    ) -> str:
        """Say why its UTC is not to be believed; nothing if it is."""
        if self._fix < 2 or self._steady_ns is None:
            return "it has no fix"
        if utc_ns < self._made_ns:
            return (
                "it names a time before this software was made: its count of weeks has rolled over"
            )
        if monotonic_ns - self._steady_ns < STEADY_S * NS_PER_S:
            return "its time does not run steadily yet"
        if self._fixed_s >= ALMANAC_S:
            return ""  # it has heard the leap seconds itself
        if host_utc_ns is not None and EARLY_NS < host_utc_ns - utc_ns < NS_PER_S:
            return ""
        told = report.get("leapseconds")
        if not _is_count(told):
            told = None
        known = self._leaps.gps_minus_utc_s(utc_ns // NS_PER_S)
        if told is None and self._jump_s:
            return (
                f"its time has jumped by {self._jump_s:+.0f} s; it is believed again once it has "
                "run for 12.5 minutes"
            )
        if told is None:
            return "whether it knows the leap seconds is not told; it does after 12.5 minutes"
        if told != known:
            return f"it has {told} leap seconds, not {known}; it hears them within 12.5 minutes"
        return ""


class _Average:
    """The mean of the fixes since the receiver has stood still."""

    def __init__(self) -> None:
        self._begin(None)

    def _begin(self, at: tuple[float, float, float] | None) -> None:
        self._origin = at
        self._mean = [0.0, 0.0, 0.0]  # m east, north, up of the origin
        self._square = [0.0, 0.0, 0.0]
        self._stated_m = 0.0
        self._count = 0
        self._off_since_ns: int | None = None
        self._last_ns: int | None = None
        self.seconds = 0.0

    @property
    def position(self) -> Fix | None:
        if self._origin is None or not self._count:
            return None
        lat, lon, alt = self._origin
        east, north, up = self._mean
        scatter_m = math.sqrt(max(self._square) / self._count)
        single_m = max(scatter_m, self._stated_m)
        sigma_m = single_m / math.sqrt(1 + self.seconds / CORRELATED_S)
        lon += math.degrees(east / (EARTH_M * math.cos(math.radians(lat))))
        return Fix(
            lat + math.degrees(north / EARTH_M),
            (lon + 180) % 360 - 180,
            alt + up,
            math.hypot(sigma_m, LEAST_SIGMA_M),
        )

    def add(self, report: Mapping[str, Any], mode: int, monotonic_ns: int) -> None:
        place = [report.get(key) for key in ("lat", "lon", "altHAE")]
        if place[2] is None:
            place[2] = report.get("alt")
        if mode < 3 and place[2] is None:
            return
        if not all(_is_number(value) for value in place):
            return
        lat, lon, alt = (float(value) for value in place if value is not None)
        if not (abs(lat) < 89.9 and abs(lon) <= 180 and HEIGHTS_M[0] <= alt <= HEIGHTS_M[1]):
            return
        if self._origin is None:
            self._begin((lat, lon, alt))
        assert self._origin is not None  # noqa: S101
        metre = math.radians(1) * EARTH_M
        turn = (lon - self._origin[1] + 180) % 360 - 180
        at = (
            turn * metre * math.cos(math.radians(self._origin[0])),
            (lat - self._origin[0]) * metre,
            alt - self._origin[2],
        )
        stated_m = max(
            (float(report[k]) for k in ("epx", "epy", "epv") if _is_number(report.get(k))),
            default=UNSTATED_SIGMA_M,
        )
        if self._count and math.dist(at, self._mean) > max(MOVED_M, SIGMAS * stated_m):
            if self._off_since_ns is None:
                self._off_since_ns = monotonic_ns
            if monotonic_ns - self._off_since_ns > MOVED_S * NS_PER_S:
                self._begin((lat, lon, alt))
            return
        self._off_since_ns = None
        if self._last_ns is not None:
            self.seconds += min((monotonic_ns - self._last_ns) / NS_PER_S, FRESH_S)
        self._last_ns = monotonic_ns
        self._count += 1
        for axis in range(3):
            off = at[axis] - self._mean[axis]
            self._mean[axis] += off / self._count
            self._square[axis] += off * (at[axis] - self._mean[axis])
        self._stated_m += (stated_m - self._stated_m) / self._count


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST


def _is_number(value: object) -> bool:
    # JSON's whole numbers have no end: not each is one that a float can hold.
    return type(value) in (int, float) and abs(value) < MOST  # type: ignore[arg-type]
