"""How fast a figure grows, robustly, and how sure that is.

Samples that follow each other are not independent, and memory comes in pages and arenas: an
interval as if they were would be far too narrow. So a run after its warm-up is cut into equal
stretches, each stands for itself by its median, the slope is that of Theil and Sen (the median of
all slopes between two), and its 95 % interval, Sen's by Kendall's tau, is widened by what the
residuals' correlation from one stretch to the next leaves of their number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

import numpy as np
from scipy.stats import theilslopes

DAY_S: Final = 86_400.0
LEAST_STRETCHES: Final = 6
MOST_STRETCHES: Final = 72
MOST_CORRELATION: Final = 0.9

Verdict = Literal["flat", "grows", "not told"]


@dataclass(frozen=True)
class Slope:
    """Growth a day: the estimate, and between what it lies by 95 %.

    Attributes
    ----------
    stretches
        On how many it rests.
    """

    per_day: float
    low: float
    high: float
    stretches: int

    def times(self, days: float) -> Self:
        """Give growth in so many days in place of one."""
        per_day, low, high = (days * value for value in (self.per_day, self.low, self.high))
        return replace(self, per_day=per_day, low=low, high=high)

    def verdict(self, bar: float) -> Verdict:
        """Say whether growth is below a bar, above it, or cannot be told from it."""
        if self.high <= bar:
            return "flat"
        return "grows" if self.low > bar else "not told"


UNKNOWN: Final = Slope(math.nan, -math.inf, math.inf, 0)


def slope(at_s: Sequence[float], values: Sequence[float], warm_up_s: float) -> Slope:
    """Estimate how fast a figure grows after a warm-up.

    Parameters
    ----------
    at_s, values
        When, in s, and what; shape [n].
    warm_up_s
        What was before this is left out.
    """
    at, value = np.asarray(at_s, float), np.asarray(values, float)
    warm = at >= warm_up_s
    at, value = at[warm], value[warm]
    stretches = min(MOST_STRETCHES, len(at) // 3)
    if stretches < LEAST_STRETCHES:
        return UNKNOWN
    pieces = np.array_split(np.arange(len(at)), stretches)
    days = np.array([np.mean(at[piece]) for piece in pieces]) / DAY_S
    medians = np.array([np.median(value[piece]) for piece in pieces])
    estimate, intercept, low, high = theilslopes(medians, days, 0.95)
    wider = _wider(medians - intercept - estimate * days)
    return Slope(
        float(estimate),
        float(estimate - wider * (estimate - low)),
        float(estimate + wider * (high - estimate)),
        stretches,
    )


def _wider(residuals: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Give by how much correlation from one to the next widens an interval (AR(1))."""
    centred = residuals - np.mean(residuals)
    power = float(np.sum(centred**2))
    if not power:
        return 1.0
    correlation = float(np.sum(centred[1:] * centred[:-1])) / power
    correlation = min(max(correlation, 0.0), MOST_CORRELATION)
    return math.sqrt((1 + correlation) / (1 - correlation))


def rise(at_s: Sequence[float], values: Sequence[float], warm_up_s: float) -> float:
    """Give by how much a count is higher in the last part of a run than right after its warm-up.

    Of what only goes up by whole ones: by the median of the first and the last twelfth, so that
    what is opened for a while and closed again is no growth.
    """
    at, value = np.asarray(at_s, float), np.asarray(values, float)
    warm = value[at >= warm_up_s]
    part = max(1, len(warm) // 12)
    if len(warm) < LEAST_STRETCHES:
        return math.nan
    return float(np.median(warm[-part:]) - np.median(warm[:part]))
