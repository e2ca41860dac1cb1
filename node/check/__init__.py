"""The technician's self-test: each part by itself, with its figure and what to do next.

Composes the ends as the daemon does and asks each for proof: sound, an inference, a message taken
by the broker, a byte on disk. Each part has so many seconds and no more, so that the whole takes
less than a minute whatever is broken. What a node that runs holds, it is asked about instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from node.board import Code
from node.board.findings import Finding, light_code, sorted_findings
from node.capture.portaudio import PortAudioSource
from node.check.bounded import Part, Tell, together
from node.check.clock import CLOCK_S, clock
from node.check.ear import CLAP_DB, Ear, clap_told, no_clap
from node.check.keep import board, disk, model, signing_key, snippets
from node.check.running import RunningNode, hung
from node.check.sending import BROKER_S, broker
from node.examine import finding_record, light_record, setup_findings
from node.settings import Settings

CLAP: Final = "CLAP ONCE, some metres from the array"
"""What whoever tests is told to do."""

__all__ = ["CLAP", "Report", "Tell", "checks"]


@dataclass(frozen=True)
class Report:
    """What a self-test found.

    Attributes
    ----------
    findings
        In the registry's order.
    running
        The node that was asked; None where none runs.
    must_exit
        Whether something hangs, so that only `os._exit` ends the process.
    """

    findings: tuple[Finding, ...]
    running: RunningNode | None = None
    must_exit: bool = False

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(finding.verdict == "fail" for finding in self.findings)

    @property
    def warned(self) -> int:
        """How many are to be looked at."""
        return sum(finding.verdict == "warn" for finding in self.findings)

    @property
    def ready(self) -> bool:
        """Whether the node can do its work."""
        return self.failed == 0

    @property
    def light(self) -> Code:
        """What the light says now, or would for what was found that the node itself knows of."""
        if self.running is not None and self.running.light is not None:
            return self.running.light
        return light_code(f for f in self.findings if f.check not in ("clap", "heading"))

    def record(self) -> dict[str, Any]:
        """Give it as programs read it."""
        return {
            "verdict": "ready" if self.ready else "not_ready",
            "failed": self.failed,
            "to_look_at": self.warned,
            "light": light_record(self.light),
            "running": self.running
            and {"pid": self.running.pid, "uptime_s": self.running.uptime_s},
            "checks": [finding_record(finding) for finding in self.findings],
        }


def checks(settings: Settings, source: PortAudioSource, tell: Tell, clap_s: float = 0.0) -> Report:
    """Test all of a node.

    The ear comes last: a card that vanishes may keep PortAudio, and so this process, for ever.

    Parameters
    ----------
    settings
        Of the node.
    source
        The sound card of these settings, not yet entered.
    tell
        Told what is tested; and, with `clap_s`, to clap.
    clap_s
        So long it waits for a clap, and tells where it came from.
    """
    running = RunningNode.of(settings)
    parts = [
        Part("clock", "clock and receiver", CLOCK_S, partial(clock, settings)),
        Part("model", "the classifier", 20.0, partial(model, settings)),
        Part("disk", "the disk", 10.0, partial(disk, settings)),
        Part("signing key", "the signing key", 5.0, partial(signing_key, settings)),
    ]
    if running is None:
        parts += [
            Part("broker", "the broker", BROKER_S, partial(broker, settings)),
            Part("snippets", "snippets", 5.0, partial(snippets, settings)),
            Part("board", "the board", 6.0, partial(board, settings)),
        ]
    runs = together(parts, tell)
    found = [finding for run in runs for finding in run.findings()]
    if running is None:
        found += setup_findings(settings.health.setup_folder)
        found += hung(settings)
        ear = Ear(settings, source, clap_s)

        def tell_or_ask(what: str, left_s: float) -> None:
            tell(CLAP if ear.waits_for_clap else what, left_s)

        about = "the sound card and its microphones: keep quiet"
        part = Part("sound card", about, ear.seconds, ear.find)
        (run,) = together([part], tell_or_ask)
        runs.append(run)
        found += run.findings()
    else:
        if clap_s:
            found.append(_clap_by(running, clap_s, tell, settings.capture.array != "mono"))
        asked, running = running, RunningNode.of(settings)
        if running is None:
            found.append(asked.ended)
        else:
            found += running.findings(settings)
    hangs = source.must_exit or any(run.hangs for run in runs)
    return Report(sorted_findings(found), running, hangs)


def _clap_by(running: RunningNode, seconds: float, tell: Tell, has_array: bool) -> Finding:
    """Have the running node hear a clap."""
    tell(CLAP, seconds)
    heard = None
    for detection in running.claps(seconds):
        if detection["snr_db"] < CLAP_DB:
            continue
        heard = detection
        if detection["direction"] is not None or not has_array:
            break
    if heard is None:
        return no_clap(seconds)
    return clap_told(heard["direction"], heard["snr_db"], has_array)
