"""`gunfire-node demo`: the main job by itself, truth beside what arrives."""

from __future__ import annotations

import json
import logging
import signal
import sys
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from node.cli._shared import sentence
from node.demo import Outcome, Street, play
from node.messages import Detection

WIDE: Final = 130
"""Characters that a table takes; in a file there is room for it."""


@click.command("demo")
@click.option("--city", is_flag=True, help="Ten nodes, and incidents in place of detections.")
@click.option("--scene", type=click.Path(path_type=Path), help="Another scene (TOML).")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="With --city: where the map goes; ./city.png unless given.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("--jsonl", is_flag=True, help="JSON, a row on each line.")
@click.option("--verbose", is_flag=True, help="Show what the daemon logs.")
def command(
    city: bool, scene: Path | None, plot: Path | None, as_json: bool, jsonl: bool, verbose: bool
) -> None:
    """Play a simulated street through the whole node, in real time.

    The daemon hears it as from a sound card and publishes to a Mosquitto of its own on loopback;
    a subscriber prints what arrives, and at the end the truth beside it. Exit code 0 means: every
    shot was received as gunfire or probable gunfire within 1 ms, and nothing else was.

    With --city it plays to ten nodes, each a daemon in a process of its own; the service that
    locates makes incidents of what they publish, and a map is drawn. One node's clock is a second
    off. Exit code 0 means: every shooting became an incident within 10 m and 2.5 s after the third
    node heard it, with its rounds counted; nothing else did; that node was found out.

    Example: gunfire-node demo --city
    """
    if plot is not None and not city:
        raise click.UsageError("--plot draws a map: it needs --city")
    # Unwind on SIGTERM as on Ctrl-C, so that the broker and the folders go with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL)
    console = Console(stderr=as_json or jsonl)
    if not console.is_terminal:
        console.width = WIDE
    if city:
        # Its parts are of no use to the demo of one node, and take a second to load.
        from node.cli._city import show

        holds = show(console, scene, plot or Path("city.png"), as_json=as_json, jsonl=jsonl)
        sys.exit(0 if holds else 1)
    with console.status("simulating the street"):
        street = Street.load(scene)
    about = street.node.scene
    console.print(
        f"playing {about.name!r}: {about.duration_s:g} s, {street.node.channels} channels, "
        f"{about.sample_rate_hz} Hz, in real time; as it arrives from the broker:"
    )

    def heard(detection: Detection) -> None:
        console.print(sentence(detection), highlight=False, soft_wrap=True)

    outcomes = play(street, heard)
    if jsonl:
        for outcome in outcomes:
            click.echo(json.dumps(_record(outcome)))
    elif as_json:
        click.echo(json.dumps([_record(outcome) for outcome in outcomes], indent=2))
    else:
        console.print(_table(outcomes))
    wrong = [outcome for outcome in outcomes if not outcome.holds]
    shots = sum(o.source is not None and o.source.label == "gunfire" for o in outcomes)
    if wrong:
        console.print(f"[bold red]does not hold[/]: {len(wrong)} of {len(outcomes)} rows")
        sys.exit(1)
    console.print(
        f"[bold green]holds[/]: {shots} of {shots} shots received through the broker as gunfire or "
        "probable gunfire, each within 1 ms; nothing else was"
    )


def _table(outcomes: list[Outcome]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("truth", "label"):
        table.add_column(title)
    for title in (
        "distance",
        "received as",
        "gunfire",
        "onset error",
        "bearing error",
        "after",
        "",
    ):
        table.add_column(title, justify="right")
    for outcome in outcomes:
        source, detection = outcome.source, outcome.detection
        error, latency = outcome.onset_error_s, outcome.latency_s
        bearing = outcome.bearing_error_deg
        table.add_row(
            source.kind.replace("_", " ") if source else "an echo or noise",
            source.label if source else "other",
            f"{outcome.distance_m:.0f} m" if outcome.distance_m is not None else "",
            detection.grade.replace("_", " ") if detection else "not heard",
            f"{detection.scores.gunfire:.2f}" if detection else "",
            f"{error * 1e3:+.3f} ms" if error is not None else "",
            f"{bearing:+.1f}°" if bearing is not None else "",
            f"{latency:.2f} s" if latency is not None else "",
            "[green]✓[/]" if outcome.holds else "[red]✗[/]",
        )
    return table


def _record(outcome: Outcome) -> dict[str, object]:
    detection = outcome.detection
    return {
        "truth": outcome.source.model_dump(mode="json") if outcome.source else None,
        "distance_m": outcome.distance_m,
        "detection": detection.model_dump(mode="json", by_alias=True) if detection else None,
        "onset_error_s": outcome.onset_error_s,
        "bearing_error_deg": outcome.bearing_error_deg,
        "latency_s": outcome.latency_s,
        "holds": outcome.holds,
    }
