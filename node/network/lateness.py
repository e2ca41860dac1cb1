"""How long after a sound its nodes tell of it, as it was of late at one site."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import Final

from node.network.arrivals import ALL_TOLD

_REMEMBERED: Final = 100
_FASTEST: Final = 0.05
_SLOWEST: Final = 0.95
# What comes later was held back by a node that was cut off, and tells nothing of the others.
_LONGEST_S: Final = 10.0
_LEAST_SPAN_S: Final = 0.05


class Lateness:
    """What the last words' lateness tells of those that are still to come."""

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._sorted: list[float] = []

    def note(self, late_s: float) -> None:
        """Note how long after its last round a detection came."""
        if not 0 <= late_s <= _LONGEST_S:
            return
        if len(self._last) == _REMEMBERED:
            del self._sorted[bisect_left(self._sorted, self._last.popleft())]
        self._last.append(late_s)
        insort(self._sorted, late_s)

    def told_s(self, now_s: float, lasting_s: float) -> tuple[float, float]:
        """Give up to when a sound is told of by all that heard it, and from when on by none.

        Parameters
        ----------
        lasting_s
            From the first of its rounds to the last: it is told of when it has ended.
        """
        if not self._sorted:
            return ALL_TOLD
        ended_s = now_s - lasting_s
        return ended_s - self.slowest_s, ended_s - self._at(_FASTEST)

    @property
    def slowest_s(self) -> float:
        """After how long nearly all words have come."""
        return max(self._at(_SLOWEST), self._at(_FASTEST) + _LEAST_SPAN_S)

    def _at(self, share: float) -> float:
        return self._sorted[round(share * (len(self._sorted) - 1))]
