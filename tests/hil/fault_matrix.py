"""The fault matrix, one row a fault, generated from what the tests recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tests.evidence import Claim, Detail
from tests.hil.fault_table import BENCHES
from tests.parts import Part

LEAST: Final = 35
COLUMNS: Final = (
    "fault", "told by", "bound, s", "told after, s", "words", "and besides", "bound, s",
    "well again after, s", "shots heard", "lost", "told twice", "of no shot", "worst time, µs",
    "as it should be",
)  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> Part:
    """Make claims and the matrix of what `tests/hil/test_faults.py` recorded."""
    order = [row.name for setup in BENCHES.values() for row in setup.rows]
    rows = sorted(rows, key=lambda row: order.index(row["fault"]))
    to_tell = [row for row in rows if row["to_tell"]]
    told = [r for r in to_tell if r["told_s"] is not None and r["told_s"] <= r["bound_s"]]
    well = [r for r in rows if r["recovered_s"] is not None and r["recovered_s"] <= r["recovers_s"]]
    owed = sum(row["owed"] for row in rows)
    left_out = [name for name in order if name not in {row["fault"] for row in rows}]
    return Part(
        (
            Claim("faults really injected", len(rows), "", f"≥ {LEAST}", len(rows) >= LEAST),
            Claim("; ".join(["of them, known and not struck", *left_out]), len(left_out), "", "0",
                  not left_out),
            Claim(f"told within the bound of its row, of {len(to_tell)} that are to be told",
                  len(told), "", f"{len(to_tell)}", len(told) == len(to_tell)),
            Claim(f"well again within the bound of its row, of {len(rows)}", len(well), "",
                  f"{len(rows)}", len(well) == len(rows)),
            _none(f"shots lost, of {owed:,} that the microphones heard", rows, "lost"),
            _none("shots told twice", rows, "doubled"),
            _none("detections of no shot", rows, "strays"),
            _none("published times off by more than 3 of their own σ", rows, "beyond"),
            _none("published bearings off by more than 3 of their own σ",
                  [row for row in rows if not row["untold_bearings"]], "astray"),
            Claim("the same with two microphones exchanged, which no sound can tell (0017)",
                  sum(row["astray"] for row in rows if row["untold_bearings"]), ""),
        ),
        (Detail("Fault matrix", COLUMNS, tuple(map(_cells, rows))),),
    )  # fmt: skip


def _none(claim: str, rows: Sequence[dict[str, Any]], what: str) -> Claim:
    count = sum(row[what] for row in rows)
    return Claim(claim, count, "", "0", count == 0)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["fault"],
        row["by"] if row["to_tell"] else "",
        f"{row['bound_s']:g}" if row["to_tell"] else "",
        _seconds(row["told_s"]) if row["to_tell"] else "nothing to tell",
        row["words"].replace("|", "/"),
        row["unasked"].replace("|", "/"),
        f"{row['recovers_s']:g}",
        _seconds(row["recovered_s"]),
        str(row["owed"])
        + (f", and {row['forgiven']} in sound told lost" if row["forgiven"] else ""),
        str(row["lost"]),
        str(row["doubled"]),
        str(row["strays"]),
        f"{row['worst_s'] * 1e6:,.0f}",
        "; ".join(row["complaints"]) or "yes",
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"
