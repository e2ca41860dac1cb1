"""What calibration by far impulses makes of an array that was put together clumsily."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.capture.geometry import load_geometry
from node.detect.arrival import Arrival
from node.detect.calibrate import Calibration, calibrate
from node.detect.direction import DirectionFinder
from node.errors import CalibrationError
from tests.evidence import Claim, Detail
from tests.parts import Part, Tell
from tests.timing.array_scene import SPEED_M_S, Heard, Mismatch, hear, towards

Float64Array = npt.NDArray[np.float64]

SEED: Final = 5150
RATE_HZ: Final = 48_000
ARRAY: Final = "tetrahedron_200mm"
PLACE_M: Final = 3e-3
DELAY_S: Final = 5e-6
ARRAYS: Final = 10
CALIBRATING: Final = 150
TESTED: Final = 50
TESTED_DB: Final = 30.0
CALIBRATING_DB: Final = (20.0, 40.0)
ELEVATIONS_DEG: Final = (-5.0, 60.0)
# Fireworks some way off, and what a firing range shows a roof.
LOWER_DEG: Final = ((-5.0, 40.0), (-5.0, 20.0))
FEWER: Final = (30, 60, 100, CALIBRATING)
# Three kelvin, or a wind of 1.7 m/s.
SPEED_SIGMA: Final = 0.005
# Places and delays stay as they are; gains differ all the same.
FIXED: Final = Mismatch(delay_s=0.0, place_m=0.0)
PLACE_BAR_M: Final = 0.7e-3
# That of an array whose places are right to 0.5 mm and delays to 2 us.
ERROR_BAR_DEG: Final = 1.3
HOLD: Final = (0.90, 0.98)
CONE_SIGMAS: Final = 2.45


@dataclass(frozen=True)
class _Array:
    """How one array really is, in the axes of the nominal one."""

    positions_m: Float64Array
    delays_s: Float64Array

    def hear(
        self,
        snr_db: float,
        rng: np.random.Generator,
        elevations_deg: tuple[float, float] = ELEVATIONS_DEG,
    ) -> Heard:
        """Hear an impulse from anywhere."""
        u = towards(rng.uniform(0, 360), rng.uniform(*elevations_deg))
        speed_m_s = SPEED_M_S * (1 + SPEED_SIGMA * rng.standard_normal())
        return hear(self.positions_m, u, snr_db, rng, rate_hz=RATE_HZ, mismatch=FIXED,
                    delays_s=self.delays_s, speed_m_s=speed_m_s)  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """Errors of directions in degrees, NaN where none was told, and whether regions held."""

    errors_deg: Float64Array
    held: tuple[bool, ...]


@dataclass(frozen=True)
class _Fewer:
    """What one array was found to be, by elevations in degrees and number of impulses."""

    array: _Array
    calibrations: dict[tuple[tuple[float, float], int], Calibration | None]


def measure(tell: Tell) -> Part:
    """Calibrate arrays on some impulses, and find the directions of others before and after."""
    nominal_m = load_geometry(ARRAY, 4).positions_m
    before, after, placed_m, late_s, told_m = [], [], [], [], []
    left_m = []
    fewer: list[_Fewer] = []
    for number in range(ARRAYS):
        tell(f"array {number + 1} of {ARRAYS}")
        array = _clumsy(nominal_m, np.random.default_rng((SEED, number)))
        rng = np.random.default_rng((SEED, number, 1))
        arrivals = _arrivals(array, nominal_m, rng)
        calibration = calibrate(nominal_m, arrivals)
        by_height = {ELEVATIONS_DEG: arrivals}
        for which, low_deg in enumerate(LOWER_DEG):
            rng = np.random.default_rng((SEED, number, 3 + which))
            by_height[low_deg] = _arrivals(array, nominal_m, rng, low_deg)
        fewer.append(_on_fewer(nominal_m, array, by_height))
        placed_m.append(array.positions_m - nominal_m)
        left_m.append(array.positions_m - calibration.positions_m)
        late_s.append(array.delays_s - calibration.delays_s)
        told_m.append(calibration.position_sigma_m)
        rng = np.random.default_rng((SEED, number, 2))
        heard = [array.hear(TESTED_DB, rng) for _ in range(TESTED)]
        before.append(_find(_nominal_finder(nominal_m), heard))
        after.append(_find(_calibrated_finder(calibration), heard))
    by_ruler, by_sound = (
        np.concatenate([f.errors_deg for f in found]) for found in (before, after)
    )
    claims = _claims(by_ruler, by_sound, [held for found in after for held in found.held])
    misplaced_m = _rms(left_m)
    claims += [
        Claim("places before, along an axis: root mean square error", 1e3 * _rms(placed_m), "mm"),
        Claim("places after, along an axis: root mean square error", 1e3 * misplaced_m, "mm",
              f"≤ {1e3 * PLACE_BAR_M:g}", misplaced_m <= PLACE_BAR_M),
        Claim("places after: standard error as it is told", 1e3 * _rms(told_m), "mm"),
        Claim("delays after: root mean square error", 1e6 * _rms(late_s), "µs"),
    ]  # fmt: skip
    rows = tuple(
        (str(n + 1), *(f"{v:.2f}" for v in (
            1e3 * _rms(placed_m[n]), 1e3 * _rms(left_m[n]), 1e3 * told_m[n],
            1e6 * _rms(late_s[n]), _median(before[n].errors_deg), _median(after[n].errors_deg),
        )))
        for n in range(ARRAYS)
    )  # fmt: skip
    columns = ("array", "places before, mm", "after", "told", "delays after, µs",
               "direction before, median °", "after")  # fmt: skip
    detail = Detail(
        f"Calibration: {PLACE_M * 1e3:g} mm and {DELAY_S * 1e6:g} µs off, {CALIBRATING} impulses, "
        "in the array's own axes (a common turn of it no impulse tells)",
        columns,
        rows,
    )
    details = (detail, _fewer_table(fewer))
    return Part(tuple(claims), details, lambda axes: _draw(axes, by_ruler, by_sound))


def _clumsy(nominal_m: Float64Array, rng: np.random.Generator) -> _Array:
    """Put an array together, seen in its own axes: those that fit the nominal one best."""
    built_m = nominal_m + rng.normal(0, PLACE_M, nominal_m.shape)
    middle_m = nominal_m.mean(axis=0)
    built_m -= built_m.mean(axis=0)
    left, _, right = np.linalg.svd(built_m.T @ (nominal_m - middle_m))
    late_s = rng.normal(0, DELAY_S, len(nominal_m))
    return _Array(built_m @ left @ right + middle_m, late_s - late_s.mean())


def _on_fewer(
    nominal_m: Float64Array,
    array: _Array,
    arrivals: dict[tuple[float, float], list[Arrival]],
) -> _Fewer:
    """Calibrate on fewer impulses, and on such as come from low alone; None where refused."""
    calibrations: dict[tuple[tuple[float, float], int], Calibration | None] = {}
    for elevations_deg, heard in arrivals.items():
        for count in FEWER:
            try:
                told = calibrate(nominal_m, heard[:count])
            except CalibrationError:
                told = None
            calibrations[elevations_deg, count] = told
    return _Fewer(array, calibrations)


def _fewer_table(found: list[_Fewer]) -> Detail:
    rows = []
    for case in found[0].calibrations:
        told = [(one.array, one.calibrations[case]) for one in found]
        good = [(array, calibration) for array, calibration in told if calibration is not None]
        left_m = [array.positions_m - calibration.positions_m for array, calibration in good]
        timing_s = [calibration.timing_sigma_s for _, calibration in good]
        (low_deg, high_deg), count = case
        rows.append((
            f"{low_deg:g} to {high_deg:g}°", str(count), f"{len(good)} of {len(told)}",
            f"{1e3 * _rms(left_m):.2f}" if good else "–",
            f"{1e6 * _rms(timing_s):.2f}" if good else "–",
        ))  # fmt: skip
    columns = ("elevations", "impulses", "calibrated, not refused", "places after, mm",
               "timing as told, µs")  # fmt: skip
    return Detail("Calibration on fewer impulses, and on lower ones", columns, tuple(rows))


def _arrivals(
    array: _Array,
    nominal_m: Float64Array,
    rng: np.random.Generator,
    elevations_deg: tuple[float, float] = ELEVATIONS_DEG,
) -> list[Arrival]:
    finder = _nominal_finder(nominal_m)
    arrivals = []
    for _ in range(CALIBRATING):
        heard = array.hear(rng.uniform(*CALIBRATING_DB), rng, elevations_deg)
        arrival = finder.explain(*_cut(finder, heard)).arrival
        if arrival is not None:
            arrivals.append(arrival)
    return arrivals


def _nominal_finder(nominal_m: Float64Array) -> DirectionFinder:
    return DirectionFinder(nominal_m, RATE_HZ, position_sigma_m=PLACE_M, delay_sigma_s=DELAY_S)


def _calibrated_finder(calibration: Calibration) -> DirectionFinder:
    return DirectionFinder(
        calibration.positions_m,
        RATE_HZ,
        delays_s=calibration.delays_s,
        position_sigma_m=0.0,
        delay_sigma_s=calibration.timing_sigma_s,
    )


def _cut(finder: DirectionFinder, heard: Heard) -> tuple[npt.NDArray[np.float32], float]:
    before, after = finder.window()
    at = int(heard.onset)
    return heard.sound[at - before : at + after], before + heard.onset - at


def _find(finder: DirectionFinder, heard: list[Heard]) -> _Found:
    errors_deg, held = [], []
    for one in heard:
        direction = finder.find(*_cut(finder, one))
        if direction is None or direction.elevation_deg is None:
            errors_deg.append(math.nan)
            continue
        u = towards(direction.azimuth_deg, direction.elevation_deg)
        across = float(np.linalg.norm(np.cross(u, one.u)))
        errors_deg.append(math.degrees(math.atan2(across, float(u @ one.u))))
        held.append(errors_deg[-1] <= CONE_SIGMAS * direction.sigma_deg)
    return _Found(np.array(errors_deg), tuple(held))


def _claims(by_ruler: Float64Array, by_sound: Float64Array, held: list[bool]) -> list[Claim]:
    claims = []
    for name, percent in (("median", 50), ("95 %", 95)):
        was, now = (float(np.nanpercentile(e, percent)) for e in (by_ruler, by_sound))
        claims.append(Claim(f"direction before calibration, 30 dB: error, {name}", was, "°"))
        bar = ERROR_BAR_DEG if percent == 95 else was
        shown = f"≤ {ERROR_BAR_DEG}" if percent == 95 else "< before"
        claims.append(
            Claim(f"direction after calibration, 30 dB: error, {name}", now, "°", shown, now <= bar)
        )
    refused = float(np.isnan(by_sound).mean())
    claims.append(Claim("after calibration: no direction told", 100 * refused, "%"))
    share = float(np.mean(held))
    bar_text = f"{100 * HOLD[0]:.0f}–{100 * HOLD[1]:.0f}"
    claims.append(
        Claim("after calibration: 95 % regions that hold the truth", 100 * share, "%", bar_text,
              HOLD[0] <= share <= HOLD[1])
    )  # fmt: skip
    return claims


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _median(errors_deg: Float64Array) -> float:
    return float(np.nanmedian(errors_deg))


def _draw(axes: Any, by_ruler: Float64Array, by_sound: Float64Array) -> None:
    for name, errors_deg in (("before", by_ruler), ("after", by_sound)):
        known = np.sort(errors_deg[np.isfinite(errors_deg)])
        axes.plot(known, np.arange(1, len(known) + 1) / len(errors_deg), label=name)
    axes.set(xscale="log", xlim=(0.03, 10), xlabel="error, °", ylabel="share of impulses",
             title="Directions before and after calibration")  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
