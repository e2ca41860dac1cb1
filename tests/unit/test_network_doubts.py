"""Nodes whose clock or place does not agree with the others'."""

from __future__ import annotations

import pytest

from node.network.doubts import Doubts


def doubts_of(*residuals_s: float | None) -> Doubts:
    """Note what one node said, each an event; None where a place rests on it."""
    doubts = Doubts()
    for at, residual_s in enumerate(residuals_s):
        doubts.note("a", f"event-{at}", residual_s or 0.0, used=residual_s is None)
    return doubts


def test_nothing_is_wrong_with_a_node_that_nobody_spoke_of() -> None:
    assert Doubts().of("a") is None
    assert Doubts().told() == {}


def test_once_is_no_doubt_and_twice_by_the_same_second_is_the_clock() -> None:
    assert doubts_of(1.0).told() == {}
    (said,) = doubts_of(1.0, 1.004).told().values()
    assert said == "its clock seems 1.002 s ahead, by 2 shots"


def test_a_clock_that_stamps_too_early_is_behind() -> None:
    said = doubts_of(-1.0, -1.0).of("a")
    assert said is not None
    assert "1.000 s behind" in said


def test_residuals_that_differ_each_time_are_of_the_place() -> None:
    said = doubts_of(0.9, -1.4, 2.1).of("a")
    assert said == "its place or clock is wrong: from -1.40 to +2.10 s off, by 3 shots"


def test_a_clock_is_told_through_one_stray_residual() -> None:
    said = doubts_of(1.0, 1.01, 0.4, 0.99, 1.0).of("a")
    assert said is not None
    assert said.startswith("its clock seems 1.000 s ahead")


def test_a_doubt_is_taken_back_after_honest_incidents() -> None:
    doubts = doubts_of(1.0, 1.0)
    assert doubts.of("a") is not None
    doubts.note("a", "good", 0.0, used=True)
    assert doubts.of("a") is not None, "two of three are still off"
    doubts.note("a", "better", 0.001, used=True)
    assert doubts.of("a") is None
    assert doubts.told() == {}


def test_what_is_long_ago_is_forgotten() -> None:
    doubts = doubts_of(*[None] * 12, *[1.0] * 8)
    assert doubts.of("a") is not None


def test_a_late_echo_of_a_few_milliseconds_is_not_noted() -> None:
    assert doubts_of(0.05, 0.06, -0.09).told() == {}


def test_what_a_node_says_now_counts_but_is_not_noted() -> None:
    doubts = doubts_of(1.0)
    assert doubts.of("a", ("now", 1.0)) is not None
    assert doubts.of("a", ("now", 0.01)) is None
    assert doubts.of("a") is None


def test_nodes_are_doubted_each_for_itself() -> None:
    doubts = doubts_of(1.0, 1.0)
    doubts.note("b", "good", 0.0, used=True)
    assert set(doubts.told()) == {"a"}


def test_a_word_that_is_off_at_many_incidents_counts_once() -> None:
    doubts = Doubts()
    for _ in range(20):
        doubts.note("a", "echo", 1.0, used=False)
    assert doubts.of("a") is None
    doubts.note("a", "another", 1.0, used=False)
    assert doubts.of("a") == "its clock seems 1.000 s ahead, by 2 shots"


def test_of_a_word_that_is_off_at_several_incidents_the_first_counts() -> None:
    doubts = doubts_of(1.0)
    doubts.note("a", "event-0", 2.5, used=False)
    doubts.note("a", "event-1", 1.0, used=False)
    assert doubts.of("a") == "its clock seems 1.000 s ahead, by 2 shots"


def test_a_word_that_was_off_and_is_rested_on_later_is_off_no_more() -> None:
    doubts = doubts_of(1.0, 1.0)
    doubts.note("a", "event-1", 0.0, used=True)
    assert doubts.told() == {}
    doubts.note("a", "event-2", 1.0, used=False)
    said = doubts.of("a")
    assert said is not None, "two of three are off"
    assert said.endswith("by 2 shots")


def test_a_word_that_a_place_rests_on_is_off_nowhere_else() -> None:
    doubts = doubts_of(1.0, None)
    doubts.note("a", "event-1", 1.0, used=False)
    assert doubts.of("a") is None
    assert doubts.of("a", ("event-1", 1.0)) is None


def test_a_word_said_now_that_was_noted_before_does_not_count_twice() -> None:
    doubts = doubts_of(1.0)
    assert doubts.of("a", ("event-0", 1.0)) is None
    said = doubts.of("a", ("now", 1.0))
    assert said == "its clock seems 1.000 s ahead, by 2 shots"


@pytest.mark.parametrize(
    ("residuals_s", "doubted"),
    [
        ((1.0, 1.04), True),
        ((1.0, -2.0), False),
        ((1.0, -2.0, 3.0), True),
        ((1.0, -2.0, None), False),
        ((1.0, -2.0, 3.0, None, None), True),
        ((1.0, -2.0, 3.0, None, None, None), False),
    ],
)
def test_what_is_off_by_another_amount_each_time_needs_a_third_word(
    residuals_s: tuple[float | None, ...], doubted: bool
) -> None:
    assert (doubts_of(*residuals_s).of("a") is not None) is doubted


def test_the_last_twelve_words_count_each_once() -> None:
    doubts = doubts_of(*[1.0] * 3, *[None] * 9)
    doubts.note("a", "event-11", 0.0, used=True)
    for at in range(12, 17):
        doubts.note("a", f"event-{at}", -1.0, used=False)
    assert doubts.of("a") is None, "seven of twelve are good"
    for at in range(17, 20):
        doubts.note("a", f"event-{at}", -1.0, used=False)
    assert doubts.of("a") == "its clock seems 1.000 s behind, by 8 shots"
