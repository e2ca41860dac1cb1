"""Nodes whose clock or place does not agree with the others', over several incidents."""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from typing import Final

_REMEMBERED: Final = 12
_TELLING: Final = 2
_FAR_S: Final = 0.1
# A clock is off by the same each time, give or take paths; a place, by another each time.
_STEADY_S: Final = 0.05
_MOSTLY: Final = 0.6


class Doubts:
    """What became of each node's word in the last incidents."""

    def __init__(self) -> None:
        self._off: dict[str, deque[float | None]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._told: dict[str, str] = {}

    def note(self, node_id: str, residual_s: float, used: bool) -> None:
        """Note how late a node was at an incident, and whether the place rests on it."""
        if used:
            self._off[node_id].append(None)
        elif abs(residual_s) > _FAR_S:
            self._off[node_id].append(residual_s)
        if (said := self.of(node_id)) is not None:
            self._told[node_id] = said
        else:
            self._told.pop(node_id, None)

    def told(self) -> dict[str, str]:
        """Give what is wrong with nodes, for those of which that is known."""
        return dict(self._told)

    def of(self, node_id: str, residual_s: float | None = None) -> str | None:
        """Say what is wrong with a node; None where nothing is known to be.

        Parameters
        ----------
        residual_s
            What it says now, beside what it said before.
        """
        entries = self._off.get(node_id, ())
        off = [e for e in entries if e is not None]
        many = len(entries)
        if residual_s is not None and abs(residual_s) > _FAR_S and entries:
            off.append(residual_s)
            many += 1
        if len(off) < _TELLING or len(off) < _MOSTLY * many:
            return None
        middle = statistics.median(off)
        steady = sum(abs(each - middle) < _STEADY_S for each in off) >= _MOSTLY * len(off)
        if steady:
            way = "behind" if middle < 0 else "ahead"
            return f"its clock seems {abs(middle):.3f} s {way}, by {len(off)} incidents"
        return (
            f"its place or clock is wrong: from {min(off):+.2f} to {max(off):+.2f} s off, "
            f"by {len(off)} incidents"
        )
