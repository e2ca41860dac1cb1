"""The figures by which a classifier of gunfire is judged; arrays in, numbers out.

Intervals are of 95 %, by bootstrap over groups (recordists, firing points): the sounds of one
group are alike, and resampling them one by one would promise too much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Names = npt.NDArray[Any]

RESAMPLES: Final = 2000
_ENDS: Final = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, its interval (None where nothing can be said) and the number of cases."""

    value: float
    interval: tuple[float, float] | None
    cases: int


NOTHING: Final = Figure(float("nan"), None, 0)


def threshold_at(city_scores: Floats, false_alarm_rate: float) -> float:
    """Give the lowest threshold at which no more than a share of city sounds is at or above it."""
    ranked = np.sort(city_scores)[::-1]
    allowed = int(np.floor(false_alarm_rate * len(ranked)))
    return float(np.nextafter(ranked[allowed], np.inf)) if allowed < len(ranked) else 0.0


def share(flags: Flags, groups: Names) -> Figure:
    """Give the share of cases that are true, with its interval.

    Where all or none are true the bootstrap has nothing to resample; the interval then is the
    exact binomial one (Clopper & Pearson, Biometrika 1934) over cases, as if they were independent.
    """
    if len(flags) == 0:
        return NOTHING
    value = float(flags.mean())
    if value in (0.0, 1.0):
        return Figure(value, _exact(int(flags.sum()), len(flags)), len(flags))
    index, drawn = _resampled(groups)
    true = np.bincount(index, weights=flags)
    return Figure(value, _interval((drawn @ true) / (drawn @ np.bincount(index))), len(flags))


def area_under_roc(positive: Floats, negative: Floats) -> float:
    """Give the chance that a positive outscores a negative; ties count half (Mann-Whitney)."""
    if not len(positive) or not len(negative):
        return float("nan")
    return float(_wins(positive, negative).mean())


def area(positive: Floats, from_: Names, negative: Floats, of: Names) -> Figure:
    """Give the area under the ROC, with its interval over the groups of both sides."""
    if not len(positive) or not len(negative):
        return NOTHING
    wins = _wins(positive, negative)
    rows, drawn_rows = _resampled(from_, seed=1)
    columns, drawn_columns = _resampled(of, seed=2)
    summed = np.zeros((drawn_rows.shape[1], drawn_columns.shape[1]))
    np.add.at(summed, (rows[:, None], columns[None, :]), wins)
    won = np.einsum("dr,rc,dc->d", drawn_rows, summed, drawn_columns, optimize=True)
    pairs = (drawn_rows @ np.bincount(rows)) * (drawn_columns @ np.bincount(columns))
    return Figure(float(wins.mean()), _interval(won / pairs), len(positive) + len(negative))


def calibration_error(confidence: Floats, correct: Flags, bins: int = 10) -> float:
    """Give the expected calibration error over equally filled bins.

    Naeini, Cooper & Hauskrecht, AAAI 2015; equal counts, since most scores lie at the ends.
    """
    if not len(confidence):
        return float("nan")
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [len(p) * abs(confidence[p].mean() - correct[p].mean()) for p in parts]
    return float(sum(gaps) / len(confidence))


def over_groups(
    statistic: Callable[[npt.NDArray[np.int64]], float], groups: Names, draws: int = 1000
) -> Figure:
    """Give any statistic of rows, with its interval; it is given the indices of the rows."""
    if len(groups) == 0:
        return NOTHING
    index, drawn = _resampled(groups, draws)
    rows = [np.flatnonzero(index == group) for group in range(drawn.shape[1])]
    again = [
        statistic(np.concatenate([np.tile(rows[g], times[g]) for g in np.flatnonzero(times)]))
        for times in drawn
    ]
    return Figure(statistic(np.arange(len(groups))), _interval(np.array(again)), len(groups))


def poisson_upper(events: int, hours: float) -> float:
    """Give the 95 % upper bound of a rate in 1/h of which some events were seen (Garwood 1936)."""
    return float(stats.chi2.ppf(0.95, 2 * (events + 1)) / 2 / hours) if hours > 0 else float("nan")


def _wins(positive: Floats, negative: Floats) -> Floats:
    above = positive[:, None] > negative[None, :]
    return above + (positive[:, None] == negative[None, :]) / 2


def _resampled(
    groups: Names, draws: int = RESAMPLES, seed: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give the number of each row's group, [n], and how often each is drawn, [draws, groups]."""
    names, index = np.unique(groups, return_inverse=True)
    draw = np.random.default_rng(seed)
    return index, draw.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)


def _interval(values: Floats) -> tuple[float, float] | None:
    """Give the middle 95 %; None where one group alone was there to be drawn."""
    low, high = np.nanquantile(values, _ENDS)
    return (float(low), float(high)) if high > low else None


def _exact(true: int, cases: int) -> tuple[float, float]:
    found = stats.binomtest(true, cases).proportion_ci(method="exact")
    return float(found.low), float(found.high)
