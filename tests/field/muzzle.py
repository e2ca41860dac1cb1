"""From the muzzle to the broker: `gunfire-node demo --city`, ten whole nodes in real time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.evidence import Claim, Detail
from tests.field.city import at_least, at_most
from tests.parts import Part, Tell

_BAR_S: Final = 2.5
_COMMAND: Final = "from node.cli import main; main()"


def measure(tell: Tell) -> Part:
    """Play the city, and read what the demo says of it."""
    tell("ten nodes, in real time")
    with TemporaryDirectory() as folder:
        played = subprocess.run(
            [sys.executable, "-c", _COMMAND, "demo", "--city", "--jsonl", "--plot",
             str(Path(folder) / "city.png")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    lines = [json.loads(line) for line in played.stdout.splitlines()]
    shots = [line for line in lines if line.get("truth", {}).get("label") == "gunfire"]
    if not shots:
        raise RuntimeError(f"the demo told nothing ({played.returncode}): {played.stderr[-500:]}")
    waits = [shot["after_third_node_s"] for shot in shots]
    errors = [shot["error_m"] for shot in shots]
    told = [wait for wait in waits if wait is not None]
    rows = tuple(
        (
            f"{shot['truth']['kind'].replace('_', ' ')}",
            "" if wait is None else f"{wait:.2f} s",
            "" if error is None else f"{error:.1f} m",
        )
        for shot, wait, error in zip(shots, waits, errors, strict=True)
    )
    return Part(
        (
            at_least("shootings told as incidents", 100 * len(told) / len(shots), "%", 100),
            at_most(
                "third node hears it → incident on the broker, worst",
                max(told, default=1e3), "s", _BAR_S,
            ),
            Claim("the demo's own verdict: exit code", played.returncode, ""),
        ),
        (Detail("The city's shootings", ("what", "after the third node", "error"), rows),),
    )  # fmt: skip
