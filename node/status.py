"""What the node that runs on this machine says of itself: its status file.

Written by node/vitals.py each second; read here by `status`, and by `check` while a node runs.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from node.errors import StatusError

# Written each second; a disk or a long inference may keep the loop that writes it for some.
FRESH_S: Final = 10.0
# A commit to a worn SD card may keep it so much longer (node/keeper.py, MOST_STALL_S): whoever
# starts the node anew then throws the sound away that waits.
STALL_S: Final = 60.0
_OF_A_CHECK: Final = ("name", "verdict", "figure", "advice")
HOUR_S: Final = 3600
DAY_S: Final = 86400


@dataclass(frozen=True)
class LocalStatus:
    """The status file as read.

    Attributes
    ----------
    facts
        What it says.
    age_s
        How old it is.
    """

    facts: dict[str, Any]
    age_s: float

    @classmethod
    def read(cls, file: Path | None) -> Self:
        """Read it.

        Raises
        ------
        StatusError
            No node runs here, or it keeps no such file.
        """
        if file is None:
            raise StatusError("health.status_file is not set: the node keeps no file to read")
        try:
            facts = json.loads(file.read_text("utf-8"))
            age_s = time.monotonic() - float(facts["written_monotonic_s"])
            if not (math.isfinite(age_s) and isinstance(facts["pid"], int)):
                raise ValueError
            for check in facts["checks"]:
                if not all(isinstance(check[key], str) for key in _OF_A_CHECK):
                    raise ValueError
        except FileNotFoundError:
            raise StatusError(
                f"{file}: no node runs here; see `systemctl status gunfire-node`, or start it"
            ) from None
        except OSError as error:
            raise StatusError(
                f"{file}: cannot be read: {error.strerror}; set health.status_file to a file that "
                "this user may read"
            ) from None
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise StatusError(f"{file}: is not a node's status; remove it") from None
        return cls(facts, age_s)

    @property
    def fresh(self) -> bool:
        """Whether a node has written it just now that still runs."""
        return self.runs and self.age_s <= FRESH_S

    @property
    def runs(self) -> bool:
        """Whether a node has written it that still runs, and does not hang, slow as it may be."""
        known = 0 <= self.age_s <= FRESH_S + STALL_S
        return known and Path(f"/proc/{self.facts.get('pid')}").exists()

    @property
    def well(self) -> bool:
        """Whether the node hears, and nothing failed."""
        return self.runs and bool(self.facts.get("hears")) and self._condition != "failed"

    @property
    def _condition(self) -> str:
        return str(self.facts.get("condition"))

    @property
    def headline(self) -> str:
        """Say in a line how the node is."""
        if not self.runs:
            return f"HANGS OR ENDED: its last word is {duration(self.age_s)} old"
        if not self.fresh:
            return (
                f"KEEPS ITS WORD BACK: its last is {duration(self.age_s)} old; a slow disk may be "
                "why: wait a minute, and look again"
            )
        if not self.facts["hears"]:
            return "DOES NOT HEAR"
        words = {"ok": "HEARS, all is well", "degraded": "HEARS, but something is wrong"}
        return words.get(self._condition, "FAILED")


def duration(seconds: float) -> str:
    """Say a length of time in its two largest units."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // 60} min {whole % 60} s"
    if whole < DAY_S:
        return f"{whole // HOUR_S} h {whole % HOUR_S // 60} min"
    return f"{whole // DAY_S} d {whole % DAY_S // HOUR_S} h"
