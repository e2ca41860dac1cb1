"""What several commands share: options, progress, and how a detection reads on a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from node.capture import RecordingSource
from node.errors import GunfireNodeError
from node.messages import Detection
from node.messages.fields import TOPIC_LEVEL
from node.utc import parse_utc_ns

config_file = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings (TOML); /etc/gunfire-node/gunfire-node.toml if it exists.",
)

recordings = click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)


class Utc(click.ParamType[int]):
    """A moment as RFC 3339, to the nanosecond."""

    name = "UTC"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Give ns since 1970."""
        if isinstance(value, int):
            return value
        try:
            return parse_utc_ns(value)
        except ValueError as error:
            self.fail(f"{error}; such as 2026-11-22T20:15:00.000Z", param, ctx)


@contextmanager
def progress(total_s: float, what: str) -> Iterator[Any]:
    """Show a bar on standard error, if that is a terminal; yields advance(seconds)."""
    from rich.console import Console  # the daemon, which shares this file, has no use for it
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(what, total=total_s)
        yield lambda seconds: bar.advance(task, seconds)


def total_s(files: tuple[Path, ...]) -> float:
    """Give the length of recordings by their headers; those that cannot be read count nothing."""
    total = 0.0
    for file in files:
        try:
            source = RecordingSource(file)
        except GunfireNodeError:
            continue  # told when its turn comes
        total += source.frames / source.sample_rate_hz
    return total


class Level(click.ParamType[str]):
    """One level of a topic; with `wildcard`, '+' too."""

    name = "NAME"

    def __init__(self, *, wildcard: bool = False) -> None:
        self._wildcard = wildcard

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what is no level of a topic."""
        if not (self._wildcard and value == "+") and not re.fullmatch(TOPIC_LEVEL, value):
            self.fail(f"{value!r} is not a name: letters, digits, '.', '_' and '-'", param, ctx)
        return str(value)


class Failures:
    """Goes on with the other files when one is bad, tells each, and ends with exit code 2."""

    def __init__(self) -> None:
        self.count = 0

    def tell(self, error: GunfireNodeError) -> None:
        """Print one line for each thing that was wrong."""
        self.count += 1
        for line in str(error).splitlines():
            click.echo(f"gunfire-node: {line}", err=True)

    def exit(self) -> None:
        """Leave with 2 if anything was told."""
        if self.count:
            sys.exit(2)


def printable(text: str) -> str:
    """Put a mark for what could steer a terminal: messages are written by others."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def sentence(detection: Detection) -> str:
    """Say a detection in one line for people."""
    scores = detection.scores
    least = "≥ " if detection.round_count_is_minimum else ""
    rounds = f"{least}{detection.round_count} round{'s' * (detection.round_count > 1)}"
    if detection.cadence_rpm is not None:
        rounds += f" at {detection.cadence_rpm:.0f}/min"
    again = f", revision {detection.revision}" if detection.revision else ""
    return (
        f"{detection.onset_utc[:-4]}Z  {detection.node_id:<18} "
        f"{detection.grade.replace('_', ' '):<16} "
        f"gunfire {scores.gunfire:.2f}  fireworks {scores.fireworks:.2f}  "
        f"backfire {scores.backfire:.2f}  other {scores.other:.2f}  "
        f"{rounds}, {detection.rounds[0].snr_db:.0f} dB, ±{detection.rounds[0].sigma_s:.2g} s"
        f"{_bearing(detection)}{again}"
    )


def _bearing(detection: Detection) -> str:
    direction = detection.direction
    if direction is None:
        return ""
    height = "" if direction.elevation_deg is None else f" el {direction.elevation_deg:+.1f}°"
    return f", from {direction.azimuth_deg:.1f}°{height} ±{direction.sigma_deg:.1f}°"
