"""When an impulse begins, to a fraction of a sample.

The trigger knows the onset to a millisecond. Here the change of variance is found that splits the
samples round it best into noise before and sound after: Akaike's criterion in the form of Maeda
(1985), the best of six pickers for absolute time (signal.md §2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

BEFORE_S: Final = 0.008
AFTER_S: Final = 0.004


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
    return Pick(mean, float(np.sqrt(variance + 1.0)))
