"""What is told of messages that do not count: each thing once, then ever more rarely.

A flood of bad messages is a few lines in the log, and a number. Pure, but for the log.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Final

from node.types import NS_PER_S

log = logging.getLogger(__name__)

MOST_KEPT: Final = 10_000
"""Names that are told apart: some are invented."""

LINES_AT_ONCE: Final = 20
EACH_S: Final = 10.0


class Notices:
    """Tells the first, second, fourth … of each kind and node, and never too many at once."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self._begun_ns = 0
        self._lines = 0
        self._left_out = 0

    def tell(self, kind: str, who: tuple[str, str], sentence: str, now_ns: int) -> None:
        """Log that something is not as it should be."""
        key = (kind, *who)
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        if len(self._counts) > MOST_KEPT:
            self._counts.popitem(last=False)
        if count.bit_count() > 1:
            return
        if not 0 <= now_ns - self._begun_ns < EACH_S * NS_PER_S:
            if self._left_out:
                log.warning("and %d lines more like these", self._left_out)
            self._begun_ns, self._lines, self._left_out = now_ns, 0, 0
        if self._lines >= LINES_AT_ONCE:
            self._left_out += 1
            return
        self._lines += 1
        name = "/".join(part for part in who if part) or "somebody"
        again = f" ({count} times so far)" if count > 1 else ""
        log.warning("%s: %s: %s%s", kind, printable(name), printable(sentence), again)


def printable(text: str) -> str:
    """Put a mark for what could steer a terminal: messages are written by others."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
