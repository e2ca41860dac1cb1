"""Incidents on their way to the broker: in order, and none lost to a broken connection.

They wait in memory, where a broker that is away for an hour must not fill it: beyond a bound,
revisions that a later one has overtaken go first. Filled by the locator's thread, emptied by the
session's.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

from node.messages import Incident

MOST_WAITING: Final = 10_000


class Outgoing:
    """What waits, and what is under way.

    Attributes
    ----------
    published
        Revisions that the broker has acknowledged.
    overtaken
        Revisions that were left out, since a later one of the same incident waited.
    lost
        Incidents that were given up with the bound full of others.
    """

    def __init__(self) -> None:
        self.published = 0
        self.overtaken = 0
        self.lost = 0
        self._waiting: deque[Incident] = deque()
        self._under_way: dict[int, Incident] = {}  # by the id of its packet, in order
        self._refused: list[Incident] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._under_way) + len(self._refused)

    def put(self, incident: Incident) -> None:
        """Add one at the end."""
        with self._lock:
            self._waiting.append(incident)
            if len(self._waiting) > MOST_WAITING:
                self._make_room()

    def take(self, window: int) -> Incident | None:
        """Take the next to send, if fewer than `window` are under way."""
        with self._lock:
            if len(self._under_way) >= window or not self._waiting:
                return None
            return self._waiting.popleft()

    def sent(self, mid: int, incident: Incident) -> None:
        """Note that one is under way."""
        with self._lock:
            self._under_way[mid] = incident

    def answered(self, mid: int) -> Incident | None:
        """Note that the broker has answered; give which one it was."""
        with self._lock:
            return self._under_way.pop(mid, None)

    def refused(self, incident: Incident) -> None:
        """Keep one that the broker would not have, until `again`."""
        with self._lock:
            self._refused.append(incident)

    def again(self, *, broken: bool) -> None:
        """Put back in front, in order, what was refused, and what a broken connection took."""
        with self._lock:
            back = self._refused
            if broken:
                back = [*back, *self._under_way.values()]
                self._under_way.clear()
            self._refused = []
            self._waiting.extendleft(reversed(back))

    def _make_room(self) -> None:
        latest = {one.incident_id: one.revision for one in self._waiting}
        kept = [one for one in self._waiting if one.revision >= latest[one.incident_id]]
        self.overtaken += len(self._waiting) - len(kept)
        half = len(kept) - MOST_WAITING // 2
        if half > 0 and len(kept) > MOST_WAITING * 9 // 10:  # so that this is not done for each
            self.lost += half
            kept = kept[half:]
        self._waiting = deque(kept)
