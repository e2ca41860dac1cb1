"""Faults planted in a good node, one at a time: what `gunfire-node check` says of each.

Each fault has its line, its verdict, a word of its next step, and what the light says; no other
line may fail or warn but those that the fault itself makes wrong. Then the guided mounting, with
its plugs as they should be and exchanged.
"""

from __future__ import annotations

import math
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Final

from tests.evidence import Claim, Detail
from tests.hil.virtual_card import build_plugin
from tests.parts import Part, Tell
from tests.units import guided
from tests.units.good_node import Bench, Checked
from tests.units.planted_faults import FAULTS, Fault
from tests.units.surroundings import Surroundings, surroundings

AT_ONCE: Final = 2
LONGEST_BAR_S: Final = 60.0
HEADING_BAR_DEG: Final = 2.0
EXCHANGED: Final = (0, 2, 1, 3)


def planted(fault: Fault | None, folder: Path, around: Surroundings) -> Checked:
    """Check a node with a fault in it; with None, a good one."""
    folder.mkdir(parents=True)
    bench = Bench(folder, around)
    if fault is not None:
        fault.plant(bench)
    return bench.check()


def good(done: Checked) -> list[str]:
    """Say what is wrong with the answer for a good node."""
    wrong = [f"{name}: {line['figure']}" for name, line in done.wrong.items()]
    if done.code != 0 or done.report.get("verdict") != "ready" or done.light != (0, 0):
        wrong.append(f"ended with {done.code}, light {done.light}: {done.stderr[-300:]}")
    return wrong


def measure(tell: Tell) -> Part:
    """Plant each, two nodes at a time."""
    rows, longest_s, right, well = [], 0.0, 0, True
    with tempfile.TemporaryDirectory(prefix="gunfire-planted-") as scratch:
        folder, numbers = Path(scratch), count(1)
        plugin = build_plugin(folder)
        with (
            surroundings(folder, plugin) as around,
            ThreadPoolExecutor(AT_ONCE, "planted") as pool,
        ):

            def one(fault: Fault | None) -> tuple[Fault | None, Checked]:
                tell(fault.name if fault else "a good node")
                return fault, planted(fault, folder / f"node-{next(numbers)}", around)

            for fault, done in pool.map(one, (None, *FAULTS)):
                longest_s = max(longest_s, done.seconds)
                complaints = good(done) if fault is None else list(fault.complaints(done))
                if fault is None:
                    well = not complaints
                else:
                    right += not complaints
                rows.append(_row(fault, done, complaints))
            tell("two guided mountings")
            well_plugged, exchanged = pool.map(
                lambda number: _mounting(number, folder, around), range(2)
            )
    off_deg = _heading_error_deg(well_plugged)
    told = "1 in channel 2, 2 in channel 1" in exchanged and "NOT READY" in exchanged
    claims = (
        Claim(f"planted faults that check tells rightly, of {len(FAULTS)}", right, "faults",
              "all", right == len(FAULTS)),
        Claim("a good node passes check without a warning", float(well), "", "1", well),
        Claim("longest check, whatever is broken", longest_s, "s", f"≤ {LONGEST_BAR_S:g}",
              longest_s <= LONGEST_BAR_S),
        Claim("guided mounting: heading by claps from two sides, error", off_deg, "°",
              f"≤ {HEADING_BAR_DEG:g}", off_deg <= HEADING_BAR_DEG),
        Claim("guided mounting: exchanged plugs told by a finger on each capsule", float(told), "",
              "1", told),
    )  # fmt: skip
    columns = ("fault", "line", "verdict", "figure", "next step", "light", "s", "as it should be")
    return Part(claims, (Detail("Faults planted in a node", columns, tuple(rows)),))


def _mounting(number: int, folder: Path, around: Surroundings) -> str:
    """Have a node mounted, the second with exchanged plugs; give what the terminal showed."""
    plugs, answers = (
        (EXCHANGED, guided.WITHOUT_CLAPS) if number else ((0, 1, 2, 3), guided.MOUNTING)
    )
    bench = guided.bench(folder / f"mounting-{number}", around, plugs)
    return guided.guided(bench, answers)[1]


def _heading_error_deg(said: str) -> float:
    found = re.search(r"^heading_deg = ([-\d.]+)", said, re.MULTILINE)
    return abs(float(found[1]) - guided.HEADING_DEG) if found else math.inf


def _row(fault: Fault | None, done: Checked, complaints: list[str]) -> tuple[str, ...]:
    name = "none" if fault is None else fault.name
    line = done.lines.get(fault.line) if fault is not None else None
    as_told = "; ".join(complaints) or "yes"
    seconds, flashes = f"{done.seconds:.0f}", "{} long, {} short".format(*done.light)
    if line is None:
        said = done.stderr.strip().splitlines()[-1:] or [str(done.report.get("verdict"))]
        return (name, "", f"exit code {done.code}", _plain(said[0]), "", "", seconds, as_told)
    return (name, line["name"], line["verdict"], _plain(line["figure"]), _plain(line["advice"]),
            flashes, seconds, as_told)  # fmt: skip


def _plain(text: str) -> str:
    """Leave out this machine's scratch folders, and what a table of Markdown cannot hold."""
    words = [Path(w).name if w.startswith(tempfile.gettempdir()) else w for w in text.split()]
    return " ".join(words).replace("|", "/")
