"""The two shapes of impulsive sound, what is made of them, and how they are sampled.

`node.simulate.sounds` sets their figures.

A shape knows its running integral in closed form. A sample is then the mean of the true pressure
over a cell of 1/16 sample, filtered and decimated, so that an onset between two samples stays
where it is to nanoseconds, without a grid to snap to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy import signal

from node.simulate.filters import OVERSAMPLING, anti_alias
from node.types import Label

Float64Array = npt.NDArray[np.float64]

REFERENCE_PA: Final = 20e-6
REFERENCE_DISTANCE_M: Final = 1.0
_NEAREST_M: Final = 0.1

# Weak-shock theory: beta / (rho c^3) with beta = 1.2, rho = 1.204 kg/m3, c = 343 m/s.
_STEEPENING: Final = 1.2 / (1.204 * 343.0**3)
_DURATION_DISTANCE_M: Final = 10.0
_BLAST_SETTLED: Final = 14.0  # positive phases after which a blast is below 2e-5 of its peak
_RING_SETTLED: Final = 10.0  # e-folds after which a ring is below 2e-4 of its peak


class Pulse(Protocol):
    """One pressure pulse in the free field, without the air's absorption."""

    def length_s(self, distance_m: float) -> float:
        """Give the time from onset in s after which nothing is left."""

    def integral_pa_s(self, time_s: Float64Array, distance_m: float) -> Float64Array:
        """Give the integral of pressure from the onset to `time_s` in Pa s, zero before it."""


@dataclass(frozen=True)
class Blast:
    """The wave of an explosion: a shock, an exponential fall, a long shallow rarefaction.

    Attributes
    ----------
    peak_pa
        Free-field shock pressure at 1 m in Pa.
    positive_phase_s
        Time from the shock to the first zero, at 10 m, in s.
    rise_s
        Time constant of the front in s; 0 for a shock.

    Notes
    -----
    Friedlander's p = p0 (1 - t/T) exp(-t/T) (its net impulse is zero). A weak shock lengthens and
    weakens as it goes (Landau 1945; Whitham 1974, §9.3): with A = p0 r T constant along the way,
    T(r)^2 = T(10 m)^2 + beta A / (rho c^3) ln(r / 10 m), p0 = A / (r T). From 500 Pa, 400 us at
    10 m this and absorption give 28.4 Pa at 100 m; Burgers' equation, solved, gives 28.7 Pa.
    """

    peak_pa: float
    positive_phase_s: float
    rise_s: float = 0.0

    @cached_property
    def _strength(self) -> float:
        """Give A = p0 r T in Pa m s, from the peak at 1 m and the duration at 10 m."""
        shrink = _STEEPENING * self.peak_pa * np.log(_DURATION_DISTANCE_M / REFERENCE_DISTANCE_M)
        at_reference = (np.sqrt(shrink**2 + 4 * self.positive_phase_s**2) - shrink) / 2
        return float(self.peak_pa * REFERENCE_DISTANCE_M * at_reference)

    def positive_phase_at_s(self, distance_m: float) -> float:
        """Give the positive phase's duration at a distance in s."""
        distance_m = max(distance_m, REFERENCE_DISTANCE_M)
        growth = _STEEPENING * self._strength * np.log(distance_m / _DURATION_DISTANCE_M)
        return float(np.sqrt(self.positive_phase_s**2 + growth))

    def peak_at_pa(self, distance_m: float) -> float:
        """Give the shock pressure at a distance in Pa, without the air's absorption."""
        distance_m = max(distance_m, _NEAREST_M)
        return self._strength / (distance_m * self.positive_phase_at_s(distance_m))

    def length_s(self, distance_m: float) -> float:
        """Give the time from onset in s after which nothing is left."""
        return _BLAST_SETTLED * self.positive_phase_at_s(distance_m)

    def integral_pa_s(self, time_s: Float64Array, distance_m: float) -> Float64Array:
        """Give the integral of pressure from the onset to `time_s` in Pa s, zero before it."""
        T = self.positive_phase_at_s(distance_m)
        t = np.maximum(time_s, 0.0)
        integral = t * np.exp(-t / T)
        if self.rise_s > 0:
            rate = 1 / T + 1 / self.rise_s
            limit = 1 / rate - 1 / (T * rate**2)
            integral -= limit - (limit - t / (T * rate)) * np.exp(-rate * t)
        return np.asarray(self.peak_at_pa(distance_m) * integral)


@dataclass(frozen=True)
class Ring:
    """A damped oscillation: a body or a pipe that was struck or blown; weak, so it only spreads.

    Attributes
    ----------
    peak_pa
        Largest absolute pressure at 1 m in Pa.
    frequency_hz, decay_per_s
        Of p ~ t^n exp(-decay t) sin(2 pi frequency t).
    soft
        n = 1 (Berlage's wavelet: a slow start, as of gas) or n = 0 (a start as of a blow).
    """

    peak_pa: float
    frequency_hz: float
    decay_per_s: float
    soft: bool = True

    @cached_property
    def _scale(self) -> float:
        w, decay = 2 * np.pi * self.frequency_hz, self.decay_per_s
        t = np.linspace(0, 4 / self.frequency_hz, 4001)
        shape = np.exp(-decay * t) * np.sin(w * t) * (t if self.soft else 1.0)
        return float(self.peak_pa * REFERENCE_DISTANCE_M / np.abs(shape).max())

    def length_s(self, distance_m: float) -> float:
        """Give the time from onset in s after which nothing is left."""
        return _RING_SETTLED / self.decay_per_s

    def integral_pa_s(self, time_s: Float64Array, distance_m: float) -> Float64Array:
        """Give the integral of pressure from the onset to `time_s` in Pa s, zero before it."""
        t = np.maximum(time_s, 0.0)
        w = 2 * np.pi * self.frequency_hz
        pole = self.decay_per_s - 1j * w
        fall = np.exp(-self.decay_per_s * t) * (np.cos(w * t) + 1j * np.sin(w * t))
        integral = (1 - (1 + pole * t) * fall) / pole**2 if self.soft else (1 - fall) / pole
        return np.asarray(self._scale / max(distance_m, _NEAREST_M) * integral.imag)


def sample_pulse(
    pulse: Pulse, *, distance_m: float, sample_rate_hz: float, onset_sample: float
) -> Float64Array:
    """Sample a pulse through the anti-alias filter.

    Parameters
    ----------
    pulse, distance_m
        What, and how far away in m.
    sample_rate_hz
        Rate of the result.
    onset_sample
        Where the pulse starts, in fractional samples from the result's first one; at least 0.

    Returns
    -------
    Free-field pressure in Pa, shape [n], long enough for the pulse to die away. Samples before
    the onset are exactly zero.
    """
    cell_s = 1 / (sample_rate_hz * OVERSAMPLING)
    skip = int(onset_sample)
    n = int(np.ceil(pulse.length_s(distance_m) * sample_rate_hz)) + 2
    cells = np.arange(-1, n * OVERSAMPLING, dtype=np.float64)
    edges = (cells - (onset_sample - skip) * OVERSAMPLING) * cell_s
    pressure = np.diff(pulse.integral_pa_s(edges, distance_m)) / cell_s
    sampled = signal.upfirdn(anti_alias(), pressure, down=OVERSAMPLING)
    return np.concatenate([np.zeros(skip), sampled])


@dataclass(frozen=True)
class Sound:
    """A source whose every parameter is settled: what any listener, anywhere, hears the start of.

    Attributes
    ----------
    kind, label
        Of `node.simulate.sources.SOURCE_KINDS`.
    pulses
        Each with its delay in s after the first, which has 0.
    rear_attenuation_db
        How much weaker it is to the rear than to the front; levels hold for the side.
    """

    kind: str
    label: Label
    pulses: tuple[tuple[float, Pulse], ...]
    rear_attenuation_db: float = 0.0

    def directivity(self, off_axis_deg: float) -> float:
        """Give the gain at an angle from the front, 1 at 90 degrees."""
        level_db = self.rear_attenuation_db / 2 * np.cos(np.deg2rad(off_axis_deg))
        return float(10 ** (level_db / 20))

    def sample(
        self,
        *,
        distance_m: float,
        sample_rate_hz: float,
        onset_sample: float = 0.0,
        off_axis_deg: float = 90.0,
    ) -> Float64Array:
        """Sample the free-field pressure in Pa at a distance, shape [n], before absorption.

        `onset_sample` (fractional, at least 0) is where the first pulse starts; samples before it
        are exactly zero. The result ends when the last pulse has died.
        """
        parts = [
            sample_pulse(
                pulse,
                distance_m=distance_m,
                sample_rate_hz=sample_rate_hz,
                onset_sample=onset_sample + delay_s * sample_rate_hz,
            )
            for delay_s, pulse in self.pulses
        ]
        total = np.zeros(max(len(part) for part in parts))
        for part in parts:
            total[: len(part)] += part
        return total * self.directivity(off_axis_deg)


def peak_pa(peak_db_spl: float) -> float:
    """Give the pressure in Pa of a peak level in dB re 20 uPa."""
    return float(REFERENCE_PA * 10 ** (peak_db_spl / 20))
