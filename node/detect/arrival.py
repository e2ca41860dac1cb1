"""When the first arrival of an impulse reaches each microphone, against the others.

The first half of direction finding: in comes the sound round an onset, out go the microphones'
delays, how well they are known, and which microphones can be believed. Pure.

Twice looked at. A gate of some 4 ms tells the microphones that hear the same, and nearly when; a
reflection from the ground, a millisecond after a shot from the street, is within it. So the
microphones are then laid on each other, and the front of what they hear together, 0.4 ms, settles
the delays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt

from node import dsp

Float64Array = npt.NDArray[np.float64]
Samples = npt.NDArray[np.float32]

# Below it wind and traffic, above it little of a distant shot (signal.md §3).
BAND_HZ: Final = (300.0, 8000.0)
HIGHEST_SHARE_OF_RATE: Final = 0.42
# What is looked at: from so long before the strongest of the first rise to so long after it. The
# first echo of a wall comes later.
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
# A correlation of gates is looked over at twice the rate, of fronts at eight times it.
COARSE: Final = 2
UPSAMPLING: Final = 8
LAG_MARGIN: Final = 1.15
# The front: where the microphones' mean, smoothed over 0.1 ms, first reaches this share of its
# largest, and what is round it. What tells time best, a blast's first rise, is in the first tenth;
# a front twice as long lets in twice the reflections and gains nothing.
FRONT_SMOOTH_S: Final = 0.0001
FRONT_SHARE: Final = 0.4
FRONT_BEFORE_S: Final = 0.0003
FRONT_AFTER_S: Final = 0.0004
FRONT_TAPER_S: Final = (0.0002, 0.0003)
# How far the gate's delays may be off: by an error of its own, and a reflection as far off as this
# share of the way from microphone to microphone.
FRONT_REACH_S: Final = 0.0001
FRONT_REACH_SHARE: Final = 0.25
# Sound may be slower than was thought by so much: 330 m/s where 343 were.
SLOWER: Final = 1.04
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
        self._cascade = dsp.Cascade(dsp.band_pass(BAND_HZ[0], top_hz, sample_rate_hz))
        before_s = GATE_BEFORE_S + self._longest_s
        self._before = self._frames(before_s)
        self._gate = self._before + self._frames(GATE_AFTER_S + self._longest_s)
        self._lead = self._frames(LEAD_S) + self._before
        self._smooth = max(1, self._frames(SMOOTH_S))
        self._size = dsp.fast_length(2 * self._gate)
        reach_s = FRONT_REACH_S + FRONT_REACH_SHARE * self._longest_s
        self._front_reach = self._frames(reach_s) * UPSAMPLING
        longest = len(self._front_taper) + self._frames(reach_s) + 1
        self._front_size = dsp.fast_length(longest)
        first, second = np.triu_indices(len(transit_s), 1)
        self._first, self._second = first, second
        self._lags = [
            math.ceil(transit * LAG_MARGIN * sample_rate_hz * COARSE) + 2
            for transit in transit_s[first, second].tolist()
        ]
        self._reach = [np.arange(-most, most + 1) for most in self._lags]

    @property
    def crossing_s(self) -> float:
        """How long sound takes across the array at most."""
        return SLOWER * self._longest_s

    def window(self) -> tuple[int, int]:
        """Give the frames wanted before and after an onset."""
        after_s = SEEK_S[1] + RISE_S + GATE_AFTER_S + 2 * self._longest_s
        return self._lead + self._frames(SEEK_S[0] + self._longest_s), self._frames(after_s) + 1

    def measure(self, sound: Samples, onset: float) -> Arrival | None:
        """Measure the delays of the impulse at `onset`; None where nothing is heard."""
        y, _ = self._cascade.run(sound, np.outer(self._cascade.rest, sound[0]))
        begin = self._gate_begin(y, onset)
        gated = y[begin : begin + self._gate] * self._taper[:, None]
        energy = np.einsum("ij,ij->j", gated, gated)
        if not energy.max() > 0:
            return None
        loud = energy >= WEAKEST * median(energy[energy > 0].tolist())
        spectra = np.fft.rfft(gated, self._size, axis=0)
        lag_s, likeness = self._pairs(spectra, energy, loud)
        used = _alike(np.abs(likeness), loud)
        if len(used) < 2:
            return Arrival(np.full(len(loud), np.nan), np.inf, 0.0, 0.0, tuple(used), ())
        inverted = _odd_ones(likeness, used)
        inside = np.ix_(used, used)
        turned = [-1.0 if channel in inverted else 1.0 for channel in used]
        # Of a complete graph of differences, least squares gives the mean over each one's pairs.
        rough_s = lag_s[inside].mean(axis=1)
        front = self._front(spectra[:, used] * turned, rough_s)
        late_s, resemblance = self._front_pairs(front)
        late = late_s.mean(axis=1)
        delays_s = np.full(len(loud), np.nan)
        delays_s[used] = rough_s + late
        apart_s = late_s - (late[:, None] - late[None])
        pairs = len(used) * (len(used) - 1)
        coherent = np.minimum(np.abs(likeness[inside]), resemblance)
        return Arrival(
            delays_s=delays_s,
            sigma_s=self._noise_sigma_s(front, y[:begin, used]),
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
        correlation = np.fft.irfft(cross, self._size * COARSE, axis=0) * COARSE
        for pair, k in enumerate(chosen):
            near = correlation[self._reach[k], pair]
            at, value = _peak(near, _extremum(near))
            lag_s[i[pair], j[pair]] = (at - self._lags[k]) / COARSE / self._rate
            likeness[i[pair], j[pair]] = value
        return lag_s - lag_s.T, likeness + likeness.T

    @cached_property
    def _turn(self) -> npt.NDArray[np.complex128]:
        """Give what a spectrum turns by in a second, at each frequency."""
        return np.asarray(2j * np.pi * self._rate * np.fft.rfftfreq(self._size))[:, None]

    @cached_property
    def _front_taper(self) -> Float64Array:
        rise, fall = (self._frames(seconds) for seconds in FRONT_TAPER_S)
        level = self._frames(FRONT_BEFORE_S) + self._frames(FRONT_AFTER_S) - rise - fall
        up, down = (0.5 - 0.5 * np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in (rise, fall))
        return np.concatenate((up, np.ones(level), down[::-1]))

    def _front(self, spectra: npt.NDArray[np.complex128], delays_s: Float64Array) -> Float64Array:
        """Lay microphones on each other and cut out the front, [n, channels]."""
        laid = np.fft.irfft(spectra * np.exp(self._turn * delays_s), self._size, axis=0)
        laid = laid[: self._gate]
        power = np.square(laid.mean(axis=1))
        smooth = max(1, self._frames(FRONT_SMOOTH_S))
        power = np.convolve(power, np.full(smooth, 1.0 / smooth), mode="same")
        at = int(np.argmax(power > FRONT_SHARE**2 * power.max())) - self._frames(FRONT_BEFORE_S)
        at = min(max(at, 0), self._gate - len(self._front_taper))
        return np.asarray(laid[at : at + len(self._front_taper)] * self._front_taper[:, None])

    def _front_pairs(self, front: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Give delays and correlation coefficients as `_pairs` does, of fronts nearly in step."""
        channels = front.shape[1]
        lag_s = np.zeros((channels, channels))
        likeness = np.zeros((channels, channels))
        i, j = np.triu_indices(channels, 1)
        size = self._front_size
        energy = np.maximum(np.einsum("ij,ij->j", front, front), np.finfo(np.float64).tiny)
        spectra = np.fft.rfft(front, size, axis=0)
        cross = spectra[:, i] * np.conj(spectra[:, j]) / np.sqrt(energy[i] * energy[j])
        correlation = np.fft.irfft(cross, size * UPSAMPLING, axis=0) * UPSAMPLING
        reach = self._front_reach
        near = correlation[np.arange(-reach, reach + 1)]
        for pair, first in enumerate(np.argmax(near, axis=0).tolist()):
            at, value = _peak(near[:, pair], first)
            lag_s[i[pair], j[pair]] = (at - reach) / UPSAMPLING / self._rate
            likeness[i[pair], j[pair]] = value
        return lag_s - lag_s.T, likeness + likeness.T

    @cached_property
    def _w2(self) -> Float64Array:
        return np.asarray(np.square(2 * np.pi * self._rate * np.fft.rfftfreq(self._front_size)))

    def _noise_sigma_s(self, front: Float64Array, before: Float64Array) -> float:
        """Give what the noise does to one delay.

        A time shift is told from the derivative: its variance is the noise that the derivative's
        matched filter lets through, sum w^2 |S|^2 N / (sum w^2 |S|^2)^2 over frequency.
        """
        noise = before[self._frames(SETTLE_S) :]
        length = len(self._front_taper)
        count = len(noise) // length
        if count < 1:
            return 0.0
        power = _power(np.fft.rfft(front.T, self._front_size))
        cut = noise[: count * length].T.reshape(-1, length) * self._front_taper
        floor = _power(np.fft.rfft(cut, self._front_size))
        w2 = self._w2
        told = float(w2 @ (power - floor))
        if told <= 0:
            return math.inf
        # Per sample of noise, and of the half of the spectrum that rfft gives.
        scale = self._front_size / 2 / float(self._front_taper @ self._front_taper)
        through = scale * float((w2 * np.maximum(power, floor)) @ floor)
        return math.sqrt(through) / told


def _power(spectra: npt.NDArray[np.complex128]) -> Float64Array:
    """Give the mean power of spectra, shape [many, bins], at each frequency."""
    return np.asarray(np.mean(spectra.real**2 + spectra.imag**2, axis=0))


def _extremum(near: Float64Array) -> int:
    """Find where a correlation is largest, or, where that is clear, most negative."""
    top, bottom = int(np.argmax(near)), int(np.argmin(near))
    return bottom if -near[bottom] > CLEARLY * near[top] else top


def _peak(near: Float64Array, at: int) -> tuple[float, float]:
    """Refine an extremum by a parabola: its place, and its value with its sign."""
    at = min(max(at, 1), len(near) - 2)
    a, b, c = near[at - 1], near[at], near[at + 1]
    bend = a - 2 * b + c
    shift = min(max(float(0.5 * (a - c) / bend), -1.0), 1.0) if bend != 0 else 0.0
    return at + shift, float(b - 0.25 * (a - c) * shift)


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
    """Give the channels that are upside down: the fewer; of two halves, the one without the first.

    All are told against the one that resembles the others most. Which half is upright is not to be
    known, and turns no direction.
    """
    inside = np.ix_(used, used)
    signs = likeness[used[int(np.argmax(np.abs(likeness[inside]).sum(axis=1)))], used] < 0
    down = int(signs.sum())
    if 2 * down > len(used) or (2 * down == len(used) and signs[0]):
        signs = ~signs
    return [channel for channel, odd in zip(used, signs.tolist(), strict=True) if odd]
