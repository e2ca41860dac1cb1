"""Host time stamps as sound cards and schedulers make them (scenarios of signal.md 1.3).

Gives the truth beside them, so that a clock's answers and its σ can be held against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

RATE_HZ = 48_000
Kind = Literal["callback", "alsa", "usb"]


@dataclass(frozen=True)
class Stamps:
    """First frames of blocks, their host stamps, and when they truly were converted, in s."""

    first: npt.NDArray[np.int64]
    host_s: npt.NDArray[np.float64]
    true_s: npt.NDArray[np.float64]


def crystal_s(
    samples: npt.NDArray[np.int64], rng: np.random.Generator, ppm: float = 35.0
) -> npt.NDArray[np.float64]:
    """When a crystal of 0.5 ppm/°C converts samples, in sun and cloud of ±3 °C, τ 300 s."""
    seconds = int(samples[-1] / RATE_HZ) + 2
    target = np.repeat(rng.normal(0, 3, seconds // 400 + 1), 400)[:seconds]
    temperature = np.empty(seconds)
    now = 0.0
    for i, aim in enumerate(target):
        now += (aim - now) / 300
        temperature[i] = now
    rate = ppm * 1e-6 + 0.5e-6 * temperature + np.cumsum(rng.normal(0, 1e-9, seconds))
    nominal_s = np.concatenate([[0.0], np.cumsum(1 / (1 + rate))])
    return np.interp(samples / RATE_HZ, np.arange(seconds + 1), nominal_s)


def make_stamps(
    kind: Kind,
    *,
    seconds: float,
    block: int,
    rng: np.random.Generator,
    load_step: bool = False,
    ppm: float = 35.0,
) -> Stamps:
    """Make the stamps of a run; with `load_step`, the machine becomes busy half way."""
    count = int(seconds * RATE_HZ / block) - 2
    first = np.arange(count, dtype=np.int64) * block
    true_s = crystal_s(first, rng, ppm)
    one_in = rng.random(count)
    if kind == "callback":
        late = 60e-6 + rng.exponential(100e-6, count)
        late += np.where(one_in < 0.05, rng.uniform(0.3e-3, 3e-3, count), 0)
        late += np.where(one_in > 0.998, rng.uniform(5e-3, 20e-3, count), 0)
    elif kind == "alsa":
        late = 5e-6 + rng.exponential(8e-6, count)
        late += np.where(one_in < 0.02, rng.uniform(50e-6, 300e-6, count), 0)
        late += rng.integers(0, 8, count) / RATE_HZ
    else:
        frame = 1e-3 * (1 + 3e-6)
        late = np.ceil((true_s - 0.37e-3) / frame) * frame + 0.37e-3 - true_s
        late += 5e-6 + rng.exponential(20e-6, count)
        late += np.where(one_in < 0.02, rng.uniform(0.1e-3, 2e-3, count), 0)
    if load_step:
        busy = true_s > seconds / 2
        more = np.where(rng.random(count) < 0.15, rng.uniform(0.2e-3, 3e-3, count), 0)
        if kind == "callback":
            more += rng.exponential(150e-6, count)
        late += np.where(busy, more, 0)
    return Stamps(first, true_s + late + _chrony(count, block, rng), true_s)


def _chrony(count: int, block: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Give the error of a host clock that chrony disciplines: 1.5 us, correlated over 30 s."""
    keep = np.exp(-block / RATE_HZ / 30)
    kicks = rng.normal(0, 1.5e-6 * np.sqrt(1 - keep**2), count)
    error = np.empty(count)
    now = 0.0
    for i, kick in enumerate(kicks):
        now = keep * now + kick
        error[i] = now
    return error
