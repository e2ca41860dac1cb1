"""New Year's Eve at one node for an hour; see `tests.hil.load.new_year`."""

from __future__ import annotations

from typing import Final

from tests.hil.load.new_year import night
from tests.parts import Part, Tell

HOUR_S: Final = 3600.0


def measure(tell: Tell) -> Part:
    """Measure it; `make soak` does."""
    return night(HOUR_S, tell)
