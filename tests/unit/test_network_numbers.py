"""Which of a node's numbers are missing, whatever the order in which they come."""

from hypothesis import given
from hypothesis import strategies as st

from node.network.numbers import MOST_HOLES, Numbers


def missing(numbers: Numbers) -> set[int]:
    return {number for hole in numbers.missing for number in hole}


def test_numbers_in_order_leave_no_hole() -> None:
    numbers = Numbers()
    assert [list(numbers.see(seq)) for seq in (7, 8, 9)] == [[], [], []]
    assert numbers.missing == ()


def test_a_number_too_far_on_tells_which_are_missing_and_late_ones_close_the_hole() -> None:
    numbers = Numbers()
    numbers.see(1)
    assert numbers.see(5) == range(2, 5)
    numbers.see(3)
    assert numbers.missing == (range(2, 3), range(4, 5))
    numbers.see(2)
    numbers.see(4)
    assert numbers.missing == ()


def test_what_came_before_the_first_that_was_seen_is_no_hole() -> None:
    numbers = Numbers()
    numbers.see(10)
    numbers.see(3)
    assert numbers.missing == ()


def test_a_checkpoint_shows_that_the_newest_are_missing() -> None:
    numbers = Numbers()
    numbers.see(1)
    assert numbers.expect(3) == range(2, 4)
    assert numbers.expect(3) == range(0)
    numbers.see(3)
    assert missing(numbers) == {2}


def test_holes_are_bounded_and_those_forgotten_counted() -> None:
    numbers = Numbers()
    for seq in range(1, 2 * MOST_HOLES + 4, 2):
        numbers.see(seq)
    assert len(numbers.missing) == MOST_HOLES
    assert numbers.forgotten == 1


@given(
    st.lists(
        st.tuples(st.sampled_from(("see", "expect", "fill")), st.integers(1, 40), st.integers(0, 9))
    )
)
def test_the_holes_are_those_of_a_plain_set(steps: list[tuple[str, int, int]]) -> None:
    numbers, first, last, come = Numbers(), 1, 0, set[int]()
    for what, seq, more in steps:
        if what == "fill":
            numbers.fill(seq, seq + more)
            come |= set(range(seq, min(seq + more, last) + 1))  # of later ones it says nothing
            continue
        if last == 0:
            first = seq + (what == "expect")
        last = max(last, seq)
        if what == "see":
            numbers.see(seq)
            come.add(seq)
        else:
            numbers.expect(seq)
    assert missing(numbers) == set(range(first, last + 1)) - come
