"""How much the responses of a street to two impulses resemble each other.

For `node.detect.rounds`: the sound after each onset, in the band that survives distance, is
correlated with that after each other one. Pure.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from node import dsp

Float64Array = npt.NDArray[np.float64]

BAND_HZ: Final = (200.0, 3000.0)
WORK_RATE_HZ: Final = 8000
BEFORE_S: Final = 0.005
# The whole response, and what is left of it where another strong arrival comes sooner.
LONG_S: Final = 0.15
SHORT_S: Final = 0.06
# Where shots come faster than that, this share of what is between them, and at least so much.
SHARE: Final = 0.8
SHORTEST_S: Final = 0.04
STRONG_DB: Final = 6.0
# A short response resembles others by chance more easily.
SHORT_DISCOUNT: Final = 0.9
# One arrival may be told by its foot or by its crest, 20 ms apart (a ground reflection, a mast);
# two shots of one gun are never so close.
SLACK_S: Final = 0.025
# More arrivals than this are judged by their strongest.
MOST: Final = 48
# Two responses that may be alike differ at most so much in their peaks, and in energy.
LEVEL_DB: Final = 10.0
LOUDNESS_DB: Final = 10.0


@lru_cache(maxsize=4)
def band_pass(sample_rate_hz: int) -> dsp.Cascade:
    """Make the filter of `BAND_HZ`."""
    top_hz = min(BAND_HZ[1], 0.4 * sample_rate_hz)
    return dsp.Cascade(dsp.band_pass(BAND_HZ[0], top_hz, sample_rate_hz))


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
    median over channels; 0 where levels or energies differ by more than `LEVEL_DB` and
    `LOUDNESS_DB`, NaN where there is no sound to compare.
    """
    count = len(onset_s)
    alike = np.full((count, count), np.nan)
    chosen = np.sort(np.argsort(-level_db, kind="stable")[:MOST])
    strong_s = onset_s[level_db >= level_db.max() - STRONG_DB]
    next_s = np.array([_next(strong_s, t) for t in onset_s])
    crowded = next_s[chosen] < LONG_S
    # Nothing of the next shot may be in what is compared, nor within reach of its shift.
    gap_s = float(next_s.min(initial=np.inf))
    short_s = min(SHORT_S, max(SHORTEST_S, SHARE * gap_s))
    lengths = ((LONG_S, SLACK_S), (short_s, min(SLACK_S, SHARE * gap_s / 2)))
    each = [
        _of_channel(sound[:, c : c + 1], onset_s[chosen], level_db[chosen], sample_rate_hz, lengths)
        for c in range(sound.shape[1])
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
    x: npt.NDArray[np.float32],
    onset_s: Float64Array,
    level_db: Float64Array,
    sample_rate_hz: int,
    lengths: Sequence[tuple[float, float]],
) -> list[Float64Array]:
    step = max(1, sample_rate_hz // WORK_RATE_HZ)
    y = band_pass(sample_rate_hz).thinned(x, 0, step)[:, 0]
    rate = sample_rate_hz / step
    return [_correlations(y, onset_s, level_db, rate, *length) for length in lengths]


def _correlations(
    y: Float64Array,
    onset_s: Float64Array,
    level_db: Float64Array,
    rate: float,
    length_s: float,
    slack_s: float,
) -> Float64Array:
    before, after = round(BEFORE_S * rate), round(length_s * rate)
    slack = round(slack_s * rate)
    padded = np.pad(y, (before + slack, after + slack))
    at = np.round(onset_s * rate).astype(int) + slack  # of the window's first sample, padded
    span = before + after
    out = np.full((len(at), len(at)), np.nan)
    inside = np.flatnonzero((at >= slack) & (at + slack + span <= len(padded)))
    if len(inside) < 2:
        return out
    at, level_db = at[inside], level_db[inside]
    templates = np.lib.stride_tricks.sliding_window_view(padded, span)[at]
    energy = np.einsum("ij,ij->i", templates, templates)
    size = dsp.fast_length(span + 2 * slack)
    spectra = np.conj(np.fft.rfft(templates, size))
    for j, first in enumerate(at.tolist()):
        earlier = np.flatnonzero(np.abs(level_db[:j] - level_db[j]) <= LEVEL_DB)
        out[inside[j], inside[:j]] = 0.0
        if not len(earlier):
            continue
        near = padded[first - slack : first + slack + span]
        cross = spectra[earlier] * np.fft.rfft(near, size)
        shifted = np.fft.irfft(cross, size)[:, : 2 * slack + 1]
        sums = np.concatenate(([0.0], np.cumsum(near**2)))
        power = np.maximum(sums[span:] - sums[:-span], 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            match = (shifted / np.sqrt(power[None] * energy[earlier, None])).max(axis=1)
            apart_db = np.abs(10 * np.log10(power[slack] / energy[earlier]))
        match[~(apart_db <= LOUDNESS_DB)] = 0.0
        known = (energy[earlier] > 0) & (power.min() > 0)
        out[inside[j], inside[earlier]] = np.where(known, match, np.nan)
    return np.asarray(np.where(np.isnan(out), out.T, out))
