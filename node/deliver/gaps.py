"""Ranges of numbers whose messages are not to be had from here any more, few and honest.

The outbox keeps them beside what waits; whoever holds a log may ask whether a hole in it is one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

MOST_GAPS: Final = 256
"""So many ranges are kept apart; beyond, the oldest two become one."""

GapReason = Literal["dropped", "lost"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers of which some never left this node.

    Attributes
    ----------
    from_seq, to_seq
        First and last number of the range.
    count
        How many of them are gone, at most the length of the range; None where that is not known.
    reason
        `dropped`: they had to make room, or had waited too long; `lost`: the file that held them
        was.
    """

    from_seq: int
    to_seq: int
    count: int | None
    reason: GapReason


def with_gaps(gaps: Iterable[Gap], new: Iterable[Gap], most: int = MOST_GAPS) -> tuple[Gap, ...]:
    """Add ranges to others, in order of number.

    What touches and has one reason becomes one, what overlaps does in any case; beyond `most`, the
    oldest two become one, as wide as both with what lies between, their counts added.
    """
    merged: list[Gap] = []
    for gap in sorted([*gaps, *new], key=lambda gap: (gap.from_seq, gap.to_seq)):
        last = merged[-1] if merged else None
        if last is not None and gap.from_seq <= last.to_seq:
            merged[-1] = _overlapping(last, gap)
        elif last is not None and gap.from_seq == last.to_seq + 1 and gap.reason == last.reason:
            merged[-1] = _joined(last, gap)
        else:
            merged.append(gap)
    while len(merged) > most:
        merged[:2] = [_joined(merged[0], merged[1])]
    return tuple(merged)


def _joined(first: Gap, second: Gap) -> Gap:
    unknown = first.count is None or second.count is None
    return Gap(
        first.from_seq,
        second.to_seq,
        None if unknown else (first.count or 0) + (second.count or 0),
        _reason(first, second),
    )


def _overlapping(first: Gap, second: Gap) -> Gap:
    """Join two of which some numbers are the same: how many are gone is then not known."""
    if first == second:
        return first
    to_seq = max(first.to_seq, second.to_seq)
    return Gap(first.from_seq, to_seq, None, _reason(first, second))


def _reason(first: Gap, second: Gap) -> GapReason:
    return "lost" if "lost" in (first.reason, second.reason) else "dropped"
