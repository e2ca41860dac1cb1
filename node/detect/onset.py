"""When an impulse begins, to a fraction of a sample.

The trigger knows the onset to a millisecond. Here the change of variance is found that splits the
samples round it best into noise before and sound after: Akaike's criterion in the form of Maeda
(1985), the best of six pickers for absolute time (signal.md §2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

# The window round the bin that fired; it ends at its largest sample, since what comes after the
# first rise only blurs the change.
BEFORE_S: Final = 0.008
AFTER_S: Final = 0.004

# Channels of one array hear an arrival within so long of each other; a pick that is further off
# than that from the others' median is of something else.
CROSSING_S: Final = 0.001

# What the criterion cannot know of its own error: calibre and range change the rise (signal.md
# §2: 50–200 µs in all), and a weak rise starts under the noise, so that it is picked late.
RISE_SIGMA_S: Final = 85e-6
WEAK_SIGMA_S: Final = 1.5e-3


@dataclass(frozen=True, slots=True)
class Pick:
    """An onset and its standard error, in samples from the start of the window."""

    sample: float
    sigma: float


def pick_onset(y: npt.NDArray[np.float32]) -> Pick:
    """Pick the onset in a window of high-passed samples of one channel, shape [n].

    AIC(k) = k ln var(y[:k]) + (n - k) ln var(y[k:]); the answer is the mean of k under Akaike's
    weights exp(-(AIC - min AIC) / 2), and its error their spread and the grain of a sample.
    """
    y = y[: int(np.argmax(np.abs(y))) + 1]
    n = len(y)
    if n < 8:
        return Pick(0.0, float(max(n, 1)))
    energy = np.cumsum(np.square(y, dtype=np.float64))
    tiny = max(energy[-1] / n * 1e-12, 1e-30)
    k = np.arange(2, n - 2)
    before = np.maximum(energy[k - 1] / k, tiny)
    after = np.maximum((energy[-1] - energy[k - 1]) / (n - k), tiny)
    aic = k * np.log(before) + (n - k) * np.log(after)
    weight = np.exp(-(aic - aic.min()) / 2)
    weight /= weight.sum()
    mean = float(weight @ k)
    variance = float(weight @ np.square(k - mean))
    return Pick(mean, float(np.sqrt(variance + 1 / 12)))


def choose_pick(picks: list[Pick], first_is_reference: bool, crossing: float) -> Pick:
    """Choose the pick that speaks for the array.

    Channel 0's, whose time is the event's, if it is among them (as the first) and no further than
    `crossing` from the median; else the median, with the time to cross the array as its error.
    """
    middle = float(np.median([pick.sample for pick in picks]))
    if first_is_reference and abs(picks[0].sample - middle) <= crossing:
        return picks[0]
    return Pick(middle, crossing / 2)


def onset_sigma_s(pick_sigma_s: float, snr_db: float) -> float:
    """Give the standard error of an onset in s, from its pick's and the peak's level."""
    weak_s = WEAK_SIGMA_S * 10 ** (-snr_db / 20)
    return math.hypot(pick_sigma_s, RISE_SIGMA_S, weak_s)
