"""`make hil`: the bench's tests, and what they measured: times end to end, and the fault matrix."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.evidence import ROOT, Claim
from tests.hil import container, end_to_end, fault_matrix, rig_bench
from tests.hil.unit_stage import installed
from tests.parts import Part, Tell

# What pytest-xdist says of a test: [gw0] [ 25%] PASSED tests/hil/test_faults.py::test_…[name]
_DONE: Final = re.compile(r"\[ *(?P<share>\d+%)\] [A-Z]+ .*::(?P<name>.*)")
# In its summary, which pyproject.toml asks for.
_FAILED: Final = re.compile(r"(FAILED|ERROR) tests/")
_SKIPPED: Final = re.compile(r"SKIPPED \[\d+\] ")

RECORD = "GUNFIRE_HIL_RECORD"
"""Names the folder into which tests write what they measured."""


PRODUCT = "GUNFIRE_HIL_PRODUCT"
"""Names the container into which this checkout was installed, where all share one."""

BENCHES: Final = 10
"""At a time: a node takes a twentieth of a processor, and mostly waits."""
SIDE_BY_SIDE: Final = ("-n", str(BENCHES), "--maxschedchunk", "1")

FIRST: Final = ("[pulse in a channel]", "[step: ", "[host's time stamps]", "test_soak_short")
"""In the names of the tests that take longest, in the order in which they begin; then all others.

A worker is given two to begin with, and the second waits for the first: the two that time impulses,
which take minutes, are for two workers.
"""


def measure(tell: Tell) -> Part:
    """Run the whole suite."""
    lines, failed = run(["tests/hil", "tests/unit/hil_soak"], tell)
    timing = end_to_end.table(
        [line for line in lines if "method" in line],
        next((line["trigger_us"] for line in lines if "trigger_us" in line), {}),
    )
    faults = fault_matrix.table([line for line in lines if "fault" in line])
    return Part(
        (
            Claim("tests of the bench that failed", failed, "", "0", failed == 0),
            *timing.claims,
            *faults.claims,
        ),
        timing.details + faults.details,
        draws=timing.pictures,
    )


def run(tests: Sequence[str], tell: Tell) -> tuple[list[dict[str, Any]], int]:
    """Run tests of the bench, some at a time, on the bench without hardware.

    Which tests fail and why, and why others were skipped, goes to stderr.

    Returns
    -------
    What each has recorded, in order of name, and how many failed.

    Raises
    ------
    RuntimeError
        If they could not be run.
    """
    if missing := container.missing():
        raise RuntimeError(f"the bench without hardware needs {missing}")
    container.sweep()
    with tempfile.TemporaryDirectory() as folder, installed() as product:
        # Not the rig, though its variables stand: that is one, and here many run side by side.
        own = {k: v for k, v in os.environ.items() if not k.startswith(rig_bench.PREFIX)}
        environment = own | {RECORD: folder, PRODUCT: str(product.place)}
        failed = sum(
            _pytest(which, environment, tell)
            for which in (
                ["-m", "hil and not alone", *SIDE_BY_SIDE, *tests],
                ["-m", "hil and alone", *tests],
            )
        )
        lines = [line for file in sorted(Path(folder).iterdir()) for line in file.open()]
    return [json.loads(line) for line in lines], failed


def record(name: str, figures: dict[str, Any]) -> None:
    """Keep what a test measured, where somebody makes evidence of it."""
    if folder := os.environ.get(RECORD):
        with (Path(folder) / f"{name}.jsonl").open("a") as file:
            file.write(json.dumps(figures, ensure_ascii=False) + "\n")


def _pytest(which: Sequence[str], environment: Mapping[str, str], tell: Tell) -> int:
    """Run some tests; give how many failed."""
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *which],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        reader = threading.Thread(target=_read, args=(process, said, tell))
        reader.start()
        try:
            process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            raise
        finally:
            reader.join()
    if process.returncode not in (0, 1):  # 1: some failed
        raise RuntimeError(f"the tests could not be run:\n{''.join(said[-60:])}")
    if process.returncode:
        print("".join(said[said.index(_first_failure(said)) :]), file=sys.stderr)
        return max(1, sum(_FAILED.match(line) is not None for line in said))
    print("".join(filter(_SKIPPED.match, said)), end="", file=sys.stderr)
    return 0


def _read(process: subprocess.Popen[str], said: list[str], tell: Tell) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if (done := _DONE.search(line)) is not None:
            test, _, case = done["name"].strip().partition("[")
            tell(f"{done['share']}, {case.rstrip(']') or test}")


def _first_failure(said: Sequence[str]) -> str:
    return next((line for line in said if line.startswith("=") and "FAILURES" in line), said[0])
