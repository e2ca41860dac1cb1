"""UTC as text: integer nanoseconds since 1970 ↔ RFC 3339, exact in both directions.

A float cannot hold a nanosecond of this century, and `datetime` ends at microseconds; so the
whole seconds go through the calendar and the fraction stays an integer.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Final

from node.types import NS_PER_S

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RFC_3339: Final = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[Tt ]"
    r"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)(?:\.(?P<fraction>\d+))?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<ahead_h>[01]\d|2[0-3]):(?P<ahead_min>[0-5]\d))",
    re.ASCII,
)
_UNIX_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
LATEST_UTC_NS: Final = 2**63 - 1  # in the year 2262, where signed 64-bit counts end


def utc_text(utc_ns: int) -> str:
    """Write UTC as RFC 3339 with nine fractional digits, such as 2018-12-19T02:26:59.007000000Z.

    Parameters
    ----------
    utc_ns
        Nanoseconds since 1970-01-01T00:00:00Z, leap seconds as POSIX, below 2⁶³.

    Raises
    ------
    ValueError
        If it lies outside the years 1970 to 2262.
    """
    if not 0 <= utc_ns <= LATEST_UTC_NS:
        raise ValueError(f"{utc_ns} ns lies outside the years 1970 to 2262")
    seconds, fraction_ns = divmod(utc_ns, NS_PER_S)
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction_ns:09d}Z"


def parse_utc_ns(text: str) -> int:
    """Read an RFC 3339 time stamp.

    Parameters
    ----------
    text
        Such as ``2018-12-19T00:49:26.000Z`` or ``2018-12-19T01:49:26.123456789+01:00``. Digits
        beyond the nanosecond are cut off; a leap second (``:60``) counts as POSIX counts it, as
        the first second of the next minute.

    Returns
    -------
    int
        Nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted.

    Raises
    ------
    ValueError
        It is no such stamp, names a day that the calendar does not have, or lies outside the
        years 1970 to 2262.
    """
    match = _RFC_3339.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a time such as 2018-12-19T00:49:26.000Z (RFC 3339)")
    part = match.groupdict()
    try:
        day = date(int(part["year"]), int(part["month"]), int(part["day"])).toordinal()
    except ValueError as error:
        raise ValueError(f"{text!r} names a day that there is not ({error})") from None
    minutes = int(part["hour"]) * 60 + int(part["minute"])
    if part["sign"]:
        ahead = int(part["ahead_h"]) * 60 + int(part["ahead_min"])
        minutes += ahead if part["sign"] == "-" else -ahead
    seconds = (day - _UNIX_EPOCH_DAY) * 86_400 + minutes * 60 + int(part["second"])
    utc_ns = seconds * NS_PER_S + int((part["fraction"] or "").ljust(9, "0")[:9])
    if not 0 <= utc_ns <= LATEST_UTC_NS:
        raise ValueError(f"{text!r} lies outside the years 1970 to 2262")
    return utc_ns
