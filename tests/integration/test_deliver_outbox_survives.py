"""The outbox against a real full disk, real SIGKILLs and real limits."""

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node.deliver import Outbox, Rendered

HERE = Path(__file__).parent
FULL_DISK = HERE / "full_disk.py"


def test_a_writer_killed_at_any_moment_loses_nothing_that_it_was_told_is_durable(
    tmp_path: Path,
) -> None:
    file = tmp_path / "outbox.sqlite3"
    told: set[int] = set()
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, HERE / "outbox_writer.py", file], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline().startswith("open")
        time.sleep(random.uniform(0, 0.15))
        writer.send_signal(signal.SIGKILL)
        lines = writer.stdout.read().split("\n")[:-1]  # a torn last line was not told
        writer.stdout.close()
        writer.wait()
        told |= {int(line) for line in lines}

    with Outbox(file, 2**22) as outbox:
        rows = outbox.pending()
        kept = [row.seq for row in sorted(rows, key=lambda row: row.seq)]
        assert outbox.notices == ()
        assert len(told) > 50
        lost = told - set(kept)
        assert len(lost) <= outbox.dropped  # only what the bound dropped, and the oldest at that
        assert not lost or max(lost) < min(kept)
        assert kept == list(range(kept[0], kept[-1] + 1))  # each number once, none skipped
        assert all(row.payload.startswith(b"%d:" % row.seq) for row in rows)
        assert outbox.last_seq == kept[-1]


def test_a_full_disk_is_told_nothing_is_half_written_and_all_goes_on_once_there_is_room(
    tmp_path: Path,
) -> None:
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && exec "$2" "$3" "$1"'
    run = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, "sh", tmp_path, sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode and ("unshare" in run.stderr or "mount" in run.stderr):
        pytest.skip(f"needs user namespaces to mount a small disk: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert all("no space left on its disk: free some" in error for error in found["errors"])
    assert found["kept"] == found["before"]
    assert found["after_room"] == found["before"][-1] + 1
    assert found["seqs"] == [*found["before"], found["after_room"]]
    assert found["intact"]
    assert "no space left on its disk" in found["new_error"]
    assert found["new_seq"] == 1


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to spoil a sector")
@pytest.mark.parametrize("part", ["outbox.sqlite3", "outbox.sqlite3.seq"])
def test_a_sector_that_cannot_be_read_keeps_no_node_from_starting(
    tmp_path: Path, part: str
) -> None:
    file = tmp_path / "outbox.sqlite3"
    with Outbox(file, 2**22) as outbox:
        last = outbox.append("a", 0, 0, lambda _link: Rendered(b"x")).seq
    spoilt = f"inject={'read' if part.endswith('.seq') else 'pread64'}:error=EIO:when=1"
    strace = ["strace", "-o", "/dev/null", "-P", str(tmp_path / part), "-e", spoilt]
    writer = subprocess.Popen(
        [*strace, sys.executable, str(HERE / "outbox_writer.py"), str(file)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    with writer.stdout as said:
        assert said.readline().startswith("open")
        assert int(said.readline()) > last
    writer.wait()


def test_a_limit_on_file_size_is_told_and_nothing_is_half_written(tmp_path: Path) -> None:
    file = tmp_path / "outbox.sqlite3"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    writer = subprocess.run(
        [sys.executable, HERE / "outbox_writer.py", file],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert "OutboxError" in writer.stderr
    assert "the disk failed" in writer.stderr
    told = [int(line) for line in writer.stdout.split("\n")[1:-1]]
    with Outbox(file, 2**22) as outbox:
        assert sorted(row.seq for row in outbox.pending()) == told


def test_nothing_is_written_while_nothing_is_heard(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite3", 2**20) as outbox:
        outbox.append("a", 0, 0, lambda _link: Rendered(b"x"))
        written = _bytes_written()
        for _ in range(50):
            outbox.pending()
            outbox.refusals()
            assert outbox.depth == 1
        assert _bytes_written() == written


def _bytes_written() -> int:
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("syscw"):
            return int(line.split()[1])
    raise AssertionError("no /proc/self/io")


def test_two_processes_do_not_share_an_outbox(tmp_path: Path) -> None:
    file = tmp_path / "outbox.sqlite3"
    with Outbox(file, 2**20):
        second = subprocess.run(
            [sys.executable, HERE / "outbox_writer.py", file],
            capture_output=True,
            text=True,
            check=False,
        )
    assert "another process holds it: stop the other gunfire-node" in second.stderr
