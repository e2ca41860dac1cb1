"""Simulated backfires: fuel that goes off in an exhaust, over an engine that runs.

There is no open set of recorded backfires; these are assumptions with a wide spread: pops of gas
with a pipe's note of 150 to 600 Hz and a rise of 0.2 to 0.7 ms, at irregular intervals and levels,
over a recorded engine or a simulated one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from models.training.moments import SPAN
from models.training.synthetic_span import (
    RATE,
    Draw,
    Sound,
    Span,
    Together,
    any_air,
    between,
    distance,
    gain_of,
    noise,
    series,
)
from node.simulate.pulses import Blast, Ring

POPS: Final = (1, 12)
PIPE_HZ: Final = (150.0, 600.0)
RISE_S: Final = (0.2e-3, 0.7e-3)


def backfire(draw: Draw, engines: Sequence[Sound]) -> Sound:
    """Let one pop go off."""
    return _popping(draw, engines, np.array([0.0]), (-25, -5), 0.0)


def backfire_series(draw: Draw, engines: Sequence[Sound]) -> Sound:
    """Let 2 to 12 pops go off at irregular intervals, as when the throttle is shut."""
    middle_s = between(draw, 0.04, 0.5)
    gaps = middle_s * draw.gamma(draw.uniform(1.0, 3.0), 0.5, int(draw.integers(1, POPS[1])))
    return _popping(draw, engines, series(draw, gaps + 0.01), (-25, -3), draw.uniform(2, 6))


def anti_lag(draw: Draw, engines: Sequence[Sound]) -> Sound:
    """Let a limiter's bangs follow the engine, 8 to 25 a second, some of them missing."""
    gap_s = 1 / draw.uniform(8, 25)
    uneven = draw.uniform(0.04, 0.15)
    gaps = gap_s * np.exp(uneven * draw.standard_normal(int(between(draw, 4, 40))))
    times = series(draw, gaps)
    times = times[(draw.random(len(times)) > draw.uniform(0, 0.35)) | (times == 0)]
    return _popping(draw, engines, times, (-15, -2), draw.uniform(2, 5))


def burble(draw: Draw, engines: Sequence[Sound]) -> Sound:
    """Let a quick crackle of many small pops follow a shut throttle."""
    gaps = draw.exponential(between(draw, 0.02, 0.1), int(between(draw, 10, 60)))
    return _popping(draw, engines, series(draw, gaps + 4e-3), (-20, -2), draw.uniform(4, 7))


def engine(draw: Draw) -> Sound:
    """Simulate an engine: shape [SPAN], rms 1; a firing rate of 15 to 120 Hz that may rise or fall.

    One cycle of random harmonics, slightly different from cylinder to cylinder, and noise that
    comes in puffs with it.
    """
    t = np.arange(SPAN) / SPAN
    rate_hz = between(draw, 15, 120) * between(draw, 0.5, 2.0) ** (t * (draw.random() < 0.6))
    rate_hz *= 1 + 0.01 * np.interp(t * 40, np.arange(41), draw.standard_normal(41))
    cylinders = int(draw.choice([1, 2, 4]))
    turns = np.cumsum(rate_hz) / RATE / cylinders + draw.random()
    harmonics = np.arange(1, 25 * cylinders)
    falls = harmonics.astype(float) ** -draw.uniform(0.5, 1.5)
    falls[harmonics % cylinders != 0] *= gain_of(draw.uniform(-25, -5))
    spectrum = np.zeros(1025, dtype=complex)
    spectrum[harmonics] = falls * np.exp(2j * np.pi * draw.random(len(harmonics)))
    cycle = np.fft.irfft(spectrum, 2048)
    tone = cycle[(turns % 1.0 * len(cycle)).astype(int)]
    puffs = 1 + draw.uniform(0, 0.9) * np.cos(2 * np.pi * cylinders * turns)
    roar = noise(draw, SPAN / RATE, 50, between(draw, 300, 4000), 1e-4, 1e3)[:SPAN] * puffs
    mixed = tone / tone.std() + gain_of(draw.uniform(-20, 6)) * roar / roar.std()
    return np.asarray(mixed / mixed.std())


def _running(draw: Draw, engines: Sequence[Sound]) -> Sound:
    """Take a stretch of a recorded engine, up to a fourth slower or faster, or simulate one."""
    if not engines or draw.random() < 0.15:
        return engine(draw)
    recorded = engines[draw.integers(len(engines))]
    start = int(draw.integers(len(recorded)))
    speed = between(draw, 0.8, 1.25)
    samples = np.arange(start, start + round(SPAN * speed) + 2)
    stretch = np.take(recorded, samples, mode="wrap").astype(np.float64)
    played = np.interp(np.arange(SPAN) * speed, np.arange(len(stretch)), stretch)
    loudness = played.std()
    return np.asarray(played / loudness) if loudness > 0 else engine(draw)


def _popping(
    draw: Draw,
    engines: Sequence[Sound],
    times: Sound,
    engine_db: tuple[float, float],
    scatter_db: float,
) -> Sound:
    """Let pops go off over an engine, whose peaks are `engine_db` re the loudest pop's.

    A motor cycle's pipe is short and open, a car's has a silencer that leaves the low notes.
    """
    span = Span(draw, distance(draw, 600.0))
    motor_cycle = draw.random() < 0.4
    note_hz = between(draw, 220, PIPE_HZ[1]) if motor_cycle else between(draw, PIPE_HZ[0], 400)
    overtone_hz = note_hz * draw.uniform(2, 3)
    damping = between(draw, 0.3, 2.5)
    shock_db = draw.uniform(-3, 6) if draw.random() < 0.55 else draw.uniform(-25, -6)
    phase_s, rise_s = between(draw, 0.6e-3, 2.5e-3), between(draw, *RISE_S) / 2.2
    breath_db, breath_s = draw.uniform(-25, -2), between(draw, 3e-3, 40e-3)
    breath_hz = between(draw, 800, 5000)
    shapes = []
    for _ in range(min(len(times), 3)):
        drift = np.exp(0.05 * draw.standard_normal())
        pipe = Ring(0.85, note_hz * drift, damping * note_hz)
        overtone = Ring(0.25, overtone_hz * drift, 2 * damping * note_hz)
        shapes.append(Together((pipe, overtone, Blast(gain_of(shock_db), phase_s * drift, rise_s))))
    peaks = 10 ** (scatter_db / 20 * np.clip(draw.standard_normal(len(times)), -2, 2))
    span.pulses(times, shapes, draw.integers(0, len(shapes), len(times)), peaks)
    for at, peak in zip(times, peaks, strict=True):
        breath = noise(draw, 4 * breath_s, 150, breath_hz, 2e-3, breath_s)
        span.wave(at, breath, peak * gain_of(breath_db))
    loudest = np.max(np.abs(span.sound))
    # An engine's peaks lie some 9 dB above its rms.
    span.sound += _running(draw, engines) * loudest * gain_of(draw.uniform(*engine_db) - 9)
    return span.heard(any_air(draw))
