"""The figures by which a classifier of gunfire is judged; arrays in, numbers out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def threshold_at(city_scores: Floats, false_alarm_rate: float) -> float:
    """Give the lowest threshold at which no more than a share of city sounds is at or above it."""
    ranked = np.sort(city_scores)[::-1]
    allowed = int(np.floor(false_alarm_rate * len(ranked)))
    return float(np.nextafter(ranked[allowed], np.inf)) if allowed < len(ranked) else 0.0


def area_under_roc(positive: Floats, negative: Floats) -> float:
    """Give the chance that a positive outscores a negative; ties count half (Mann-Whitney)."""
    if not len(positive) or not len(negative):
        return float("nan")
    above = (positive[:, None] > negative[None, :]).mean()
    level = (positive[:, None] == negative[None, :]).mean()
    return float(above + level / 2)


def calibration_error(confidence: Floats, correct: Flags, bins: int = 10) -> float:
    """Give the expected calibration error over equally filled bins.

    Naeini, Cooper & Hauskrecht, AAAI 2015; equal counts, since most scores lie at the ends.
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    gaps = [len(p) * abs(confidence[p].mean() - correct[p].mean()) for p in parts]
    return float(sum(gaps) / len(confidence))
