"""Inputs without a thought: no parser of the node crashes, hangs, or accepts what is wrong.

Each target of tests/fuzz takes its share in processes of its own, so that a crash of a library
(libsndfile, SQLite) is a finding and not the end; then with each planted bug, which it must find;
then under `coverage`, which tells the branches that it never took.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.evidence import ROOT, Claim, Detail
from tests.fuzz.engine import Finding as Found
from tests.fuzz.engine import Target, nth_input
from tests.fuzz.plants import PLANTS
from tests.fuzz.targets import TARGETS
from tests.parts import Part, Tell

SEED: Final = 20_261_128
PORTION: Final = 20_000
"""Inputs that one process takes."""
COVERED: Final = {"outbox": 2_000}
COVERED_OTHERS: Final = 6_000
BAR: Final = 1_000_000
STUCK_S: Final = 60.0
"""After so long with one input, by the clock, a process hangs where no Python runs."""


@dataclass(frozen=True)
class _Outcome:
    target: str
    inputs: int
    accepted: int
    findings: tuple[dict[str, Any], ...]


def measure(tell: Tell) -> Part:
    """Fuzz, plant, cover."""
    print(f"fuzz: seed {SEED}", file=sys.stderr)
    before_s = _processor_s()
    outcomes = list(_fuzz(tell))
    took_s = _processor_s() - before_s
    planted = list(_plants(tell))
    covered, missed = _coverage(tell)
    total = sum(outcome.inputs for outcome in outcomes)
    findings = [(o.target, f) for o in outcomes for f in o.findings]
    for target, finding in findings:
        print(f"fuzz: {target}: {finding['what']}\n  {_again(finding['file'])}", file=sys.stderr)
    unfound = [name for name, number in planted if number is None]
    claims = (
        Claim("fuzz: inputs in all", total, "", "≥ 1,000,000", total >= BAR),
        Claim(
            "fuzz: inputs that crash, hang or are wrongly accepted",
            len(findings),
            "",
            "0",
            not findings,
        ),
        Claim(
            f"fuzz: planted bugs found, of {len(PLANTS)}",
            len(PLANTS) - len(unfound),
            "",
            f"{len(PLANTS)}",
            not unfound,
        ),
        Claim("fuzz: branches of the parsers taken", covered, "%"),
        Claim("fuzz: processor time for all inputs", took_s, "s", "≤ 960", took_s <= 960),
    )
    details = (_by_target(outcomes), _by_plant(planted), missed)
    return Part(claims, details)


def _processor_s() -> float:
    """Give the processor time of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _fuzz(tell: Tell) -> Iterator[_Outcome]:
    jobs = [
        (target, first, min(PORTION, target.inputs - first))
        for target in sorted(TARGETS.values(), key=lambda target: -target.inputs)
        for first in range(0, target.inputs, PORTION)
    ]
    total, done = sum(count for _, _, count in jobs), 0
    for outcome in _side_by_side(_portion, jobs):
        done += outcome.inputs
        tell(f"fuzz: {done:,} of {total:,} inputs")
        yield outcome


def _side_by_side(work: Callable[..., Any], jobs: list[Any]) -> Iterator[Any]:
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(lambda job: work(*job), jobs)


def _portion(target: Target, first: int, count: int) -> _Outcome:
    """Fuzz in a process; what ends or stops it is a finding, and the rest goes on behind it."""
    inputs = accepted = 0
    findings: list[dict[str, Any]] = []
    while inputs < count:
        begin = first + inputs
        said, at = _process(target.name, begin, count - inputs)
        if said is not None:
            inputs += said["inputs"]
            accepted += said["accepted"]
            findings += said["findings"]
            break
        data = nth_input(target, target.corpus(), SEED, at)
        file = Found(target.name, at, "", "", data).keep()
        findings.append({"number": at, "what": "the process died or hung", "file": str(file)})
        inputs = at + 1 - first
    return _Outcome(target.name, inputs, accepted, tuple(findings))


def _process(
    target: str, first: int, count: int, *more: str, prefix: tuple[str, ...] = ()
) -> tuple[dict[str, Any] | None, int]:
    """Run `python -m tests.fuzz`; give what it said, or None and the number it was at."""
    with tempfile.TemporaryDirectory() as folder:
        place, said = Path(folder) / "place", Path(folder) / "said"
        place.write_bytes(bytes(8))
        numbers = ["--seed", str(SEED), "--first", str(first), "--inputs", str(count)]
        command = [sys.executable, *prefix, "-m", "tests.fuzz", "run", target, *numbers, *more]
        with said.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--place", str(place)],
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONHASHSEED": "0"},
            )
            last, since_s = b"", time.monotonic()
            while process.poll() is None:
                now = place.read_bytes()
                if now != last:
                    last, since_s = now, time.monotonic()
                elif time.monotonic() - since_s > STUCK_S:
                    process.kill()
                    process.wait()
                time.sleep(0.05)
        at = int.from_bytes(place.read_bytes(), "little")
        if process.returncode not in (0, 1):
            return None, at
        text = said.read_text("utf-8")
        return (json.loads(text) if text else None), at


def _plants(tell: Tell) -> Iterator[tuple[str, int | None]]:
    """Give for each planted bug the number of the input that found it."""

    def find(name: str) -> tuple[str, int | None]:
        target = TARGETS[PLANTS[name].target]
        said, at = _process(target.name, 0, target.inputs, "--plant", name, "--most", "1")
        if said is None:
            return name, at
        return name, said["findings"][0]["number"] if said["findings"] else None

    jobs = [(name,) for name in PLANTS]
    for done, found in enumerate(_side_by_side(find, jobs), 1):
        tell(f"fuzz: {done} of {len(PLANTS)} planted bugs")
        yield found


def _coverage(tell: Tell) -> tuple[float, Detail]:
    """Give the branches taken, in %, and a table of the parsers."""
    modules = sorted({name for target in TARGETS.values() for name in target.modules})
    files = [f"{name.replace('.', '/')}.py" for name in modules]
    with tempfile.TemporaryDirectory() as folder:
        data = f"--data-file={folder}/coverage"

        def cover(name: str) -> None:
            tell(f"fuzz: coverage of {name}")
            count = COVERED.get(name, COVERED_OTHERS)
            include = f"--include={','.join(files)}"
            prefix = ("-m", "coverage", "run", "--branch", "--parallel-mode", data, include)
            _process(name, 0, count, prefix=prefix)

        list(_side_by_side(cover, [(name,) for name in TARGETS]))
        coverage = [sys.executable, "-m", "coverage"]
        report = Path(folder) / "report.json"
        for step in (["combine", "--quiet", data], ["json", "--quiet", data, "-o", str(report)]):
            subprocess.run([*coverage, *step], cwd=ROOT, check=True)
        found = json.loads(report.read_text("utf-8"))["files"]
    rows = []
    taken = all_branches = 0
    for name, file in zip(modules, files, strict=True):
        summary = found[file]["summary"]
        taken += summary["covered_branches"]
        all_branches += summary["num_branches"]
        part = f"{summary['covered_branches']} of {summary['num_branches']}"
        rows.append((name, part, _missed(found[file])))
    # What no reply or file decides stays: threads and processes that are begun, disks that are
    # full, files that are absent; the other tests go there.
    title = "Fuzz: branches taken, by parser's module, and those that are not, line to line"
    detail = Detail(title, ("module", "branches", "not taken"), tuple(rows))
    return 100 * taken / all_branches, detail


def _missed(record: dict[str, Any]) -> str:
    from_to = (f"{start}→{'end' if end < 0 else end}" for start, end in record["missing_branches"])
    return ", ".join(from_to) or "none"


def _by_target(outcomes: list[_Outcome]) -> Detail:
    inputs: dict[str, int] = defaultdict(int)
    accepted: dict[str, int] = defaultdict(int)
    found: dict[str, int] = defaultdict(int)
    for outcome in outcomes:
        inputs[outcome.target] += outcome.inputs
        accepted[outcome.target] += outcome.accepted
        found[outcome.target] += len(outcome.findings)
    rows = tuple(
        (name, f"{inputs[name]:,}", f"{accepted[name]:,}", f"{found[name]}") for name in TARGETS
    )
    columns = ("target", "inputs", "accepted, and right", "wrong, crashed or hung")
    return Detail(f"Fuzz: inputs by target, seed {SEED}", columns, rows)


def _by_plant(planted: list[tuple[str, int | None]]) -> Detail:
    rows = tuple(
        (PLANTS[name].target, PLANTS[name].what, "not found" if at is None else f"{at:,}")
        for name, at in planted
    )
    return Detail("Fuzz: planted bugs", ("target", "bug", "found by input"), rows)


def _again(file: str) -> str:
    return f"python -m tests.fuzz again {Path(file).relative_to(ROOT)}"
