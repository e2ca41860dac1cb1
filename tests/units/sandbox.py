"""The units as installed: what systemd says of them, and the node in its whole sandbox."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Final

from tests.evidence import Claim, Detail
from tests.hil.container import NODE
from tests.hil.shots import detections, street
from tests.hil.unit_stage import UNITS, Stage, exposure, installed, stage
from tests.hil.virtual_card import build_plugin
from tests.parts import Part, Tell

MOST_EXPOSURE: Final = 1.5
MOST_ERROR_S: Final = 1e-3
WANTED: Final = 10


def measure(tell: Tell) -> Part:
    """Boot the node as installed, ask systemd, and have it hear ten shots."""
    tell("installing the node into a fresh root")
    with (
        tempfile.TemporaryDirectory() as folder,
        installed() as product,
        stage("sandbox", product, build_plugin(Path(folder)), street(90.0)) as begun,
        begun.subscribed() as words,
    ):
        tell("asking systemd-analyze")
        said = {unit.name: _verify(begun, unit.name) for unit in UNITS}
        tell("ten shots")
        heard = detections(words, 90.0, wanted=WANTED)
        errors_s = [abs(error) * 1e-9 for error in begun.onset_errors_ns(heard)]
        limits = _limits(begun)
    exposures = {unit.name: exposure(unit) for unit in UNITS}
    complaints = sum(len(words.splitlines()) for words in said.values())
    worst = max(errors_s, default=float("inf"))
    claims = (
        Claim(
            f"`systemd-analyze verify` of {len(UNITS)} units: lines of complaint",
            complaints,
            "",
            "0",
            complaints == 0,
        ),
        Claim(
            "`systemd-analyze security --offline`: exposure of the node's unit",
            exposures[NODE],
            "of 10",
            f"≤ {MOST_EXPOSURE}",
            exposures[NODE] <= MOST_EXPOSURE,
        ),
        Claim(
            "the same, the worst of all units",
            max(exposures.values()),
            "of 10",
            f"≤ {MOST_EXPOSURE}",
            max(exposures.values()) <= MOST_EXPOSURE,
        ),
        Claim(
            f"in its whole sandbox: of {WANTED} shots published to a subscriber outside",
            len(heard),
            "",
            str(WANTED),
            len(heard) == WANTED,
        ),
        Claim(
            "the same: onset against the card's truth, worst",
            worst,
            "s",
            f"≤ {MOST_ERROR_S:g}",
            worst <= MOST_ERROR_S,
        ),
    )
    return Part(claims, (Detail("What the kernel says of the running node", ("", ""), limits),))


def _verify(begun: Stage, unit: str) -> str:
    return begun.machine.run("systemd-analyze", "verify", "--man=no", unit, check=False).stderr


def _limits(begun: Stage) -> tuple[tuple[str, str], ...]:
    process = Path(f"/proc/{begun.machine.pid()}")
    status = process.joinpath("status").read_text()
    wanted = ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Threads")
    rows = re.findall(rf"^({'|'.join(wanted)}):\s+(.*)$", status, re.M)
    data = re.search(r"^Max data size\s+(\S+)", process.joinpath("limits").read_text(), re.M)
    return (
        *((name, " ".join(value.split())) for name, value in rows),
        ("Max data size", data[1] if data else "?"),
    )
