"""An empty span of free air, and what the simulated sounds of a training set are put together from.

Shapes that `node.simulate.pulses` lacks (N-waves, contacts, whistles, noise, ringing) and the spans
that they are laid into; `synthetic_blasts` and `synthetic_street` make kinds of sound of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import signal

from models.training.moments import LEAD, SPAN
from node.classify import features
from node.simulate.propagation import Atmosphere, absorption_response
from node.simulate.pulses import Pulse, sample_pulse

Sound = npt.NDArray[np.float64]
Draw = np.random.Generator

RATE: Final = features.RATE_HZ
BEFORE_S: Final = LEAD / RATE
AFTER_S: Final = (SPAN - LEAD) / RATE
NEAR_M: Final = 10.0
DRY_SHARE: Final = 0.25
"""Share of the spans that are dry, at `NEAR_M`; the others are at up to 1.5 km."""
INNER_SHARE: Final = 0.35
"""Share of the series of which not the first sound but any of them lies at `LEAD`."""


@dataclass(frozen=True)
class NWave:
    """A shock, a straight fall through zero, a shock: a bullet's, a whip's or a balloon's wave.

    Attributes
    ----------
    peak_pa
        Largest pressure in Pa where `distance_m` is 1 m; it falls as 1/r from there.
    duration_s
        From shock to shock in s.
    """

    peak_pa: float
    duration_s: float

    def length_s(self, distance_m: float) -> float:
        """Give the time from onset in s after which nothing is left."""
        return self.duration_s

    def integral_pa_s(self, time_s: Sound, distance_m: float) -> Sound:
        """Give the integral of pressure from the onset to `time_s` in Pa s, zero before it."""
        t = np.clip(time_s, 0.0, self.duration_s)
        return np.asarray(self.peak_pa / distance_m * (t - t**2 / self.duration_s))


@dataclass(frozen=True)
class Contact:
    """One cycle of a sine, `peak_pa` at 1 m: what a struck body's start and stop radiate.

    The pressure goes with the force's rate of change (acceleration noise; Akay 1978, "A review of
    impact noise"), the force with the square of half a sine over the contact.
    """

    peak_pa: float
    duration_s: float

    def length_s(self, distance_m: float) -> float:
        """Give the time from onset in s after which nothing is left."""
        return self.duration_s

    def integral_pa_s(self, time_s: Sound, distance_m: float) -> Sound:
        """Give the integral of pressure from the onset to `time_s` in Pa s, zero before it."""
        t = np.clip(time_s, 0.0, self.duration_s)
        force = np.sin(np.pi * t / self.duration_s) ** 2 * self.duration_s / np.pi
        return np.asarray(self.peak_pa / distance_m * force)


@dataclass(frozen=True)
class Together:
    """Pulses that start at once."""

    parts: tuple[Pulse, ...]

    def length_s(self, distance_m: float) -> float:
        """Give the time from onset in s after which nothing is left."""
        return max(part.length_s(distance_m) for part in self.parts)

    def integral_pa_s(self, time_s: Sound, distance_m: float) -> Sound:
        """Give the integral of pressure from the onset to `time_s` in Pa s, zero before it."""
        return np.sum([part.integral_pa_s(time_s, distance_m) for part in self.parts], axis=0)


class Span:
    """`SPAN` samples of air at one distance from a source; times in s count from `LEAD`."""

    def __init__(self, draw: Draw, distance_m: float) -> None:
        self.draw = draw
        self.distance_m = distance_m
        self.sound: Sound = np.zeros(SPAN)
        self._fraction = float(draw.random())

    def pulse(self, at_s: float, pulse: Pulse, gain: float = 1.0) -> None:
        """Add a pulse as it is heard at the span's distance."""
        at = LEAD + at_s * RATE + self._fraction
        whole = int(np.floor(at))
        self._add(
            whole,
            gain
            * sample_pulse(
                pulse,
                distance_m=self.distance_m,
                sample_rate_hz=RATE,
                onset_sample=at - whole,
            ),
        )

    def pulses(
        self,
        times_s: Sound,
        shapes: Sequence[Pulse],
        which: npt.NDArray[np.int64],
        gains: Sound,
    ) -> None:
        """Add many pulses, each of one of a few shapes: at whole samples, which saves time."""
        sampled = [
            sample_pulse(
                shape,
                distance_m=self.distance_m,
                sample_rate_hz=RATE,
                onset_sample=float(self.draw.random()),
            )
            for shape in shapes
        ]
        firsts = LEAD + np.floor(times_s * RATE).astype(int)
        for first, shape, gain in zip(firsts, which, gains, strict=True):
            self._add(int(first), gain * sampled[shape])

    def wave(self, at_s: float, samples: Sound, peak_pa: float) -> None:
        """Add samples at `RATE`, of a largest pressure in Pa at 1 m."""
        largest = np.max(np.abs(samples), initial=0.0)
        if largest > 0:
            gain = peak_pa / largest / self.distance_m
            self._add(LEAD + int(np.floor(at_s * RATE)), gain * samples)

    def heard(self, air: Atmosphere) -> Sound:
        """Give what the air lets through: shape [SPAN]; nothing is lost at `NEAR_M`."""
        if self.distance_m <= NEAR_M:
            return self.sound
        # Steps of 8 % let the responses be cached.
        step_m = float(1.08 ** round(np.log(self.distance_m) / np.log(1.08)))
        response = absorption_response(step_m, float(RATE), air)
        passed: Sound = signal.oaconvolve(self.sound, response)[:SPAN]
        return passed

    def _add(self, first: int, samples: Sound) -> None:
        begin, end = max(first, 0), min(first + len(samples), SPAN)
        if begin < end:
            self.sound[begin:end] += samples[begin - first : end - first]


def distance(draw: Draw, farthest_m: float = 1500.0) -> float:
    """Draw a distance in m: `NEAR_M`, or evenly in its logarithm up to the farthest."""
    if draw.random() < DRY_SHARE:
        return NEAR_M
    return between(draw, NEAR_M, farthest_m)


def any_air(draw: Draw) -> Atmosphere:
    """Draw the air of a cold, a cool, a mild or a hot day, dry or damp."""
    return Atmosphere(
        temperature_c=(-5.0, 5.0, 15.0, 28.0)[draw.integers(4)],
        relative_humidity_pct=(35.0, 75.0)[draw.integers(2)],
    )


def between(draw: Draw, low: float, high: float) -> float:
    """Draw from a range, evenly in the logarithm."""
    return float(np.exp(draw.uniform(np.log(low), np.log(high))))


def gain_of(level_db: float) -> float:
    """Give the pressure ratio of a level."""
    return float(10 ** (level_db / 20))


def series(draw: Draw, gaps_s: Sequence[float] | Sound, inner: float = INNER_SHARE) -> Sound:
    """Give the times in s of a series that fall into a span; one of them, mostly the first, is 0.

    Parameters
    ----------
    draw
        Random numbers.
    gaps_s
        From each sound to the next, shape [sounds - 1].
    inner
        Share in which any of the sounds, not the first, is at 0.
    """
    times = np.concatenate([[0.0], np.cumsum(gaps_s)])
    if draw.random() < inner:
        times -= times[draw.integers(len(times))]
    return times[(times > -BEFORE_S) & (times < AFTER_S)]


def noise(
    draw: Draw, seconds: float, low_hz: float, high_hz: float, attack_s: float, decay_s: float
) -> Sound:
    """Draw noise between two corners (6 dB an octave) that swells, then falls exponentially."""
    n = max(2, round(seconds * RATE))
    high = np.exp(-2 * np.pi * high_hz / RATE)
    low = np.exp(-2 * np.pi * low_hz / RATE)
    coloured = signal.lfilter([1 - high], [1, -high], draw.standard_normal(n))
    coloured = signal.lfilter([1, -1], [1, -low], coloured)
    t = np.arange(n) / RATE
    return np.asarray(coloured * (1 - np.exp(-t / attack_s)) * np.exp(-t / decay_s))


def whistle(draw: Draw, seconds: float, first_hz: float, last_hz: float) -> Sound:
    """Draw a whistle that glides between two notes, with wavering, overtones and some hiss."""
    n = max(2, round(seconds * RATE))
    t = np.linspace(0, 1, n)
    waver = np.cumsum(draw.standard_normal(n // 120 + 2)) * between(draw, 1e-3, 2e-2)
    note = (
        first_hz
        * (last_hz / first_hz) ** t
        * np.exp(np.interp(t * (n // 120), np.arange(len(waver)), waver))
    )
    phase = 2 * np.pi * np.cumsum(note) / RATE
    tone = np.sin(phase)
    for overtone in (2, 3):
        audible = note * overtone < 0.45 * RATE
        tone += gain_of(draw.uniform(-35, -6)) * np.sin(overtone * phase) * audible
    shimmer = 1 + draw.uniform(0, 0.6) * np.sin(2 * np.pi * draw.uniform(8, 60) * seconds * t)
    hiss = noise(draw, seconds, 1500, 5000, 1e-3, 1e3)[:n]
    fade = np.minimum(1, np.minimum(t, 1 - t) * seconds / draw.uniform(0.01, 0.06))
    return np.asarray((tone * shimmer + gain_of(draw.uniform(-30, -8)) * 3 * hiss) * fade)


def ringing(blows: Sound, hertz: Sound, decay_s: Sound, gains: Sound) -> Sound:
    """Let modes ring at blows (shape [n]): each of peak `gains` after a blow of one sample of 1.

    `decay_s` is each mode's time to 1/e; what was set ringing goes on through the next blow.
    """
    total = np.zeros(len(blows))
    for w, tau, gain in zip(2 * np.pi * hertz / RATE, decay_s * RATE, gains, strict=True):
        radius = np.exp(-1 / tau)
        total += signal.lfilter(
            [0.0, gain * radius * np.sin(w)], [1.0, -2 * radius * np.cos(w), radius**2], blows
        )
    return total
