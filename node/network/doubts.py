"""Nodes whose clock or place does not agree with the others', over several incidents."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Final

import numpy as np

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

    def note(self, node_id: str, residual_s: float, used: bool) -> None:
        """Note how late a node was at an incident, and whether the place rests on it."""
        if used:
            self._off[node_id].append(None)
        elif abs(residual_s) > _FAR_S:
            self._off[node_id].append(residual_s)

    def told(self) -> dict[str, str]:
        """Give what is wrong with nodes, for those of which that is known."""
        return {node: said for node in self._off if (said := self.of(node)) is not None}

    def of(self, node_id: str, residual_s: float | None = None) -> str | None:
        """Say what is wrong with a node; None where nothing is known to be.

        Parameters
        ----------
        residual_s
            What it says now, beside what it said before.
        """
        entries = list(self._off.get(node_id, ()))
        if not entries:
            return None
        off = [e for e in entries if e is not None]
        if residual_s is not None and abs(residual_s) > _FAR_S:
            off.append(residual_s)
            entries.append(residual_s)
        if len(off) < _TELLING or len(off) < _MOSTLY * len(entries):
            return None
        middle = float(np.median(off))
        steady = np.mean(np.abs(np.array(off) - middle) < _STEADY_S) >= _MOSTLY
        if steady:
            way = "behind" if middle < 0 else "ahead"
            return f"its clock seems {abs(middle):.3f} s {way}, by {len(off)} incidents"
        return (
            f"its place or clock is wrong: from {min(off):+.2f} to {max(off):+.2f} s off, "
            f"by {len(off)} incidents"
        )
