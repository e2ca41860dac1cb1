"""The tamper switch: shut while the lid is, so that a cut wire tells too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from node.board.pins import Contact

# Long enough that who looks once a day sees it.
LATCHED_S: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class TamperReading:
    """The switch now, and what it did since the node started.

    Attributes
    ----------
    open
        Whether the lid is open, or the wire cut.
    count
        How often it opened; a lid that was open at the start counts.
    latched
        Open, or closed for less than a day.
    """

    open: bool
    count: int
    latched: bool


class Tamper:
    """Counts openings.

    Parameters
    ----------
    contact
        The switch's contact; closed with it.
    """

    def __init__(self, contact: Contact) -> None:
        self._contact = contact
        self._closed_s: float | None = None
        self._count = int(not contact.closed)

    def reading(self, now_s: float) -> TamperReading:
        """Say how it is."""
        for change in self._contact.changes(now_s):
            if change.closed:
                self._closed_s = change.at_s
            else:
                self._closed_s = None
                self._count += 1
        is_open = not self._contact.closed
        lately = self._closed_s is not None and now_s - self._closed_s < LATCHED_S
        return TamperReading(
            open=is_open,
            count=self._count,
            latched=is_open or lately,
        )

    def close(self) -> None:
        """Let the pin go."""
        self._contact.close()
