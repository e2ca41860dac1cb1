"""What a node that runs knows already: it holds the card and the pins, and is not stopped for this.

It writes its findings into its status file each second; from there come all but those of what can
be tested beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from node.board import Code
from node.board.findings import CHECKS, Finding
from node.check.holder import outbox_user
from node.errors import StatusError
from node.settings import Settings
from node.status import FRESH_S, LocalStatus, duration

# What the self-test looks at by itself, whoever else runs.
BESIDE: Final = frozenset(
    (
        "clock", "receiver", "receiver pulse", "second opinion", "position", "model", "disk",
        "signing key",
    )
)  # fmt: skip
POLL_S: Final = 0.25


@dataclass(frozen=True)
class RunningNode:
    """A node at work on this machine, as its status file tells.

    Attributes
    ----------
    file
        Where it writes.
    facts
        What it wrote last.
    age_s
        How old that is.
    """

    file: Path
    facts: Mapping[str, Any]
    age_s: float

    @classmethod
    def of(cls, settings: Settings) -> RunningNode | None:
        """Find it; None where no node runs, or it writes no file."""
        file = settings.health.status_file
        if file is None:
            return None
        try:
            status = LocalStatus.read(file)
        except StatusError:
            return None
        return cls(file, status.facts, status.age_s) if status.runs else None

    @property
    def pid(self) -> int:
        """Its process."""
        return int(self.facts["pid"])

    @property
    def uptime_s(self) -> float:
        """How long it runs; 0 where it does not say so."""
        uptime_s = self.facts.get("uptime_s")
        with suppress(OverflowError):  # JSON's whole numbers have no end
            if isinstance(uptime_s, int | float) and math.isfinite(uptime_s):
                return float(uptime_s)
        return 0.0

    @property
    def light(self) -> Code | None:
        """What its light says; None where this software knows no such code."""
        return _code(self.facts.get("light"))

    @property
    def sentence(self) -> str:
        """Say who was asked."""
        return f"asked the running node, pid {self.pid}, up {duration(self.uptime_s)}"

    @property
    def ended(self) -> Finding:
        """Say that it is there no more: what it wrote last holds no longer."""
        figure = f"the node that was asked, pid {self.pid}, has ended or hangs since"
        advice = "test again; why it ended: `journalctl -u gunfire-node`"
        return Finding("last run", "fail", figure, advice, lit=False)

    def findings(self, settings: Settings) -> Iterator[Finding]:
        """Give what it knows of ear, board and sending: all that is not tested beside it."""
        told = [finding for finding in map(_finding, self.facts["checks"]) if finding is not None]
        yield from (finding for finding in told if finding.check not in BESIDE)
        if self.age_s > FRESH_S:
            age = duration(self.age_s)
            figure = f"the node (pid {self.pid}) keeps its word back: its last is {age} old"
            advice = "a slow disk may be why: wait a minute, then test again"
            yield Finding("last run", "warn", figure, advice, lit=False)
        known = {finding.check for finding in told}
        if "sound card" not in known:
            yield self._sound_card()
        if "broker" not in known:
            broker = self.facts.get("broker")
            connected = isinstance(broker, dict) and bool(broker.get("connected"))
            yield Finding(
                "broker",
                "pass" if connected else "warn",
                "connected" if connected else "not connected yet",
            )
        site, name = self.facts.get("site"), self.facts.get("node_id")
        if (site, name) != (settings.node.site, settings.node.id):
            yield Finding(
                "settings",
                "warn",
                f"the node that runs is {site}/{name}, these settings are of {settings.node.site}/"
                f"{settings.node.id}",
                "start it anew, so that it reads them: `sudo systemctl --no-block restart "
                "gunfire-node`",
            )

    def _sound_card(self) -> Finding:
        device = self.facts.get("device", "the card")
        if self.facts.get("hears"):
            lost = self.facts.get("lost_samples", 0)
            return Finding("sound card", "pass", f"{device}: heard, {lost} samples lost")
        return Finding("sound card", "warn", f"{device}: not heard yet", "wait, and test again")

    def claps(self, seconds: float) -> Iterator[Mapping[str, Any]]:
        """Give the detections that it makes within so many seconds."""
        since = str(self.facts.get("utc", ""))
        until_s = time.monotonic() + seconds
        seen: set[str] = set()
        while time.monotonic() < until_s:
            time.sleep(POLL_S)
            try:
                facts = LocalStatus.read(self.file).facts
            except StatusError:
                continue  # it may be starting anew
            for detection in facts.get("detections", ()):
                onset = str(detection["onset_utc"])
                if onset > since and onset not in seen:
                    seen.add(onset)
                    yield detection


def hung(settings: Settings) -> Iterator[Finding]:
    """Tell of a node that is there, and has said nothing of itself for longer than a disk takes."""
    try:
        status = LocalStatus.read(settings.health.status_file)
    except StatusError:
        return
    pid = status.facts["pid"]
    if status.runs or outbox_user(settings.outbox.path) != pid:
        return
    figure = f"the node (pid {pid}) hangs: its last word is {duration(status.age_s)} old"
    advice = "`sudo systemctl --no-block restart gunfire-node`, then test again"
    yield Finding("last run", "fail", figure, advice, lit=False)


def _finding(record: Mapping[str, Any]) -> Finding | None:
    """Read a finding back; None where this software knows no such check."""
    name = str(record["name"])
    check = max((c for c in CHECKS if f"{name} ".startswith(f"{c} ")), key=len, default=None)
    if check is None or record["verdict"] not in ("pass", "warn", "fail"):
        return None
    which = name[len(check) :].strip()
    found = Finding(check, record["verdict"], str(record["figure"]), str(record["advice"]), which)
    unlit = record["verdict"] != "pass" and _code(record.get("light")) is Code.WELL
    return replace(found, lit=not unlit)


def _code(light: object) -> Code | None:
    """Read back what a light says; None where this software knows no such code."""
    name = light.get("code") if isinstance(light, dict) else ""
    return Code.__members__.get(str(name).upper())
