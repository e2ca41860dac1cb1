"""The registry of checks: what is looked at on a node, in the order in which a sound passes.

One list for `gunfire-node check`, `status`, the health message, the metrics and the light: each
check has a name, and for each verdict what the light says and what to do next. In come figures
from whoever measured; out goes a state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from node.board.light import Code, gravest

Verdict = Literal["pass", "warn", "fail"]
Condition = Literal["ok", "degraded", "failed"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is looked at.

    Attributes
    ----------
    name
        The same wherever it is told.
    about
        What is looked at, in a few words.
    warn, fail
        What the light says for each of the verdicts that are not `pass`.
    advice
        What to do next, where whoever measured knows no better.
    """

    name: str
    about: str
    warn: Code
    fail: Code
    advice: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found: verdict, figure, and the next step where there is one.

    `which` tells apart several of one check, such as the microphones by their channels. What is not
    `lit` the light of a node that runs does not say: it is for whoever sets the node up.
    """

    check: str
    verdict: Verdict
    figure: str
    advice: str = ""
    which: str = ""
    lit: bool = True

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"{self.check!r} is no check of the registry")

    @property
    def name(self) -> str:
        """The check's name, and which of several it is."""
        return f"{self.check} {self.which}".rstrip()

    @property
    def code(self) -> Code:
        """What the light says for this."""
        check = CHECKS[self.check]
        if not self.lit:
            return Code.WELL
        return {"pass": Code.WELL, "warn": check.warn, "fail": check.fail}[self.verdict]

    @property
    def next_step(self) -> str:
        """What to do; nothing where all is well."""
        return "" if self.verdict == "pass" else self.advice or CHECKS[self.check].advice


_CHECKS: Final = (
    Check(
        "settings",
        "the file of settings",
        Code.SETTINGS,
        Code.SETTINGS,
        "mend the line that is named; `gunfire-node config check` reads it again",
    ),
    Check(
        "last run",
        "how the run before ended",
        Code.BOARD,
        Code.BOARD,
        "if it comes again, look at `journalctl -u gunfire-node` and at the power supply",
    ),
    Check(
        "sound card",
        "whether the card is there and delivers every sample",
        Code.SOUND_CARD,
        Code.SOUND_CARD,
        "check its cable and power, and capture.device",
    ),
    Check(
        "samples",
        "whether every sample of the card arrives",
        Code.BOARD,
        Code.BOARD,
        "check cable and power of the sound card, and the load of this machine",
    ),
    Check(
        "microphone",
        "each microphone by itself",
        Code.MICROPHONE,
        Code.MICROPHONE,
        "check its plug, its cable and its supply",
    ),
    Check(
        "microphones",
        "whether any of them can be heard with",
        Code.MICROPHONES,
        Code.MICROPHONES,
        "check the supply of the microphones and the card's gain",
    ),
    Check(
        "channel order",
        "whether each channel is the microphone that the array says",
        Code.MICROPHONE,
        Code.MICROPHONE,
        "what proves the order, without which no direction is told: docs/do/wire-a-node.md",
    ),
    Check(
        "clap",
        "whether a clap is heard, and where from",
        Code.MICROPHONE,
        Code.MICROPHONE,
        "clap louder or nearer; see what is said of card and microphones",
    ),
    Check(
        "heading",
        "where the array points, by claps from a known side",
        Code.MICROPHONE,
        Code.MICROPHONE,
        "mend capture.heading_deg: docs/do/mount-a-node.md",
    ),
    Check(
        "card rate",
        "how fast the card's clock runs",
        Code.CLOCK,
        Code.CLOCK,
        "is capture.sample_rate_hz one that the card can do?",
    ),
    Check(
        "pulse",
        "the receiver's pulse in its channel of the card",
        Code.NO_PULSE,
        Code.NO_PULSE,
        "check the receiver's pulse output, its cable and attenuator",
    ),
    Check(
        "receiver",
        "the GNSS receiver, through gpsd",
        Code.RECEIVER,
        Code.RECEIVER,
        "check gpsd's service, timing.gpsd, the antenna and its view of the sky",
    ),
    Check(
        "receiver pulse",
        "the receiver's pulse, as gpsd or the kernel sees it",
        Code.NO_PULSE,
        Code.NO_PULSE,
        "see docs/do/discipline-the-clock.md, or `ppstest /dev/pps0`",
    ),
    Check(
        "clock",
        "what disciplines the host's clock",
        Code.CLOCK,
        Code.CLOCK,
        "set up chrony, or connect a GPS receiver: docs/do/discipline-the-clock.md",
    ),
    Check(
        "second opinion",
        "what other servers say of the time",
        Code.CLOCK,
        Code.CLOCK,
        "check the server's name and the network; of two that differ see `chronyc sources`",
    ),
    Check(
        "position",
        "where the receiver says that the node stands",
        Code.RECEIVER,
        Code.RECEIVER,
        "mend node.position, or take it out",
    ),
    Check(
        "model",
        "the classifier, by an inference",
        Code.MODEL,
        Code.MODEL,
        "install the shipped model again: take classify.model out of the settings",
    ),
    Check(
        "outbox",
        "whether what is heard becomes durable",
        Code.STORE,
        Code.DISK,
        "free some space, and see that the disk can be written",
    ),
    Check(
        "disk",
        "room and permission where the outbox is",
        Code.STORE,
        Code.DISK,
        "free some space, or make the folder of outbox.path writable for this user",
    ),
    Check(
        "signing key",
        "the key that detections are signed with, and its certificate",
        Code.STORE,
        Code.KEY,
        "see docs/do/verify-a-log.md",
    ),
    Check(
        "broker",
        "whether the broker lets this node in and takes what it publishes",
        Code.NO_BROKER,
        Code.NO_BROKER,
        "check mqtt.url, the network, and the broker",
    ),
    Check(
        "certificate",
        "whether the certificates that the broker is spoken to with hold for long",
        Code.STORE,
        Code.STORE,
        "put a new one in its place, it is taken up without a restart",
    ),
    Check(
        "enrolment",
        "whether the fleet's authority knows this node (nodes flashed with the image)",
        Code.NO_BROKER,
        Code.KEY,
        "see docs/do/flash-a-node.md",
    ),
    Check(
        "update",
        "how the last update of the program went (nodes flashed with the image)",
        Code.STORE,
        Code.STORE,
        "see docs/do/update-a-fleet.md",
    ),
    Check(
        "snippets",
        "whether sound leaves this node",
        Code.STORE,
        Code.STORE,
        "see docs/do/switch-on-snippets.md",
    ),
    Check(
        "memory",
        "what this run of the node has in memory",
        Code.STORE,
        Code.STORE,
        "`sudo systemctl --no-block restart gunfire-node`, and report it: it should not grow",
    ),
    Check(
        "power",
        "the supply, as the board sees it",
        Code.BOARD,
        Code.BOARD,
        "use a stronger supply, or a shorter and thicker cable",
    ),
    Check(
        "temperature",
        "of the enclosure, where a thermometer is fitted, and of the processor",
        Code.BOARD,
        Code.BOARD,
        "give the enclosure shade and air, or heat",
    ),
    Check(
        "enclosure",
        "the tamper switch",
        Code.BOARD,
        Code.BOARD,
        "see who was at the node, and close it",
    ),
    Check(
        "board",
        "light, button and switch",
        Code.BOARD,
        Code.BOARD,
        "check the pins in [board] and the wiring: docs/do/wire-a-node.md",
    ),
    Check(
        "metrics",
        "whether Prometheus can read this node",
        Code.STORE,
        Code.STORE,
        "see health.metrics",
    ),
    Check(
        "maintenance",
        "whether somebody works at the node",
        Code.MAINTENANCE,
        Code.MAINTENANCE,
        "it ends by itself; hold the button again to end it now",
    ),
)
CHECKS: Final[dict[str, Check]] = {check.name: check for check in _CHECKS}
"""By name, in the order in which they are told."""
_ORDER: Final = {name: number for number, name in enumerate(CHECKS)}


def sorted_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Put findings into the registry's order."""
    return tuple(sorted(findings, key=lambda f: (_ORDER[f.check], f.which)))


def condition(findings: Iterable[Finding]) -> Condition:
    """Give the worst that was found: failed, degraded or ok."""
    verdicts = {finding.verdict for finding in findings}
    return "failed" if "fail" in verdicts else "degraded" if "warn" in verdicts else "ok"


def light_code(findings: Iterable[Finding]) -> Code:
    """Give what the one light says of them all: the gravest fault, or that all is well.

    Maintenance goes before what does not keep the node from hearing: whoever is at the node knows
    what they are doing to it.
    """
    codes = {finding.code for finding in findings}
    fault = gravest(codes)
    return Code.MAINTENANCE if Code.MAINTENANCE in codes and fault.long < 2 else fault


class Book:
    """What is known of a node now: the latest finding of each check."""

    def __init__(self) -> None:
        self._findings: dict[tuple[str, str], Finding] = {}

    def write(self, finding: Finding) -> None:
        """Take a finding in place of the one before."""
        self._findings[finding.check, finding.which] = finding

    def warn(self, check: str, figure: str, advice: str = "") -> None:
        """Write that something is wrong that does not keep the node from hearing."""
        self.write(Finding(check, "warn", figure, advice))

    def fail(self, check: str, figure: str, advice: str = "") -> None:
        """Write that something keeps the node from hearing, judging or keeping."""
        self.write(Finding(check, "fail", figure, advice))

    def settle(self, check: str, figure: str = "", which: str = "") -> None:
        """Write that a check is well, or with no figure that nothing is known of it."""
        if figure:
            self.write(Finding(check, "pass", figure, which=which))
        else:
            self._findings.pop((check, which), None)

    def judge(self, check: str, reason: str, figure: str = "") -> None:
        """Write a warning where there is a reason for one, else the figure."""
        if reason:
            self.warn(check, reason)
        else:
            self.settle(check, figure)

    def says(self, check: str) -> str:
        """Give what is wrong with a check; nothing where nothing is."""
        finding = self._findings.get((check, ""))
        return "" if finding is None or finding.verdict == "pass" else finding.figure

    def __iter__(self) -> Iterator[Finding]:
        """Give all, in the registry's order; also on another thread than writes."""
        return iter(sorted_findings(self._findings.copy().values()))

    def wrong(self) -> tuple[Finding, ...]:
        """Give those that are not well, the worst first."""
        return tuple(
            sorted((f for f in self if f.verdict != "pass"), key=lambda f: f.verdict != "fail")
        )
