"""`gunfire-fleet watch`: what the broker shows of the fleet, kept in the inventory.

Two boxes with one node's keys throw each other out of the broker and come back in turns: each has a
`boot_id` of its own. A node that starts anew changes its `boot_id` too, but never back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from node.messages import Status
from provisioning.fleet.files import text_of
from provisioning.fleet.fleet import Fleet

MOST_RUNS: Final = 16
"""So many runs of a node are remembered."""


@dataclass
class Watch:
    """Takes statuses as they come, and writes what is new.

    Parameters
    ----------
    fleet
        Whose inventory.
    tell
        Told each change in a sentence.
    """

    fleet: Fleet
    tell: Callable[[str], None]
    _runs: dict[str, list[str]] = field(default_factory=dict)
    _offline: dict[str, bool] = field(default_factory=dict)

    def take(self, status: Status) -> None:
        """Take a status that was just published, or that the broker kept."""
        if status.state == "offline":
            # Of an older run it is no news: the broker says it when a new one took its place.
            if (self._runs.get(status.node_id) or [status.boot_id])[-1] == status.boot_id:
                self._write(status, offline=True)
            return
        runs = self._runs.setdefault(status.node_id, [])
        cloned = status.boot_id in runs[:-1]
        if not runs or runs[-1] != status.boot_id:
            if status.boot_id in runs:
                runs.remove(status.boot_id)
            runs.append(status.boot_id)
            del runs[:-MOST_RUNS]
        self._write(status, cloned=cloned)

    def _write(self, status: Status, *, cloned: bool = False, offline: bool = False) -> None:
        name = status.node_id
        if not cloned and self._offline.get(name) == offline:
            return  # no news, and no need to read the inventory
        self._offline[name] = offline
        said = ""
        with self.fleet.inventory.change() as inventory:
            member = inventory.members.get(name)
            if member is None or member.role != "node":
                return
            now = text_of(self.fleet.clock())
            if cloned and member.cloned_utc is None:
                member.cloned_utc = now
                said = (
                    f"{name} is there twice: two boxes with its keys come in turns; gunfire-fleet "
                    f"revoke {name}, and invite the one that is to stay"
                )
            elif offline and member.offline_utc is None:
                member.offline_utc, member.online_utc = now, None
                said = f"{name} went offline: {'; '.join(status.reasons) or 'it stopped in order'}"
            elif not offline and member.online_utc is None:
                said = f"{name} is back" if member.offline_utc else ""
                member.offline_utc, member.online_utc = None, now
        if said:
            self.tell(said)
