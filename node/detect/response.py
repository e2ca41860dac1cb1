"""How much the responses of a street to two impulses resemble each other.

For `node.detect.rounds`: the sound after each onset, in the band that survives distance, is
correlated with that after each other one. Pure.
"""

from __future__ import annotations

import warnings
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import signal

Float64Array = npt.NDArray[np.float64]

BAND_HZ: Final = (200.0, 3000.0)
WORK_RATE_HZ: Final = 8000
BEFORE_S: Final = 0.005
# The whole response, and what is left of it where another strong arrival comes sooner.
LONG_S: Final = 0.15
SHORT_S: Final = 0.06
STRONG_DB: Final = 6.0
# A short response resembles others by chance more easily.
SHORT_DISCOUNT: Final = 0.9
# Onsets are right to about so much.
SLACK_S: Final = 0.002
# More arrivals than this are judged by their strongest.
MOST: Final = 48
LOUDNESS_DB: Final = 10.0  # of two responses that may be alike, in energy


def likeness(
    sound: npt.NDArray[np.float32],
    onset_s: Float64Array,
    level_db: Float64Array,
    sample_rate_hz: int,
) -> Float64Array:
    """Correlate the responses after each pair of onsets.

    Parameters
    ----------
    sound
        Shape [n, channels].
    onset_s
        Onsets in s from `sound[0]`, ascending, shape [impulses].
    level_db
        Their levels.
    sample_rate_hz
        Of `sound`.

    Returns
    -------
    Array of shape [impulses, impulses]: the largest normalised correlation within `SLACK_S`, the
    median over channels; 0 where the energies differ by more than `LOUDNESS_DB`, NaN where there
    is no sound to compare.
    """
    count = len(onset_s)
    alike = np.full((count, count), np.nan)
    chosen = np.sort(np.argsort(-level_db, kind="stable")[:MOST])
    strong_s = onset_s[level_db >= level_db.max() - STRONG_DB]
    crowded = np.array([_next(strong_s, t) < LONG_S for t in onset_s[chosen]])
    each = [
        _of_channel(sound[:, c], onset_s[chosen], sample_rate_hz) for c in range(sound.shape[1])
    ]
    long, short = (_median([e[k] for e in each]) for k in (0, 1))
    rushed = crowded[:, None] | crowded[None]
    alike[np.ix_(chosen, chosen)] = np.where(rushed, SHORT_DISCOUNT * short, long)
    return alike


def _median(channels: list[Float64Array]) -> Float64Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: then it is not known
        return np.asarray(np.nanmedian(np.stack(channels), axis=0))


def _next(strong_s: Float64Array, t: float) -> float:
    after = strong_s[strong_s > t + SLACK_S]
    return float(after[0] - t) if len(after) else np.inf


def _of_channel(
    x: npt.NDArray[np.float32], onset_s: Float64Array, sample_rate_hz: int
) -> tuple[Float64Array, Float64Array]:
    step = max(1, sample_rate_hz // WORK_RATE_HZ)
    top_hz = min(BAND_HZ[1], 0.4 * sample_rate_hz)
    sos = signal.butter(2, (BAND_HZ[0], top_hz), "band", fs=sample_rate_hz, output="sos")
    y = signal.sosfilt(sos, x.astype(np.float64))[::step]
    rate = sample_rate_hz / step
    return _correlations(y, onset_s, rate, LONG_S), _correlations(y, onset_s, rate, SHORT_S)


def _correlations(
    y: Float64Array, onset_s: Float64Array, rate: float, length_s: float
) -> Float64Array:
    before, after = round(BEFORE_S * rate), round(length_s * rate)
    slack = round(SLACK_S * rate)
    padded = np.pad(y, (before + slack, after + slack))
    at = np.round(onset_s * rate).astype(int) + slack  # of the window's first sample, padded
    span = before + after
    out = np.full((len(at), len(at)), np.nan)
    inside = np.flatnonzero((at >= slack) & (at + slack + span <= len(padded)))
    if len(inside) < 2:
        return out
    windows = np.lib.stride_tricks.sliding_window_view(padded, span)
    templates = windows[at[inside]]
    energy = np.einsum("ij,ij->i", templates, templates)
    for j, first in zip(inside.tolist(), at[inside].tolist(), strict=True):
        near = windows[first - slack : first + slack + 1]
        power = np.einsum("ij,ij->i", near, near)
        scale = np.sqrt(power[None] * energy[:, None])
        with np.errstate(invalid="ignore", divide="ignore"):
            match = ((templates @ near.T) / scale).max(axis=1)
            apart_db = np.abs(10 * np.log10(power[slack] / energy))
        match[~(apart_db <= LOUDNESS_DB)] = 0.0
        out[inside, j] = np.where((scale > 0).all(axis=1), match, np.nan)
    return np.asarray((out + out.T) / 2)
