"""`gunfire-node demo --city`: real daemons in processes of their own, a real broker and service."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from node.cli.demo import command
from node.errors import GunfireNodeError

SCENE = """
name = "corner"
duration_s = 6.0
seed = 3
[atmosphere]
temperature_c = 12.0
[[sources]]
kind = "muzzle_blast"
calibre = ".45ACP"
time_s = 1.0
x_m = 30.0
y_m = 20.0
[[sources]]
kind = "door_slam"
time_s = 3.0
x_m = -100.0
y_m = 40.0
"""
NODE = """
[[nodes]]
id = "roof-{}"
x_m = {}
y_m = {}
z_m = 9.0
array = "tetrahedron_200mm"
full_scale_db_spl = 125.0
"""
NODES = [(1, -150, 90), (2, 120, 160), (3, 190, -60), (4, -20, -150), (5, 60, 240), (7, -40, 60)]


COMMAND = [sys.executable, "-c", "from node.cli import main; main()", "demo", "--city"]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """Make a folder with a short name: sockets are made in it, whose names have 108 bytes."""
    with tempfile.TemporaryDirectory(prefix="city-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
def test_a_small_city_is_heard_located_drawn_and_gone(scratch: Path, tmp_path: Path):
    scene = tmp_path / "corner.toml"
    scene.write_text(SCENE + "".join(NODE.format(*node) for node in NODES), "utf-8")
    picture = tmp_path / "map.png"

    done = subprocess.run(
        [*COMMAND, "--scene", str(scene), "--plot", str(picture), "--jsonl"],
        env={**os.environ, "TMPDIR": str(scratch)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert done.stdout, done.stderr
    *rows, end = map(json.loads, done.stdout.splitlines())
    assert [row["truth"]["kind"] for row in rows if row["truth"]] == ["muzzle_blast", "door_slam"]
    shot, *others = rows
    # How soon it was told is for `make field`: here others may have the processor.
    assert shot["error_m"] < 10
    assert shot["after_third_node_s"] < shot["after_s"]
    assert shot["incident"]["schema"] == "gunfire.incident/1"
    assert all(row["holds"] for row in others)
    # Each node's word came with a signature that the CA vouches for; none was left out.
    said = re.search(rf"from (\d+) detections of {len(NODES)} nodes; left out: none", done.stderr)
    assert said, done.stderr
    assert int(said[1]) >= len(NODES)
    assert "nobody lies" in done.stderr
    assert end["map"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert end["doubts"] == {}
    assert done.returncode == (0 if end["holds"] else 1)
    assert list(scratch.iterdir()) == []


def test_a_map_is_drawn_of_a_city_alone():
    done = CliRunner().invoke(command, ["--plot", "map.png"])
    assert done.exit_code == 2
    assert "--plot draws a map: it needs --city" in done.output


def test_a_map_that_cannot_be_written_is_told_before_anything_is_played(tmp_path: Path):
    where = tmp_path / "no" / "map.png"
    done = CliRunner().invoke(command, ["--city", "--plot", str(where)])
    assert isinstance(done.exception, GunfireNodeError)
    assert f"{where}: its folder cannot be written" in str(done.exception)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_city_that_is_stopped_leaves_no_process_and_no_folder(
    scratch: Path, tmp_path: Path, number: int
):
    demo = subprocess.Popen(
        COMMAND,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(scratch)},
        start_new_session=True,
    )
    try:
        of_nodes = await_processes(demo.pid, 10)
        # A terminal sends Ctrl-C to all that run in it, a service manager its signal to one.
        (os.killpg if number == signal.SIGINT else os.kill)(demo.pid, number)
        said, _ = demo.communicate(timeout=10)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
            demo.wait()
    assert demo.returncode == 130
    assert said.decode().rstrip().endswith("gunfire-node: stopped")
    assert b"Traceback" not in said
    assert not any(map(runs, of_nodes))
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "city.png").exists()


def await_processes(of: int, count: int) -> list[psutil.Process]:
    """Wait until so many processes of nodes run: the forkserver's children."""
    give_up_s = time.monotonic() + 90
    while time.monotonic() < give_up_s:
        below = psutil.Process(of).children(recursive=True)
        if len(below) >= count + 2:  # the forkserver and its tracker, or the broker
            return below
        time.sleep(0.1)
    raise AssertionError("the nodes' processes do not come")


def runs(process: psutil.Process) -> bool:
    try:
        process.wait(2)
    except psutil.TimeoutExpired:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        pass
    return False
