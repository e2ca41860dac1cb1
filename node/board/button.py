"""The button: a short press asks for a self-test, a hold begins or ends maintenance.

It stops nothing. The daemon polls what was asked for, and says in its status that somebody works
on the node; what is heard meanwhile is published as ever (docs/decisions/0022).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from node.board.pins import Contact

# Nobody presses for so long, or so often: then it is water, or something leans on it.
STUCK_S: Final = 60.0
MOST_PRESSES: Final = 12
WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ButtonReading:
    """The button now.

    Attributes
    ----------
    pressed
        Whether it is down.
    stuck
        Whether it has been down, or up and down, longer than people do.
    maintenance_left_s
        For how long maintenance goes on; None outside of it.
    """

    pressed: bool
    stuck: bool
    maintenance_left_s: float | None


class Button:
    """Turns presses into what was asked for.

    Parameters
    ----------
    contact
        The button's contact; closed with it.
    hold_s
        What makes a press a hold.
    maintenance_s
        After which maintenance ends by itself.
    """

    def __init__(self, contact: Contact, hold_s: float, maintenance_s: float) -> None:
        self._contact = contact
        self._hold_s = hold_s
        self._maintenance_s = maintenance_s
        self._maintenance_until_s: float | None = None
        self._asked = False
        # Whoever is down as the node starts has to come up first.
        self._spent = contact.closed
        self._pressed_s: deque[float] = deque(maxlen=MOST_PRESSES)

    def take_self_test(self, now_s: float) -> bool:
        """Say once for each short press (or several at once) that a self-test was asked for."""
        self._poll(now_s)
        asked, self._asked = self._asked, False
        return asked

    def reading(self, now_s: float) -> ButtonReading:
        """Say how it is."""
        self._poll(now_s)
        until_s = self._maintenance_until_s
        return ButtonReading(
            pressed=self._contact.closed,
            stuck=self._stuck(now_s),
            maintenance_left_s=None if until_s is None else until_s - now_s,
        )

    def close(self) -> None:
        """Let the pin go."""
        self._contact.close()

    def _poll(self, now_s: float) -> None:
        down_s = self._contact.since_s if self._contact.closed else now_s
        for change in self._contact.changes(now_s):
            if change.closed:
                down_s, self._spent = change.at_s, False
                self._pressed_s.append(change.at_s)
            else:
                self._hold(down_s, change.at_s)
                if not self._spent and not self._stuck(change.at_s):
                    self._asked = True
        if self._contact.closed:
            self._hold(down_s, now_s)
        if self._maintenance_until_s is not None and now_s >= self._maintenance_until_s:
            self._maintenance_until_s = None

    def _hold(self, down_s: float, now_s: float) -> None:
        """Count a press once as a hold, from the moment on that it was one."""
        held_s = down_s + self._hold_s
        if self._spent or now_s < held_s or self._stuck(down_s):
            return
        self._spent = True
        until_s = self._maintenance_until_s
        goes_on = until_s is not None and held_s < until_s
        self._maintenance_until_s = None if goes_on else held_s + self._maintenance_s

    def _stuck(self, now_s: float) -> bool:
        often = len(self._pressed_s) == MOST_PRESSES and now_s - self._pressed_s[0] < WITHIN_S
        return often or (self._contact.closed and now_s - self._contact.since_s >= STUCK_S)
