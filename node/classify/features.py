"""What the network hears: sound of any card to a log-mel picture of one shape.

Samples of any rate and channel count come in; a picture of [FRAMES, BANDS] values in 0…1 goes out
to the runner. Training imports this very module, so that a model never meets another arithmetic
on the node than it was trained with. Everything is float64 inside: the same on every numpy.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from node import dsp

Sound = npt.NDArray[np.float32] | npt.NDArray[np.float64]

RATE_HZ: Final = 12_000
"""The one internal rate: cards deliver 12–96 kHz, and air and houses leave little above 5 kHz."""
HOP: Final = 96
"""Samples from frame to frame: 8 ms, so that the rise and the first echoes stay apart."""
FRAME: Final = 192
FFT: Final = 256
FRAMES: Final = 128
BANDS: Final = 40
LOW_HZ: Final = 60.0
HIGH_HZ: Final = 5_000.0
RANGE_DB: Final = 72.0
"""Depth of the picture below its loudest point; more would only show a recorder's own noise."""
WINDOW: Final = (FRAMES - 1) * HOP + FRAME
"""Samples at `RATE_HZ` in one picture: 1.032 s."""

_LONGEST_RATIO: Final = 512
_DEAD_POWER: Final = 1e-13
_QUIET: Final = 0.2


def describe() -> dict[str, int | float]:
    """Give the constants that a model was trained with, as its sidecar holds them."""
    return {
        "rate_hz": RATE_HZ,
        "hop": HOP,
        "frame": FRAME,
        "fft": FFT,
        "frames": FRAMES,
        "bands": BANDS,
        "low_hz": LOW_HZ,
        "high_hz": HIGH_HZ,
        "range_db": RANGE_DB,
    }


def pick_channel(samples: Sound) -> npt.NDArray[np.float64]:
    """Choose one of several channels: the upper median by crest factor.

    A sum of spaced microphones would be a comb filter (200 mm notch at 860 Hz); a dead channel
    has the least crest and one with an electrical pop the most, so neither is the median.

    Parameters
    ----------
    samples
        Shape [n] or [n, channels], full scale at 1. What is not finite counts as silence.

    Returns
    -------
    Shape [n], float64.
    """
    sound = np.asarray(samples)
    if not np.isfinite(sound).all():
        sound = np.nan_to_num(sound, nan=0.0, posinf=0.0, neginf=0.0)
    if sound.ndim > 1:
        order = np.argsort([_crest(channel) for channel in sound.T], kind="stable")
        sound = sound[:, order[len(order) // 2]]
    return np.ascontiguousarray(sound, dtype=np.float64)


def resample(sound: Sound, sample_rate_hz: int) -> npt.NDArray[np.float64]:
    """Bring one channel to `RATE_HZ`.

    Odd rates are met by the nearest ratio of small numbers; its error stays below 1e-5.
    """
    sound = np.asarray(sound, dtype=np.float64)
    ratio = Fraction(RATE_HZ, sample_rate_hz).limit_denominator(_LONGEST_RATIO)
    if ratio == 1 or len(sound) == 0:
        return sound
    return dsp.resample(sound, ratio.numerator, ratio.denominator)


def mel_power(sound: Sound) -> npt.NDArray[np.float64]:
    """Give the power in each band and frame.

    Parameters
    ----------
    sound
        One channel at `RATE_HZ`, at least `FRAME` samples.

    Returns
    -------
    Shape [frames, BANDS]; frame i begins at sample i · HOP.
    """
    sound = np.ascontiguousarray(sound, dtype=np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    spectrum = np.fft.rfft(frames * _taper(), FFT, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    banded: npt.NDArray[np.float64] = power @ _bank()
    return banded


def picture(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float32] | None:
    """Draw the log-mel picture of one window, independent of its level.

    0 is `RANGE_DB` below the loudest point, 1 the loudest point. Frames of digital silence
    (redacted or lost sound) are drawn as the window's own quiet floor: an edge that nobody heard
    shall not look like an onset.

    Parameters
    ----------
    power
        Shape [FRAMES, BANDS], from `mel_power`.

    Returns
    -------
    Shape [FRAMES, BANDS], or None where the window holds nothing but digital silence.
    """
    alive = power.sum(axis=1) > _DEAD_POWER
    if not alive.any():
        return None
    if not alive.all():
        power = power.copy()
        power[~alive] = np.quantile(power[alive], _QUIET, axis=0)
    loudest = power.max()
    level_db = 10.0 * np.log10(power / loudest + 10.0 ** (-RANGE_DB / 10.0))
    drawn: npt.NDArray[np.float32] = np.clip(1.0 + level_db / RANGE_DB, 0.0, 1.0).astype(np.float32)
    return drawn


def _crest(channel: Sound) -> float:
    """Give the peak of one channel over its root mean square; 0 of silence."""
    sound = channel.astype(np.float64)
    peak = max(sound.max(initial=0.0), -sound.min(initial=0.0))
    # One channel at a time and in place: all at once take ten times the memory, and the time.
    power = np.square(sound, out=sound).mean() if peak > 0 else 1.0
    return float(peak / np.sqrt(power))


@lru_cache(maxsize=1)
def _taper() -> npt.NDArray[np.float64]:
    hann: npt.NDArray[np.float64] = 0.5 - 0.5 * np.cos(
        2.0 * np.pi * (np.arange(FRAME) + 0.5) / FRAME
    )
    return hann


@lru_cache(maxsize=1)
def _bank() -> npt.NDArray[np.float64]:
    """Triangles on the mel scale of O'Shaughnessy, shape [FFT / 2 + 1, BANDS], each of sum 1."""
    edges_mel = np.linspace(_mel(LOW_HZ), _mel(HIGH_HZ), BANDS + 2)
    edges_hz = 700.0 * (10.0 ** (edges_mel / 2595.0) - 1.0)
    bins_hz = np.arange(FFT // 2 + 1) * (RATE_HZ / FFT)
    # The lowest triangles are narrower than a bin: widened to one, so that none is empty.
    half_width = np.maximum(np.diff(edges_hz), RATE_HZ / FFT)
    rise = (bins_hz[:, None] - (edges_hz[1:-1] - half_width[:-1])) / half_width[:-1]
    fall = ((edges_hz[1:-1] + half_width[1:]) - bins_hz[:, None]) / half_width[1:]
    bank = np.maximum(0.0, np.minimum(rise, fall))
    normed: npt.NDArray[np.float64] = bank / bank.sum(axis=0)
    return normed


def _mel(frequency_hz: float) -> float:
    return float(2595.0 * np.log10(1.0 + frequency_hz / 700.0))
