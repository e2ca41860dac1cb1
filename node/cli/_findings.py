"""How findings read on a terminal, on every screen that shows some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from node.board.findings import Finding
from node.cli._shared import printable
from node.examine import finding_record

MARKS: Final = {"pass": ("pass", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}
"""For each verdict its word and style."""
MARK_WIDTH: Final = 6
LEAST_FIGURE: Final = 24
"""Narrower than that, a figure is no sentence any more."""


def findings_table(findings: Iterable[Finding]) -> RenderableType:
    """Lay findings out: a line for each, and below it what to do where there is something."""
    return records_table(finding_record(finding) for finding in findings)


def records_table(records: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Lay out findings that another process has written down, by `finding_record`."""
    return _Records([_Row.of(record) for record in records])


class _Row(NamedTuple):
    mark: Text
    name: Text
    figure: Text
    advice: Text | None

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Self:
        name, figure, advice = (printable(record[key]) for key in ("name", "figure", "advice"))
        step = Text(f"→ {advice}", "italic") if advice else None
        return cls(Text(*MARKS[record["verdict"]]), Text(name), Text(figure), step)


class _Records:
    """Findings below each other, names beside figures where the screen is wide enough for both."""

    def __init__(self, rows: Sequence[_Row]) -> None:
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = max((len(row.name) for row in self._rows), default=0)
        wide = options.max_width >= names + MARK_WIDTH + LEAST_FIGURE
        table = Table.grid(padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True)
        if wide:
            table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for mark, name, figure, advice in self._rows:
            if wide:
                table.add_row(mark, name, figure)
            else:  # a phone held upright
                table.add_row(mark, name)
                table.add_row("", figure)
            if advice is not None:
                table.add_row(*[""] * (1 + wide), advice)
        yield table


def light_words(light: Mapping[str, Any]) -> str:
    """Say what the light shows, by `light_record`: the flashes of a fault, and its meaning."""
    flashes = f"{light['long']} long, {light['short']} short: " if light["long"] else ""
    return f"{flashes}{light['meaning']}"
