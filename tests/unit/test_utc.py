"""Time stamps of recordings, exact to the nanosecond."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.utc import parse_utc_ns


@given(
    ns=st.integers(0, 2**63 - 1),
    ahead_min=st.integers(-23 * 60 - 59, 23 * 60 + 59),
    digits=st.integers(0, 12),
)
def test_every_stamp_comes_back_to_the_nanosecond(ns: int, ahead_min: int, digits: int) -> None:
    seconds, fraction = divmod(ns, 10**9)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, minutes=ahead_min)
    if moment.year < 1970:
        return
    kept = f"{fraction:09d}000"[:digits]
    zone = f"{'-' if ahead_min < 0 else '+'}{abs(ahead_min) // 60:02d}:{abs(ahead_min) % 60:02d}"
    text = f"{moment:%Y-%m-%dT%H:%M:%S}{'.' if digits else ''}{kept}{zone}"
    assert parse_utc_ns(text) == seconds * 10**9 + int(kept.ljust(9, "0")[:9])


@given(st.text())
def test_any_other_text_is_refused_and_never_a_crash(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|day|1970"):
        parse_utc_ns(text)


def test_a_leap_second_counts_as_posix_counts_it() -> None:
    assert parse_utc_ns("2016-12-31T23:59:60Z") == parse_utc_ns("2017-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "text", ["2024-01-01", "2024-01-01T00:00:00", "2024-13-01T00:00:00Z", "1969-12-31T23:59:59Z"]
)
def test_a_day_alone_no_zone_no_such_month_and_no_such_century_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|day|1970"):
        parse_utc_ns(text)
