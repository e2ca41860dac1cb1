"""What air does to a sound: speed, spreading, absorption, delay.

Pure functions over waveforms; `node.simulate.render` and the training code apply them, between
`node.simulate.sources` and `node.simulate.microphone`. Walls and ground are in
`node.simulate.echoes`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from node.simulate.filters import minimum_phase

Float64Array = npt.NDArray[np.float64]

_REFERENCE_PRESSURE_PA: Final = 101_325.0
_REFERENCE_TEMPERATURE_K: Final = 293.15
_TRIPLE_POINT_K: Final = 273.16
_DB_PER_NEPER: Final = 20 / np.log(10)
_RESPONSE_S: Final = 0.02  # after this the air's response has died, at any distance within 5 km


class Atmosphere(BaseModel):
    """The air, the same all over a scene."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    temperature_c: float = Field(
        default=15.0, ge=-40, le=55, description="Temperature in degrees Celsius."
    )
    relative_humidity_pct: float = Field(
        default=60.0, ge=1, le=100, description="Relative humidity in per cent."
    )
    pressure_pa: float = Field(
        default=_REFERENCE_PRESSURE_PA,
        ge=50_000,
        le=110_000,
        description="Atmospheric pressure in pascal.",
    )

    @property
    def water_fraction(self) -> float:
        """Molar fraction of water vapour (ISO 9613-1, annex B)."""
        exponent = -6.8346 * (_TRIPLE_POINT_K / (self.temperature_c + 273.15)) ** 1.261 + 4.6151
        saturation = _REFERENCE_PRESSURE_PA * 10**exponent
        return float(self.relative_humidity_pct / 100 * saturation / self.pressure_pa)

    @property
    def sound_speed_m_s(self) -> float:
        """Speed of sound in m/s: an ideal gas, quickened by its water (Cramer 1993, linearised)."""
        dry = 331.3 * np.sqrt((self.temperature_c + 273.15) / 273.15)
        return float(dry * (1 + 0.16 * self.water_fraction))


def air_absorption_db_per_m(frequency_hz: npt.ArrayLike, atmosphere: Atmosphere) -> Float64Array:
    """Give the attenuation of pure tones by air in dB/m, of the shape of `frequency_hz`.

    Formulae (3) to (5) of ISO 9613-1:1993.
    """
    f2 = np.square(np.asarray(frequency_hz, dtype=np.float64))
    T = atmosphere.temperature_c + 273.15
    Tr = T / _REFERENCE_TEMPERATURE_K
    pr = atmosphere.pressure_pa / _REFERENCE_PRESSURE_PA
    h = 100 * atmosphere.water_fraction
    oxygen_hz = pr * (24 + 4.04e4 * h * (0.02 + h) / (0.391 + h))
    nitrogen_hz = pr * Tr**-0.5 * (9 + 280 * h * np.exp(-4.170 * (Tr ** (-1 / 3) - 1)))
    classical = 1.84e-11 / pr * Tr**0.5
    oxygen = 0.01275 * np.exp(-2239.1 / T) / (oxygen_hz + f2 / oxygen_hz)
    nitrogen = 0.1068 * np.exp(-3352.0 / T) / (nitrogen_hz + f2 / nitrogen_hz)
    return np.asarray(8.686 * f2 * (classical + Tr**-2.5 * (oxygen + nitrogen)))


@lru_cache(maxsize=4096)
def absorption_response(
    distance_m: float, sample_rate_hz: float, atmosphere: Atmosphere
) -> Float64Array:
    """Give the impulse response of air over a distance, shape [taps], read-only.

    Minimum phase, since absorption and dispersion of a causal medium are a Hilbert pair
    (Kramers-Kronig): nothing arrives before the front, and the front's rise lengthens.
    """
    taps = 1 << int(np.ceil(np.log2(_RESPONSE_S * sample_rate_hz)))
    frequency_hz = np.fft.rfftfreq(8 * taps, 1 / sample_rate_hz)
    loss_db = air_absorption_db_per_m(frequency_hz, atmosphere) * distance_m
    response = minimum_phase(np.exp(-loss_db / _DB_PER_NEPER))[:taps]
    response.setflags(write=False)
    return response


def absorb(
    x: npt.ArrayLike, distance_m: float, sample_rate_hz: float, atmosphere: Atmosphere
) -> Float64Array:
    """Let air absorb a waveform over a distance; any leading axes, time is the last.

    Parameters
    ----------
    x
        Waveform, shape [..., n]; append zeros if its slow tail (some ms) is to be kept.
    distance_m
        Path in m.
    sample_rate_hz
        Its rate.
    atmosphere
        The air.

    Returns
    -------
    Waveform of the same shape. Spreading is not in it; see `spread`.
    """
    x = np.asarray(x, dtype=np.float64)
    response = absorption_response(float(distance_m), float(sample_rate_hz), atmosphere)
    n = x.shape[-1]
    return _convolve(x, response[:n])[..., :n]


def spread(distance_m: float, reference_m: float = 1.0) -> float:
    """Give the gain of spherical spreading from a reference distance to a distance."""
    return reference_m / distance_m


def delay(x: npt.ArrayLike, delay_samples: float, length: int | None = None) -> Float64Array:
    """Delay a band-limited waveform by a fractional number of samples; time is the last axis.

    Exact for what lies below half the sample rate; where the delay is not a whole number, content
    close to it rings a little before the onset, as all exact interpolation does. Sources of this
    package need none of it: they are sampled where they arrive.

    Parameters
    ----------
    x
        Waveform, shape [..., n], zero outside.
    delay_samples
        Delay, at least 0.
    length
        Samples wanted; n plus the delay, rounded up, if None.
    """
    x = np.asarray(x, dtype=np.float64)
    whole = int(np.floor(delay_samples))
    part = delay_samples - whole
    n = x.shape[-1]
    if length is None:
        length = n + int(np.ceil(delay_samples))
    if part:
        margin = 64
        size = _fast_size(n + 2 * margin)
        padded = np.zeros((*x.shape[:-1], size))
        padded[..., margin : margin + n] = x
        shift = np.exp(-2j * np.pi * np.fft.rfftfreq(size) * part)
        moved = np.fft.irfft(np.fft.rfft(padded) * shift, size)
        x, whole = moved[..., : n + 2 * margin], whole - margin
    result = np.zeros((*x.shape[:-1], length))
    start, stop = max(whole, 0), min(whole + x.shape[-1], length)
    if stop > start:
        result[..., start:stop] = x[..., start - whole : stop - whole]
    return result


def _convolve(x: Float64Array, response: Float64Array) -> Float64Array:
    size = _fast_size(x.shape[-1] + len(response) - 1)
    return np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(response, size), size)


def _fast_size(n: int) -> int:
    return 1 << max(n - 1, 1).bit_length()
