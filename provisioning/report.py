"""What first boot, enrolment and update have to say, left where the daemon reads it.

The daemon (node/vitals.py) tells it in status, health message and light; `gunfire-node check` too.
"""

from __future__ import annotations

import json
from typing import Literal

from node.board.findings import Finding, Verdict
from provisioning.places import Places
from provisioning.whole import write_whole


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
    said = {"verdict": verdict, "figure": figure, "advice": finding.advice}
    write_whole(places.reports / f"{check}.json", json.dumps(said))
