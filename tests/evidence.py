"""Tables of claims: print one, keep it in docs/evidence/, and the page that shows them all.

Each `make` target of the design's "Evidence" ends in `publish`.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "docs" / "evidence"
PAGE: Final = ROOT / "docs" / "look-up" / "evidence.md"
WIDTH: Final = 160
"""Columns of what is printed into a file."""
PACKAGES: Final = ("gunfire-node", "numpy", "scipy", "soundfile", "paho-mqtt", "pydantic")


@dataclass(frozen=True)
class Claim:
    """One row: what is claimed, the figure measured, its unit, the bar, whether it holds.

    A figure that no bar was set for has none, and holds by itself. `interval` holds it by 95 %,
    where that was worked out.
    """

    claim: str
    value: float
    unit: str
    bar: str = ""
    holds: bool = True
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Detail:
    """A table below the claims: what they are made of, in words and figures as they are shown."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def publish(
    target: str,
    command: str,
    claims: Sequence[Claim],
    note: str = "",
    details: Sequence[Detail] = (),
    *,
    part: str = "",
    commit: str = "",
) -> None:
    """Print a table, write docs/evidence/<target>.json, renew docs/look-up/evidence.md.

    With `part`, the table is that of one part of the target, measured by itself (at `commit`; this
    one by default); the others' stay as they are. Where another command than the target's own
    measures it, it has that command and the note to itself.
    """
    measured: dict[str, Any] = {
        "commit": commit or commit_now(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "machine": f"{platform.machine()}, {platform.system()}",
        "claims": [_record(claim) for claim in claims],
    }
    if details:
        measured["details"] = [asdict(detail) for detail in details]
    record = {"target": target, "command": command, "note": note}
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{target}.json"
    if part:
        known = json.loads(file.read_text("utf-8")) if file.exists() else {"parts": {}}
        if command != f"make {target}":
            measured |= {"command": command, "note": note}
            record |= {"command": f"make {target}", "note": known.get("note", "")}
        record["parts"] = known["parts"] | {part: measured}
    else:
        record |= measured
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(page(), "utf-8")
    show(f"{command}: {part}" if part else command, claims, details)


def show(command: str, claims: Sequence[Claim], details: Sequence[Detail] = ()) -> None:
    """Print a table of claims, and the tables below it."""
    table = Table(*_columns(claims), title=command, title_justify="left")
    for claim in claims:
        holds = "[green]yes[/]" if claim.holds else "[bold red]NO[/]"
        cells = _cells(_record(claim), len(table.columns))[:-1]
        table.add_row(*map(escape, cells), holds)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    for detail in details:
        below = Table(*detail.columns, title=detail.title, title_justify="left")
        for row in detail.rows:
            below.add_row(*map(escape, row))
        console.print(below)


def page() -> str:
    """Make docs/look-up/evidence.md from the files in docs/evidence/."""
    parts = [
        "# Evidence\n",
        "Every figure that we claim, with the command that regenerates it. `make report` puts it "
        "all into one page of HTML to hand on, with what falls short at its head. This page is "
        "made from `docs/evidence/*.json`; do not edit it.\n",
    ]
    for file in sorted(FOLDER.glob("*.json")):
        record = json.loads(file.read_text("utf-8"))
        parts.append(f"## {record['target']}\n")
        if "parts" in record:
            parts.append(f"`{record['command']}`; its parts can be measured one by one.\n")
            parts.append(record["note"] + "\n")
        for name, measured in record.get("parts", {"": record}).items():
            level, command = "###", record["command"]
            if name:
                parts.append(f"### {name}\n")
                package = record["target"].replace("-", "_")
                one_by_one = f"python -m tests.{package} --only {name}"
                level, command = "####", measured.get("command", one_by_one)
            parts.append(_measured_by(command, measured))
            if measured.get("note"):
                parts.append(measured["note"] + "\n")
            claims = measured["claims"]
            columns = _columns([Claim(**claim) for claim in claims])
            parts.append(_markdown(columns, [_cells(claim, len(columns)) for claim in claims]))
            picture = file.with_name(f"{file.stem}-{name}.png" if name else f"{file.stem}.png")
            if picture.exists():
                parts.append(f"![{record['target']}](../evidence/{picture.name})\n")
            for detail in measured.get("details", ()):
                parts.append(f"{level} {detail['title']}\n")
                parts.append(_markdown(detail["columns"], detail["rows"]))
    return "\n".join(parts)


def _measured_by(command: str, measured: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in measured["versions"].items())
    return f"`{command}` at commit `{measured['commit']}` ({measured['machine']}; {versions})\n"


def _record(claim: Claim) -> dict[str, Any]:
    """Give a claim as it is kept: without an interval where there is none."""
    known = {key: value for key, value in asdict(claim).items() if value is not None}
    return known | {"value": float(claim.value), "holds": bool(claim.holds)}


def _columns(claims: Sequence[Claim]) -> tuple[str, ...]:
    interval = ("95 %",) if any(claim.interval for claim in claims) else ()
    return ("claim", "value", *interval, "unit", "bar", "holds")


def _cells(claim: dict[str, Any], columns: int) -> list[str]:
    low_high = [figure(end) for end in claim.get("interval", ())]
    interval = ["–".join(low_high)] if columns == len(_columns(())) + 1 else []
    holds = "yes" if claim["holds"] else "**no**"
    value = figure(claim["value"])
    return [claim["claim"], value, *interval, claim["unit"], claim["bar"] or "–", holds]


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    right = ("value", "95 %")
    ruler = "|".join("---:" if column in right else "---" for column in columns)
    lines = ["| " + " | ".join(columns) + " |", f"|{ruler}|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def figure(value: float) -> str:
    """Write a figure as the tables show it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def commit_now() -> str:
    """Name the commit that is checked out, and say if what is measured differs from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    measured = ("node", "models", "provisioning", "systemd", "tests")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *measured)
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")
