"""How much of each sender is taken: a bucket for each, that fills up as time passes. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from node.types import NS_PER_S

MOST_SENDERS: Final = 20_000


class Allowance:
    """Bounds what each of many senders may send; a flood of one takes nothing from another."""

    def __init__(self) -> None:
        self._left: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()

    def may(self, who: tuple[str, str], now_ns: int, per_second: float, at_once: int) -> bool:
        """Take one of a sender's allowance; False where nothing is left of it.

        Parameters
        ----------
        per_second
            So many are allowed in the long run.
        at_once
            And so many at once.
        """
        left, then_ns = self._left.get(who, (float(at_once), now_ns))
        left = min(at_once, left + max(0, now_ns - then_ns) * per_second / NS_PER_S)
        may = left >= 1
        self._left[who] = (left - may, now_ns)
        self._left.move_to_end(who)
        if len(self._left) > MOST_SENDERS:
            self._left.popitem(last=False)
        return may
