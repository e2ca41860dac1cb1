"""What lies between a sound and the node: drawn alike for every class, lest the place tell it.

A dry moment comes in, the same moment as a roof or a street would deliver it goes out: distance
(air, ISO 9613-1), houses in between, echoes and a decaying tail, the microphone's colour, measured
background, clipping, a codec's band, a redacted stretch.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import signal

from node.classify import features
from node.simulate.filters import minimum_phase
from node.simulate.propagation import Atmosphere, air_absorption_db_per_m

Sound = npt.NDArray[np.float64]

RATE: Final = features.RATE_HZ
_MOVED: Final = 0.65
"""Share that is moved to another place; the rest stays where it was recorded."""
_FFT: Final = 1024
_HERTZ: Final = np.fft.rfftfreq(_FFT, 1 / RATE)


def surround(
    dry: Sound,
    onset: int,
    background: Sound,
    draw: np.random.Generator,
    *,
    recorded: bool = True,
) -> Sound:
    """Carry a moment through one random surrounding.

    Parameters
    ----------
    dry
        The moment at the internal rate, shape [n].
    onset
        Where in it the sound sets in: levels are measured from there.
    background
        What the street sounds like without it, shape [n].
    draw
        Random numbers.
    recorded
        False for a simulated sound: it has been through its own air already, and its spectrum,
        which is all that it differs by, is left nearly as it is.
    """
    wet = _filtered(dry, _microphone_db(draw, 2.0 if recorded else 1.0))
    snr_db = draw.uniform(15.0, 45.0)
    if not recorded:
        if draw.random() < 0.7:
            wet = _with_echoes(wet, draw)
    elif draw.random() < _MOVED:
        gain_db = np.zeros_like(_HERTZ)
        if draw.random() < 0.7:
            gain_db += _air_db(draw)
        if draw.random() < 0.4:
            gain_db += _houses_db(draw)
        wet = _filtered(wet, gain_db)
        if draw.random() < 0.7:
            wet = _with_echoes(wet, draw)
        snr_db = draw.uniform(3.0, 40.0)
    if draw.random() < 0.8:
        wet = _over(wet, onset, background, snr_db)
    if draw.random() < 0.4:
        wet = _band_limited(wet, draw)
    if draw.random() < 0.2:
        limit = np.max(np.abs(wet)) * draw.uniform(0.15, 0.8) + 1e-12
        wet = np.clip(wet, -limit, limit) if draw.random() < 0.6 else limit * np.tanh(wet / limit)
    if draw.random() < 0.12:
        wet = _redacted(wet, draw)
    return wet


def _filtered(sound: Sound, gain_db: Sound) -> Sound:
    """Apply a minimum-phase filter with a gain in dB at the bins of `_FFT`."""
    passed: Sound = signal.fftconvolve(sound, minimum_phase(10 ** (gain_db / 20)))[: len(sound)]
    return passed


def _air_db(draw: np.random.Generator) -> Sound:
    """Give what air takes over 20 m to 1.5 km (ISO 9613-1)."""
    air = Atmosphere(
        temperature_c=draw.uniform(-5.0, 32.0), relative_humidity_pct=draw.uniform(25.0, 95.0)
    )
    distance_m = np.exp(draw.uniform(np.log(20.0), np.log(1500.0)))
    lost_db: Sound = np.minimum(air_absorption_db_per_m(_HERTZ, air) * distance_m, 60.0)
    return -lost_db


def _houses_db(draw: np.random.Generator) -> Sound:
    """Give what diffraction takes: 3 to 9 dB an octave above a corner set by the detour."""
    corner_hz = np.exp(draw.uniform(np.log(150.0), np.log(3000.0)))
    octaves: Sound = 0.5 * np.log2(1 + (_HERTZ / corner_hz) ** 2)
    return -draw.uniform(3.0, 9.0) * octaves


def _microphone_db(draw: np.random.Generator, spread_db: float) -> Sound:
    """Give a microphone's and a mounting's colour: some dB up or down per octave, a low end."""
    knots_hz = np.array([30.0, 100, 250, 500, 1000, 2000, 4000, 6000])
    knots_db = np.cumsum(draw.normal(0, spread_db, len(knots_hz)))
    hertz = np.maximum(_HERTZ, 10.0)
    gain_db: Sound = np.interp(np.log(hertz), np.log(knots_hz), knots_db - knots_db.mean())
    low_hz = np.exp(draw.uniform(np.log(15.0), np.log(200.0)))
    gain_db -= 10 * np.log10(1 + (low_hz / hertz) ** 4)
    return gain_db


def _with_echoes(sound: Sound, draw: np.random.Generator) -> Sound:
    """Add the ground, some walls, and a diffuse tail."""
    length = round(RATE * 1.2)
    response = np.zeros(length)
    response[0] = 1.0
    response[int(draw.uniform(1, 0.012 * RATE))] += draw.uniform(0.1, 0.9)
    decay_s = np.exp(draw.uniform(np.log(0.04), np.log(0.6)))
    for _ in range(draw.integers(0, 12)):
        delay_s = draw.uniform(0.004, 0.7)
        gain = draw.uniform(0.1, 1.3) * np.exp(-delay_s / decay_s)
        response[int(delay_s * RATE)] += gain * draw.choice([-1.0, 1.0, 1.0])
    tail = draw.standard_normal(length) * np.exp(-np.arange(length) / (decay_s * RATE))
    tail = signal.lfilter([1 - (pole := draw.uniform(0.2, 0.9))], [1, -pole], tail)
    energy = 10 ** (draw.uniform(-25.0, 3.0) / 10)
    response += tail * np.sqrt(energy / (np.sum(tail**2) + 1e-12))
    echoing: Sound = signal.fftconvolve(sound, response)[: len(sound)]
    return echoing


def _over(sound: Sound, onset: int, background: Sound, snr_db: float) -> Sound:
    """Mix over a background; the ratio is of the loudest 30 ms after the onset to its rms."""
    span = round(0.03 * RATE)
    energy = np.cumsum(sound[max(0, onset - span) :] ** 2)
    power = (energy[span:] - energy[:-span]) / span
    noise = np.mean(background**2)
    if noise <= 0 or len(power) == 0 or power.max() <= 0:
        return sound
    gain = float(np.sqrt(power.max() / noise * 10 ** (-snr_db / 10)))
    return sound + gain * background


def _band_limited(sound: Sound, draw: np.random.Generator) -> Sound:
    """Cut the top off, as a codec or a card of a lower rate does."""
    corner_hz = draw.uniform(2500.0, 5600.0)
    sections = signal.cheby2(draw.integers(4, 9), 50, corner_hz, fs=RATE, output="sos")
    cut: Sound = signal.sosfilt(sections, sound)
    return cut


def _redacted(sound: Sound, draw: np.random.Generator) -> Sound:
    """Zero what lies before or after a place, as a publisher or a lost buffer does."""
    cut = sound.copy()
    where = int(draw.uniform(0, len(cut)))
    if where < len(cut) * 0.15:
        cut[:where] = 0.0
    elif where > len(cut) * 0.6:
        cut[where:] = 0.0
    return cut
