"""`gunfire-node check --mount`: the terminal's side of a mounting, step by step."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import click
from rich.console import Console
from rich.text import Text

from node.board.findings import Finding, Verdict, sorted_findings
from node.capture.portaudio import PortAudioSource
from node.check import Report
from node.check.aim import Aim, Side, aim, aim_finding, parse_bearing
from node.check.bounded import Part, failure, together
from node.check.clock import CLOCK_S, clock
from node.check.mount import CLAPS, MountEar, Tap, taps_finding
from node.check.running import RunningNode
from node.check.sending import BROKER_S, broker
from node.check.stand import Stand
from node.cli._findings import MARKS
from node.errors import DeviceError
from node.examine import microphone_findings
from node.settings import Settings

QUIET_S: Final = 11.0
TAP_S: Final = 12.0
CLAPS_S: Final = 45.0
# Until the floor is known, and the order where a pulse proves it.
SETTLE_S: Final = 6.0
LOOK_S: Final = 0.1
COMPASS_DEG: Final = 5.0
DB_PER_MARK: Final = 10.0
MOST_MARKS: Final = 9
LOWEST_DBFS: Final = -90.0


def mount(settings: Settings, source: PortAudioSource, console: Console) -> Report:
    """Guide somebody through a mounting.

    Raises
    ------
    click.UsageError
        There is no terminal to answer at, or the node runs and holds the card.
    """
    if not (console.is_terminal and sys.stdin.isatty()):
        raise click.UsageError(
            "--mount asks at each step, and needs a terminal; without one run `check`, or --clap"
        )
    running = RunningNode.of(settings)
    if running is not None:
        raise click.UsageError(
            f"the node runs (pid {running.pid}) and holds the card: `systemctl stop gunfire-node` "
            "first, and start it again afterwards"
        )
    guide = _Guide(settings, source, console)
    try:
        guide.run()
    except DeviceError as error:
        guide.say(failure("sound card", error))
    return Report(sorted_findings(guide.found), must_exit=source.must_exit)


class Degrees(click.FloatRange):
    """An angle; click takes "nan" for one, which is within any range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Refuse what is no number."""
        degrees = float(super().convert(value, param, ctx))
        if not math.isfinite(degrees):
            self.fail(f"{value!r} is no number of degrees", param, ctx)
        return degrees


def bearing_or_none(heading_deg: float, text: str) -> float | None:
    """Read a bearing; None where nothing was typed.

    Raises
    ------
    click.BadParameter
        It is none: a slip of the finger leaves no claps out, whoever typed it is asked again.
    """
    if not text.strip():
        return None
    bearing_deg = parse_bearing(text, heading_deg)
    if bearing_deg is None:
        raise click.BadParameter(f"{text!r} is neither degrees nor an hour such as 3h")
    return bearing_deg


@dataclass
class _Guide:
    settings: Settings
    source: PortAudioSource
    console: Console
    found: list[Finding] = field(default_factory=list)
    number: int = 0

    def run(self) -> None:
        """Do all steps that this array can do."""
        capture = self.settings.capture
        ear = MountEar(self.settings, self.source.channels, self.source.sample_rate_hz)
        heading_deg = capture.heading_deg if ear.is_point else self._point()
        with Stand(self.source, ear) as stand:
            self.found.append(Finding("sound card", "pass", f"{self.source.device_name}: hears"))
            self._quiet(stand, ear)
            if not ear.is_point:
                order = self._taps(stand, ear)
                if order == "fail":
                    click.echo("   Mend the plugs and begin anew: by claps it would point wrongly")
                else:
                    self._aim(stand, ear, heading_deg, order == "pass")
        self._ask("The sky: give the antenna a free view, then")
        self._test(Part("receiver", "clock and receiver", CLOCK_S, partial(clock, self.settings)))
        self._ask("The broker: connect the network, then")
        self._test(Part("broker", "the broker", BROKER_S, partial(broker, self.settings)))

    def say(self, finding: Finding) -> None:
        """Show a verdict, and keep it."""
        self.found.append(finding)
        mark, style = MARKS[finding.verdict]
        line = Text(f"   {mark} ", style)
        line.append(f"{finding.name}: {finding.figure}", "default not bold")
        self.console.print(line)
        if finding.next_step:
            self.console.print(Text(f"   → {finding.next_step}", "italic"))

    def _ask(self, what: str) -> None:
        self.number += 1
        click.prompt(
            f"{self.number}. {what} press Enter", "", show_default=False, prompt_suffix=" "
        )

    def _point(self) -> float:
        """Have the array levelled and pointed; give where it points."""
        self.number += 1
        click.echo(
            f"{self.number}. Level the array by a spirit level, both ways. Point its mark (the y "
            "axis) by a compass,\n   away from iron; true north is the compass's and the map's "
            "declination (east positive)."
        )
        told: float = click.prompt(
            "   Where does the mark point, in degrees from true north?",
            default=self.settings.capture.heading_deg,
            type=Degrees(-360, 360),
        )
        return told

    def _quiet(self, stand: Stand, ear: MountEar) -> None:
        self._ask("Quiet now, for all microphones to be judged:")
        until_s = time.monotonic() + QUIET_S
        with self.console.status("") as status:
            while (left_s := until_s - time.monotonic()) > 0:
                stand.raise_failure()
                levels = "  ".join(_bar(level) for level in ear.levels_dbfs.tolist())
                status.update(f"{left_s:2.0f} s  {levels}")
                time.sleep(LOOK_S)
        for finding in microphone_findings(ear.watch.states):
            self.say(finding)

    def _taps(self, stand: Stand, ear: MountEar) -> Verdict:
        """Have each microphone tapped; give the verdict on their order."""
        heard: list[int | None] = []
        for k, channel in enumerate(ear.microphones):
            again = True
            while again:
                self._ask(f"Rub capsule {k} (channel {channel}) with a finger, and nothing else:")
                tap = Tap(k)
                stand.tap(tap)
                self._wait(stand, TAP_S, partial(_is_told, tap), f"rub capsule {k}")
                stand.tap(None)
                click.echo(f"   {tap.sentence}")
                again = tap.heard is None and click.confirm("   Once more?", default=True)
            heard.append(tap.heard)
        finding = taps_finding(heard, ear.microphones)
        self.say(finding)
        return finding.verdict

    def _aim(self, stand: Stand, ear: MountEar, heading_deg: float, proven: bool) -> None:
        stand.listen_for_claps(proven)
        sides: list[Side] = []
        for more in ("", " a quarter of a circle further round"):
            bearing_deg = click.prompt(
                f"{self._next()}. Stand{more} 5 m or more from the array, as high as it is. Where, "
                "from the array?\n   Degrees from true north, or an hour of the clock whose 12 is "
                "the mark (3h); nothing leaves this out",
                default="",
                show_default=False,
                value_proc=partial(bearing_or_none, heading_deg),
            )
            if bearing_deg is None:
                break
            claps = self._claps(stand, ear)
            if claps is None:
                break
            sides.append(Side(bearing_deg, claps))
        capture = self.settings.capture
        by_compass = Aim(heading_deg % 360, None, None, COMPASS_DEG)
        found = aim(sides, capture) if sides else by_compass
        finding = aim_finding(found, capture, "claps" if sides else "compass")
        self.say(finding)
        if not found.trouble and finding.verdict != "pass":
            click.echo("\n" + found.toml() + "\n")

    def _claps(self, stand: Stand, ear: MountEar) -> tuple[tuple[float, float | None], ...] | None:
        """Have three claps; None, and a verdict, where they do not come or have no direction."""
        self._wait(stand, SETTLE_S, lambda: False, "wait")
        stand.forget_claps()
        click.echo(f"   Clap {CLAPS} times, a second or two between")
        self._wait(stand, CLAPS_S, lambda: len(ear.claps) >= CLAPS, f"clap {CLAPS} times")
        heard = ear.claps[:CLAPS]
        told = [d.direction for d in heard if d.direction is not None]
        if len(told) == CLAPS:
            return tuple((d.azimuth_deg, d.elevation_deg) for d in told)
        if len(heard) < CLAPS:
            self.say(Finding("clap", "fail", f"{len(heard)} of {CLAPS} claps were heard"))
        else:
            advice = "see the order of the channels above; clap louder, away from walls"
            figure = f"{len(told)} of {CLAPS} claps have a direction"
            self.say(Finding("clap", "fail", figure, advice))
        return None

    def _wait(self, stand: Stand, seconds: float, done: Callable[[], bool], what: str) -> None:
        until_s = time.monotonic() + seconds
        with self.console.status("") as status:
            while (left_s := until_s - time.monotonic()) > 0 and not done():
                stand.raise_failure()
                status.update(f"{what} ({left_s:.0f} s)")
                time.sleep(LOOK_S)

    def _test(self, part: Part) -> None:
        with self.console.status("") as status:
            (run,) = together(
                [part], lambda what, left_s: status.update(f"{what} ({left_s:.0f} s)")
            )
        for finding in run.findings():
            self.say(finding)

    def _next(self) -> int:
        self.number += 1
        return self.number


def _is_told(tap: Tap) -> bool:
    return tap.heard is not None


def _bar(level_dbfs: float) -> str:
    """Show a level as a bar and a figure."""
    level = max(level_dbfs, LOWEST_DBFS)
    full = round((level - LOWEST_DBFS) / DB_PER_MARK)
    return f"{'█' * min(full, MOST_MARKS):<{MOST_MARKS}} {level:.0f}"
