"""Gaps as the outbox keeps them: few, and honest whatever is merged."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from node.deliver import Gap
from node.deliver.gaps import with_gaps


@st.composite
def gap(draw: st.DrawFn) -> Gap:
    first = draw(st.integers(1, 60))
    last = first + draw(st.integers(0, 8))
    count = draw(st.none() | st.integers(1, last - first + 1))
    return Gap(first, last, count, draw(st.sampled_from(["dropped", "lost"])))


@given(st.lists(st.lists(gap(), max_size=5), max_size=8), st.integers(1, 6))
def test_every_number_stays_covered_in_order_within_the_bound_and_no_count_exceeds_its_range(
    rounds: list[list[Gap]], most: int
) -> None:
    gaps: tuple[Gap, ...] = ()
    covered: set[int] = set()
    for new in rounds:
        gaps = with_gaps(gaps, new, most)
        covered |= {seq for g in new for seq in range(g.from_seq, g.to_seq + 1)}
        assert covered <= {seq for g in gaps for seq in range(g.from_seq, g.to_seq + 1)}
        assert len(gaps) <= most
        assert all(a.to_seq < b.from_seq for a, b in pairwise(gaps))
        assert all(g.count is None or 1 <= g.count <= g.to_seq - g.from_seq + 1 for g in gaps)


@given(st.sets(st.integers(1, 200)), st.integers(1, 300))
def test_numbers_dropped_one_by_one_are_counted_exactly(dropped: set[int], most: int) -> None:
    gaps: tuple[Gap, ...] = ()
    for seq in sorted(dropped):
        gaps = with_gaps(gaps, [Gap(seq, seq, 1, "dropped")], most)
    assert sum(g.count or 0 for g in gaps) == len(dropped)
    inside = [sum(g.from_seq <= seq <= g.to_seq for seq in dropped) for g in gaps]
    assert inside == [g.count for g in gaps]


def test_what_touches_and_has_another_reason_stays_apart() -> None:
    dropped, lost = Gap(1, 3, 3, "dropped"), Gap(4, 9, None, "lost")
    assert with_gaps([lost], [dropped]) == (dropped, lost)


def test_what_overlaps_with_a_loss_is_lost_and_of_unknown_count() -> None:
    assert with_gaps([Gap(1, 5, 5, "dropped")], [Gap(4, 9, None, "lost")]) == (
        Gap(1, 9, None, "lost"),
    )
