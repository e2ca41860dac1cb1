"""Nodes whose clock or place does not agree with the others', over several incidents."""

from __future__ import annotations

import statistics
from collections import OrderedDict, defaultdict
from typing import Final

_REMEMBERED: Final = 12
# Two words that are off by the same are no chance; such that are off somehow may be two echoes.
_TELLING: Final = 2
_TELLING_UNSTEADY: Final = 3
_FAR_S: Final = 0.1
# A clock is off by the same each time, give or take paths; a place, by another each time.
_STEADY_S: Final = 0.05
_MOSTLY: Final = 0.6


class Doubts:
    """What became of each node's last words.

    Each word counts once: where many shots are fired, one that is an echo of the first is some
    seconds off the next ones, too.
    """

    def __init__(self) -> None:
        # By the event: how late it was at an incident; None where one rests on it.
        self._off: dict[str, OrderedDict[str, float | None]] = defaultdict(OrderedDict)
        self._told: dict[str, str] = {}

    def note(self, node_id: str, event_id: str, residual_s: float, *, used: bool) -> None:
        """Note how late a node's word was at an incident, and whether the place rests on it."""
        words = self._off[node_id]
        if used:
            words[event_id] = None
        elif abs(residual_s) > _FAR_S:
            words.setdefault(event_id, residual_s)
        if len(words) > _REMEMBERED:
            words.popitem(last=False)
        if (said := self.of(node_id)) is not None:
            self._told[node_id] = said
        else:
            self._told.pop(node_id, None)

    def told(self) -> dict[str, str]:
        """Give what is wrong with nodes, for those of which that is known."""
        return dict(self._told)

    def of(self, node_id: str, word: tuple[str, float] | None = None) -> str | None:
        """Say what is wrong with a node; None where nothing is known to be.

        Parameters
        ----------
        word
            The event that it tells of now, and how late that is, beside what it said before.
        """
        words = self._off.get(node_id)
        if not words:
            return None
        off = [late_s for late_s in words.values() if late_s is not None]
        many = len(words)
        if word is not None and word[0] not in words and abs(word[1]) > _FAR_S:
            off.append(word[1])
            many += 1
        if len(off) < _TELLING or len(off) < _MOSTLY * many:
            return None
        middle = statistics.median(off)
        steady = sum(abs(each - middle) < _STEADY_S for each in off) >= _MOSTLY * len(off)
        if steady:
            way = "behind" if middle < 0 else "ahead"
            return f"its clock seems {abs(middle):.3f} s {way}, by {len(off)} shots"
        if len(off) < _TELLING_UNSTEADY:
            return None
        return (
            f"its place or clock is wrong: from {min(off):+.2f} to {max(off):+.2f} s off, "
            f"by {len(off)} shots"
        )
