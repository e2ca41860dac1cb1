"""Microphone and converter: pressure in, PCM out, with the faults that each adds.

After `node.simulate.noise`; the last step before frames are written or handed to the pipeline.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy import signal

from node.simulate.pulses import REFERENCE_PA

Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]

Bits = Literal[16, 24, 32]
_WORD: Final = 2**31


class Microphone:
    """The capsules and converter channels of one node; it keeps their state between stretches.

    Parameters
    ----------
    channels, sample_rate_hz
        Of the node.
    full_scale_db_spl
        Peak pressure level that just fills the converter, in dB re 20 uPa: a peak of L dB SPL
        reads L - full_scale_db_spl dBFS. What is louder clips.
    bits
        Resolution; samples stand in the upper bits of 32.
    highpass_hz
        Lower corner of the capsules (a first-order vent).
    self_noise_db_spl
        Level of the noise that each channel makes itself, over the whole band.
    rng
        Of that noise.
    """

    def __init__(
        self,
        channels: int,
        *,
        sample_rate_hz: int,
        full_scale_db_spl: float,
        bits: Bits,
        highpass_hz: float,
        self_noise_db_spl: float,
        rng: np.random.Generator,
    ) -> None:
        self._full_scale_pa = REFERENCE_PA * 10 ** (full_scale_db_spl / 20)
        self._bits: Bits = bits
        self._noise_pa = REFERENCE_PA * 10 ** (self_noise_db_spl / 20)
        self._rng = rng
        self._b, self._a = signal.butter(1, highpass_hz, "highpass", fs=sample_rate_hz)
        self._state = np.zeros((1, channels))

    def record(self, pressure_pa: Float64Array) -> Int32Array:
        """Turn the next stretch of pressure in Pa, [n, channels], into PCM of the same shape."""
        heard, self._state = signal.lfilter(self._b, self._a, pressure_pa, axis=0, zi=self._state)
        heard = heard + self._noise_pa * self._rng.standard_normal(heard.shape)
        return to_pcm(heard / self._full_scale_pa, self._bits)


def to_pcm(sound: Float64Array, bits: Bits) -> Int32Array:
    """Quantise and clip sound with full scale at 1; samples stand in the upper bits of 32."""
    step = 2 ** (32 - bits)
    limit = _WORD // step
    return np.asarray(np.clip(np.rint(sound * limit), -limit, limit - 1) * step, dtype=np.int32)
