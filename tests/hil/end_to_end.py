"""Published times against the moments at which impulses were heard, end to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from tests.evidence import Claim, Detail
from tests.hil.virtual_bench import HEARD_FROM_M
from tests.parts import Part

TRIGGER_P99_US: Final = 1.0
PEER: Final = "-316 ± 99.6"
"""µs: what commercial sensors published of themselves (ShotSpotter Tech Note 098)."""


def table(runs: Sequence[dict[str, Any]], trigger_us: Mapping[str, Sequence[float]]) -> Part:
    """Make claims and pictures of what `tests/hil/test_end_to_end.py` recorded."""
    claims: list[Claim] = []
    for run in runs:
        name = f"{run['method']}, end to end, {len(run['errors_us'])} impulses"
        mean, sigma = run["mean_us"], run["sigma_us"]
        claims += [
            Claim(f"{name}: mean", mean, "µs", "≤ 50 either way", abs(mean) <= 50),
            Claim(f"{name}: σ", sigma, "µs", "≤ 20", sigma <= 20),
            _p99(name, run),
            Claim(f"{name}: worst", run["worst_us"], "µs"),
            Claim(f"{name}: the constant taken off, of another run", run["constant_us"], "µs"),
        ]
    if (timed := trigger_us.get(str(HEARD_FROM_M))) is not None:
        p99 = float(np.percentile(np.abs(timed), 99))
        what = f"the trigger alone on impulses from {HEARD_FROM_M} m: p99"
        bar = f"≤ {TRIGGER_P99_US:g}"
        claims.append(Claim(what, p99, "µs", bar, p99 <= TRIGGER_P99_US))
    rows = [
        (
            run["method"],
            *(f"{run[f'{what}_us']:+.2f}" for what in ("constant", "mean")),
            *(f"{run[f'{what}_us']:.2f}" for what in ("sigma", "p99", "worst")),
        )
        for run in runs
    ]
    detail = Detail(
        f"Published less true onset, µs; commercial sensors say {PEER} of themselves",
        ("clock", "constant, calibration run", "mean", "σ", "p99", "worst"),
        tuple(rows),
    )
    alone = Detail(
        "The trigger alone on such impulses, their constant taken off, µs; heard were those from "
        f"{HEARD_FROM_M} m",
        ("from", "σ", "p99", "worst"),
        tuple(
            (
                f"{range_m} m",
                f"{np.std(off):.2f}",
                f"{np.percentile(np.abs(off), 99):.2f}",
                f"{np.max(np.abs(off)):.2f}",
            )
            for range_m, off in trigger_us.items()
        ),
    )
    return Part(tuple(claims), (detail, alone), draws=tuple(partial(_draw, run) for run in runs))


def _p99(name: str, run: dict[str, Any]) -> Claim:
    p99 = run["p99_us"]
    if not run["pulse"]:
        return Claim(f"{name}: p99", p99, "µs")
    return Claim(f"{name}: p99", p99, "µs", "≤ 1", p99 <= 1)


def _draw(run: dict[str, Any], axes: Any) -> None:
    errors = np.array(run["errors_us"])
    axes.hist(errors, bins=40, color="tab:blue")
    axes.set_title(f"{run['method']}: {run['mean_us']:+.2f} ± {run['sigma_us']:.2f} µs")
    axes.set_xlabel("published less true onset, µs")
    axes.set_ylabel("impulses")
