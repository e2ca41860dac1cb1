"""How well elevation tells bursts in the air from shots on the ground, through whole finds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.capture.geometry import load_geometry
from node.detect.airborne import REFRACTION_DEG_PER_M, SitePrior
from node.detect.direction import DirectionFinder
from tests.evidence import Claim, Detail
from tests.parts import Part, Tell
from tests.timing.array_scene import hear, towards

Float64Array = npt.NDArray[np.float64]

SEED: Final = 7209
RATE_HZ: Final = 48_000
ARRAY: Final = "tetrahedron_200mm"
RANGES_M: Final = (50.0, 600.0)
SNR_DB: Final = (20.0, 40.0)
FLAGGED: Final = 0.5
# The sound's shape is made at ranges so far apart, so that it is made once.
RANGE_STEP_M: Final = 100.0


@dataclass(frozen=True)
class _Sources:
    """Where some sources are: heights above the ground, each as likely, and how many."""

    name: str
    kind: str
    heights_m: tuple[float, float]
    count: int


@dataclass(frozen=True)
class _Told:
    """Probabilities that sources were in the air, and elevations; NaN where none was told."""

    probability: Float64Array
    elevation_deg: Float64Array

    @property
    def flagged(self) -> npt.NDArray[np.bool_]:
        """Whether each is told as airborne; one without a direction is not."""
        return np.nan_to_num(self.probability) >= FLAGGED


SHELLS: Final = _Sources("bursts 75–200 m up", "shell_burst", (75.0, 200.0), 600)
CONSUMER: Final = _Sources("bursts 25–70 m up", "shell_burst", (25.0, 70.0), 300)
STREET: Final = _Sources("shots 0–2 m up", "muzzle_blast", (0.0, 2.0), 800)
WINDOWS: Final = _Sources("shots 2–20 m up", "muzzle_blast", (2.0, 20.0), 800)
# Of shots, so many come from windows and roofs (signal.md §3).
WINDOW_SHARE: Final = 0.1
SHELLS_BAR: Final = 0.97
SHOTS_BAR: Final = 0.005


def measure(tell: Tell) -> Part:
    """Measure the shares that are told as airborne, with rays bent by wind and temperature."""
    told: dict[str, _Told] = {}
    for number, sources in enumerate((SHELLS, CONSUMER, STREET, WINDOWS)):
        tell(sources.name)
        told[sources.name] = _listen(sources, np.random.default_rng(SEED + number))
    shells, street, windows = (told[s.name].flagged for s in (SHELLS, STREET, WINDOWS))
    high = float(shells.mean())
    # Shots from windows are made more often than they are fired, to count them well.
    shots = (1 - WINDOW_SHARE) * float(street.mean()) + WINDOW_SHARE * float(windows.mean())
    claims = (
        Claim(f"{SHELLS.name}, 50–600 m away: told as airborne", 100 * high, "%",
              f"≥ {100 * SHELLS_BAR:.0f}", high >= SHELLS_BAR, _interval(shells)),
        Claim("shots 0–20 m up (10 % above 2 m), 50–600 m away: told as airborne", 100 * shots,
              "%", f"≤ {100 * SHOTS_BAR:.1f}", shots <= SHOTS_BAR),
        Claim(f"of these, {WINDOWS.name}: told as airborne", 100 * float(windows.mean()), "%",
              interval=_interval(windows)),
        Claim(f"{CONSUMER.name}: told as airborne",
              100 * float(told[CONSUMER.name].flagged.mean()), "%",
              interval=_interval(told[CONSUMER.name].flagged)),
    )  # fmt: skip
    columns = ("sources", "impulses", "no elevation", "airborne %", "median probability")
    rows = tuple(_row(name, one) for name, one in told.items())
    return Part(claims, (Detail("Airborne", columns, rows),), lambda axes: _draw(axes, told))


def _listen(sources: _Sources, rng: np.random.Generator) -> _Told:
    positions_m = load_geometry(ARRAY, 4).positions_m
    site = SitePrior()
    finder = DirectionFinder(positions_m, RATE_HZ, prior=site)
    before, after = finder.window()
    probability, elevation_deg = [], []
    for _ in range(sources.count):
        range_m, height_m = rng.uniform(*RANGES_M), rng.uniform(*sources.heights_m)
        straight_deg = math.degrees(math.atan2(height_m - site.sensor_height_m, range_m))
        bent_deg = straight_deg + REFRACTION_DEG_PER_M * range_m * rng.standard_normal()
        heard = hear(
            positions_m,
            towards(rng.uniform(0, 360), bent_deg),
            rng.uniform(*SNR_DB),
            rng,
            rate_hz=RATE_HZ,
            kind=sources.kind,
            range_m=RANGE_STEP_M * max(1, round(math.hypot(range_m, height_m) / RANGE_STEP_M)),
            ground=True,
        )
        at = int(heard.onset)
        found = finder.find(heard.sound[at - before : at + after], before + heard.onset - at)
        known = found is not None and found.airborne_probability is not None
        probability.append(found.airborne_probability if known else math.nan)
        elevation_deg.append(found.elevation_deg if known else math.nan)
    return _Told(np.array(probability, np.float64), np.array(elevation_deg, np.float64))


def _interval(flagged: Sequence[bool] | npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Give the 95 % interval of a share in per cent (Wilson)."""
    n, share, z = len(flagged), float(np.mean(flagged)), 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, 100 * (middle - half)), min(100.0, 100 * (middle + half))


def _row(name: str, told: _Told) -> tuple[str, ...]:
    unknown = int(np.isnan(told.probability).sum())
    return (
        name,
        str(len(told.probability)),
        str(unknown),
        f"{100 * told.flagged.mean():.2f}",
        f"{np.nanmedian(told.probability):.3f}",
    )


def _draw(axes: Any, told: dict[str, _Told]) -> None:
    bins = np.arange(-15.0, 76.0, 1.5)
    for name, one in told.items():
        axes.hist(one.elevation_deg, bins, density=True, histtype="step", label=name)
    axes.set(xlabel="elevation told, °", ylabel="density, 1/°", yscale="log", ylim=(1e-4, 1),
             title="Elevation of shots and of bursts in the air")  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
