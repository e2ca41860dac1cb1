"""What first boot, enrolment and update have to say, left where the daemon reads it.

The daemon (node/vitals.py) tells it in status, health message and light; `gunfire-node check` too.
"""

from __future__ import annotations

import json
import os
from typing import Literal

from node.board.findings import Finding, Verdict
from provisioning.places import Places


def write(
    places: Places,
    check: Literal["enrolment", "update"],
    verdict: Verdict,
    figure: str,
    advice: str = "",
) -> None:
    """Leave a finding in place of the one before, whole or not at all."""
    finding = Finding(check, verdict, figure, advice)
    places.reports.mkdir(mode=0o755, parents=True, exist_ok=True)
    file = places.reports / f"{check}.json"
    fresh = file.with_suffix(".new")
    fresh.write_text(
        json.dumps({"verdict": verdict, "figure": figure, "advice": finding.advice}), "utf-8"
    )
    os.chmod(fresh, 0o644)
    fresh.replace(file)
