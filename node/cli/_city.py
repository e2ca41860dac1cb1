"""How `gunfire-node demo --city` shows itself: progress, incidents, truth beside them, a map."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from node.city import City, Lie, Outcome, Played, Verdict, judge, play
from node.city.performance import Watcher
from node.city.streets import LIAR, LIES_S, to_scene
from node.city.verdict import Arrived, place_of
from node.errors import GunfireNodeError
from node.messages import Incident
from node.network.map import Truth, draw, need_matplotlib

_MOVED_M: Final = 5.0
_CLOCK: Final = slice(11, 23)  # hours to milliseconds of an RFC 3339 time


def show(console: Console, scene: Path | None, plot: Path, *, as_json: bool, jsonl: bool) -> bool:
    """Play the city, show it, draw it; say whether all is as it should be."""
    need_matplotlib()
    if not os.access(plot.parent, os.W_OK):
        raise GunfireNodeError(f"{plot}: its folder cannot be written: give another as --plot")
    city = City.load(scene, Lie(LIAR, LIES_S))
    about = city.rendered.scene
    cores = len(os.sched_getaffinity(0))
    console.print(
        f"playing {about.name!r}: {len(city.names)} nodes, each a daemon of its own, "
        f"{about.duration_s:g} s in real time; {city.lie or 'nobody'}"
        f"{', which nobody is told' if city.lie else ' lies'}",
        highlight=False,
        soft_wrap=True,
    )
    with _Progress(console, about.duration_s) as watcher:
        played = play(city, watcher)
    verdict = judge(city, played.start_utc_ns, played.arrived, played.doubts)
    _draw(verdict, played, plot)
    if as_json or jsonl:
        records = [_record(outcome) for outcome in verdict.outcomes]
        end = {
            "holds": verdict.holds,
            "verdict": verdict.sentence,
            "doubts": dict(verdict.doubts),
            "nodes_load_cores": round(played.load, 3),
            "map": str(plot),
        }
        if jsonl:
            for record in [*records, end]:
                click.echo(json.dumps(record))
        else:
            click.echo(json.dumps({"rows": records, **end}, indent=2))
    else:
        console.print(_table(verdict))
    for name, how in sorted(verdict.doubts.items()):
        console.print(f"told of {name}: {how}", highlight=False, soft_wrap=True)
    memory_mib = sum(spent.peak_bytes for spent in played.spent.values()) / 2**20
    console.print(
        f"{len(played.spent)} nodes took {played.load / cores:.0%} of {cores} cores while they "
        f"played, and at most {memory_mib / max(1, len(played.spent)):.0f} MiB each",
        highlight=False,
    )
    console.print(f"the service: {played.report}", highlight=False, soft_wrap=True)
    console.print(f"map: {plot}", highlight=False, soft_wrap=True)
    word = "[bold green]holds[/]" if verdict.holds else "[bold red]does not hold[/]"
    console.print(f"{word}: {verdict.sentence}", highlight=False, soft_wrap=True)
    return verdict.holds


class _Progress(Watcher):
    """A bar while sound is worked out, another while it plays, and incidents above it."""

    def __init__(self, console: Console, duration_s: float) -> None:
        self._console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[at]}"))
        self._bar = Progress(*columns, console=console, transient=True)
        self._live = Live(self._bar, console=console, transient=True, refresh_per_second=4)
        self._duration_s = duration_s
        self._task: TaskID = self._bar.add_task("working out what each node hears", total=1, at="")
        self._playing = False
        self._shown: dict[str, Incident] = {}

    def __enter__(self) -> _Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def rendering(self, share: float) -> None:
        self._bar.update(self._task, completed=share, at=f"{share:.0%}")

    def playing(self, seconds: float) -> None:
        if not self._playing:
            self._playing = True
            self._bar.update(self._task, description="playing", total=self._duration_s)
            self._console.print(
                "incidents as they come from the broker, s from the start; of revisions, the news:"
            )
        self._bar.update(self._task, completed=seconds, at=f"{seconds:.0f} s")

    def incident(self, arrived: Arrived, since_start_s: float) -> None:
        incident = arrived.incident
        if not _is_news(incident, self._shown.get(incident.incident_id)):
            return
        self._shown[incident.incident_id] = incident
        words = _sentence(incident)
        self._console.print(f"{since_start_s:6.2f}  {words}", highlight=False, soft_wrap=True)


def _is_news(incident: Incident, shown: Incident | None) -> bool:
    """Say whether a revision says something else than the one that was shown last."""
    if shown is None or incident.type == "cancel":
        return True
    if (incident.grade, incident.round_count) != (shown.grade, shown.round_count):
        return True
    here, there = place_of(incident), place_of(shown)
    return here is not None and (there is None or math.dist(here, there) > _MOVED_M)


def _sentence(incident: Incident) -> str:
    """Say an incident in one line for people."""
    source = incident.position or incident.local
    spot = place_of(incident)
    rounds = f"{incident.round_count} round{'s' * (incident.round_count > 1)}"
    where = "no place"
    if source is not None and spot is not None:
        ellipse = source.ellipse_95
        where = (
            f"at {spot[0]:+7.1f} {spot[1]:+7.1f} m ± {ellipse.major_m:.1f} × {ellipse.minor_m:.1f}"
        )
    used = sum(witness.used for witness in incident.nodes)
    return (
        f"{incident.incident_id[:4]} {incident.type:<6} {incident.grade.replace('_', ' '):<16} "
        f"{rounds:<9} {where}, fired "
        f"{incident.utc[_CLOCK]}, {used} of {len(incident.nodes)} nodes used"
    )


def _table(verdict: Verdict) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("truth", "at s", "told as"):
        table.add_column(title, no_wrap=True)
    for title in ("off", "95 %", "rounds", "after", "3rd node +", ""):
        table.add_column(title, justify="right", no_wrap=True)
    for outcome in verdict.outcomes:
        sound, incident = outcome.sound, outcome.incident
        source = None if incident is None else incident.position or incident.local
        told = "no incident" if incident is None else incident.grade.replace("_", " ")
        rounds = "" if incident is None else str(incident.round_count)
        if sound is not None and outcome.is_shot:
            rounds = f"{sound.rounds} / {rounds or 0}"
        table.add_row(
            _name(outcome),
            f"{sound.times_s[0]:.1f}" if sound else "",
            told,
            f"{outcome.error_m:.1f} m" if outcome.error_m is not None else "",
            f"{source.ellipse_95.major_m:.1f} × {source.ellipse_95.minor_m:.1f} m"
            if source
            else "",
            rounds,
            f"{outcome.after_s:.2f} s" if outcome.after_s is not None else "",
            f"{outcome.after_third_s:.2f} s" if outcome.after_third_s is not None else "",
            f"[red]✗ {outcome.wrong}[/]" if outcome.wrong else "[green]✓[/]",
        )
    return table


def _name(outcome: Outcome) -> str:
    sound = outcome.sound
    if sound is None:
        return "nothing that was played"
    if sound.label == "gunfire":
        return f"shooting at {sound.place_m[0]:+.0f} {sound.place_m[1]:+.0f}"
    return sound.kind.replace("_", " ")


def _draw(verdict: Verdict, played: Played, plot: Path) -> None:
    city = verdict.city
    names: dict[tuple[float, float], list[str]] = {}
    for sound in city.sounds():
        names.setdefault(sound.place_m, []).append(sound.kind.replace("_", " "))
    shots = {sound.place_m for sound in city.sounds() if sound.label == "gunfire"}
    truth = [
        Truth(place, True) if place in shots else Truth(place, False, ", ".join(kinds))
        for place, kinds in names.items()
    ]
    draw(
        [one.incident for one in played.arrived],
        city.places_m(),
        plot,
        plane=to_scene,
        truth=truth,
        doubts=verdict.doubts,
        title=f"{len(city.names)} simulated nodes, and what they made of it",
    )


def _record(outcome: Outcome) -> dict[str, object]:
    sound, incident = outcome.sound, outcome.incident
    return {
        "truth": None
        if sound is None
        else {
            "kind": sound.kind,
            "label": sound.label,
            "x_m": sound.place_m[0],
            "y_m": sound.place_m[1],
            "times_s": sound.times_s,
        },
        "incident": None if incident is None else incident.model_dump(mode="json", by_alias=True),
        "error_m": outcome.error_m,
        "after_s": outcome.after_s,
        "after_third_node_s": outcome.after_third_s,
        "holds": not outcome.wrong,
        "wrong": outcome.wrong,
    }
