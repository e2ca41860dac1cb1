"""A table of claims that is measured in parts, as `make faults` and `make timing` are.

Each part is a module with `measure(tell: Tell) -> Part`.
"""

from __future__ import annotations

import importlib
import os
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure
from rich.console import Console

from tests.evidence import FOLDER, ROOT, Claim, Detail, commit_now, publish, show

SILENT_S: Final = 20.0
"""Between two lines of progress that go into a file."""
COLUMNS: Final = 2
"""Of pictures."""

_DATA: Final = "GUNFIRE_RECORDINGS"

Tell = Callable[[str], None]
"""Told what is being measured, for the progress line."""
Draw = Callable[[Any], None]


@dataclass(frozen=True)
class Part:
    """One part of the table.

    Attributes
    ----------
    claims
        Its rows.
    details
        Tables below the claims.
    draw, draws
        Draw its pictures, each into one matplotlib `Axes`, title and labels included.
    """

    claims: tuple[Claim, ...]
    details: tuple[Detail, ...] = ()
    draw: Draw | None = None
    draws: tuple[Draw, ...] = ()

    @property
    def pictures(self) -> tuple[Draw, ...]:
        """All that draws."""
        return self.draws if self.draw is None else (self.draw, *self.draws)


def run(target: str, description: str | None, names: Sequence[str], note: str) -> None:
    """Measure the modules of tests.<target>, print, write docs/evidence/<target>.json and .png.

    Reads the command line: with `--only`, those parts alone are measured, and nothing is written.
    """
    only = _only(target, description, names, "measure this part; nothing is written")
    measured = only or names
    parts = [_measure(target, name, measured) for name in measured]
    claims = [claim for part in parts for claim in part.claims]
    details = [detail for part in parts for detail in part.details]
    if only:
        show(f"make {target}", claims, details)
        return
    if pictures := [draw for part in parts for draw in part.pictures]:
        _draw(target, pictures)
    publish(target, f"make {target}", claims, note, details)


def run_apart(
    target: str, description: str | None, names: Sequence[str], note: str, *, data: bool = False
) -> list[Claim]:
    """Measure parts that take hours in all: each is written as it ends, with its own commit.

    With `--only`, the rows of those parts alone are renewed. A part that breaks off does not end
    the others; it is told, its rows stay as they were, and the exit code is 1. With `data`, there
    is an option for the folder of recordings, which `recordings_folder` gives.

    Returns
    -------
    What was measured.
    """
    only = _only(target, description, names, "measure this part, and renew its rows alone", data)
    measured, broken = only or names, []
    claims: list[Claim] = []
    for name in measured:
        commit = commit_now()
        try:
            part = _measure(target, name, measured)
        except Exception:
            Console(stderr=True).print_exception()
            broken.append(name)
            continue
        if part.pictures:
            _draw(f"{target}-{name}", part.pictures)
        publish(target, f"make {target}", part.claims, note, part.details, part=name, commit=commit)
        claims += part.claims
    if broken:
        raise SystemExit(f"broke off, and not measured: {', '.join(broken)}")
    return claims


def recordings_folder() -> Path:
    """Give the folder of recordings: beside the project, or as the command line has it."""
    return Path(os.environ.get(_DATA, ROOT.parent / "shared" / "data"))


def _only(
    target: str, description: str | None, names: Sequence[str], what: str, data: bool = False
) -> list[str]:
    package = target.replace("-", "_")
    parser = ArgumentParser(prog=f"python -m tests.{package}", description=description)
    parser.add_argument("--only", choices=names, action="append", help=what)
    if data:
        parser.add_argument("--data", type=Path, help="a folder laid out as shared/data")
    given = parser.parse_args()
    if data and given.data is not None:
        os.environ[_DATA] = str(given.data.resolve())
    return given.only or []


def _measure(target: str, name: str, of: Sequence[str]) -> Part:
    console, silent_until_s = Console(stderr=True), 0.0
    began_s = time.monotonic()
    place = f"{of.index(name) + 1} of {len(of)}: {name}"
    with console.status("starting") as status:

        def tell(what: str) -> None:
            nonlocal silent_until_s
            now_s = time.monotonic()
            line = f"{place}: {what} ({now_s - began_s:.0f} s)"
            status.update(line)
            if not console.is_terminal and now_s >= silent_until_s:
                console.print(line)
                silent_until_s = now_s + SILENT_S

        tell("starting")
        package = target.replace("-", "_")
        part: Part = importlib.import_module(f"tests.{package}.{name}").measure(tell)
    console.print(f"{place}: {time.monotonic() - began_s:.0f} s")
    return part


def _draw(target: str, pictures: Sequence[Draw]) -> None:
    rows = -(-len(pictures) // COLUMNS)
    figure = Figure(figsize=(7 * COLUMNS, 4.2 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for draw, place in zip(pictures, axes, strict=False):
        draw(place)
    for empty in axes[len(pictures) :]:
        empty.set_axis_off()
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / f"{target}.png", dpi=80)
