"""How long after a sound nodes tell of it."""

from __future__ import annotations

import pytest

from node.network.arrivals import ALL_TOLD
from node.network.lateness import Lateness


def lateness(*late_s: float) -> Lateness:
    made = Lateness()
    for each in late_s:
        made.note(each)
    return made


def test_as_long_as_no_word_came_all_counts_as_told() -> None:
    assert lateness().told_s(5.0, 0.0) == ALL_TOLD


def test_most_words_say_how_late_others_may_come() -> None:
    of_late = lateness(*(at / 100 for at in range(100)))
    assert of_late.slowest_s == pytest.approx(0.94)
    assert of_late.told_s(20.0, 0.0) == pytest.approx((19.06, 19.95))


def test_the_order_in_which_words_come_does_not_matter() -> None:
    rising = [at / 100 for at in range(100)]
    assert lateness(*rising).told_s(20.0, 0.0) == lateness(*rising[::-1]).told_s(20.0, 0.0)


def test_few_words_that_are_much_later_than_the_others_tell_nothing() -> None:
    assert lateness(*[0.3] * 97, 9.0, 9.0, 9.0).slowest_s == pytest.approx(0.35)
    assert lateness(*[0.3] * 90, *[9.0] * 10).slowest_s == 9.0


@pytest.mark.parametrize("words", [1, 100])
def test_words_that_all_are_as_late_still_leave_a_span(words: int) -> None:
    of_late = lateness(*[0.6] * words)
    assert of_late.slowest_s == pytest.approx(0.65)
    assert of_late.told_s(10.0, 0.0) == pytest.approx((9.35, 9.4))


def test_what_lasts_is_told_of_when_it_has_ended() -> None:
    assert lateness(0.6).told_s(10.0, 4.0) == pytest.approx((5.35, 5.4))


@pytest.mark.parametrize("ignored_s", [-0.001, 10.001, 3600.0, float("nan"), float("inf")])
def test_clocks_ahead_and_nodes_that_were_cut_off_are_left_out(ignored_s: float) -> None:
    assert lateness(ignored_s).told_s(5.0, 0.0) == ALL_TOLD
    assert lateness(0.6, *[ignored_s] * 50).told_s(10.0, 0.0) == pytest.approx((9.35, 9.4))


@pytest.mark.parametrize("counted_s", [0.0, 10.0])
def test_what_is_as_late_as_can_be_counts(counted_s: float) -> None:
    assert lateness(counted_s).slowest_s == pytest.approx(counted_s + 0.05)


def test_only_the_last_hundred_words_count() -> None:
    assert lateness(*[5.0] * 100, *[0.1] * 94).slowest_s == 5.0
    assert lateness(*[5.0] * 100, *[0.1] * 96).slowest_s == pytest.approx(0.15)
    assert lateness(*[5.0] * 100, *[0.1] * 100).told_s(1.0, 0.0) == pytest.approx((0.85, 0.9))
