"""Saved predictions: a CSV file a fold, read back as columns.

`predictions` and `events` write them, `figures` are worked out of them without any sound.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from node.types import LABELS

Mask = npt.NDArray[np.bool_]
Row = Mapping[str, str | int | float]

OURS: Final = ("int8", "float")
"""Our network as it ships, and as it was before it was quantised."""
_TEXT: Final = frozenset({"path", "label", "sound", "source", "group", "tier", "what"})
_WHOLE: Final = frozenset({"fold", "piece", "event", "live", "audible", "number"})


@dataclass(frozen=True)
class Table:
    """Columns of equal length; text, whole numbers or floats by their name."""

    columns: dict[str, npt.NDArray[Any]]

    @classmethod
    def of(cls, rows: Sequence[Row], names: Sequence[str]) -> Self:
        """Make a table of rows; what a row lacks is NaN."""
        return cls({name: _column(name, [row.get(name, "") for row in rows]) for name in names})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    def where(self, mask: Mask) -> Table:
        """Give the rows for which the mask holds."""
        return Table({name: column[mask] for name, column in self.columns.items()})

    def logs(self, which: str) -> npt.NDArray[np.float64]:
        """Give one judge's log-evidence of each class, shape [n, 4]."""
        return np.stack([self[name] for name in log_names(which)], axis=1)


def log_names(which: str) -> tuple[str, ...]:
    """Name the four columns of a judge's log-evidence."""
    return tuple(f"{which}_{label}" for label in LABELS)


def as_row(which: str, logs: npt.NDArray[np.float64]) -> dict[str, float]:
    """Give the four columns of one log-evidence."""
    return dict(zip(log_names(which), map(float, logs), strict=True))


def joined(tables: Iterable[Table]) -> Table:
    """Put tables of the same columns one after the other."""
    every = list(tables)
    return Table({n: np.concatenate([t[n] for t in every]) for n in every[0].columns})


def read(path: Path) -> Table:
    """Read a table.

    Raises
    ------
    ValueError
        It holds what is no number where one is wanted; the message names the file.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = list(reader.fieldnames or ())
        try:
            return Table.of(list(reader), names)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; make it again with `make evaluate`") from error


def write(path: Path, rows: Iterable[Row], names: Sequence[str]) -> None:
    """Write rows as CSV, floats to four significant digits: the whole file or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_text(row.get(name, "")) for name in names] for row in rows)
    partial.replace(path)


def _column(name: str, values: list[Any]) -> npt.NDArray[Any]:
    if name in _TEXT:
        return np.array(values, dtype=np.str_)
    if name in _WHOLE:
        return np.array(values, dtype=np.str_).astype(np.int64)
    return np.array([math.nan if value == "" else float(value) for value in values])


def _text(value: str | float) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)
