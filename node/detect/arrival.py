"""When the first arrival of an impulse reaches each microphone, against the others.

The first half of direction finding: in comes the sound round an onset, out go the microphones'
delays, how well they are known, and which microphones can be believed. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft, signal

Float64Array = npt.NDArray[np.float64]
Samples = npt.NDArray[np.float32]

# Below it wind and traffic, above it little of a distant shot (signal.md §3).
BAND_HZ: Final = (300.0, 8000.0)
HIGHEST_SHARE_OF_RATE: Final = 0.42
# What is looked at: from so long before the strongest of the first rise to so long after it. The
# first echo of a wall comes later, that of the ground below an array from the same side.
GATE_BEFORE_S: Final = 0.00225
GATE_AFTER_S: Final = 0.00175
TAPER_S: Final = 0.0005
# The first rise: where the energy, smoothed over 0.75 ms, first reaches this share of its largest
# near the onset, and what comes within 1.25 ms of it.
SMOOTH_S: Final = 0.00075
RISE_SHARE: Final = 0.3
RISE_S: Final = 0.00125
SEEK_S: Final = (0.002, 0.006)
# The noise is measured on what came before; the filter needs some ms to settle.
LEAD_S: Final = 0.024
SETTLE_S: Final = 0.004
# A correlation is looked over at twice the rate, and round its peak at eight times it.
COARSE: Final = 2
UPSAMPLING: Final = 8
REACH: Final = 1  # samples
LAG_MARGIN: Final = 1.15
# A microphone whose sound resembles the others' less, or is weaker than theirs by more, is dead,
# stuck, or hears something else.
LIKENESS: Final = 0.5
WEAKEST: Final = 10 ** (-20 / 10)


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """Delays of the first arrival.

    Attributes
    ----------
    delays_s
        Shape [channels], against their mean; NaN for a channel that is not used.
    sigma_s
        Standard error of each by the noise.
    closure_s
        By how much the pairs contradict each other, root mean square.
    coherence
        The least correlation coefficient among the pairs used.
    used, inverted
        Channels.
    """

    delays_s: Float64Array
    sigma_s: float
    closure_s: float
    coherence: float
    used: tuple[int, ...]
    inverted: tuple[int, ...]


class FirstArrival:
    """Measures the delays of impulses at one array.

    Parameters
    ----------
    sample_rate_hz
        Of the sound.
    transit_s
        How long sound takes from each microphone to each, shape [channels, channels].
    """

    def __init__(self, sample_rate_hz: int, transit_s: Float64Array) -> None:
        self._rate = sample_rate_hz
        self._longest_s = float(transit_s.max(initial=0.0))
        top_hz = min(BAND_HZ[1], HIGHEST_SHARE_OF_RATE * sample_rate_hz)
        self._sos = signal.butter(2, (BAND_HZ[0], top_hz), "band", fs=sample_rate_hz, output="sos")
        self._rest = signal.sosfilt_zi(self._sos)[:, :, None]
        before_s = GATE_BEFORE_S + self._longest_s
        self._before = self._frames(before_s)
        self._gate = self._before + self._frames(GATE_AFTER_S + self._longest_s)
        self._lead = self._frames(LEAD_S) + self._before
        self._smooth = max(1, self._frames(SMOOTH_S))
        self._size = fft.next_fast_len(2 * self._gate, real=True)
        first, second = np.triu_indices(len(transit_s), 1)
        self._first, self._second = first, second
        self._lags = [
            math.ceil(transit * LAG_MARGIN * sample_rate_hz * COARSE) + 2
            for transit in transit_s[first, second].tolist()
        ]
        self._reach = [np.arange(-most, most + 1) for most in self._lags]

    def window(self) -> tuple[int, int]:
        """Give the frames wanted before and after an onset."""
        after_s = SEEK_S[1] + RISE_S + GATE_AFTER_S + 2 * self._longest_s
        return self._lead + self._frames(SEEK_S[0] + self._longest_s), self._frames(after_s) + 1

    def measure(self, sound: Samples, onset: float) -> Arrival | None:
        """Measure the delays of the impulse at `onset`; None where nothing is heard."""
        x = sound.astype(np.float64)
        y, _ = signal.sosfilt(self._sos, x, axis=0, zi=self._rest * x[0])
        begin = self._gate_begin(y, onset)
        gated = y[begin : begin + self._gate] * self._taper[:, None]
        energy = np.einsum("ij,ij->j", gated, gated)
        if not energy.max() > 0:
            return None
        loud = energy >= WEAKEST * float(np.median(energy[energy > 0]))
        spectra = fft.rfft(gated, self._size, axis=0)
        lag_s, likeness = self._pairs(spectra, energy, loud)
        used = _alike(np.abs(likeness), loud)
        if len(used) < 2:
            return Arrival(np.full(len(loud), np.nan), np.inf, 0.0, 0.0, tuple(used), ())
        inverted = _odd_ones(likeness, used)
        inside = np.ix_(used, used)
        delays_s = np.full(len(loud), np.nan)
        # Of a complete graph of differences, least squares gives the mean over each one's pairs.
        delays_s[used] = lag_s[inside].mean(axis=1)
        apart_s = lag_s[inside] - (delays_s[used][:, None] - delays_s[used][None])
        pairs = len(used) * (len(used) - 1)
        coherent = np.abs(likeness[inside])
        return Arrival(
            delays_s=delays_s,
            sigma_s=self._noise_sigma_s(spectra[:, used], y[:begin, used]),
            closure_s=math.sqrt(float(np.sum(apart_s**2)) / pairs),
            coherence=float(coherent[~np.eye(len(used), dtype=bool)].min()),
            used=tuple(used),
            inverted=tuple(inverted),
        )

    def _frames(self, seconds: float) -> int:
        return math.ceil(seconds * self._rate)

    @cached_property
    def _taper(self) -> Float64Array:
        edge = self._frames(TAPER_S)
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
        return np.concatenate((ramp, np.ones(self._gate - 2 * edge), ramp[::-1]))

    def _gate_begin(self, y: Float64Array, onset: float) -> int:
        """Place the gate at the first rise of the array's energy near the onset."""
        first = max(0, int(onset) - self._frames(SEEK_S[0] + self._longest_s))
        last = int(onset) + self._frames(SEEK_S[1] + self._longest_s)
        power = np.square(y[first:last]).sum(axis=1)
        energy = np.convolve(power, np.full(self._smooth, 1.0 / self._smooth), mode="same")
        rise = int(np.argmax(energy > RISE_SHARE * energy.max()))
        top = rise + int(np.argmax(energy[rise : rise + self._frames(RISE_S)]))
        return min(max(first + top - self._before, 0), len(y) - self._gate)

    def _pairs(
        self, spectra: npt.NDArray[np.complex128], energy: Float64Array, loud: npt.NDArray[np.bool_]
    ) -> tuple[Float64Array, Float64Array]:
        """Give delays t_i - t_j and correlation coefficients, antisymmetric and symmetric."""
        channels = len(energy)
        lag_s = np.zeros((channels, channels))
        likeness = np.zeros((channels, channels))
        chosen = np.flatnonzero(loud[self._first] & loud[self._second]).tolist()
        if not chosen:
            return lag_s, likeness
        i, j = self._first[chosen], self._second[chosen]
        cross = spectra[:, i] * np.conj(spectra[:, j]) / np.sqrt(energy[i] * energy[j])
        correlation = fft.irfft(cross, self._size * COARSE, axis=0) * COARSE
        lags = [
            _extremum(correlation[self._reach[k], column]) - self._lags[k]
            for column, k in enumerate(chosen)
        ]
        coarse = np.array(lags) / COARSE
        for pair, near in enumerate(self._fine(cross, coarse)):
            shift, value = _peak(near)
            lag_s[i[pair], j[pair]] = (coarse[pair] + shift / UPSAMPLING - REACH) / self._rate
            likeness[i[pair], j[pair]] = value
        return lag_s - lag_s.T, likeness + likeness.T

    @cached_property
    def _turn(self) -> npt.NDArray[np.complex128]:
        """Give what turns a cross spectrum by the lags round a coarse one, [bins, lags]."""
        lags = np.arange(2 * REACH * UPSAMPLING + 1) / UPSAMPLING - REACH
        return np.asarray(np.exp(2j * np.pi * self._cycles[:, None] * lags[None]))

    @cached_property
    def _cycles(self) -> Float64Array:
        return np.asarray(fft.rfftfreq(self._size))

    @cached_property
    def _bins(self) -> npt.NDArray[np.int64]:
        return np.arange(self._size // 2 + 1)

    @cached_property
    def _circle(self) -> npt.NDArray[np.complex128]:
        steps = COARSE * self._size
        return np.asarray(np.exp(2j * np.pi * np.arange(steps) / steps))

    @cached_property
    def _w2(self) -> Float64Array:
        return np.asarray(np.square(2 * np.pi * self._rate * self._cycles))

    @cached_property
    def _taper_energy(self) -> float:
        return float(self._taper @ self._taper)

    def _fine(self, cross: npt.NDArray[np.complex128], lags: Float64Array) -> Float64Array:
        """Interpolate correlations, band-limited, each round a lag in samples: [pairs, lags]."""
        # Lags are whole steps of the doubled rate, so that what turns by them stands in a table.
        steps = np.round(lags * COARSE).astype(np.int64)
        turned = cross * self._circle[self._bins[:, None] * steps[None] % len(self._circle)]
        turned[0] *= 0.5
        return np.asarray((turned.T @ self._turn).real * (2 / self._size))

    def _noise_sigma_s(self, spectra: npt.NDArray[np.complex128], before: Float64Array) -> float:
        """Give what the noise does to one delay.

        A time shift is told from the derivative: its variance is the noise that the derivative's
        matched filter lets through, sum w^2 |S|^2 N / (sum w^2 |S|^2)^2 over frequency.
        """
        noise = before[self._frames(SETTLE_S) :]
        count = len(noise) // (self._gate // 2) - 1
        power = np.mean(np.abs(spectra) ** 2, axis=1)
        if count < 1:
            return 0.0
        cut = np.stack(
            [noise[k * (self._gate // 2) :][: self._gate] * self._taper[:, None]
             for k in range(count)]
        )  # fmt: skip
        floor = np.mean(np.abs(fft.rfft(cut, self._size, axis=1)) ** 2, axis=(0, 2))
        w2 = self._w2
        told = float(w2 @ (power - floor))
        if told <= 0:
            return math.inf
        # Per sample of noise, and of the half of the spectrum that rfft gives.
        scale = self._size / 2 / self._taper_energy
        through = scale * float((w2 * np.maximum(power, floor)) @ floor)
        return math.sqrt(through) / told


def _extremum(near: Float64Array) -> int:
    """Find where a correlation is largest, or, where that is clear, most negative."""
    top, bottom = int(np.argmax(near)), int(np.argmin(near))
    return bottom if -near[bottom] > CLEARLY * near[top] else top


def _peak(near: Float64Array) -> tuple[float, float]:
    """Find an extremum by a parabola: its place, and its value with its sign."""
    at = min(max(int(np.argmax(np.abs(near))), 1), len(near) - 2)
    a, b, c = near[at - 1], near[at], near[at + 1]
    bend = a - 2 * b + c
    shift = 0.5 * (a - c) / bend if bend != 0 else 0.0
    return at + min(max(float(shift), -1.0), 1.0), float(b)


# A band-passed blast resembles itself upside down a little less than itself, half a swing later.
CLEARLY: Final = 1.1


def _alike(likeness: Float64Array, loud: npt.NDArray[np.bool_]) -> list[int]:
    """Give the channels that resemble most of the others."""
    used = [int(c) for c in np.flatnonzero(loud)]
    while len(used) > 2:
        medians = [median(likeness[c, o] for o in used if o != c) for c in used]
        worst = medians.index(min(medians))
        if medians[worst] >= LIKENESS:
            break
        used.pop(worst)
    return used


def _odd_ones(likeness: Float64Array, used: list[int]) -> list[int]:
    """Give the channels that most others resemble upside down."""
    return [c for c in used
            if sum(likeness[c, o] < 0 for o in used if o != c) > (len(used) - 1) / 2]  # fmt: skip
