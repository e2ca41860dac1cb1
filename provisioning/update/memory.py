"""What the update remembers over reboots, in `/data/setup/update.json`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from node.board.findings import Condition
from node.status import LocalStatus
from node.types import ClockSource
from provisioning.whole import write_whole

log = logging.getLogger(__name__)

FILE: Final = "update.json"
MOST_REFUSED: Final = 20


class Standing(BaseModel):
    """How a node does, as far as a trial is about it; by default as badly as can be."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    hears: bool = False
    clock: ClockSource = "free"
    connected: bool = False
    condition: Condition = "failed"
    firmware: str = ""
    boot_id: str = ""

    @classmethod
    def read(cls, file: Path) -> Standing | None:
        """Read it from the daemon's status file; None where no daemon tells."""
        try:
            status = LocalStatus.read(file)
            facts = status.facts
            if not status.runs:
                return None
            return cls(
                hears=facts["hears"],
                clock=facts["clock"]["source"],
                connected=facts["broker"]["connected"],
                condition=facts["condition"],
                firmware=facts["firmware"],
                boot_id=facts["boot_id"],
            )
        except (OSError, KeyError, TypeError, ValueError):
            return None


class Trial(BaseModel):
    """A release that is being tried.

    Attributes
    ----------
    old, new
        Versions.
    since
        UTC, for people.
    before
        How the node did before.
    back
        Why the old one is to come back; empty while that is open.
    """

    model_config = ConfigDict(frozen=True)

    old: str
    new: str
    since: str = ""
    before: Standing = Standing(hears=True)
    back: str = ""


class Refusal(BaseModel):
    """A release that was taken back: why, how often, and whether it may be tried again."""

    model_config = ConfigDict(frozen=True)

    why: str
    times: int = 1
    again: bool = False


class Memory(BaseModel):
    """All of it.

    Attributes
    ----------
    trial
        The one that is on.
    unbooted
        The last one, while the machine was not booted since.
    refused
        By version.
    looked_utc_s
        When a server was reached last, by a clock that was vouched for.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    trial: Trial | None = None
    unbooted: Trial | None = None
    refused: dict[str, Refusal] = Field(default_factory=dict)
    looked_utc_s: float = 0.0

    @classmethod
    def load(cls, folder: Path) -> Memory:
        """Read it; what is spoilt is forgotten, and said."""
        file = folder / FILE
        try:
            return cls.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            pass
        except (OSError, ValidationError) as error:
            log.error("%s: cannot be read, and is begun anew: %s", file, error)
        return cls()

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(folder / FILE, self.model_dump_json(indent=1))

    def with_trial(self, trial: Trial | None, unbooted: Trial | None = None) -> Memory:
        """Give one with another trial, or none."""
        return self.model_copy(update={"trial": trial, "unbooted": unbooted})

    def with_refusal(self, version: str, refusal: Refusal | None) -> Memory:
        """Give one that says so of a version; the oldest are forgotten."""
        refused = {k: v for k, v in self.refused.items() if k != version}
        if refusal is not None:
            refused[version] = refusal
        return self.model_copy(update={"refused": dict(list(refused.items())[-MOST_REFUSED:])})
