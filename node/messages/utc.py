"""UTC on the wire: integer nanoseconds since 1970 ↔ RFC 3339 text, exact in both directions.

A float cannot hold a nanosecond of this century, and `datetime` ends at microseconds; so the
whole seconds go through `datetime` and the fraction stays an integer.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from node.types import NS_PER_S

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)

# The year 2262: what a signed 64-bit integer, as in the outbox and in numpy, can hold.
_MAX_UTC_NS: Final = 2**63 - 1


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
    if not 0 <= utc_ns <= _MAX_UTC_NS:
        raise ValueError(f"{utc_ns} ns lies outside the years 1970 to 2262")
    seconds, fraction_ns = divmod(utc_ns, NS_PER_S)
    moment = _EPOCH + timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction_ns:09d}Z"


def utc_ns(text: str) -> int:
    """Read RFC 3339 UTC (it must end in Z; no more than nine fractional digits) as nanoseconds.

    Raises
    ------
    ValueError
        If the text is of another form, names no real moment, or lies outside 1970 to 2262.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not UTC such as 2018-12-19T02:26:59.007Z")
    moment = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    whole_s = (moment - _EPOCH) // timedelta(seconds=1)
    ns = whole_s * NS_PER_S + int((match[2] or "").ljust(9, "0"))
    if not 0 <= ns <= _MAX_UTC_NS:
        raise ValueError(f"{text!r} lies outside the years 1970 to 2262")
    return ns
