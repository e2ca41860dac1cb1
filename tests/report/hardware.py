"""What the tables themselves say was never tried on hardware."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.report.kept import Measured, Target
from tests.report.words import heading, slug

MARK: Final = "not verified on hardware"
"""The words that a claim, or a row of a table below, carries."""

_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+")
_ADMITS: Final = re.compile(
    r"\b(?:hardware|on a Pi|the Pi's|a real (?:Pi|receiver|card|array|microphone)|mock|emulated)\b"
)
_BOARDS: Final = ("aarch64", "arm")


@dataclass(frozen=True)
class Row:
    """One row, title or note that says so, and where it stands."""

    target: str
    part: str
    text: str

    @property
    def name(self) -> str:
        """Of its table."""
        return heading(self.target, self.part)

    @property
    def slug(self) -> str:
        """The address of its table within the page."""
        return slug(self.target, self.part)


def marked(targets: list[Target]) -> list[Row]:
    """List what carries the mark."""
    return [
        Row(target.name, part, text)
        for target in targets
        for part, measured in target.parts.items()
        for text in _texts(measured)
        if MARK in text.lower()
    ]


def admitted(targets: list[Target]) -> list[Row]:
    """List the sentences of notes that tell what was not real."""
    notes = [(target.name, "", target.note) for target in targets]
    notes += [
        (target.name, part, measured.note)
        for target in targets
        for part, measured in target.parts.items()
    ]
    return [
        Row(target, part, sentence)
        for target, part, note in notes
        for sentence in _SENTENCE.split(note)
        if _ADMITS.search(sentence)
    ]


def on_a_board(targets: list[Target]) -> int:
    """Count the tables that were measured on a processor of a Pi's kind."""
    return sum(
        measured.machine.startswith(_BOARDS)
        for target in targets
        for measured in target.parts.values()
    )


def _texts(measured: Measured) -> Iterator[str]:
    for claim in measured.claims:
        yield " ".join(filter(None, (claim.claim, claim.unit, claim.bar)))
    for detail in measured.details:
        yield detail.title
        yield from detail.columns
        for row in detail.rows:
            yield " · ".join(row)
