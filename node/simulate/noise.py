"""The street when nothing happens: traffic's colour and swells, alike but not equal at each ear.

Between `node.simulate.echoes` and `node.simulate.microphone`. Made segment by segment, so that a
scene of any length takes little memory, and the same whatever stretch is asked for.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from node.simulate.pulses import REFERENCE_PA

Float64Array = npt.NDArray[np.float64]

HOP_FRAMES: Final = 1 << 14

# EN 1793-3:1997, table 1: A-weighted normalised traffic noise in third octaves from 100 Hz, in dB.
_TRAFFIC_DB_A: Final = np.array(
    [-20, -20, -18, -16, -15, -14, -13, -12, -11, -9, -8, -9, -10, -11, -13, -15, -16, -18.0]
)
_LOWEST_HZ: Final = 20.0
_SLOW_KNOT_S: Final = 1.0
_SLOW_S: Final = 12.0
_SLOW_DB: Final = 1.5


def a_weighting_db(frequency_hz: npt.ArrayLike) -> Float64Array:
    """Give the A-weighting in dB (IEC 61672-1:2013, annex E)."""
    f2 = np.maximum(np.square(np.asarray(frequency_hz, dtype=np.float64)), 1e-6)
    top = 12194.217**2 * f2**2
    bottom = (f2 + 20.598997**2) * (f2 + 12194.217**2)
    bottom = bottom * np.sqrt((f2 + 107.65265**2) * (f2 + 737.86223**2))
    return np.asarray(20 * np.log10(top / bottom) + 2.0)


def traffic_density(frequency_hz: npt.ArrayLike) -> Float64Array:
    """Give the power density of street noise whose A-weighted level is 0 dB re 20 uPa, in Pa2/Hz.

    EN 1793-3's spectrum without its weighting; below it, third octaves keep their level down to
    20 Hz; above, they fall by 2 dB each.
    """
    f = np.asarray(frequency_hz, dtype=np.float64)
    centres = 1000 * 10 ** (0.1 * np.arange(-10, 8))
    weight = a_weighting_db(centres)
    thirds = _TRAFFIC_DB_A - 10 * np.log10(np.sum(10 ** (_TRAFFIC_DB_A / 10))) - weight
    position = 10 * np.log10(np.maximum(f, 1e-3) / 1000)
    level = np.interp(position, np.arange(-10, 8), thirds)
    level = level - 2 * np.maximum(position - 7, 0)
    width_hz = np.maximum(f, 1e-3) * (10**0.05 - 10**-0.05)
    density = REFERENCE_PA**2 * 10 ** (level / 10) / width_hz
    return np.where(f >= _LOWEST_HZ, density, 0.0)


class StreetNoise:
    """Noise of a street at the microphones of one array.

    Traffic and its echoes come from all round, so two microphones d apart agree as
    sin(k d) / (k d), k = 2 pi f / c: the coherence of a diffuse field (Cook 1955).

    Parameters
    ----------
    microphones_m
        Positions in m, shape [channels, 3].
    sample_rate_hz
        Of the noise.
    level_db_a
        A-weighted level in dB re 20 uPa between passing vehicles.
    vehicles_per_minute
        How many pass near by, each a swell of 3 to 12 dB.
    duration_s
        How long the scene is.
    sound_speed_m_s
        For the coherence.
    seed
        Of this node's noise; the same gives the same bytes.
    """

    def __init__(
        self,
        microphones_m: Float64Array,
        *,
        sample_rate_hz: int,
        level_db_a: float,
        vehicles_per_minute: float,
        duration_s: float,
        sound_speed_m_s: float,
        seed: np.random.SeedSequence,
    ) -> None:
        self._rate = sample_rate_hz
        self._channels = len(microphones_m)
        self._seed = seed
        f = np.fft.rfftfreq(2 * HOP_FRAMES, 1 / sample_rate_hz)
        apart = np.linalg.norm(microphones_m[:, None] - microphones_m[None], axis=-1)
        coherence = np.sinc(2 * f[:, None, None] * apart / sound_speed_m_s)
        coherence += 1e-6 * np.eye(self._channels)
        # rfft of white noise of variance 1 has 2n bins of power 2n; a density S gives S fs / 2.
        colour = np.sqrt(traffic_density(f) * sample_rate_hz / 2 * 2 * HOP_FRAMES / 2)
        colour *= 10 ** (level_db_a / 20)
        self._mixing = np.linalg.cholesky(coherence) * colour[:, None, None]
        self._window = np.sin(np.pi * (np.arange(2 * HOP_FRAMES) + 0.5) / (2 * HOP_FRAMES))
        rng = np.random.default_rng(_child(seed, 0))
        self._knots_db = _slow_level_db(rng, duration_s)
        count = int(rng.poisson(vehicles_per_minute * duration_s / 60))
        self._pass_s = rng.uniform(0, duration_s, count)
        self._pass_width_s = rng.uniform(5, 15, count) / rng.uniform(8, 15, count)
        self._pass_power = 10 ** (rng.uniform(3, 12, count) / 10) - 1
        self._segment: tuple[int, Float64Array] = (-1, np.zeros((0, 0)))

    def hop(self, index: int) -> Float64Array:
        """Give pressure in Pa of frames [index, index + 1) x HOP_FRAMES, [HOP_FRAMES, channels]."""
        before = self._segment[1] if self._segment[0] == index else self._make(index)
        after = self._make(index + 1)
        self._segment = (index + 1, after)
        noise = before[HOP_FRAMES:] + after[:HOP_FRAMES]
        time_s = (index * HOP_FRAMES + np.arange(HOP_FRAMES)) / self._rate
        return np.asarray(noise * self._swell(time_s)[:, None])

    def _make(self, index: int) -> Float64Array:
        rng = np.random.default_rng(_child(self._seed, 1 + index))
        white = rng.standard_normal((len(self._mixing), self._channels, 2))
        spectrum = self._mixing @ (white[..., :1] + 1j * white[..., 1:])
        noise = np.fft.irfft(spectrum[..., 0], 2 * HOP_FRAMES, axis=0)
        return np.asarray(noise * self._window[:, None])

    def _swell(self, time_s: Float64Array) -> Float64Array:
        # Levels change over tenths of a second and more, so a coarse grid will do.
        coarse_s = time_s[:: HOP_FRAMES // 64]
        at = np.append(coarse_s, time_s[-1])
        power = 10 ** (
            np.interp(at / _SLOW_KNOT_S, np.arange(len(self._knots_db)), self._knots_db) / 10
        )
        passing = ((at[:, None] - self._pass_s) / self._pass_width_s) ** 2
        power = power * (1 + (self._pass_power / (1 + passing)).sum(axis=1))
        return np.interp(time_s, at, np.sqrt(power))


def _slow_level_db(rng: np.random.Generator, duration_s: float) -> Float64Array:
    knots = int(duration_s / _SLOW_KNOT_S) + 3
    keep = np.exp(-_SLOW_KNOT_S / _SLOW_S)
    level = np.empty(knots)
    level[0] = rng.standard_normal()
    for i in range(1, knots):
        level[i] = keep * level[i - 1] + np.sqrt(1 - keep**2) * rng.standard_normal()
    return level * _SLOW_DB


def _child(seed: np.random.SeedSequence, index: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, index))
