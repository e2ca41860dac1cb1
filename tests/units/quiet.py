"""An hour with nothing heard: what the node writes to the disk meanwhile. It must be nothing.

In a process of its own, beside the other parts, since an hour is an hour.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from node.capture import built_in_arrays
from node.simulate.render import RenderedNode, render
from node.simulate.scene import parse
from tests.evidence import Claim, Detail
from tests.hil.container import NODE
from tests.hil.unit_stage import installed, stage
from tests.hil.virtual_card import build_plugin
from tests.parts import Part, Tell

HOUR_S: Final = 3600.0
# Its first word to the broker, its key and its outbox are written at the start.
SETTLES_S: Final = 30.0
STATE: Final = "/var/lib/gunfire-node"


class QuietHour:
    """The hour, from entering on; `measure` waits for its end."""

    _process: ClassVar[subprocess.Popen[str] | None] = None

    def __enter__(self) -> Self:
        if "--only" not in sys.argv or "quiet" in sys.argv:
            QuietHour._process = subprocess.Popen(
                [sys.executable, "-m", "tests.units.quiet"], stdout=subprocess.PIPE, text=True
            )
        return self

    def __exit__(self, *exc: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


def measure(tell: Tell) -> Part:
    """Wait for the hour to end, and give what was written in it."""
    process = QuietHour._process
    assert process is not None
    began_s = time.monotonic()
    while process.poll() is None:
        tell(f"the hour, waited for {(time.monotonic() - began_s) / 60:.0f} min")
        time.sleep(5.0)
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.read())
    hour = f"in {said['seconds']:.0f} s of a quiet street, heard and published nothing"
    claims = (
        Claim(f"{hour}: bytes written to disk by the node", said["bytes"], "bytes", "0",
              said["bytes"] == 0 and said["seconds"] >= HOUR_S),
        Claim("the same: files changed where it keeps its state", said["changed"], "", "0",
              said["changed"] == 0),
        Claim("the same: bytes of the journal on disk", said["journal"], "bytes", "0",
              said["journal"] == 0),
    )  # fmt: skip
    rows = tuple((name, str(value)) for name, value in said.items())
    return Part(claims, (Detail("The hour", ("", ""), rows),))


def quiet_street() -> RenderedNode:
    """Render a minute of a street where nothing happens."""
    scene = parse(
        'name = "quiet"\nduration_s = 60.0\nseed = 11\nstart_utc = 2026-01-01T00:00:00Z\n'
        '[street]\nnoise_db_a = 45.0\n[[nodes]]\nid = "roof-1"\nx_m = 0.0\ny_m = 0.0\nz_m = 6.0\n'
        'array = "tetrahedron_200mm"\n'
    )
    return render(scene, built_in_arrays()).nodes[0]


def hour(seconds: float = HOUR_S) -> dict[str, Any]:
    """Let an installed node hear a quiet street, and give what it wrote meanwhile.

    /proc/PID/io counts what a process has had written to storage (proc(5)).
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        installed() as product,
        stage("quiet", product, build_plugin(Path(folder)), quiet_street(), loop=True) as begun,
    ):
        begun.machine.until(NODE, "active")
        time.sleep(SETTLES_S)
        pid = begun.machine.pid()
        before, files = _io(pid), _files(begun.machine.path(STATE))
        began_s = time.monotonic()
        while time.monotonic() - began_s < seconds:
            time.sleep(min(10.0, seconds))
        took_s = time.monotonic() - began_s
        assert begun.machine.pid() == pid, begun.machine.journal()[-4000:]
        after = _io(pid)
        now = _files(begun.machine.path(STATE))
        journal = _files(begun.machine.path("/var/log/journal"))
        logged = len(begun.machine.journal())
    return {
        "seconds": took_s,
        "bytes": after["write_bytes"] - before["write_bytes"],
        "changed": len(set(now.items()) ^ set(files.items())),
        "journal": sum(size for size, _ in journal.values()),
        "bytes written to sockets, and to files in memory": after["wchar"] - before["wchar"],
        "bytes logged since the boot, in memory": logged,
    }


def _io(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Give size and time of change of every file in a folder."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(Path(place) / name)
            found[f"{place}/{name}"] = (status.st_size, status.st_mtime_ns)
    return found


if __name__ == "__main__":
    print(json.dumps(hour(float(sys.argv[1]) if len(sys.argv) > 1 else HOUR_S)))
