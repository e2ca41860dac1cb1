"""Nodes whose clock or place does not agree with the others'."""

from node.network.doubts import Doubts


def doubts_of(*residuals_s: float | None) -> Doubts:
    """Note what one node said at incidents; None where a place rests on it."""
    doubts = Doubts()
    for residual_s in residuals_s:
        doubts.note("a", residual_s or 0.0, residual_s is None)
    return doubts


def test_nothing_is_wrong_with_a_node_that_nobody_spoke_of() -> None:
    assert Doubts().of("a") is None
    assert Doubts().told() == {}


def test_once_is_no_doubt_and_twice_by_the_same_second_is_the_clock() -> None:
    assert doubts_of(1.0).told() == {}
    (said,) = doubts_of(1.0, 1.004).told().values()
    assert said == "its clock seems 1.002 s ahead, by 2 incidents"


def test_a_clock_that_stamps_too_early_is_behind() -> None:
    said = doubts_of(-1.0, -1.0).of("a")
    assert said is not None
    assert "1.000 s behind" in said


def test_residuals_that_differ_each_time_are_of_the_place() -> None:
    said = doubts_of(0.9, -1.4, 2.1).of("a")
    assert said == "its place or clock is wrong: from -1.40 to +2.10 s off, by 3 incidents"


def test_a_clock_is_told_through_one_stray_residual() -> None:
    said = doubts_of(1.0, 1.01, 0.4, 0.99, 1.0).of("a")
    assert said is not None
    assert said.startswith("its clock seems 1.000 s ahead")


def test_a_doubt_is_taken_back_after_honest_incidents() -> None:
    doubts = doubts_of(1.0, 1.0)
    assert doubts.of("a") is not None
    doubts.note("a", 0.0, True)
    assert doubts.of("a") is not None, "two of three are still off"
    doubts.note("a", 0.001, True)
    assert doubts.of("a") is None
    assert doubts.told() == {}


def test_what_is_long_ago_is_forgotten() -> None:
    doubts = doubts_of(*[None] * 12, *[1.0] * 8)
    assert doubts.of("a") is not None


def test_a_late_echo_of_a_few_milliseconds_is_not_noted() -> None:
    assert doubts_of(0.05, 0.06, -0.09).told() == {}


def test_what_a_node_says_now_counts_but_is_not_noted() -> None:
    doubts = doubts_of(1.0)
    assert doubts.of("a", 1.0) is not None
    assert doubts.of("a", 0.01) is None
    assert doubts.of("a") is None


def test_nodes_are_doubted_each_for_itself() -> None:
    doubts = doubts_of(1.0, 1.0)
    doubts.note("b", 0.0, True)
    assert set(doubts.told()) == {"a"}
