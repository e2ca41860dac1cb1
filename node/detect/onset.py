"""When an impulse begins, to a fraction of a sample.

The trigger knows the onset to a millisecond. Here the change of variance is found that splits the
samples round it best into noise before and sound after: Akaike's criterion in the form of Maeda
(1985), the best of six pickers for absolute time (signal.md §2). It jumps from sample to sample
with the noise, so the time is then read off the first swing that follows, where it crosses half
its peak: constant-fraction discrimination, several times as repeatable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from node import dsp

Float64Array = npt.NDArray[np.float64]

# The window round the bin that fired; the criterion's ends at its largest sample, since what comes
# after the first rise only blurs the change.
BEFORE_S: Final = 0.008
AFTER_S: Final = 0.004

# The first swing: the first to reach this share of the largest within so long of the change.
SWING_S: Final = 0.001
SWING_SHARE: Final = 0.3

# It is looked at through a Gaussian of this width: wide enough to quiet the hiss above a distant
# shot's band and to leave no steps between samples, narrow enough not to blunt a near shot's rise.
SMOOTH_S: Final = 28e-6
SMOOTH_SAMPLES: Final = 0.5
UPSAMPLING: Final = 8

# Air lengthens the rise, and the crossing of half the peak is late by so many times the rise from a
# quarter to three quarters of it: the median over calibres, 50 to 800 m and rates of 8 to 96 kHz.
LATE_PER_RISE: Final = 2.6

# A rise read in noise would make the time jump, so it is drawn towards the typical one (of the air
# and the sampling filter), as far as keeps its share of the jumps to QUIET_SAMPLES; but not all the
# way, since at 800 m the typical one is half of the true one.
TYPICAL_RISE_S: Final = 45e-6
TYPICAL_RISE_SAMPLES: Final = 0.72
QUIET_SAMPLES: Final = 0.15
LEAST_WEIGHT: Final = 0.15

# Channels of one array hear an arrival within so long of each other (33 cm of path) unless it is
# larger; a pick that is further off than that from the others' median is of something else.
CROSSING_S: Final = 0.001

# What a pick cannot know of its own error: calibre and range change the rise (signal.md §2:
# 50–200 µs in all), and a weak rise starts under the noise, so that it is picked late.
RISE_SIGMA_S: Final = 85e-6
WEAK_SIGMA_S: Final = 1.5e-3

# So long after its onset the tail of a shot in a street may still set the trigger off.
LONGEST_TAIL_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Pick:
    """An onset and its standard error, in samples from the start of the window."""

    sample: float
    sigma: float


def pick_onset(y: npt.NDArray[np.float32], sample_rate_hz: int) -> Pick:
    """Pick the onset in a window of high-passed samples of one channel, shape [n].

    Where no swing rises out of the window, as when a clipped one fills it, the change of variance
    stands for itself.
    """
    change = find_change(y)
    at = math.ceil(change.sample)
    noise = float(np.sqrt(np.mean(np.square(y[: max(1, at - 2)], dtype=np.float64))))
    begin = max(0, at - round(SWING_S * sample_rate_hz))
    fine = _smooth(y[begin : at + round(SWING_S * sample_rate_hz) + 2], sample_rate_hz)
    crossings = _crossings(fine, max(0, at - 2 - begin) * UPSAMPLING)
    if crossings is None:
        return change
    low, half, high, peak = crossings
    rise = (high - low) / UPSAMPLING
    # Noise moves a crossing by its height over the slope there, which is half the peak in a rise.
    jitter = noise * rise / (0.5 * peak)
    unrest = math.sqrt(2) * LATE_PER_RISE * max(jitter, 1e-9)
    weight = min(max(QUIET_SAMPLES / unrest, LEAST_WEIGHT), 1.0)
    typical = math.hypot(TYPICAL_RISE_S * sample_rate_hz, TYPICAL_RISE_SAMPLES)
    late = LATE_PER_RISE * (typical + weight * (rise - typical))
    sample = max(0.0, begin + half / UPSAMPLING - late)
    return Pick(sample, math.hypot(change.sigma, jitter))


def find_change(y: npt.NDArray[np.float32]) -> Pick:
    """Find the change of variance in a window, shape [n].

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


@lru_cache(maxsize=8)
def _gaussian(sample_rate_hz: int) -> Float64Array:
    width = UPSAMPLING * max(SMOOTH_S * sample_rate_hz, SMOOTH_SAMPLES)
    reach = math.ceil(4 * width)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / width))
    return np.asarray(kernel * UPSAMPLING / kernel.sum())


def _smooth(y: npt.NDArray[np.float32], sample_rate_hz: int) -> Float64Array:
    """Smooth and interpolate; sample i of `y` is at i * UPSAMPLING of the answer."""
    kernel = _gaussian(sample_rate_hz)
    fine = dsp.interpolate(y, kernel, UPSAMPLING)
    return np.asarray(fine[len(kernel) // 2 :][: len(y) * UPSAMPLING])


def _crossings(fine: Float64Array, begin: int) -> tuple[float, float, float, float] | None:
    """Give where the first swing from `begin` on crosses 1/4, 1/2 and 3/4 of its peak, and that.

    None where there is no swing, or no rise to it.
    """
    size = np.abs(fine[begin:])
    largest = float(size.max(initial=0.0))
    if largest == 0:
        return None
    reached = begin + int(np.argmax(size >= SWING_SHARE * largest))
    upright = fine if fine[reached] > 0 else -fine
    ends = np.flatnonzero(upright[reached:] <= 0)
    end = reached + int(ends[0]) if len(ends) else len(fine)
    top = reached + int(np.argmax(upright[reached:end]))
    peak = float(upright[top])
    where = []
    for share in (0.25, 0.5, 0.75):
        below = np.flatnonzero(upright[:top] < share * peak)
        if not len(below):
            return None
        i = int(below[-1])
        where.append(i + (share * peak - upright[i]) / (upright[i + 1] - upright[i]))
    return float(where[0]), float(where[1]), float(where[2]), peak


def choose_pick(picks: list[Pick], first_is_reference: bool, crossing: float) -> Pick:
    """Choose the pick that speaks for the array.

    Channel 0's, whose time is the event's, if it is among them (as the first) and no further than
    `crossing` from the median; else the median, with the time to cross the array as its error.
    """
    middle = float(np.median([pick.sample for pick in picks]))
    if first_is_reference and abs(picks[0].sample - middle) <= crossing:
        return picks[0]
    return Pick(middle, crossing / 2)


def unheard_onset_sigma_s(unheard_s: float) -> float:
    """Give the standard error, in s, of an onset right after so long that was not heard.

    What is heard first may be the tail of a shot that began anywhere in it: the root mean square of
    an even spread from none of it to all, as long as a tail lasts.
    """
    return min(unheard_s, LONGEST_TAIL_S) / math.sqrt(3)


def onset_sigma_s(pick_sigma_s: float, snr_db: float) -> float:
    """Give the standard error of an onset in s, from its pick's and the peak's level."""
    weak_s = WEAK_SIGMA_S * 10 ** (-snr_db / 20)
    return math.hypot(pick_sigma_s, RISE_SIGMA_S, weak_s)
