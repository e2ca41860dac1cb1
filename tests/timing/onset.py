"""Time of arrival: the detector's onsets against simulated truth, and against live fire's labels.

Spread is how far apart the errors of different shots lie, repeatability how far those of one and
the same shot in other noise. Levels are those of signal.md §2: the peak over the rms of all the
noise, pink and some white, before any filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import signal

from node.detect import Detector
from node.settings import DetectSettings
from node.simulate import Atmosphere, absorb, emit
from node.types import Block
from tests.evidence import Claim, Detail
from tests.field.onsets import DATA, NEAR_S, Heard, hear, recordings
from tests.parts import Part, Tell

Float64Array = npt.NDArray[np.float64]
Shot = tuple[str, float]

SEED: Final = 3_141  # no constant was chosen on it
RATE_HZ: Final = 48_000
CALIBRES: Final = (".22LR", "9mm", "5.56", ".308", "12ga")
RANGES_M: Final = (50.0, 150.0, 300.0, 800.0)
SHOTS: Final[tuple[Shot, ...]] = tuple((c, far) for c in CALIBRES for far in RANGES_M)
LEVELS_DB: Final = (20, 25, 30, 40)
TIMES: Final = 25
REPEATED_DB: Final = (20, 30, 40)

APART: Final = RATE_HZ // 2
NEAR: Final = 0.005 * RATE_HZ
WAVE: Final = 4096
LEAD: Final = 8  # frames before a shot in its wave
OFFSETS: Final = 16  # a shot may begin at so many places between two frames
NOISE_RMS: Final = 0.002
WHITE: Final = 0.3
BLOCK: Final = 1024
CAPSULE: Final = signal.butter(1, 60.0, "high", fs=RATE_HZ)
SHOOTER_M: Final = 1.5
MICROPHONE_M: Final = 4.0
GROUND: Final = 0.9

CHOSEN_ON: Final = ("FP1", "FP3", "FP5")
KEPT_BACK: Final = ("FP2", "FP4", "FP6")
LIVE_RATIO: Final = 4
"""The live-fire recordings have a quarter of RATE_HZ: 12 kHz."""
LABELS_ERROR_MS: Final = -0.316
"""The mean error of the sensors whose times the labels are, as their maker measured it."""

SPREAD_US: Final = 220.0
REPEATED_US: Final = 5.0
REPEATED_AT_DB: Final = 30
BEYOND_PERCENT: Final = 1.0
MEDIAN_MS: Final = 0.5
P95_MS: Final = 5.0


@dataclass(frozen=True)
class Told:
    """Errors of the onsets told for some shots, in us and in σ told; NaN for a shot missed."""

    error_us: Float64Array
    in_sigma: Float64Array

    @property
    def median_us(self) -> float:
        """Middle error."""
        return float(np.nanmedian(self.error_us))

    @property
    def spread_us(self) -> float:
        """Within so much of the middle lie 95 % of the shots; one missed lies infinitely far."""
        away = np.abs(self.error_us - self.median_us)
        return float(np.percentile(np.where(np.isnan(away), np.inf, away), 95))

    @property
    def missed(self) -> int:
        """Shots of which no onset was told within 5 ms."""
        return int(np.isnan(self.error_us).sum())


def measure(tell: Tell) -> Part:
    """Measure spread, repeatability, whether the σ told is honest, and live fire."""
    rng = np.random.default_rng(SEED)
    spread: dict[tuple[bool, int], Told] = {}
    for ground in (False, True):
        for level_db in LEVELS_DB:
            tell(f"20 shots at {level_db} dB{', over ground' if ground else ''}")
            spread[ground, level_db] = _tell(SHOTS * TIMES, level_db, rng, ground)
    repeated: dict[int, list[Told]] = {}
    for level_db in REPEATED_DB:
        tell(f"each again and again at {level_db} dB")
        repeated[level_db] = [_tell((shot,) * TIMES, level_db, rng, False) for shot in SHOTS]
    claims = [_spread(level_db, spread[False, level_db]) for level_db in LEVELS_DB]
    claims += [_repeated(level_db, told) for level_db, told in repeated.items()]
    claims.append(_honest(list(spread.values())))
    tell("20 shots at the live fire's 12 kHz")
    slow = {level: _tell(SHOTS * TIMES, level, rng, False, LIVE_RATIO) for level in LEVELS_DB}
    details = [_table(spread), _table_of_slow(slow), _table_of_shots(repeated)]
    if (DATA / "pittsburgh").is_dir():
        found, table = _live_fire(tell)
        claims += found
        details.append(table)
    return Part(tuple(claims), tuple(details), lambda axes: _draw(axes, repeated))


def _tell(
    shots: tuple[Shot, ...],
    level_db: float,
    rng: np.random.Generator,
    ground: bool,
    ratio: int = 1,
) -> Told:
    """Push shots in noise through a detector, half a second apart, and compare.

    `ratio` lowers the rate, through a filter without delay.
    """
    n = APART * (len(shots) + 2)
    x = NOISE_RMS * _noise(n, rng)
    late = rng.integers(0, 100 * OFFSETS, len(shots)) / OFFSETS
    truth = APART * (1.0 + np.arange(len(shots))) + late
    for shot, at in zip(shots, truth, strict=True):
        begin = int(at) - LEAD
        wave = _wave(*shot, float(at - int(at)), ground)
        x[begin : begin + WAVE] += NOISE_RMS * 10 ** (level_db / 20) * wave
    if ratio > 1:
        x = signal.resample_poly(x, 1, ratio)
    frames = x.astype(np.float32)[:, np.newaxis]
    rate_hz = RATE_HZ // ratio
    detector = Detector(DetectSettings(), rate_hz, 1)
    events = [
        event
        for first in range(0, len(frames), BLOCK)
        for event in detector.push(Block(first, frames[first : first + BLOCK], rate_hz))
    ]
    impulses = [impulse for event in events + detector.flush() for impulse in event.impulses]
    onset = ratio * np.array([impulse.onset_sample for impulse in impulses])
    sigma = ratio * np.array([impulse.sigma_samples for impulse in impulses])
    nearest = np.abs(onset[np.newaxis] - truth[:, np.newaxis]).argmin(axis=1)
    error = onset[nearest] - truth
    error[np.abs(error) > NEAR] = np.nan
    return Told(1e6 * error / RATE_HZ, np.abs(error) / sigma[nearest])


def _noise(n: int, rng: np.random.Generator) -> Float64Array:
    frequency = np.maximum(np.fft.rfftfreq(n, 1 / RATE_HZ), 20.0)
    spectrum = rng.standard_normal(len(frequency)) + 1j * rng.standard_normal(len(frequency))
    pink = np.fft.irfft(spectrum / np.sqrt(frequency), n)
    noise = (1 - WHITE) * pink / pink.std() + WHITE * rng.standard_normal(n)
    heard = signal.lfilter(*CAPSULE, noise)
    return np.asarray(heard / heard.std())


@lru_cache(maxsize=4096)
def _wave(calibre: str, range_m: float, offset: float, ground: bool) -> Float64Array:
    """Give a shot of peak 1 as a microphone hears it, begun LEAD + `offset` frames in."""
    atmosphere = Atmosphere()
    direct_m = float(np.hypot(range_m, MICROPHONE_M - SHOOTER_M))
    by_ground_m = float(np.hypot(range_m, MICROPHONE_M + SHOOTER_M))
    after = (by_ground_m - direct_m) / atmosphere.sound_speed_m_s * RATE_HZ
    pressure = np.zeros(WAVE)
    for at, gain in ((0.0, 1.0), (after, GROUND if ground else 0.0)):
        shot = emit(
            "muzzle_blast",
            calibre=calibre,
            distance_m=range_m,
            sample_rate_hz=RATE_HZ,
            rng=np.random.default_rng(SEED),
            onset_sample=LEAD + offset + at,
            off_axis_deg=90.0,
        ).pressure_pa[:WAVE]
        pressure[: len(shot)] += gain * shot
    heard = signal.lfilter(*CAPSULE, absorb(pressure, range_m, RATE_HZ, atmosphere))
    return np.asarray(heard / np.abs(heard).max())


def _spread(level_db: int, told: Told) -> Claim:
    return Claim(
        f"time of arrival, 5 calibres × 50–800 m: p95 spread at {level_db} dB",
        told.spread_us,
        "µs",
        f"≤ {SPREAD_US:g}",
        told.spread_us <= SPREAD_US,
    )


def _deviations_us(shots: list[Told]) -> Float64Array:
    return np.array([np.nanstd(told.error_us, ddof=1) for told in shots])


def _repeated(level_db: int, shots: list[Told]) -> Claim:
    value = float(np.sqrt(np.mean(np.square(_deviations_us(shots)))))
    claim = f"time of arrival, repeatability at {level_db} dB, rms of the 20 shots"
    if level_db != REPEATED_AT_DB:
        return Claim(claim, value, "µs")
    return Claim(claim, value, "µs", f"≤ {REPEATED_US:g}", value <= REPEATED_US)


def _honest(all_told: list[Told]) -> Claim:
    in_sigma = np.concatenate([told.in_sigma for told in all_told])
    beyond = 100 * float(np.mean(in_sigma[~np.isnan(in_sigma)] > 3))
    claim = "time of arrival: errors beyond 3 of the σ told, with and without ground"
    return Claim(claim, beyond, "%", f"≤ {BEYOND_PERCENT:g}", beyond <= BEYOND_PERCENT)


def _table(spread: dict[tuple[bool, int], Told]) -> Detail:
    return Detail(
        f"Time of arrival in simulation, {len(SHOTS) * TIMES} shots a row, µs",
        ("peak over noise", "ground echo", "median", "p95 from it", "missed"),
        tuple(
            (
                f"{level_db} dB",
                "yes" if ground else "no",
                f"{told.median_us:.0f}",
                f"{told.spread_us:.0f}",
                str(told.missed),
            )
            for (ground, level_db), told in spread.items()
        ),
    )


def _table_of_slow(slow: dict[int, Told]) -> Detail:
    rows = tuple(
        (
            f"{level_db} dB",
            f"{told.median_us:+.0f}",
            f"{np.nanpercentile(np.abs(told.error_us), 95):.0f}",
            str(told.missed),
        )
        for level_db, told in slow.items()
    )
    title = "Time of arrival in simulation at 12 kHz, as the live fire was recorded: error, µs"
    return Detail(title, ("peak over noise", "median", "p95 of size", "missed"), rows)


def _table_of_shots(repeated: dict[int, list[Told]]) -> Detail:
    return Detail(
        f"The same shot {TIMES} times: mean error ± standard deviation, µs",
        ("shot", *(f"{level_db} dB" for level_db in repeated)),
        tuple(
            (
                f"{calibre}, {far:g} m",
                *(
                    f"{np.nanmean(told[i].error_us):.0f} ± {_deviations_us(told)[i]:.1f}"
                    for told in repeated.values()
                ),
            )
            for i, (calibre, far) in enumerate(SHOTS)
        ),
    )


def _live_fire(tell: Tell) -> tuple[list[Claim], Detail]:
    differences: dict[str, Float64Array] = {}
    for name, points in (("chosen on", CHOSEN_ON), ("kept back", KEPT_BACK)):
        tell(f"live fire, {', '.join(points)}")
        heard = [_differences_ms(hear(path)) for path in recordings(DATA, points)]
        differences[f"{name}: {', '.join(points)}"] = np.concatenate(heard)
    kept_back = list(differences.values())[-1]
    matched = np.abs(kept_back[~np.isnan(kept_back)])
    median_ms, p95_ms = (float(np.percentile(matched, share)) for share in (50, 95))
    put_back_ms = float(np.nanmedian(np.abs(kept_back + LABELS_ERROR_MS)))
    what = "live fire kept back, onset against the sensors' own pulse (1 ms grid)"
    claims = [
        Claim(f"{what}: median", median_ms, "ms", f"≤ {MEDIAN_MS:g}", median_ms <= MEDIAN_MS),
        Claim(f"{what}: p95", p95_ms, "ms", f"≤ {P95_MS:g}", p95_ms <= P95_MS),
        Claim(f"{what}: none within 20 ms", float(np.isnan(kept_back).sum()), "pulses"),
        Claim(f"{what}: median, their mean error of −316 µs put back", put_back_ms, "ms"),
    ]
    everything = {**differences, "all": np.concatenate(list(differences.values()))}
    rows = tuple(
        (
            name,
            str(len(ms)),
            str(int(np.isnan(ms).sum())),
            f"{np.nanmedian(np.abs(ms)):.3f}",
            f"{np.nanpercentile(np.abs(ms), 95):.2f}",
            f"{np.nanmedian(ms):+.3f}",
            f"{np.nanmedian(np.abs(ms + LABELS_ERROR_MS)):.3f}",
        )
        for name, ms in everything.items()
    )
    columns = ("points", "pulses", "none within 20 ms", "median of size", "p95 of size")
    title = "Live fire: onset less published pulse, ms"
    return claims, Detail(title, (*columns, "median", "median of size, −0.316 put back"), rows)


def _differences_ms(heard: Heard) -> Float64Array:
    """Give the nearest onset less the pulse for each selected pulse; NaN for none in 20 ms."""
    if not len(heard.onsets):
        return np.full(len(heard.selected), np.nan)
    apart = heard.onsets[np.newaxis] - heard.selected[:, np.newaxis]
    nearest = np.abs(apart).argmin(axis=1, keepdims=True)
    least = np.take_along_axis(apart, nearest, axis=1)[:, 0]
    return np.where(np.abs(least) <= NEAR_S, 1e3 * least, np.nan)


def _draw(axes: Any, repeated: dict[int, list[Told]]) -> None:
    level_db = REPEATED_AT_DB
    told = dict(zip(SHOTS, repeated[level_db], strict=True))
    for calibre in CALIBRES:
        errors = [told[calibre, far].error_us for far in RANGES_M]
        means = [np.nanmean(error) for error in errors]
        bars = [2 * np.nanstd(error) for error in errors]
        axes.errorbar(RANGES_M, means, bars, marker="o", capsize=3, label=calibre)
    axes.set_xscale("log")
    axes.set_xticks(RANGES_M, [f"{far:g}" for far in RANGES_M])
    axes.minorticks_off()
    axes.set_xlabel("range, m")
    axes.set_ylabel("onset less truth, µs")
    axes.set_title(f"time of arrival at {level_db} dB: mean ± 2 standard deviations")
    axes.axhline(0, color="0.7", lw=1)
    axes.legend()
