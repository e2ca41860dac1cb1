"""A pulse a second through a converter whose crystal drifts: scenarios with their truth.

Shared by the tests of the pulse's clock and by its evidence. A pulse is a step, up and after its
width down again, through the coupling capacitor of a line input and a decimation filter; both are
known in closed form or on a fine grid, so that a pulse between two samples stays where it is to
picoseconds. The crystal is that of signal.md 1.2: 35 ppm off, a day's wave of 5 °C, sun and clouds
of ±3 °C that take 300 s to arrive, 0.5 ppm/°C, and a random walk of its frequency.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import signal
from scipy.interpolate import CubicSpline

from node.types import NS_PER_S, Block, ClockQuality, ClockSource, HostReading, ReceiverReading

Float64Array = npt.NDArray[np.float64]
Phase = Literal["linear", "minimum"]

RATE_HZ: Final = 48_000
START_UTC_S: Final = 1_790_000_000
MONOTONIC_NS: Final = 1000 * NS_PER_S
GLIMPSE: Final = 1152  # frames: enough for an edge in the middle to be found
_OVERSAMPLING: Final = 64
_REACH: Final = 96  # frames before and after a step in which the filter still rings
_SETTLED: Final = 12.0  # decays of the coupling after which nothing is left


class Crystal:
    """When a card converts which sample: the truth of a run.

    Parameters
    ----------
    seconds
        Length of the run.
    rng
        Of its temperature.
    rate_hz, ppm
        Nominal rate, and how much faster the crystal is.
    changeable
        Scale of all that changes; 0 for a crystal that keeps its rate.
    cloudy
        Whether sun and clouds change.
    """

    def __init__(
        self,
        seconds: float,
        rng: np.random.Generator,
        *,
        rate_hz: int = RATE_HZ,
        ppm: float = 35.0,
        changeable: float = 1.0,
        cloudy: bool = True,
    ) -> None:
        n = int(seconds) + 10
        day = 5 * np.sin(2 * np.pi * np.arange(n) / 86_400 + rng.uniform(0, 2 * np.pi))
        clouds = np.empty(n)
        now, change = 0.0, 0
        target = 0.0
        for i in range(n):
            if i == change:
                target = rng.normal(0, 3)
                change += 60 + int(rng.exponential(900))
            now += (target - now) / 300
            clouds[i] = now
        wander = np.cumsum(rng.normal(0, 1e-9, n))
        change_of_rate = changeable * (0.5e-6 * (day - day[0] + cloudy * clouds) + wander)
        self.rate = ppm * 1e-6 + change_of_rate
        self._rate_hz = rate_hz
        self._at_second = rate_hz * np.concatenate(
            [[0.0], np.cumsum(1 + (self.rate[1:] + self.rate[:-1]) / 2)]
        )

    def sample(self, time_s: Float64Array | float) -> Float64Array:
        """Give the (fractional) sample converted at a true time in s."""
        t = np.asarray(time_s, np.float64)
        i = np.clip(np.floor(t).astype(np.int64), 0, len(self.rate) - 2)
        dt = t - i
        bend = (self.rate[i + 1] - self.rate[i]) / 2
        within = self._rate_hz * (dt * (1 + self.rate[i]) + bend * dt**2)
        return np.asarray(self._at_second[i] + within)

    def time_s(self, sample: Float64Array | float) -> Float64Array:
        """Give the true time in s at which a sample is converted."""
        n = np.asarray(sample, np.float64)
        t = n / self._rate_hz
        for _ in range(4):
            t = t - (self.sample(t) - n) / self._rate_hz
        return np.asarray(t)


@dataclass(frozen=True)
class Input:
    """How a pulse reaches the channel.

    Attributes
    ----------
    amplitude
        Of the step, full scale 1.
    noise
        Rms of white noise, as a fraction of the amplitude; −70 dB unless told.
    width_s
        From the leading to the trailing edge.
    corner_hz
        Of the coupling.
    inverted
        Whether the leading edge falls.
    phase
        Of the decimation filter. A linear one's delay is taken out, so that sample n hears what
        was at n; what a minimum-phase one delays by is left in.
    """

    amplitude: float = 0.5
    noise: float = 10 ** (-70 / 20)
    width_s: float = 0.1
    corner_hz: float = 10.0
    inverted: bool = False
    phase: Phase = "linear"


@lru_cache(maxsize=8)
def _edge(phase: Phase, corner_hz: float, rate_hz: int) -> CubicSpline:
    """Give the response to a unit step at 0, by frames after it, within ±`_REACH`."""
    grid = 2 * _REACH * _OVERSAMPLING
    taps = signal.firwin(48 * _OVERSAMPLING + 1, 0.9 / _OVERSAMPLING, window=("kaiser", 9.0))
    delay = (len(taps) - 1) / 2
    if phase == "minimum":
        taps, delay = _minimum_phase(taps), 0.0
    t = (np.arange(grid) - grid // 2) / _OVERSAMPLING
    decay = 2 * np.pi * corner_hz / rate_hz
    # The mean of the step over the cell before each point, so that no grid shows.
    after = np.maximum(t, 0)
    cell = 1 / _OVERSAMPLING
    before = np.maximum(t - cell, 0)
    step = (np.exp(-decay * before) - np.exp(-decay * after)) / (decay * cell)
    response = signal.fftconvolve(step, taps)[:grid]
    return CubicSpline(t - (delay + 0.5) * cell, response)


def _minimum_phase(taps: Float64Array) -> Float64Array:
    size = 1 << 16
    cepstrum = np.fft.ifft(np.log(np.maximum(np.abs(np.fft.fft(taps, size)), 1e-6))).real
    fold = np.zeros(size)
    fold[0], fold[1 : size // 2], fold[size // 2] = 1, 2, 1
    minimum = np.fft.ifft(np.exp(np.fft.fft(cepstrum * fold))).real[: len(taps)]
    return np.asarray(minimum / minimum.sum())


def step_response(frames_after: Float64Array, line: Input, rate_hz: int = RATE_HZ) -> Float64Array:
    """Give what a unit step at 0 makes of the channel, by frames after it."""
    edge = _edge(line.phase, line.corner_hz, rate_hz)
    decay = 2 * np.pi * line.corner_hz / rate_hz
    reach = _REACH - 50.0  # the filter is 48 frames long
    near = np.clip(frames_after, -reach, reach)
    tail = np.exp(-decay * np.maximum(frames_after - reach, 0))
    return np.asarray(np.where(frames_after > -reach, edge(near) * tail, 0.0))


class PulseChannel:
    """The samples of a channel that carries steps.

    Parameters
    ----------
    leading
        Fractional samples of the leading edges, ascending.
    widths_s
        Of each pulse; `line.width_s` unless told.
    amplitudes
        Of each pulse; `line.amplitude` unless told.
    line, rate_hz, rng
        How it is heard; the rng makes its noise.
    """

    def __init__(
        self,
        leading: Float64Array,
        rng: np.random.Generator,
        *,
        line: Input = Input(),
        rate_hz: int = RATE_HZ,
        widths_s: Float64Array | None = None,
        amplitudes: Float64Array | None = None,
    ) -> None:
        n = len(leading)
        widths = np.full(n, line.width_s) if widths_s is None else widths_s
        heights = np.full(n, line.amplitude) if amplitudes is None else amplitudes
        sign = -1.0 if line.inverted else 1.0
        at = np.concatenate([leading, leading + widths * rate_hz])
        height = sign * np.concatenate([heights, -heights])
        order = np.argsort(at, kind="stable")
        self._at, self._height = at[order], height[order]
        self._line, self._rate_hz = line, rate_hz
        self._tail = _SETTLED * rate_hz / (2 * np.pi * line.corner_hz) + _REACH
        # Noise from a pool: fresh normals for hours of samples would cost more than the clock.
        self._pool = rng.standard_normal(1 << 19) * line.noise * line.amplitude
        self._rng = rng

    def frames(self, first: int, count: int) -> Float64Array:
        """Give samples [first, first + count), full scale 1, unquantised."""
        start = int(self._rng.integers(len(self._pool) - count))
        out = self._pool[start : start + count].copy()
        low, high = np.searchsorted(self._at, [first - self._tail, first + count + _REACH])
        for at, height in zip(self._at[low:high], self._height[low:high], strict=True):
            begin = max(first, int(at) - _REACH)
            end = min(first + count, int(at + self._tail))
            if begin < end:
                n = np.arange(begin, end) - at
                out[begin - first : end - first] += height * step_response(
                    n, self._line, self._rate_hz
                )
        return out


def to_int16(samples: Float64Array) -> npt.NDArray[np.int16]:
    """Quantise and clip, full scale at 1."""
    return np.clip(np.rint(samples * 32_768), -32_768, 32_767).astype(np.int16)


@dataclass(frozen=True)
class Pulses:
    """What a receiver put out in a run: leading edges in s, and which of them are no pulses."""

    time_s: Float64Array
    stray: npt.NDArray[np.bool_]


def receiver_pulses(
    seconds: int,
    rng: np.random.Generator,
    *,
    jitter_s: float = 50e-9,
    sawtooth_s: float = 20e-9,
    missing: float = 0.05,
    stray: float = 0.005,
    absent: tuple[tuple[float, float], ...] = (),
    first_s: float = 0.0,
) -> Pulses:
    """Make a receiver's pulses at `first_s`, `first_s` + 1, … with its faults."""
    k = np.arange(seconds) + first_s
    saw = sawtooth_s * signal.sawtooth(2 * np.pi * k / 37.3)
    there = rng.random(seconds) >= missing
    for begin, end in absent:
        there &= (k < begin) | (k >= end)
    true = (k + rng.normal(0, jitter_s, seconds) + saw)[there]
    strays = (k + rng.uniform(0.15, 0.85, seconds))[rng.random(seconds) < stray]
    time_s = np.concatenate([true, strays])
    order = np.argsort(time_s)
    is_stray = np.arange(len(order)) >= len(true)
    return Pulses(time_s[order], is_stray[order])


class HostStamps:
    """Host time stamps of blocks: late by some 60 to 300 us, now and then by milliseconds.

    CLOCK_MONOTONIC runs true here, `MONOTONIC_NS` ahead of the run's seconds.
    """

    def __init__(self, crystal: Crystal, rng: np.random.Generator) -> None:
        self._crystal, self._rng = crystal, rng

    def stamp_ns(self, true_sample: float) -> int:
        """Give CLOCK_MONOTONIC at which the host takes a sample to be converted, in ns."""
        late_s = 60e-6 + self._rng.exponential(100e-6)
        if self._rng.random() < 0.05:
            late_s += self._rng.uniform(0.3e-3, 3e-3)
        return MONOTONIC_NS + round((float(self._crystal.time_s(true_sample)) + late_s) * NS_PER_S)


def a_reading(
    time_s: float = 0.0,
    *,
    stepped_s: float = 0.0,
    source: ClockSource = "ntp",
    sigma_s: float = 2e-3,
) -> HostReading:
    """Read a host clock that is right, or was stepped; the run's second 0 is `START_UTC_S`."""
    return HostReading(
        MONOTONIC_NS + round(time_s * NS_PER_S),
        START_UTC_S * NS_PER_S - MONOTONIC_NS + round(stepped_s * NS_PER_S),
        0,
        ClockQuality(source, sigma_s, 3 * sigma_s),
    )


def a_message(
    time_s: float, *, wrong_s: int = 0, valid: bool = True, late_s: float = 0.1
) -> ReceiverReading:
    """Give what a receiver says of the whole second `time_s`, `late_s` after it."""
    return ReceiverReading(
        MONOTONIC_NS + round((time_s + late_s) * NS_PER_S),
        (START_UTC_S + round(time_s) + wrong_s) * NS_PER_S,
        valid,
    )


def blocks(
    channel: PulseChannel,
    seconds: float,
    *,
    block: int = 4800,
    rate_hz: int = RATE_HZ,
    lost: dict[int, int] | None = None,
    uncounted: dict[int, int] | None = None,
    host: HostStamps | None = None,
) -> Iterator[tuple[Block, int]]:
    """Cut a channel into blocks of one channel, int16; give each with its first frame's truth.

    Parameters
    ----------
    channel, seconds, block, rate_hz
        What, how long, frames a block.
    lost
        Frames lost before the block of that number, and counted.
    uncounted
        Frames lost before the block of that number that the counter does not know of; less than
        0 where it counted more than were lost.
    host
        Stamps the blocks.
    """
    counted = true = 0
    for number in range(int(seconds * rate_hz / block)):
        gap = (lost or {}).get(number, 0)
        counted += gap
        true += gap + (uncounted or {}).get(number, 0)
        frames = to_int16(channel.frames(true, block))[:, np.newaxis]
        stamp = None if host is None else host.stamp_ns(true)
        yield Block(counted, frames, rate_hz, stamp, lost_before=gap), true
        counted += block
        true += block


def glimpses(
    channel: PulseChannel,
    centres: Float64Array,
    *,
    host: HostStamps | None = None,
    rate_hz: int = RATE_HZ,
) -> Iterator[tuple[Block, int]]:
    """Cut out short blocks round some samples, as if all between them were lost, and counted.

    Hours of pulses pass in seconds this way; the clock is given all it looks at.
    """
    reached = 0
    for centre in centres:
        first = int(centre) - GLIMPSE // 2 + 96
        if first < reached:
            continue
        frames = to_int16(channel.frames(first, GLIMPSE))[:, np.newaxis]
        stamp = None if host is None else host.stamp_ns(first)
        yield Block(first, frames, rate_hz, stamp, lost_before=first - reached), first
        reached = first + GLIMPSE
