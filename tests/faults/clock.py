"""The host's clock is stepped while detections are made and wait; none of their times moves.

libfaketime steps what the node's process reads, in the middle of a life. An event's time is that
of the sample counter by the clock as the node last read it: durable once, it is never worked out
again, whatever the clock does while it waits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.evidence import Claim, Detail
from tests.faults.book import Tally
from tests.faults.delivery import COLUMNS, Row, claims, hold
from tests.faults.stage import Stage
from tests.parts import Part, Tell

YEAR_S: Final = 31_556_952
STEPS_S: Final = {
    "clock set 1 s forward": 1,
    "clock set 1 s back": -1,
    "clock set 1 h forward": 3_600,
    "clock set 1 h back": -3_600,
    "clock leaps 12 years, past 2038": 12 * YEAR_S,
}
SPEED: Final = 8.0
"""libfaketime makes each look at the clock dear: a node under it is not as fast as another."""
BEFORE_S: Final = 5.0
AFTER_S: Final = 8.0


def measure(tell: Tell) -> Part:
    """Step the clock each way, the broker away while it is."""
    if fake_time() is None:
        return Part(
            (
                Claim(
                    "clock stepped: not measured (needs faketime (apt: faketime))", 0, "", "", False
                ),
            )
        )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="gunfire-clock-") as scratch:
        offset = Path(scratch) / "offset"
        with stage(Path(scratch), offset) as opened:
            for name, step_s in STEPS_S.items():
                tell(name)
                rows.append(stepped(opened, name, step_s, offset))
            faults = opened.book.chain_faults()
            strangers = opened.book.strangers(opened.lives)
    total = sum((row.tally for row in rows), Tally())
    return Part(
        claims(f"clock stepped {len(rows)} times while detections wait", total, strangers, faults),
        (Detail("The host's clock stepped", COLUMNS, tuple(row.cells() for row in rows)),),
    )


@contextmanager
def stage(folder: Path, offset: Path) -> Iterator[Stage]:
    """Open a stage whose node reads a clock that is off by what a file says."""
    preload = fake_time()
    assert preload is not None
    offset.write_text("+0s")
    environment = {
        "LD_PRELOAD": preload,
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",  # or threads wait long for one another
    }
    with Stage(folder, environment=environment, speed=SPEED) as opened:
        yield opened


def stepped(stage: Stage, name: str, step_s: int, offset: Path) -> Row:
    """Step the clock in the middle of a life, the broker away."""
    first = len(stage.lives)
    offset.write_text("+0s")
    life = stage.live()
    stage.wait_until_heard(life, 3)
    stage.broker.stop()
    hold(BEFORE_S)
    offset.write_text(f"{step_s:+d}s")
    before = len(life.offsets_ns)
    stepped = stage.book.wait(lambda: len(life.offsets_ns) > before, 10)
    assert stepped, "the step was not seen"
    hold(AFTER_S)
    stage.broker.start()
    stage.catch_up()
    life.end()
    stage.settle()
    return Row(name, stage.book.tally(stage.lives[first:]))


def fake_time() -> str | None:
    """Find libfaketime as the program `faketime` would preload it; None where it is not."""
    if shutil.which("faketime") is None:
        return None
    asked = subprocess.run(
        ["faketime", "-f", "+0s", "env"], capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"},
    )  # fmt: skip
    found = [line[11:] for line in asked.stdout.splitlines() if line.startswith("LD_PRELOAD=")]
    return found[0] if found else None
