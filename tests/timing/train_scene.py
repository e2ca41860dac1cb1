"""Trains of impulses as one array node lists them: shots, their echoes, what was missed or merged.

The scenarios of signal.md §6: single shots, aimed fire, automatic fire and bursts, in the open, in
a street and in a canyon. Echoes keep their delay, level and bearing from shot to shot, as walls do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from node.types import Direction, Impulse

Float64Array = npt.NDArray[np.float64]
Fire = Literal["single", "semi", "auto", "bursts"]
Place = Literal["open", "urban", "canyon"]

FIRES: Final[tuple[Fire, ...]] = ("single", "semi", "auto", "bursts")
RATE_HZ: Final = 48_000
ECHOES: Final = {"open": 0.4, "urban": 2.5, "canyon": 5.0}
FLOOR_DB: Final = 12.0
MERGED_S: Final = 0.010
MASKED_S: Final = 0.060
MASKED_DB: Final = 15.0


@dataclass(frozen=True)
class Train:
    """What a node lists, and how many shots there were."""

    impulses: tuple[Impulse, ...]
    rounds: int
    cadence_rpm: float | None


def shots_s(fire: Fire, rng: np.random.Generator) -> Float64Array:
    """Draw when the shots of one gun reach the node."""
    if fire == "single":
        return np.zeros(1)
    if fire == "semi":
        gaps = rng.lognormal(np.log(0.32), 0.35, rng.integers(2, 16) - 1)
        return np.concatenate([[0.0], np.cumsum(gaps)])
    cycle_s = 60 / rng.uniform(550, 1150)
    if fire == "auto":
        jitter = 1 + rng.normal(0, 0.025, rng.integers(3, 21) - 1)
        return np.concatenate([[0.0], np.cumsum(cycle_s * jitter)])
    times: list[float] = []
    start = 0.0
    for _ in range(rng.integers(2, 4)):
        count = int(rng.integers(3, 6))
        times += (start + np.arange(count) * cycle_s * (1 + rng.normal(0, 0.01))).tolist()
        start = times[-1] + rng.uniform(0.4, 1.2)
    return np.array(times)


def hear(fires: tuple[Fire, ...], place: Place, snr_db: float, rng: np.random.Generator) -> Train:
    """List what a node hears of one gun, or of several at once."""
    heard: list[tuple[float, float, float]] = []
    total = 0
    cadence = None
    for gun, fire in enumerate(fires):
        times = shots_s(fire, rng) + (rng.uniform(0, 1) if gun else 0.0)
        total += len(times)
        if len(times) > 2:
            cadence = 60 / float(np.median(np.diff(times)))
        heard += _of_one_gun(times, place, snr_db + (rng.normal(0, 3) if gun else 0.0), rng)
    kept = _listed(sorted(heard), rng)
    impulses = tuple(
        Impulse(
            onset_sample=(at + 1.0) * RATE_HZ,
            sigma_samples=5.0,
            snr_db=level,
            peak_dbfs=level - 60,
            direction=Direction(azimuth % 360, None, 3.0),
        )
        for at, level, azimuth in kept
    )
    return Train(impulses, total, cadence if len(fires) == 1 else None)


def _of_one_gun(
    times: Float64Array, place: Place, level_db: float, rng: np.random.Generator
) -> list[tuple[float, float, float]]:
    azimuth = rng.uniform(-180, 180)
    count = rng.poisson(ECHOES[place])
    if place == "canyon":
        delay_s = rng.exponential(0.15, count) + 0.03
    else:
        delay_s = rng.uniform(0.03, 0.6, count)
    fall_db = rng.uniform(4, 18, count) + 8 * delay_s
    elsewhere = azimuth + rng.uniform(-180, 180, count)
    heard = []
    for t in times:
        level = level_db + rng.normal(0, 1)
        heard.append((t + rng.normal(0, 1e-4), level, azimuth + rng.normal(0, 3)))
        for delay, fall, bearing in zip(delay_s, fall_db, elsewhere, strict=True):
            heard.append(
                (
                    t + delay + rng.normal(0, 3e-4),
                    level - fall + rng.normal(0, 1.5),
                    bearing + rng.normal(0, 5),
                )
            )
    return heard


def _listed(
    heard: list[tuple[float, float, float]], rng: np.random.Generator
) -> list[tuple[float, float, float]]:
    """Leave out what a trigger does not tell: the faint, the merged, the masked."""
    kept: list[tuple[float, float, float]] = []
    for at, level, azimuth in heard:
        if level < FLOOR_DB + rng.normal(0, 1):
            continue
        if kept and at - kept[-1][0] < MERGED_S:
            before = kept[-1]
            if level > before[1]:
                kept[-1] = (before[0] if level < before[1] + 6 else at, level, azimuth)
            continue
        if any(at - o[0] < MASKED_S and level < o[1] - MASKED_DB for o in kept[-4:]):
            continue
        kept.append((at, level, azimuth))
    return kept
