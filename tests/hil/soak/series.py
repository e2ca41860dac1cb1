"""What is looked at while a soak runs, sample by sample, and the file that keeps it.

A line of JSON a sample, written as it is taken: a run that is broken off has told all until then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from tests.hil.process import resident_bytes
from tests.hil.soak.ledger import Ledger

FILE: Final = "series.jsonl"
MAPPED: Final = "samples.raw"
"""Name of the file that a virtual card maps into the node."""
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One look at a node and its broker.

    Attributes
    ----------
    at_s, wall_s
        Seconds that the node had heard, and real seconds since it began.
    waited_s
        Longest that the node kept its card waiting since the sample before, in real seconds; 0
        where the card has a clock of its own.
    anonymous_bytes, resident_bytes
        What the node has in memory: what is its own alone, and all but what the card maps.
    descriptors, threads, cpu_s
        Of the node.
    outbox_depth, outbox_bytes
        Detections that wait, and the size of the outbox's files.
    log_bytes
        Of the node's log.
    clock_source, clock_sigma_s
        As the node tells them.
    acknowledged
        Detections that the broker has taken, by the node.
    received, again, missing
        Detections that came; copies of those; numbers below the highest that have not come yet.
    samples_lost
        By the card, by the node.
    broker_bytes
        What the broker has in memory; 0 while it is away.
    blocks
        Of memory that Python's objects take up, by its own count; 0 where it was not asked. What
        grows while these do not is the allocator's, and no object that is kept.
    """

    at_s: float
    wall_s: float
    waited_s: float
    anonymous_bytes: int
    resident_bytes: int
    descriptors: int
    threads: int
    cpu_s: float
    outbox_depth: int
    outbox_bytes: int
    log_bytes: int
    clock_source: str
    clock_sigma_s: float
    acknowledged: int
    received: int
    again: int
    missing: int
    samples_lost: int
    broker_bytes: int
    blocks: int = 0


@dataclass(frozen=True)
class Place:
    """Where the files of a node lie."""

    outbox: Path
    status: Path
    log: Path


class Looker:
    """Looks at a node.

    Parameters
    ----------
    place
        Of its files.
    ledger
        What was received of it.
    into
        The folder in which the series is kept; there is none in it yet.
    """

    def __init__(self, place: Place, ledger: Ledger, into: Path) -> None:
        self._place = place
        self._ledger = ledger
        self._into = into
        self.samples: list[Sample] = []

    def look(
        self,
        pid: int,
        broker_pid: int | None,
        at_s: float,
        wall_s: float,
        waited_s: float = 0.0,
        blocks: int = 0,
    ) -> Sample | None:
        """Take a sample and keep it; None where the node is gone, or has not said how it is."""
        try:
            said = json.loads(self._place.status.read_text())
            status = _status(pid)
            resident = resident_bytes(pid, without=MAPPED)
            descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            cpu_s = _cpu_s(pid)
        except (OSError, KeyError, ValueError):
            return None
        counts = self._ledger.counts()
        sample = Sample(
            at_s=at_s,
            wall_s=wall_s,
            waited_s=waited_s,
            anonymous_bytes=1024 * status["RssAnon"],
            resident_bytes=resident,
            descriptors=descriptors,
            threads=status["Threads"],
            cpu_s=cpu_s,
            outbox_depth=said["outbox"]["depth"],
            outbox_bytes=_size(self._place.outbox),
            log_bytes=_size(self._place.log),
            clock_source=said["clock"]["source"],
            clock_sigma_s=said["clock"]["sigma_s"],
            acknowledged=said["broker"]["acknowledged"],
            received=counts.received,
            again=counts.again,
            missing=counts.missing,
            samples_lost=said["lost_samples"],
            broker_bytes=_broker_bytes(broker_pid),
            blocks=blocks,
        )
        self.samples.append(sample)
        save(self._into, [sample])
        return sample


def save(folder: Path, samples: Sequence[Sample]) -> None:
    """Keep some more samples."""
    with (folder / FILE).open("a") as file:
        file.writelines(json.dumps(asdict(sample)) + "\n" for sample in samples)


def load(folder: Path) -> list[Sample]:
    """Read a series that was kept; a last line that was torn is left out."""
    names = {field.name for field in fields(Sample)}
    samples = []
    for line in (folder / FILE).read_text().splitlines():
        with suppress(ValueError):
            said: dict[str, Any] = json.loads(line)
            samples.append(Sample(**{name: said[name] for name in names}))
    return samples


def column(samples: Sequence[Sample], name: str) -> list[float]:
    """Give one figure of all samples."""
    return [float(getattr(sample, name)) for sample in samples]


def _status(pid: int) -> dict[str, int]:
    """Read /proc/PID/status (proc(5)): sizes in kB, counts as they are."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    words = (line.split() for line in lines)
    return {w[0].rstrip(":"): int(w[1]) for w in words if len(w) > 1 and w[1].isdecimal()}


def _cpu_s(pid: int) -> float:
    # The name of the program, in brackets, may hold spaces.
    figures = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(figures[11]) + int(figures[12])) / _TICKS_PER_S


def _size(file: Path) -> int:
    """Give the size of a file and of those that SQLite keeps beside it."""
    total = 0
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm", f"{file.name}-journal"):
        with suppress(OSError):
            total += file.with_name(name).stat().st_size
    return total


def _broker_bytes(pid: int | None) -> int:
    try:
        return 0 if pid is None else 1024 * _status(pid)["VmRSS"]
    except (OSError, KeyError):
        return 0
