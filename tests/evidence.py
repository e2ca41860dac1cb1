"""Tables of claims: print one, keep it in docs/evidence/, and the page that shows them all.

Each `make` target of the design's "Evidence" ends in `publish`.
"""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).parent.parent
FOLDER: Final = ROOT / "docs" / "evidence"
PAGE: Final = ROOT / "docs" / "look-up" / "evidence.md"
PACKAGES: Final = ("gunfire-node", "numpy", "scipy", "soundfile", "paho-mqtt", "pydantic")


@dataclass(frozen=True)
class Claim:
    """One row: what is claimed, the figure measured, its unit, the bar, whether it holds.

    A figure that no bar was set for has none, and holds by itself.
    """

    claim: str
    value: float
    unit: str
    bar: str = ""
    holds: bool = True


def publish(target: str, command: str, claims: Sequence[Claim], note: str = "") -> None:
    """Print a table, write docs/evidence/<target>.json, renew docs/look-up/evidence.md."""
    record: dict[str, Any] = {
        "target": target,
        "command": command,
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "machine": f"{platform.machine()}, {platform.system()}",
        "note": note,
        "claims": [asdict(claim) for claim in claims],
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{target}.json"
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(page(), "utf-8")
    table = Table("claim", "value", "unit", "bar", "holds", title=command, title_justify="left")
    for claim in claims:
        holds = "[green]yes[/]" if claim.holds else "[bold red]NO[/]"
        table.add_row(claim.claim, _figure(claim.value), claim.unit, claim.bar, holds)
    Console().print(table)


def page() -> str:
    """Make docs/look-up/evidence.md from the files in docs/evidence/."""
    parts = [
        "# Evidence\n",
        "Every figure that we claim, with the command that regenerates it. This page is made from "
        "`docs/evidence/*.json`; do not edit it.\n",
    ]
    for file in sorted(FOLDER.glob("*.json")):
        record = json.loads(file.read_text("utf-8"))
        versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        parts.append(f"## {record['target']}\n")
        parts.append(f"`{record['command']}` at commit `{record['commit']}` ({record['machine']}; ")
        parts[-1] += f"{versions})\n"
        if record["note"]:
            parts.append(record["note"] + "\n")
        rows = ["| claim | value | unit | bar | holds |", "|---|---:|---|---|---|"]
        for claim in record["claims"]:
            holds = "yes" if claim["holds"] else "**no**"
            rows.append(
                f"| {claim['claim']} | {_figure(claim['value'])} | {claim['unit']} "
                f"| {claim['bar'] or '–'} | {holds} |"
            )
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "node", "models", "tests")
    return git("rev-parse", "--short", "HEAD") + ("+changes" if changed else "")
