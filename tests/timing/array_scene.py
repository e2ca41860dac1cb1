"""Impulses at an array, in the far field: scenes with their truth, for the figures on direction.

As in signal.md §3 (five calibres, diffuse and independent pink noise, microphones that differ),
and with what that leaves out: ranges to 800 m, a reflection from the ground, arrays turned any way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import signal

from node.simulate.propagation import Atmosphere, absorb
from node.simulate.sources import emit

Float64Array = npt.NDArray[np.float64]

SPEED_M_S: Final = 343.0
CALIBRES: Final = (".22LR", "9mm", "5.56", ".308", "12ga")
RANGES_M: Final = (50.0, 150.0, 400.0, 800.0)
ONSET: Final = 0.045  # s, where the first arrival is at the array's middle
LENGTH_S: Final = 0.075
CAPSULE_HZ: Final = 60.0
NOISES: Final = 12  # plane waves that make the diffuse field


@dataclass(frozen=True)
class Mismatch:
    """How microphones differ: standard errors of gain in dB, delay in s, place in m."""

    gain_db: float = 1.0
    delay_s: float = 2e-6
    place_m: float = 0.5e-3


@dataclass(frozen=True)
class Ground:
    """Flat ground that mirrors: heights above it in m, and what share of the pressure it does."""

    sensor_m: float
    source_m: float
    reflection: float

    def elevation_deg(self, range_m: float) -> float:
        """Give the source's elevation at a horizontal range."""
        return float(np.rad2deg(np.arctan2(self.source_m - self.sensor_m, range_m)))

    def below_deg(self, range_m: float) -> float:
        """Give the elevation of the source's image in the ground."""
        return float(np.rad2deg(np.arctan2(-self.source_m - self.sensor_m, range_m)))

    def longer_m(self, range_m: float) -> float:
        """Give by how much the way over the ground is longer than the direct one."""
        direct_m = np.hypot(range_m, self.source_m - self.sensor_m)
        return float(np.hypot(range_m, self.source_m + self.sensor_m) - direct_m)


@dataclass(frozen=True)
class Heard:
    """An impulse as an array hears it: sound [n, channels], onset at channel 0, true direction."""

    sound: npt.NDArray[np.float32]
    onset: float
    u: Float64Array

    @property
    def azimuth_deg(self) -> float:
        """Clockwise from north."""
        return float(np.rad2deg(np.arctan2(self.u[0], self.u[1])) % 360)

    @property
    def elevation_deg(self) -> float:
        """Above the horizon."""
        return float(np.rad2deg(np.arcsin(self.u[2])))


def towards(azimuth_deg: float, elevation_deg: float) -> Float64Array:
    """Give the unit vector towards an azimuth and elevation: x east, y north, z up."""
    a, e = np.deg2rad([azimuth_deg, elevation_deg])
    return np.array([np.cos(e) * np.sin(a), np.cos(e) * np.cos(a), np.sin(e)])


def hear(
    positions_m: Float64Array,
    u: Float64Array,
    snr_db: float,
    rng: np.random.Generator,
    *,
    rate_hz: int = 48_000,
    kind: str = "muzzle_blast",
    calibre: str | None = None,
    range_m: float | None = None,
    echoes: int = 0,
    mismatch: Mismatch = Mismatch(),
    delays_s: Float64Array | float = 0.0,
    ground: bool | Ground = False,
    speed_m_s: float = SPEED_M_S,
) -> Heard:
    """Make an impulse from direction `u`, its peak `snr_db` over the noise's rms.

    `ground` is a surface that the source at `range_m` stands over, as `u` must say too; or, where
    true, one of 0.7 that is 6 m below the array and farther below than that a source far off.
    """
    n = round(LENGTH_S * rate_hz)
    range_m = float(rng.choice(RANGES_M)) if range_m is None else range_m
    calibre = str(rng.choice(CALIBRES)) if calibre is None else calibre
    blast = _blast(kind, calibre, range_m, rate_hz, n)
    places_m = positions_m + rng.normal(0, mismatch.place_m, positions_m.shape)
    late_s = delays_s + rng.normal(0, mismatch.delay_s, len(positions_m))
    gain = 10 ** (rng.normal(0, mismatch.gain_db, len(positions_m)) / 20)
    at_s = ONSET - places_m @ u / speed_m_s + late_s
    x = gain * _shifted(blast, at_s, rate_hz, n)
    if ground:
        below = u * np.array([1, 1, -1])
        after_s = 2 * 6.0 * max(0.0, float(u[2])) / speed_m_s + 5e-6
        reflection = 0.7
        if isinstance(ground, Ground):
            azimuth_deg = float(np.rad2deg(np.arctan2(u[0], u[1])))
            below = towards(azimuth_deg, ground.below_deg(range_m))
            after_s = ground.longer_m(range_m) / speed_m_s
            reflection = ground.reflection
        late_s = at_s + after_s + places_m @ (u - below) / speed_m_s
        x += reflection * gain * _shifted(blast, late_s, rate_hz, n)
    for _ in range(echoes):
        v = towards(rng.uniform(0, 360), np.rad2deg(rng.uniform(-0.1, 0.5)))
        after_s, level = rng.uniform(0.002, 0.010), 10 ** (-rng.uniform(2, 10) / 20)
        x += level * gain * _shifted(blast, at_s + places_m @ (u - v) / speed_m_s + after_s,
                                     rate_hz, n)  # fmt: skip
    noise = _noise(places_m, rate_hz, n, rng)
    x = x + noise * np.abs(blast).max() / 10 ** (snr_db / 20)
    x /= 2 * np.abs(x).max()
    onset = (ONSET - float(positions_m[0] @ u) / speed_m_s) * rate_hz
    return Heard(x.astype(np.float32), onset, u)


@lru_cache(maxsize=256)
def _blast(kind: str, calibre: str, range_m: float, rate_hz: int, n: int) -> Float64Array:
    extra = {"calibre": calibre} if kind == "muzzle_blast" else {}
    rng = np.random.default_rng(len(calibre) + round(range_m))
    heard = emit(kind, distance_m=range_m, sample_rate_hz=rate_hz, rng=rng, off_axis_deg=90.0,
                 **extra)  # fmt: skip
    pressure = np.pad(heard.pressure_pa, (0, max(0, n - len(heard.pressure_pa))))[:n]
    wave = absorb(pressure, range_m, rate_hz, Atmosphere())
    b, a = signal.butter(1, CAPSULE_HZ, "high", fs=rate_hz)
    return np.asarray(signal.lfilter(b, a, wave)[:n])


def _shifted(wave: Float64Array, at_s: Float64Array, rate_hz: int, n: int) -> Float64Array:
    f = np.fft.rfftfreq(2 * n, 1 / rate_hz)
    spectrum = np.fft.rfft(wave, 2 * n)[:, None] * np.exp(-2j * np.pi * f[:, None] * at_s)
    return np.asarray(np.fft.irfft(spectrum, 2 * n, axis=0)[:n])


def _pink(n: int, rate_hz: int, rng: np.random.Generator) -> Float64Array:
    f = np.maximum(np.fft.rfftfreq(n, 1 / rate_hz), 20.0)
    spectrum = rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f))
    x = np.fft.irfft(spectrum / np.sqrt(f), n)
    return np.asarray(x / x.std())


def _noise(places_m: Float64Array, rate_hz: int, n: int, rng: np.random.Generator) -> Float64Array:
    """Give noise of unit rms, half of it coherent between the microphones, [n, channels]."""
    own = [0.5 * _pink(n, rate_hz, rng) + 0.3 * rng.standard_normal(n) for _ in places_m]
    total = np.stack(own, axis=1)
    f = np.fft.rfftfreq(2 * n, 1 / rate_hz)
    spectrum = np.zeros((len(f), len(places_m)), np.complex128)
    for _ in range(NOISES):
        v = towards(rng.uniform(0, 360), float(np.rad2deg(np.arcsin(rng.uniform(-0.3, 1)))))
        wave = np.fft.rfft(0.5 * _pink(2 * n, rate_hz, rng))
        spectrum += wave[:, None] * np.exp(2j * np.pi * f[:, None] * (places_m @ v) / SPEED_M_S)
    total += np.fft.irfft(spectrum, 2 * n, axis=0)[:n]
    b, a = signal.butter(1, CAPSULE_HZ, "high", fs=rate_hz)
    total = signal.lfilter(b, a, total, axis=0)
    return np.asarray(total / total.std())
