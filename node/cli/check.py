"""`gunfire-node check`: one screen for the technician."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import click
from rich.console import Console, Group, RenderableType
from rich.text import Text

from node.board.findings import Finding
from node.capture.chatter import hush
from node.capture.portaudio import PortAudioSource
from node.check import CLAP, Report, Tell, checks
from node.cli import STOPPED
from node.cli._findings import findings_table, light_words
from node.cli._mount import mount
from node.cli._shared import config_file
from node.examine import light_record
from node.settings import load

CLAP_S: Final = 20.0


@click.command("check")
@config_file
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a screen.")
@click.option("--clap", is_flag=True, help="Wait for a clap, and tell where it came from.")
@click.option("--mount", "guided", is_flag=True, help="Guide through a mounting, step by step.")
def command(path: Path | None, as_json: bool, clap: bool, guided: bool) -> None:
    """Test card, microphones, clock, receiver, model, disk, key, broker and board; READY or not.

    Takes some 20 seconds, never more than a minute, and with --clap up to 20 seconds more. While
    the node runs it is not stopped: it is asked for what it knows of its card, board and broker.

    With --mount, for whoever stands on the ladder: level, quiet, a finger on each capsule, claps
    from a side that is told, sky, broker; each with one thing to do and one verdict.

    Each line says pass, warn or FAIL, the figure, and what to do. Exit code 1 if anything failed.

    Example: gunfire-node check --config gunfire-node.toml
    """
    if as_json and guided:
        raise click.UsageError("--mount asks and tells people; give it without --json")
    settings = load(path).settings
    source = PortAudioSource(settings.capture)
    if not (as_json or guided):  # a prompt is printed by the C library, too
        hush()  # PortAudio prints lines of its source on what our screen says in words
    try:
        if guided:
            report = mount(settings, source, Console())
        else:
            with progress(Console(stderr=True)) as tell:
                report = checks(settings, source, tell, CLAP_S if clap else 0.0)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\ngunfire-node: stopped; nothing was changed", err=True)
        leave(STOPPED, at_once=True)  # what is under way on other threads is left behind
    if as_json:
        click.echo(json.dumps(report.record(), indent=2))
    else:
        Console().print(screen(report))
    leave(0 if report.ready else 1, at_once=report.must_exit)


def leave(code: int, *, at_once: bool) -> NoReturn:
    """End; at once where something hangs: PortAudio never lets go of a card that has vanished."""
    if at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@contextmanager
def progress(console: Console) -> Iterator[Tell]:
    """Show what is tested, and how long it takes at most; in a file, what people must do alone."""
    if not console.is_terminal:
        told: set[str] = set()

        def note(what: str, _left_s: float) -> None:
            if what == CLAP and what not in told:
                told.add(what)
                console.print(what)

        yield note
        return
    with console.status("starting") as status:
        yield lambda what, left_s: status.update(f"{what} ({left_s:.0f} s at most)")


def screen(report: Report) -> RenderableType:
    """Lay a report out: a line for each check, and the verdict below them."""
    table = findings_table(folded(report.findings))
    head = [Text(f"{report.running.sentence} of card, board and broker")] if report.running else []
    return Group(*head, table, verdict(report))


def folded(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Put the microphones that are well into one line, with their levels."""
    well = [f for f in findings if f.check == "microphone" and f.verdict == "pass"]
    for finding in findings:
        if finding in well:
            continue
        if finding.check == "microphones" and well:
            levels = ", ".join(f.figure.split()[0] for f in well)
            yield Finding(
                finding.check, finding.verdict, f"{finding.figure}; {levels} dBFS", finding.advice
            )
            continue
        yield finding


def verdict(report: Report) -> RenderableType:
    """Say whether the node is ready, and what its light says."""
    counts = [f"{report.failed} failed"] if report.failed else []
    counts += [f"{report.warned} to look at"] if report.warned else []
    what, style = (
        ("READY", "bold white on green") if report.ready else ("NOT READY", "bold white on red")
    )
    if report.ready and report.warned:
        style = "bold black on yellow"
    line = Text(f" {what} ", style)
    line.append(f" {', '.join(counts)}" if counts else "", "bold")
    when = "now" if report.running else "once the node runs"
    return Group(line, Text(f"light {when}: {light_words(light_record(report.light))}"))
