"""A receiver's pulse a second as a channel of the converter hears it.

Beside `node.simulate.microphone`: through the same anti-alias filter as the sounds, so that both
are late by the same, and through the coupling capacitor of a line input, so that a step decays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from node.simulate.microphone import Bits, to_pcm
from node.simulate.pulses import sample_pulse
from node.types import NS_PER_S

Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]

AMPLITUDE: Final = 0.5
WIDTH_S: Final = 0.1  # the default of u-blox timing receivers
CORNER_HZ: Final = 10.0  # of the coupling
NOISE: Final = 1e-4  # -80 dB of full scale, a quiet line input
_DECAY_S: Final = 1 / (2 * np.pi * CORNER_HZ)
_SETTLED: Final = 12.0  # decays after which nothing is left in 16 bit


@dataclass(frozen=True)
class _Step:
    """A step behind a coupling capacitor, up, and down again after `WIDTH_S`; a `Pulse`."""

    def length_s(self, distance_m: float) -> float:
        return WIDTH_S + _SETTLED * _DECAY_S

    def integral_pa_s(self, time_s: Float64Array, distance_m: float) -> Float64Array:
        up = 1 - np.exp(-np.maximum(time_s, 0) / _DECAY_S)
        down = 1 - np.exp(-np.maximum(time_s - WIDTH_S, 0) / _DECAY_S)
        return np.asarray(AMPLITUDE * _DECAY_S * (up - down))


class PulseChannel:
    """The channel that carries the pulse.

    Parameters
    ----------
    start_utc_ns
        UTC of the first sample.
    true_rate_hz
        The converter's true rate.
    bits
        Resolution; samples stand in the upper bits of 32.
    rng
        Of its noise.
    """

    def __init__(
        self, start_utc_ns: int, true_rate_hz: float, bits: Bits, rng: np.random.Generator
    ) -> None:
        self._to_first_s = (-start_utc_ns % NS_PER_S) / NS_PER_S
        self._rate = true_rate_hz
        self._bits: Bits = bits
        self._rng = rng
        self._next = 0
        self._sounding: list[tuple[int, Float64Array]] = []

    def hop(self, first: int, frames: int) -> Int32Array:
        """Give the next frames from sample `first` on, shape [frames]."""
        out = NOISE * self._rng.standard_normal(frames)
        while (edge := (self._to_first_s + self._next) * self._rate) < first + frames:
            wave = sample_pulse(
                _Step(), distance_m=1.0, sample_rate_hz=self._rate, onset_sample=edge % 1
            )
            self._sounding.append((int(edge), wave))
            self._next += 1
        for at, wave in self._sounding:
            begin, stop = max(at, first), min(at + len(wave), first + frames)
            out[begin - first : stop - first] += wave[begin - at : stop - at]
        self._sounding = [(at, w) for at, w in self._sounding if at + len(w) > first + frames]
        return to_pcm(out, self._bits)
