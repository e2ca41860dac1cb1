"""Faults of microphones, to be planted on the sound of four of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import signal

from tests.units.microphone_sounds import Sound

BROKEN: Final = 1  # which of them
HUMS_DB: Final = (0, 6, 20)

Spoil = Callable[[Sound, int, np.random.Generator], None]
"""Spoils a stretch of sound of four microphones in place; given its rate."""


@dataclass(frozen=True)
class Fault:
    """A fault to be planted: what it is to be called, and whether on all microphones."""

    verdict: str
    spoil: Spoil
    on_all: bool = False


def planted() -> dict[str, Fault]:
    """Give each fault by what it is."""
    faults = {
        "exact zeros": Fault("silent", _set(0.0)),
        "a cable off, noise at -118 dBFS": Fault("silent", _noise(-118)),
        "a cable off, noise 30 dB below the sound": Fault("silent", _deaf(-30)),
        "a constant": Fault("stuck", _set(0.05)),
        "at the rail": Fault("stuck", _set(1.0)),
        "a mean of 0.6": Fault("stuck", _add(0.6)),
        "two values": Fault("stuck", _two_values),
        "a bit above the sound's level latched": Fault("stuck", _latched(1)),
        "a bit 12 dB below it latched": Fault("stuck", _latched(-2)),
        "the lowest 12 of 24 bits dropped": Fault("stuck", _dropped),
        "gain up until half of the samples clip": Fault("clipped", _gain_to_clipping(0.5)),
        "gain up until 5 % of the samples clip": Fault("clipped", _gain_to_clipping(0.95)),
        "a copy of another channel": Fault("swapped", _copy(0.0)),
        "a copy, 3 dB louder": Fault("swapped", _copy(3.0)),
        "18 dB louder than the others": Fault("noisy", _times(18)),
        "hiss 20 dB above the sound": Fault("noisy", _hiss(20)),
        "a loose plug, six cracks a second": Fault("crackling", _loose),
    }
    for mains_hz in (50.0, 60.0):
        for ratio_db in HUMS_DB:
            for on_all in (False, True):
                where = "all microphones" if on_all else "one"
                name = f"ground loop, {mains_hz:g} Hz at {ratio_db:+d} dB, on {where}"
                faults[name] = Fault("humming", _loop(mains_hz, ratio_db, on_all), on_all)
    return faults


def _set(value: float) -> Spoil:
    def spoil(x: Sound, _rate: int, _rng: np.random.Generator) -> None:
        x[:, BROKEN] = value

    return spoil


def _add(value: float) -> Spoil:
    def spoil(x: Sound, _rate: int, _rng: np.random.Generator) -> None:
        x[:, BROKEN] += value

    return spoil


def _noise(dbfs: float) -> Spoil:
    def spoil(x: Sound, _rate: int, rng: np.random.Generator) -> None:
        x[:, BROKEN] = rng.standard_normal(len(x)) * 10 ** (dbfs / 20)

    return spoil


def _deaf(db: float) -> Spoil:
    def spoil(x: Sound, _rate: int, rng: np.random.Generator) -> None:
        steps = np.quantile(np.abs(np.diff(x[:, BROKEN])), 0.5)
        x[:, BROKEN] = rng.standard_normal(len(x)) * steps * 10 ** (db / 20)

    return spoil


def _hiss(db: float) -> Spoil:
    def spoil(x: Sound, _rate: int, rng: np.random.Generator) -> None:
        x[:, BROKEN] += rng.standard_normal(len(x)) * np.diff(x[:, BROKEN]).std() * 10 ** (db / 20)

    return spoil


def _times(db: float) -> Spoil:
    def spoil(x: Sound, _rate: int, _rng: np.random.Generator) -> None:
        x *= 10 ** (-db / 20)  # else what is loud would clip, and be called so
        x[:, BROKEN] *= 10 ** (db / 20)

    return spoil


def _two_values(x: Sound, _rate: int, _rng: np.random.Generator) -> None:
    x[:, BROKEN] = np.where(x[:, BROKEN] > 0, 0.1, -0.1)


def _latched(above_rms: int) -> Spoil:
    def spoil(x: Sound, _rate: int, _rng: np.random.Generator) -> None:
        bit = np.floor(np.log2(x[:, BROKEN].std() * 2**23)) + above_rms
        word = np.rint(x[:, BROKEN] * 2**23).astype(np.int64)
        x[:, BROKEN] = (word | 1 << int(np.clip(bit, 1, 21))) / 2**23

    return spoil


def _dropped(x: Sound, _rate: int, _rng: np.random.Generator) -> None:
    x[:, BROKEN] = np.floor(x[:, BROKEN] * 2**11) / 2**11


def _gain_to_clipping(quantile: float) -> Spoil:
    def spoil(x: Sound, rate: int, _rng: np.random.Generator) -> None:
        seconds = np.abs(x[: len(x) // rate * rate, BROKEN]).reshape(-1, rate)
        # So that even the quietest second does.
        x[:, BROKEN] /= np.quantile(seconds, quantile, axis=1).min() + 1e-9

    return spoil


def _copy(db: float) -> Spoil:
    def spoil(x: Sound, _rate: int, _rng: np.random.Generator) -> None:
        x[:, BROKEN] = x[:, 0] * 10 ** (db / 20)

    return spoil


def _loose(x: Sound, rate: int, rng: np.random.Generator) -> None:
    n = round(0.002 * rate)
    for at in rng.integers(0, len(x) - n, round(6 * len(x) / rate)):
        x[at : at + n, BROKEN] += 0.3 * rng.standard_normal(n)


def _loop(mains_hz: float, ratio_db: float, on_all: bool) -> Spoil:
    """Add mains with odd multiples, so much above the median second between 40 Hz and 1 kHz."""

    def spoil(x: Sound, rate: int, _rng: np.random.Generator) -> None:
        x *= 0.1  # else what is loud would clip, and be called so
        t = np.arange(len(x)) / rate
        parts = ((1, 1.0), (2, 0.2), (3, 0.6), (5, 0.4), (7, 0.2))
        hum = np.asarray(
            sum(a * np.sin(2 * np.pi * k * mains_hz * 1.0004 * t + k) for k, a in parts)
        )
        sos = signal.butter(2, (40, 1000), "bandpass", fs=rate, output="sos")
        band = signal.sosfilt(sos, x[:, BROKEN])[: len(x) // rate * rate].reshape(-1, rate)
        hum *= np.median(band.std(axis=1)) * 10 ** (ratio_db / 20) / hum.std()
        if on_all:
            x += hum[:, None]
        else:
            x[:, BROKEN] += hum

    return spoil
