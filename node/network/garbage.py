"""Python's collector, kept from going through what a locator remembers.

It goes through all objects now and then: after forty seconds of a thousand detections a second that
was 0.3 s in which no shot was told, and it grew with what is remembered. That has no cycles, and
ends by its count of references.
"""

from __future__ import annotations

import gc
import time
from typing import Final

_EVERY_S: Final = 1.0


class Garbage:
    """Looks for cycles among new objects once a second, and not again among those that stay."""

    def __init__(self) -> None:
        self._due_s = 0.0

    def tidy(self) -> None:
        """Collect what has become garbage in the last second; call it often."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + _EVERY_S
            gc.collect()
            gc.freeze()
