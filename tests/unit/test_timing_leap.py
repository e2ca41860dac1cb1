"""Leap seconds: TAI to UTC and back, before, at and after one; and the tables they come from."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.timing.leap import OLDEST_UTC_S, LeapTable
from node.types import NS_PER_S

NEW_YEAR_2017_S = 1_483_228_800  # the last leap second was the one before it
TABLE = LeapTable()


@pytest.mark.parametrize(
    ("after_s", "utc_s"),
    [  # TAI seconds after 23:59:59 UTC, and what POSIX calls them
        (0, NEW_YEAR_2017_S - 1),
        (1, NEW_YEAR_2017_S),  # 23:59:60 has no number of its own
        (2, NEW_YEAR_2017_S),
        (3, NEW_YEAR_2017_S + 1),
    ],
)
def test_a_leap_second_bears_the_number_of_the_second_after_it(after_s: int, utc_s: int) -> None:
    tai_s = NEW_YEAR_2017_S - 1 + 36 + after_s
    assert TABLE.utc_ns(tai_s * NS_PER_S) == utc_s * NS_PER_S
    assert TABLE.utc_ns(tai_s * NS_PER_S + 999_999_999) == utc_s * NS_PER_S + 999_999_999


def test_receivers_were_18_seconds_ahead_after_it_and_17_before() -> None:
    assert TABLE.gps_minus_utc_s(NEW_YEAR_2017_S - 1) == 17
    assert TABLE.gps_minus_utc_s(NEW_YEAR_2017_S) == 18


@given(utc_s=st.integers(63_072_000, 4_000_000_000), ns=st.integers(0, NS_PER_S - 1))
def test_utc_to_tai_and_back_is_the_same(utc_s: int, ns: int) -> None:
    assert TABLE.utc_ns(TABLE.tai_s(utc_s) * NS_PER_S + ns) == utc_s * NS_PER_S + ns


@given(tai_s=st.integers(63_072_010, 4_000_000_000))
def test_utc_never_runs_backwards_by_more_than_a_leap_second(tai_s: int) -> None:
    step_ns = TABLE.utc_ns((tai_s + 1) * NS_PER_S) - TABLE.utc_ns(tai_s * NS_PER_S)
    assert step_ns in (0, NS_PER_S)


def test_a_longer_table_of_the_system_is_taken(tmp_path: Path) -> None:
    rows = [f"{utc_s + 2_208_988_800}\t{offset}\t# a comment" for utc_s, offset in TABLE.changes]
    file = tmp_path / "leap-seconds.list"
    file.write_text("\n".join(["#@ 4000000000", *rows, "4102444800 38", ""]))
    assert LeapTable.load(file).tai_minus_utc_s(4_102_444_800 - 2_208_988_800) == 38


@pytest.mark.parametrize("text", ["", "no table", "3692217600 37\n2272060800 10\n"])
def test_what_is_no_table_leaves_the_built_in_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "leap-seconds.list"
    file.write_text(text)
    assert LeapTable.load(file) == TABLE


def test_a_system_without_a_table_or_with_an_old_one_knows_what_is_built_in(tmp_path: Path) -> None:
    assert LeapTable.load(tmp_path / "none") == TABLE
    file = tmp_path / "leap-seconds.list"
    file.write_text("2272060800 10\n")
    assert LeapTable.load(file) == TABLE


def test_the_oldest_time_that_may_be_true_is_that_of_the_last_change_built_in() -> None:
    assert OLDEST_UTC_S == NEW_YEAR_2017_S
