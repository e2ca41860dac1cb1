"""The outbox killed and failed at every call by which it writes, and its disk cut from power.

strace has the kernel kill a real process at its n-th write, fsync, truncation, renaming or removal,
for every n, or fail that call for want of space or with an error of the disk. A cut of power is
played from a recording of the same calls: after each of them, the files as a disk may hold them
that has kept all, none or any part of what was not synced. Then the outbox is opened again and has
to hold what was told durable, each number once, in one chain.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from node.deliver.outbox import Outbox
from tests.evidence import ROOT, Claim, Detail
from tests.faults.outbox_steps import BOUND_BYTES, digest_of, render
from tests.faults.power_cut import Call, Disk, read_calls
from tests.parts import Part, Tell

CALLS: Final = "write,pwrite64,fsync,fdatasync,ftruncate,unlink,rename"
# The outbox alone: what else is in its package takes half a second to import, a thousand times.
_ALONE: Final = """
import sys, types
for name in ("node", "node.deliver"):
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = [name.replace(".", "/")]
from tests.faults.outbox_steps import main
main()
"""
_STEPS: Final = ("-c", _ALONE)
FILLED: Final = 996
"""Numbers given out beforehand: soon the ceiling of numbers has to be raised, too."""
TEARS: Final = 8
ERRORS: Final = {"killed": "signal=KILL", "disk full": "error=ENOSPC", "disk fails": "error=EIO"}


@dataclass
class Told:
    """What a run told before its end."""

    durable: set[int] = field(default_factory=set)
    acknowledging: set[int] = field(default_factory=set)
    acknowledged: set[int] = field(default_factory=set)

    def take(self, words: list[Any]) -> None:
        """Take one line."""
        match words:
            case ["durable", seq]:
                self.durable.add(seq)
            case ["acknowledging", seqs]:
                self.acknowledging |= set(seqs)
            case ["acknowledged", seqs]:
                self.acknowledged |= set(seqs)

    @classmethod
    def of(cls, output: bytes) -> Told:
        """Read what a run told; a torn last line was not told."""
        told = cls()
        for line in output.splitlines(keepends=True):
            if line.endswith(b"\n"):
                told.take(json.loads(line))
        return told


def measure(tell: Tell) -> Part:
    """Strike at every call, in an outbox that is new and in one that is full."""
    reason = why_not()
    if reason is not None:
        return Part(
            (Claim(f"every write of the outbox: not measured ({reason})", 0, "", "", False),)
        )
    rows: list[tuple[str, ...]] = []
    claims: list[Claim] = []
    logging.getLogger("node.deliver").setLevel(logging.ERROR)  # thousands of outboxes are full
    with tempfile.TemporaryDirectory(prefix="gunfire-writes-", dir=_fast_place()) as scratch:
        places = {"new": Path(scratch) / "new", "full": Path(scratch) / "full"}
        for place in places.values():
            place.mkdir()
        fill(places["full"])
        for kind, error in ERRORS.items():
            runs, bad = 0, []
            for state, prepared in places.items():
                count = count_calls(prepared)
                tell(f"{kind} at each of {count} writes of an outbox that is {state}")
                found = strike_each(prepared, error, count)
                runs += count
                bad += found
                rows.append((kind, state, str(count), str(len(found)), "; ".join(found[:1]) or "–"))
            claims.append(_claim(f"outbox {kind} at every write", runs, bad))
        runs, bad = 0, []
        for state, prepared in places.items():
            tell(f"power cut at each write of an outbox that is {state}")
            states, found = cut_everywhere(prepared)
            runs += states
            bad += found
            rows.append(
                ("power cut", state, str(states), str(len(found)), "; ".join(found[:1]) or "–")
            )
        claims.append(
            _claim("outbox's power cut after every write, what was not synced torn", runs, bad)
        )
        tell("power cut at each byte of a commit")
        states, bad = cut_at_each_byte(places["new"])
        rows.append(
            (
                "power cut at each byte",
                "new",
                str(states),
                str(len(bad)),
                "; ".join(bad[:1]) or "–",
            )
        )
        claims.append(_claim("outbox's power cut at every byte of a commit", states, bad))
    columns = ("fault", "outbox", "times", "broken", "first of them")
    return Part(tuple(claims), (Detail("Every write of the outbox", columns, tuple(rows)),))


def _claim(what: str, runs: int, bad: list[str]) -> Claim:
    return Claim(
        f"{what}, {runs:,} times: durable and gone, a number twice, a link or gap wrong",
        len(bad), "", "0", not bad and runs > 0,
    )  # fmt: skip


def why_not() -> str | None:
    """Say why strace cannot be used here; None where it can."""
    if shutil.which("strace") is None:
        return "needs strace (apt: strace)"
    tried = subprocess.run(
        ["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    return f"strace may not trace here: {tried.stderr.strip()}" if tried.returncode else None


def fill(folder: Path) -> None:
    """Make an outbox that is full, has dropped, and soon needs another ceiling."""
    with Outbox(folder / "outbox.sqlite3", BOUND_BYTES) as outbox:
        for number in range(FILLED):
            outbox.append(f"filled-{number}", 0, number, render)
        assert outbox.dropped


def run_steps(folder: Path, *strace: str) -> subprocess.CompletedProcess[bytes]:
    """Run the steps under strace."""
    return subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-qq", *strace, sys.executable, *_STEPS, folder, "step"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
    )


def count_calls(prepared: Path) -> int:
    """Count the calls that write."""
    with _copied(prepared) as folder:
        trace = folder.parent / "calls"
        done = run_steps(folder, "-e", f"trace={CALLS}", "-o", str(trace))
        assert done.returncode == 0, done.stderr
        return len(trace.read_text().splitlines())


def strike_each(prepared: Path, error: str, count: int) -> list[str]:
    """Strike at each call in turn; give what was wrong afterwards."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda n: strike(prepared, error, n), range(1, count + 1))
        return [f"call {n}: {wrong}" for n, wrong in enumerate(found, 1) if wrong]


def strike(prepared: Path, error: str, number: int) -> str:
    """Strike at one call; say what was wrong afterwards, nothing if all is well."""
    with _copied(prepared) as folder:
        done = run_steps(
            folder, "-e", f"trace={CALLS}", "-e", f"inject={CALLS}:{error}:when={number}",
            "-o", "/dev/null",
        )  # fmt: skip
        if b"Traceback" in done.stderr:
            return done.stderr.decode().strip().splitlines()[-1]
        return inspect(folder, Told.of(done.stdout))


def inspect(folder: Path, told: Told) -> str:
    """Open an outbox after a fault; say what is wrong with it."""
    try:
        with Outbox(folder / "outbox.sqlite3", BOUND_BYTES) as outbox:
            return "; ".join(_faults(outbox, told))
    except Exception as error:
        return f"cannot be opened: {error!r}"


def _faults(outbox: Outbox, told: Told) -> Iterator[str]:
    yield from outbox.notices
    rows = {row.seq: row for row in outbox.pending()}
    chain = outbox.chain
    in_gaps = {
        seq
        for gap in chain.gaps
        if gap.count == gap.to_seq - gap.from_seq + 1 or gap.count is None
        for seq in range(gap.from_seq, gap.to_seq + 1)
    }
    # Cut off between the ceiling's first raise and the first message, an outbox cannot tell an
    # empty file from a lost one, and says that some may be missing. Nothing was durable then.
    if told.durable and any(gap.reason == "lost" for gap in chain.gaps):
        yield f"tells of a loss that was none: {chain.gaps}"
    if sum(gap.count or 0 for gap in chain.gaps) != outbox.dropped:
        yield f"{outbox.dropped} dropped, but gaps {chain.gaps}"
    for seq in told.durable - rows.keys() - told.acknowledging - in_gaps:
        yield f"seq {seq} was durable and is gone"
    if told.acknowledged & rows.keys():
        yield "an acknowledged message is back"
    for seq in set(range(1, chain.seq + 1)) - rows.keys() - told.acknowledging - in_gaps:
        yield f"seq {seq} is neither here nor told as missing"
    if rows.keys() & in_gaps:
        yield "what is here is told as missing"
    if max(told.durable, default=0) > chain.seq or max(rows, default=0) > chain.seq:
        yield "the count is behind"
    last = rows.get(chain.seq)
    if last is not None and digest_of(last.payload) != chain.digest:
        yield "the head of the chain is not the last message's"
    for seq in rows.keys() & {seq + 1 for seq in rows}:
        if json.loads(rows[seq].payload)["before"] != digest_of(rows[seq - 1].payload):
            yield f"seq {seq} is not linked to the one before"
    appended = outbox.append("afterwards", 0, 10**6, render)
    (new,) = outbox.newer(chain.seq)
    if appended.seq != chain.seq + 1 or json.loads(new.payload)["before"] != chain.digest:
        yield "the next message does not go on from the last"


def record(prepared: Path) -> list[Call]:
    """Record every call of the steps that writes, with its bytes, and what they tell."""
    with _copied(prepared) as folder:
        trace = folder.parent / "calls"
        done = run_steps(
            folder, "-y", "-xx", "-s", str(2**20), "-e", f"trace={CALLS},writev", "-o", str(trace)
        )
        assert done.returncode == 0, done.stderr
        return read_calls(trace.read_text(), folder)


def cut_everywhere(prepared: Path) -> tuple[int, list[str]]:
    """Cut the power after each call; give how many disks were looked at and what was wrong."""
    told, disk, rng = Told(), Disk.of(prepared), random.Random(1)
    found: list[str] = []
    states = 0
    for number, call in enumerate(record(prepared), 1):
        if call.told is not None:
            told.take(call.told)
            continue
        disk.take(call)
        for files in disk.after_a_cut(rng, TEARS):
            states += 1
            if wrong := _of_files(files, told):
                found.append(f"call {number}: {wrong}")
    return states, found


def cut_at_each_byte(prepared: Path) -> tuple[int, list[str]]:
    """Cut the power within one commit, at each byte of what it had written and not synced."""
    told, disk = Told(), Disk.of(prepared)
    for call in record(prepared):
        if call.told is not None:
            told.take(call.told)
            continue
        if (
            call.name in ("fsync", "fdatasync")
            and call.file.endswith("-wal")
            and len(told.durable) > 1
        ):
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                each = list(
                    pool.map(lambda files: _of_files(files, told), disk.at_each_byte(call.file))
                )
            return len(each), [f"byte {n}: {wrong}" for n, wrong in enumerate(each) if wrong]
        disk.take(call)
    raise AssertionError("no commit was recorded")


def _of_files(files: Iterable[tuple[str, bytes]], told: Told) -> str:
    with tempfile.TemporaryDirectory(dir=_fast_place()) as scratch:
        for name, content in files:
            (Path(scratch) / name).write_bytes(content)
        return inspect(Path(scratch), told)


class _copied:  # noqa: N801
    """A copy of a folder in one of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Path:
        self._scratch = tempfile.TemporaryDirectory(dir=_fast_place())
        return Path(shutil.copytree(self._folder, Path(self._scratch.name) / "outbox"))

    def __exit__(self, *exc: object) -> None:
        self._scratch.cleanup()


def _fast_place() -> str | None:
    """Give a place in memory where there is one: a disk would only make it slow."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
