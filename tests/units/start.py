"""From start to hearing, and how much memory the node takes once it has heard for a while."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final

from tests.evidence import Claim, Detail
from tests.hil.container import NODE
from tests.hil.process import resident_bytes
from tests.hil.shots import street
from tests.hil.unit_stage import Stage, installed, stage
from tests.hil.virtual_card import build_plugin
from tests.parts import Part, Tell

STARTS: Final = 5
MOST_START_S: Final = 5.0
HEARS_S: Final = 300.0
MOST_RSS: Final = 120e6
IMPORTS: Final = (
    "import time; began = time.perf_counter(); import node.cli.run; "
    "print(time.perf_counter() - began)"
)
MODEL: Final = (
    "from node.classify import TfliteClassifier; import time; began = time.perf_counter(); "
    "TfliteClassifier.load(None); print(time.perf_counter() - began)"
)


def measure(tell: Tell) -> Part:
    """Start it some times, then let it hear a shot every three seconds for five minutes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        installed() as product,
        stage("start", product, build_plugin(Path(folder)), street(90.0), loop=True) as begun,
    ):
        begun.machine.until(NODE, "active")
        starts = []
        for number in range(STARTS):
            tell(f"start {number + 1} of {STARTS}")
            starts.append(_start(begun))
        imports_s, model_s = _inside(begun, IMPORTS), _inside(begun, MODEL)
        most = 0.0
        until_s = time.monotonic() + HEARS_S
        while time.monotonic() < until_s:
            tell(f"hearing; {most / 1e6:.0f} MB at most")
            time.sleep(2.0)
            most = max(most, resident_bytes(begun.machine.pid(), without="samples.raw"))
        opened = [line for line in begun.machine.journal().splitlines() if "opened" in line][-1]
    worst_s = max(total for total, _ in starts)
    claims = (
        Claim(
            f"`systemctl start` to the first sound taken, worst of {STARTS}",
            worst_s,
            "s",
            f"≤ {MOST_START_S:g}",
            worst_s <= MOST_START_S,
        ),
        Claim("of that: imports", imports_s, "s"),
        Claim("of that: the model read", model_s, "s"),
        Claim(
            f"resident memory in {HEARS_S:g} s with a shot every three, the most",
            most / 1e6,
            "MB",
            f"≤ {MOST_RSS / 1e6:.0f}",
            most <= MOST_RSS,
        ),
    )
    rows = tuple((f"{total:.2f}", stream) for total, stream in starts)
    return Part(
        claims,
        (
            Detail("Starts", ("s", "stream"), rows),
            Detail("The stream", ("as opened",), ((opened,),)),
        ),
    )


def _start(begun: Stage) -> tuple[float, str]:
    """Stop it, start it, and give the seconds until systemd calls it active, that is: it hears."""
    begun.machine.systemctl("stop", NODE)
    began_s = time.monotonic()
    begun.machine.systemctl("start", NODE)  # returns with READY=1
    total_s = time.monotonic() - began_s
    opened = [line for line in begun.machine.journal().splitlines() if "opened" in line][-1]
    return total_s, opened.split("opened ")[1]


def _inside(begun: Stage, code: str) -> float:
    """Run a line of Python of the installed node, and give what it printed."""
    return float(begun.machine.run("/opt/gunfire-node/bin/python", "-c", code).stdout)
