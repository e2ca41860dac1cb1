"""Published times against the moments at which impulses were heard, end to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tests.evidence import Claim, Detail
from tests.hil.virtual_bench import HEARD_FROM_M
from tests.parts import Part

P99_US: Final = 1.0
"""Asked of the times by a pulse, and of the trigger alone, whose part of them it is."""
PEER: Final = "-316 ± 99.6"
"""µs: what commercial sensors published of themselves (ShotSpotter Tech Note 098)."""
CONSTANT_US: Final = 316.0
"""Nor may what is constant be more than theirs, though it is known and taken off."""


def table(runs: Sequence[dict[str, Any]], trigger_us: Mapping[str, Sequence[float]]) -> Part:
    """Make claims and pictures of what `tests/hil/test_end_to_end.py` recorded."""
    claims: list[Claim] = []
    for run in runs:
        name = f"{run['method']}, end to end, {len(run['errors_us'])} impulses"
        constant = run["constant_us"]
        mean, sigma = run["mean_us"], run["sigma_us"]
        claims += [
            Claim(f"{name}: mean", mean, "µs", "≤ 50 either way", abs(mean) <= 50),
            Claim(f"{name}: σ", sigma, "µs", "≤ 20", sigma <= 20),
            _p99(name, run["p99_us"])
            if run["pulse"]
            else Claim(f"{name}: p99", run["p99_us"], "µs"),
            Claim(f"{name}: worst", run["worst_us"], "µs"),
            Claim(
                f"{name}: the constant taken off, of another run",
                constant,
                "µs",
                f"≤ {CONSTANT_US:g} either way",
                abs(constant) <= CONSTANT_US,
            ),
            Claim(
                f"{run['method']}, end to end: impulses of which no time came",
                run["missed"],
                "",
                "0",
                run["missed"] == 0,
            ),
        ]
    alone_us = {range_m: np.asarray(errors) for range_m, errors in trigger_us.items()}
    spread_us = {range_m: errors - np.mean(errors) for range_m, errors in alone_us.items()}
    if (timed := spread_us.get(str(HEARD_FROM_M))) is not None:
        claims.append(_p99(f"the trigger alone on impulses from {HEARD_FROM_M} m", p99_us(timed)))
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
        f"The trigger alone on such impulses, µs; heard were those from {HEARD_FROM_M} m",
        ("from", "constant", "σ", "p99, less the constant", "worst"),
        tuple(
            (
                f"{range_m} m",
                f"{np.mean(alone_us[range_m]):+.2f}",
                f"{np.std(off):.2f}",
                f"{p99_us(off):.2f}",
                f"{np.max(np.abs(off)):.2f}",
            )
            for range_m, off in spread_us.items()
        ),
    )
    return Part(tuple(claims), (detail, alone), draws=tuple(partial(_draw, run) for run in runs))


def p99_us(errors_us: npt.ArrayLike) -> float:
    """Give what 99 of a hundred errors stay within, either way."""
    return float(np.percentile(np.abs(errors_us), 99))


def _p99(name: str, p99: float) -> Claim:
    return Claim(f"{name}: p99", p99, "µs", f"≤ {P99_US:g}", p99 <= P99_US)


def _draw(run: dict[str, Any], axes: Any) -> None:
    errors = np.array(run["errors_us"])
    axes.hist(errors, bins=40, color="tab:blue")
    axes.set_title(f"{run['method']}: {run['mean_us']:+.2f} ± {run['sigma_us']:.2f} µs")
    axes.set_xlabel("published less true onset, µs")
    axes.set_ylabel("impulses")
