"""How findings read on a terminal, on every screen that shows some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from node.board.findings import Finding
from node.cli._shared import printable
from node.examine import finding_record

MARKS: Final = {"pass": ("pass", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}
"""For each verdict its word and style."""


def findings_table(findings: Iterable[Finding]) -> Table:
    """Lay findings out: a line for each, and below it what to do where there is something."""
    return records_table(finding_record(finding) for finding in findings)


def records_table(records: Iterable[Mapping[str, Any]]) -> Table:
    """Lay out findings that another process has written down, by `finding_record`."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for record in records:
        mark, style = MARKS[record["verdict"]]
        table.add_row(Text(mark, style), Text(record["name"]), Text(printable(record["figure"])))
        if record["advice"]:
            table.add_row("", "", Text(f"→ {printable(record['advice'])}", "italic"))
    return table


def light_words(light: Mapping[str, Any]) -> str:
    """Say what the light shows, by `light_record`: the flashes of a fault, and its meaning."""
    flashes = f"{light['long']} long, {light['short']} short: " if light["long"] else ""
    return f"{flashes}{light['meaning']}"
