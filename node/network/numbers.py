"""Which of a node's numbers have come: `seq` counts its detections for life, and leaves no hole.

New detections come before old ones that had to wait, so a hole is no loss yet: it closes when the
old ones arrive, or when a checkpoint tells it as a gap.
"""

from bisect import bisect_right
from typing import Final

MOST_HOLES: Final = 10_000
"""Holes remembered for a node; beyond it the oldest are forgotten."""


class Numbers:
    """The numbers of one node, from the first that was seen on.

    Attributes
    ----------
    forgotten
        Holes that were given up to stay within `MOST_HOLES`.
    """

    def __init__(self) -> None:
        self.forgotten = 0
        self._next: int | None = None
        self._holes: list[range] = []  # in rising order, none empty, none over another

    @property
    def missing(self) -> tuple[range, ...]:
        """The holes, in rising order."""
        return tuple(self._holes)

    def see(self, seq: int) -> range:
        """Note a number that has come; give those newly known to be missing before it."""
        if self._next is not None and seq < self._next:
            self.fill(seq, seq)
            return range(0)
        hole = self.expect(seq - 1)
        self._next = seq + 1
        return hole

    def expect(self, last: int) -> range:
        """Note that numbers up to `last` were given; give those newly known to be missing."""
        if self._next is None:
            self._next = last + 1
        hole = range(self._next, last + 1)
        if hole:
            self._next = last + 1
            self._holes.append(hole)
            self._bound()
        return hole

    def fill(self, first: int, last: int) -> None:
        """Note that these numbers have come, or never will and that is told."""
        end = last + 1
        at = max(0, bisect_right(self._holes, first, key=lambda hole: hole.start) - 1)
        rest: list[range] = []
        upto = at
        while upto < len(self._holes) and self._holes[upto].start < end:
            hole = self._holes[upto]
            rest.append(range(hole.start, min(first, hole.stop)))
            rest.append(range(max(end, hole.start), hole.stop))
            upto += 1
        self._holes[at:upto] = [hole for hole in rest if hole]
        self._bound()

    def _bound(self) -> None:
        over = len(self._holes) - MOST_HOLES
        if over > 0:
            self.forgotten += over
            del self._holes[:over]
