"""What lies between a sound and a microphone: air, ground, houses, street and hills.

`place` draws one impulse response; `models.training.surroundings` carries a sound through it.
Levels are relative: what matters to a picture is the colour and what follows the first arrival.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft, special

from node.classify import features
from node.simulate.filters import minimum_phase
from node.simulate.propagation import Atmosphere, air_absorption_db_per_m

Sound = npt.NDArray[np.float64]

RATE: Final = features.RATE_HZ
_FFT: Final = 2048
LENGTH: Final = 15_360 - _FFT
"""Samples of reflections, 1.1 s: what comes later lies behind the latest end of a picture."""
HERTZ: Final = np.maximum(np.fft.rfftfreq(_FFT, 1 / RATE), 3.0)
_SPEED_M_S: Final = 340.0
_MOST_REFLECTED: Final = 10**0.3
"""Energy of all reflections over that of the direct sound: more, and the sound is lost in them."""
_TAIL: Final = 1 << int(np.ceil(np.log2(LENGTH)))
_TAIL_HZ: Final = np.fft.rfftfreq(_TAIL, 1 / RATE)
_TIME_S: Final = np.arange(LENGTH) / RATE


def place(draw: np.random.Generator, *, air: bool = True, measured: Sound | None = None) -> Sound:
    """Draw the way from a source to a node, as an impulse response.

    Parameters
    ----------
    draw
        Random numbers.
    air
        False for a sound that has been through its own air already.
    measured
        An impulse response at the internal rate, shape [n], that takes the place of the street's.

    Returns
    -------
    Response, shape [LENGTH + 2048]; the direct sound is at 0 and nothing is before it.
    """
    distance_m = float(np.exp(draw.uniform(np.log(20.0), np.log(1500.0))))
    heights_m = (
        draw.uniform(1.0, 2.0) if draw.random() < 0.75 else draw.uniform(50.0, 100.0),
        draw.uniform(5.0, 15.0),
    )
    common_db = np.zeros_like(HERTZ)
    if air:
        weather = Atmosphere(
            temperature_c=draw.uniform(-8.0, 34.0), relative_humidity_pct=draw.uniform(20.0, 95.0)
        )
        common_db += air_db(distance_m, weather) + lengthening_db(distance_m, draw.uniform(0, 1))
    if draw.random() < 0.7:
        resistivity = float(np.exp(draw.uniform(np.log(5e4), np.log(2e7))))
        turbulence = float(10 ** draw.uniform(-6.5, -4.5))
        common_db += ground_db(distance_m, *heights_m, resistivity, turbulence)
    direct = np.zeros(_FFT)
    direct[0] = 1.0
    loss = 1.0
    if draw.random() < 0.45:
        detour_m = float(np.exp(draw.uniform(np.log(0.003), np.log(5.0))))
        shadow_db = diffraction_db(detour_m)
        direct = minimum_phase(10 ** (shadow_db / 20))
        loss = float(10 ** (np.interp(500.0, HERTZ, shadow_db) / 10))
    reflected = _street(distance_m, draw) if measured is None else _measured(measured)
    energy = np.sum(reflected**2)
    if energy > _MOST_REFLECTED * loss:
        reflected *= np.sqrt(_MOST_REFLECTED * loss / energy)
    reflected[:_FFT] += direct
    size = LENGTH + _FFT
    common = minimum_phase(10 ** (common_db / 20))
    response: Sound = fft.irfft(fft.rfft(reflected, size) * fft.rfft(common, size), size)
    return response


def air_db(distance_m: float, weather: Atmosphere) -> Sound:
    """Give what air adds to the level over a distance (ISO 9613-1), at `HERTZ`, in dB."""
    gain_db: Sound = -np.minimum(air_absorption_db_per_m(HERTZ, weather) * distance_m, 60.0)
    return gain_db


def lengthening_db(distance_m: float, strength: float) -> Sound:
    """Give what the lengthening of a weak shock does to its spectrum, at `HERTZ`, in dB.

    A blast of 500 Pa and 400 us at 10 m lengthens by s = sqrt(1 + 0.18 ln(r / 10 m))
    (`node.simulate.pulses`). Of a Friedlander pulse as loud as before, s times as long, what lies
    below its maximum, 1 / (2 pi T) = 400 Hz, rises by s squared; what lies above stays.

    Parameters
    ----------
    distance_m
        Path in m; within 10 m nothing happens.
    strength
        0 for a sound that is no shock, 1 for that blast.
    """
    squared = 1 + 0.18 * strength * np.log(max(distance_m, 10.0) / 10.0)
    share = 1 / (1 + (HERTZ / 400.0) ** 2)
    gain_db: Sound = 20 * np.log10(squared) * (share - 1)
    return gain_db


def ground_db(
    distance_m: float,
    source_m: float,
    node_m: float,
    resistivity: float,
    turbulence: float,
) -> Sound:
    """Give what the sound reflected by the ground does to the direct one, at `HERTZ`, in dB.

    Impedance of Delany & Bazley (1970); reflection of a spherical wave by the Weyl-van der Pol
    formula (Chien & Soroka 1975). Turbulence makes the two lose their coherence (Daigle 1979, for
    two ways apart, eddies of 1.1 m), and fills the dip to -18 dB.

    Parameters
    ----------
    distance_m, source_m, node_m
        Distance along the ground and the heights over it, in m.
    resistivity
        Flow resistivity in Pa s/m2: 5e4 for a meadow, 2e7 for asphalt.
    turbulence
        Mean square of the fluctuating refractive index: 1e-6 at night, 1e-5 on a sunny day.
    """
    direct_m = np.hypot(distance_m, source_m - node_m)
    mirrored_m = np.hypot(distance_m, source_m + node_m)
    cosine = (source_m + node_m) / mirrored_m
    wave = 2 * np.pi * HERTZ / _SPEED_M_S
    flow = 1000 * HERTZ / resistivity
    impedance = 1 + 9.08 * flow**-0.75 + 11.9j * flow**-0.73
    plane = (impedance * cosine - 1) / (impedance * cosine + 1)
    number = (0.5 + 0.5j) * np.sqrt(wave * mirrored_m) * (cosine + 1 / impedance)
    ground_wave = 1 + 1j * np.sqrt(np.pi) * number * special.wofz(number)
    reflection = plane + (1 - plane) * ground_wave
    coherence = np.exp(-0.5 * np.sqrt(np.pi) * turbulence * wave**2 * distance_m * 1.1)
    other = reflection * direct_m / mirrored_m * np.exp(1j * wave * (mirrored_m - direct_m))
    power = 1 + np.abs(other) ** 2 + 2 * coherence * other.real
    gain_db: Sound = 10 * np.log10(np.maximum(power, 10**-1.8))
    return gain_db


def diffraction_db(detour_m: float) -> Sound:
    """Give what an edge takes from a sound that passes over it, at `HERTZ`, in dB.

    10 lg(3 + 20 N), at most 25 dB, with N twice the detour over the wavelength (Maekawa 1968, as
    in ISO 9613-2 for one edge).
    """
    fresnel = 2 * detour_m * HERTZ / _SPEED_M_S
    gain_db: Sound = -np.minimum(10 * np.log10(3 + 20 * fresnel), 25.0)
    return gain_db


def _street(distance_m: float, draw: np.random.Generator) -> Sound:
    """Draw all that comes after the direct sound, shape [LENGTH]."""
    response = np.zeros(LENGTH)
    if draw.random() < 0.5:
        _add(response, draw.uniform(0.0003, 0.012), draw.uniform(0.05, 0.7))
    if draw.random() < 0.5:
        _add_facades(response, min(distance_m, draw.uniform(20.0, 300.0)), draw)
    if draw.random() < 0.85:
        _add_tail(response, draw)
    if draw.random() < 0.7:
        for _ in range(int(draw.integers(1, 6))):
            _add_far(response, draw)
    return response


def _add(response: Sound, delay_s: float, gain: float) -> None:
    """Add an arrival between two samples; sharing it out dulls it a little, as a wall does."""
    whole = int(delay_s * RATE)
    if whole + 1 < len(response):
        part = delay_s * RATE - whole
        response[whole] += gain * (1 - part)
        response[whole + 1] += gain * part


def _add_facades(response: Sound, along_m: float, draw: np.random.Generator) -> None:
    """Add the images in two facades that face each other (Allen & Berkley 1979, in one axis)."""
    width_m = draw.uniform(9.0, 35.0)
    source_m, node_m = draw.uniform(0.05, 0.95, 2) * width_m
    reflection = draw.uniform(0.4, 0.85)
    direct_m = np.hypot(along_m, source_m - node_m)
    for order in range(1, 13):
        shift_m = width_m * (order + order % 2) - (source_m if order % 2 else -source_m)
        left_m = width_m * (order - order % 2) + (source_m if order % 2 else -source_m)
        for across_m in (shift_m - node_m, left_m + node_m):
            way_m = np.hypot(along_m, across_m)
            gain = reflection**order * direct_m / way_m * draw.uniform(0.3, 1.0)
            _add(response, float((way_m - direct_m) / _SPEED_M_S), float(gain))


def _add_tail(response: Sound, draw: np.random.Generator) -> None:
    """Add what a city scatters: noise that dies exponentially, its treble sooner.

    Houses near by give most within some 10 ms, the blocks behind them the rest; live-fire
    recordings fall by 20 dB within 30 to 300 ms, where the blast itself takes 5.
    """
    quicker = draw.uniform(0.3, 0.8)
    slopes = []
    for shortest_s, longest_s, lowest_db, highest_db in (
        (0.008, 0.08, -12, 3),
        (0.08, 0.6, -20, 0),
    ):
        decay_s = np.exp(draw.uniform(np.log(shortest_s), np.log(longest_s)))
        energy = 10 ** (draw.uniform(lowest_db, highest_db) / 10)
        slopes.append((decay_s, np.sqrt(energy / decay_s)))
    white = fft.rfft(draw.standard_normal(_TAIL))
    low = 1 / (1 + (_TAIL_HZ / 600.0) ** 2)
    high = 1 - 1 / (1 + (_TAIL_HZ / 2000.0) ** 2)
    tail = np.zeros(LENGTH)
    for band, factor in ((low, 1 / np.sqrt(quicker)), (1 - low - high, 1.0), (high, quicker)):
        dying = sum(level * np.exp(-_TIME_S / (decay_s * factor)) for decay_s, level in slopes)
        tail += fft.irfft(white * band)[:LENGTH] * dying
    tail *= -np.expm1(-_TIME_S / draw.uniform(0.001, 0.02))
    energy = min(sum(level**2 * decay_s for decay_s, level in slopes), _MOST_REFLECTED)
    response += tail * np.sqrt(energy / np.sum(tail**2))


def _add_far(response: Sound, draw: np.random.Generator) -> None:
    """Add an echo from far off: a facade or a hillside that scatters over some ms, dulled by air.

    The live-fire recordings have theirs 0.1 to 1.5 s after a shot, up to as loud as the shot.
    """
    start = int(np.exp(draw.uniform(np.log(0.08), np.log(1.0))) * RATE)
    width = int(draw.uniform(0.002, 0.06) * RATE)
    echo = draw.standard_normal(width) * np.exp(-3.0 * np.arange(width) / width)
    echo = np.convolve(echo, np.full(int(draw.integers(1, 7)), 1.0))
    echo = echo[: len(response) - start]
    energy = 10 ** (draw.uniform(-22.0, 0.0) / 10)
    response[start : start + len(echo)] += echo * np.sqrt(energy / (np.sum(echo**2) + 1e-12))


def _measured(response: Sound) -> Sound:
    """Give what follows the strongest arrival of a measured response, relative to it."""
    reflected = np.zeros(LENGTH)
    peak = int(np.argmax(np.abs(response)))
    own = np.sqrt(np.sum(response[max(0, peak - 6) : peak + 12] ** 2))
    later = response[peak + 12 : peak + LENGTH]
    if own > 0:
        reflected[12 : 12 + len(later)] = later / own
    return reflected
