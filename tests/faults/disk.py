"""The node's disk fills up under the outbox, and is freed: what is heard meanwhile waits in memory.

A small file system of its own, in memory, where we may mount one; else a limit on the size of the
node's files, which a full disk resembles but for what it is called.
"""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.evidence import Claim, Detail
from tests.faults.book import Tally
from tests.faults.delivery import COLUMNS, Row, claims, hold
from tests.faults.nursery import Life
from tests.faults.stage import Stage
from tests.integration.full_disk import fill
from tests.parts import Part, Tell

FULL_S: Final = 6.0
DISK: Final = "3m"
ROUNDS: Final = 3


def measure(tell: Tell) -> Part:
    """Fill the disk and free it, some times in one life and in the next."""
    rows: list[Row] = []
    told = 0
    with tempfile.TemporaryDirectory(prefix="gunfire-disk-") as scratch:
        disk = Path(scratch) / "disk"
        disk.mkdir()
        with small_disk(disk) as is_small, Stage(Path(scratch), outbox_folder=disk) as stage:
            how = "disk full" if is_small else "no file may grow (as on a full disk)"
            for number in range(1, ROUNDS + 1):
                for broker in ("there", "away"):
                    tell(f"{how}, broker {broker}: {number} of {ROUNDS}")
                    before = len(stage.book.heard)
                    name = f"{how} for {FULL_S:.0f} s, broker {broker}"
                    rows.append(_filled(stage, name, disk if is_small else None, broker == "away"))
                    told += any(_tells(heard.payload) for heard in stage.book.heard[before:])
            faults = stage.book.chain_faults()
            strangers = stage.book.strangers(stage.lives)
    total = sum((row.tally for row in rows), Tally())
    what = f"{how}, {len(rows)} times"
    return Part(
        (
            *claims(what, total, strangers, faults),
            Claim(f"{what}: told in the status", told, "", str(len(rows)), told == len(rows)),
        ),
        (Detail("The node's disk full", COLUMNS, tuple(row.cells() for row in rows)),),
    )


def _filled(stage: Stage, name: str, disk: Path | None, broker_away: bool) -> Row:
    first = len(stage.lives)
    life = stage.live()
    stage.wait_until_heard(life, 3)
    if broker_away:
        stage.broker.stop()
    with _full(disk, life):
        durable = -1
        while durable != len(life.durable_s):  # its own log has some room left at first
            durable = len(life.durable_s)
            hold(1.0)
        hold(FULL_S)
        assert len(life.durable_s) == durable, "the disk was not full"
        if broker_away:
            stage.broker.start()
            hold(2.0)
    stage.book.wait(lambda: len(life.durable_s) > durable, 30)
    stage.catch_up()
    life.end()
    stage.settle()
    return Row(name, stage.book.tally(stage.lives[first:]))


def _tells(payload: bytes) -> bool:
    said = json.loads(payload)
    return any("wait in memory" in reason for reason in said.get("reasons", ()))


@contextmanager
def _full(disk: Path | None, life: Life) -> Iterator[None]:
    if disk is None:
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(life.pid, resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
        yield
        resource.prlimit(life.pid, resource.RLIMIT_FSIZE, unlimited)
        return
    filler = disk / "filler"
    fill(filler)
    yield
    filler.unlink()


@contextmanager
def small_disk(folder: Path, size: str = DISK) -> Iterator[bool]:
    """Mount a small file system; False where we may not."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True, check=False,
    )  # fmt: skip
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)
