"""`gunfire-node status`: what this node knows now."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from node.cli._findings import light_words, records_table
from node.cli._shared import config_file
from node.errors import StatusError
from node.settings import load
from node.status import LocalStatus, duration

AGAIN_S: Final = 1.0
MOST_SHOWN: Final = 8


@click.command("status")
@config_file
@click.option("--watch", "-w", is_flag=True, help="Go on, a new look each second, until Ctrl-C.")
@click.option("--why", is_flag=True, help="What nearly fired, and what was heard and rejected.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a screen.")
def command(path: Path | None, watch: bool, why: bool, as_json: bool) -> None:
    """Show what the node that runs here knows of itself, each second anew with --watch.

    Exit code 0 if it hears and nothing failed, 1 otherwise, 2 if no node runs here.

    Example: gunfire-node status --watch
    """
    file = load(path).settings.health.status_file
    status = LocalStatus.read(file)
    if as_json:
        click.echo(json.dumps(status.facts))
        with suppress(KeyboardInterrupt):
            while watch:
                time.sleep(AGAIN_S)
                with suppress(StatusError):  # it may be starting anew
                    status = LocalStatus.read(file)
                    click.echo(json.dumps(status.facts))
    elif watch and sys.stdout.isatty():
        with Live(screen(status, why), screen=True, auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(AGAIN_S)
                    try:
                        status = LocalStatus.read(file)
                        live.update(screen(status, why), refresh=True)
                    except StatusError as error:  # it may be starting anew
                        live.update(Text(str(error)), refresh=True)
            except KeyboardInterrupt:
                pass
    else:
        console = Console()
        console.print(screen(status, why))
        with suppress(KeyboardInterrupt):
            while watch:  # into a pipe or a file: look after look, each as it comes
                time.sleep(AGAIN_S)
                try:
                    status = LocalStatus.read(file)
                    console.print(screen(status, why))
                except StatusError as error:
                    console.print(Text(str(error)))
    sys.exit(0 if status.well else 1)


def screen(status: LocalStatus, why: bool) -> RenderableType:
    """Lay a status out for a terminal; with `why`, what nearly fired and what was rejected.

    Raises
    ------
    StatusError
        It was not written by a node of this version.
    """
    try:
        return _screen(status, why)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise StatusError(
            "the status is of another version of gunfire-node: start the node anew"
        ) from None


def _screen(status: LocalStatus, why: bool) -> RenderableType:
    facts = status.facts
    colour = "green" if status.well and facts["condition"] == "ok" else "bold red"
    if status.well and (facts["condition"] == "degraded" or not status.fresh):
        colour = "yellow"
    head = Text(f"{facts['node_id']} at {facts['site']}: ")
    head.append(status.headline, style=colour)
    lines: list[RenderableType] = [
        head,
        Text(
            f"up {duration(facts['uptime_s'])}, {facts['utc'][:19]}Z by {facts['clock']['source']} "
            f"± {facts['clock']['sigma_s']:.2g} s, firmware {facts['firmware']}, "
            f"light {light_words(facts['light'])}"
        ),
        records_table(facts["checks"]),
    ]
    heard = facts.get("detections", [])
    lines.append(Text(f"heard last ({len(heard)} kept):" if heard else "nothing heard yet"))
    # Only an array has an order of channels.
    array = any(check["name"] == "channel order" for check in facts["checks"])
    lines += [Text(f"  {_detection(detection, array)}") for detection in heard[-MOST_SHOWN:]]
    if why:
        near = facts.get("near_misses", [])
        lines.append(Text("what did not fire, and why:" if near else "nothing nearly fired"))
        lines += [Text(f"  {miss['utc'][:23]}Z  {miss['sentence']}") for miss in near]
    return Group(*lines)


def _detection(detection: dict[str, Any], array: bool) -> str:
    direction = detection.get("direction")
    bearing = ", no direction" if array else ""
    if direction:
        bearing = f", from {direction['azimuth_deg']:.0f}°"
    scores, count = detection["scores"], detection["round_count"]
    return (
        f"{detection['onset_utc'][:23]}Z  {detection['grade'].replace('_', ' '):<16} "
        f"gunfire {scores['gunfire']:.2f}, {count} round{'s' * (count > 1)}{bearing}"
    )
