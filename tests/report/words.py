"""How figures, bars and words are set."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup, escape

from tests.evidence import figure

_CODE: Final = re.compile(r"`([^`]+)`")
_NUMBER: Final = re.compile(r"[<>≤≥~±+−-]?\s?\d[\d.,]*(?:\s?\S{1,4})?")
_EMPTY: Final = ("", "–", "-", "—")


def interval(ends: tuple[float, float] | None) -> str:
    """Give what holds a figure by 95 %; nothing where it was not worked out."""
    return "" if ends is None else " – ".join(map(figure, ends))


def unit(name: str) -> str:
    """Give a unit as it is printed."""
    return "µs" if name == "us" else name


def words(text: str) -> Markup:
    """Set a text: comparisons as signs, what stands between backquotes as code."""
    set_well = text.replace("<=", "≤").replace(">=", "≥")
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(set_well))))  # noqa: S704  (escaped)


def heading(target: str, part: str) -> str:
    """Name a table."""
    return f"{target}: {part}" if part else target


def slug(*names: str) -> str:
    """Give an id for an address within the page."""
    return "-".join(re.sub(r"[^\w-]+", "-", name) for name in names if name)


def numeric(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Say of each column of a table whether it holds figures, which stand to the right."""
    columns = list(zip(*rows, strict=True))
    return [
        any(cell not in _EMPTY for cell in column)
        and all(cell in _EMPTY or _NUMBER.fullmatch(cell) is not None for cell in column)
        for column in columns
    ]
