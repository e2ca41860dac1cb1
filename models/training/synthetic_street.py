"""Simulated sounds of a street that are no explosion: blows, slams, pops, machines, thunder.

A blow is a contact, what it sets ringing, and a burst of noise; `BLOWS` holds the
ranges of each kind, `SERIES` how a kind repeats. Ranges are assumptions round what is known of such
sounds (`node.simulate.sounds`: doors, hammers, nail guns), with a wide spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import signal

from models.training.synthetic_span import (
    AFTER_S,
    BEFORE_S,
    RATE,
    Contact,
    Draw,
    NWave,
    Sound,
    Span,
    any_air,
    between,
    distance,
    gain_of,
    noise,
    ringing,
    series,
)
from node.simulate.pulses import Blast

Range = tuple[float, float]


@dataclass(frozen=True)
class Blow:
    """The ranges of one kind of blow: contact in s; modes; noise; levels in dB re the contact."""

    contact_s: Range
    hertz: Range
    decay_s: Range
    modes: tuple[int, int] = (2, 8)
    ring_db: Range = (-20, 0)
    noise_hz: Range = (200, 4000)
    noise_s: Range = (2e-3, 20e-3)
    noise_db: Range = (-30, -8)
    farthest_m: float = 300.0


@dataclass(frozen=True)
class Repeat:
    """How a blow repeats: share of single ones, gap in s, unevenness (1 is all), level scatter."""

    single: float
    gap_s: Range
    uneven: Range
    scatter_db: Range = (0.5, 3.0)
    most: int = 12


BLOWS: Final[dict[str, Blow]] = {
    "door": Blow((3e-3, 12e-3), (60, 500), (0.02, 0.12), (3, 9), (-14, 2)),
    "car_door": Blow((4e-3, 15e-3), (40, 450), (0.015, 0.07), (3, 7), (-12, 2)),
    "dumpster": Blow((0.8e-3, 5e-3), (70, 1500), (0.04, 0.35), (8, 16), (-10, 6)),
    "container": Blow((3e-3, 15e-3), (30, 500), (0.06, 0.5), (8, 16), (-10, 6), farthest_m=1000),
    "metal_plate": Blow((0.1e-3, 1e-3), (200, 5000), (0.03, 0.5), (6, 14), (-8, 8)),
    "gate": Blow((0.3e-3, 3e-3), (150, 3500), (0.02, 0.3), (6, 14), (-8, 6)),
    "hammer_metal": Blow((0.05e-3, 0.3e-3), (1000, 5500), (0.005, 0.25), (2, 8), (-8, 8)),
    "hammer_wood": Blow((0.3e-3, 2e-3), (200, 2500), (4e-3, 0.03), (3, 8), (-12, 3)),
    "nail_gun": Blow((0.05e-3, 0.3e-3), (2000, 5000), (2e-3, 8e-3), (1, 4), (-6, 6)),
    "plank": Blow((0.3e-3, 2e-3), (150, 1500), (8e-3, 0.05), (3, 8), (-12, 2)),
    "knock": Blow((0.4e-3, 2e-3), (100, 1200), (5e-3, 0.03), (2, 6), (-12, 0)),
    "clap": Blow((0.3e-3, 0.9e-3), (600, 2500), (0.5e-3, 2.5e-3), (1, 3), (-6, 6)),
    "drum": Blow((1e-3, 6e-3), (50, 300), (0.05, 0.5), (2, 6), (-6, 8)),
    "snare": Blow(
        (0.5e-3, 3e-3),
        (150, 500),
        (0.02, 0.12),
        (2, 5),
        (-10, 4),
        (800, 5000),
        (0.03, 0.15),
        (-16, 0),
    ),
    "basketball": Blow((5e-3, 15e-3), (60, 1100), (5e-3, 0.06), (2, 5), (-14, 2)),
    "jackhammer": Blow((0.1e-3, 2e-3), (300, 4500), (2e-3, 0.02), (3, 8), (-8, 6)),
    "pile_driver": Blow((1e-3, 6e-3), (60, 2500), (0.03, 0.3), (6, 14), (-8, 6), farthest_m=1000),
    "engine_knock": Blow((0.3e-3, 2e-3), (200, 4000), (1e-3, 8e-3), (2, 6), (-8, 4)),
}
REPEATS: Final[dict[str, Repeat]] = {
    "door": Repeat(0.75, (0.3, 1.5), (0.2, 0.5)),
    "car_door": Repeat(0.75, (0.3, 1.5), (0.2, 0.5)),
    "dumpster": Repeat(0.5, (0.1, 0.8), (0.3, 0.7), (2, 6)),
    "container": Repeat(0.6, (0.2, 1.2), (0.3, 0.7), (2, 6)),
    "metal_plate": Repeat(0.6, (0.1, 0.8), (0.1, 0.7), (2, 6)),
    "gate": Repeat(0.5, (0.05, 0.6), (0.3, 0.8), (2, 7)),
    "hammer_metal": Repeat(0.3, (0.25, 0.9), (0.03, 0.15)),
    "hammer_wood": Repeat(0.3, (0.25, 0.9), (0.03, 0.15)),
    "nail_gun": Repeat(0.5, (0.2, 1.5), (0.1, 0.5), (0.5, 2)),
    "plank": Repeat(0.4, (0.03, 0.4), (0.3, 0.8), (3, 7)),
    "knock": Repeat(0.1, (0.13, 0.35), (0.04, 0.2), (1, 3), 6),
    "clap": Repeat(0.4, (0.18, 0.8), (0.03, 0.1), (1, 3)),
    "drum": Repeat(0.4, (0.1, 0.6), (0.01, 0.08), (0.5, 4)),
    "snare": Repeat(0.4, (0.05, 0.5), (0.01, 0.08), (0.5, 5), 30),
    "basketball": Repeat(0.1, (0.35, 0.9), (0.03, 0.15)),
    "jackhammer": Repeat(0.0, (0.04, 0.1), (0.005, 0.04), (0.5, 2.5), 60),
    "pile_driver": Repeat(0.3, (0.8, 1.6), (0.01, 0.05), (0.5, 1.5)),
    "engine_knock": Repeat(0.0, (0.035, 0.2), (0.005, 0.05), (0.5, 3), 60),
}


def blow(name: str, draw: Draw) -> Sound:
    """Strike a thing of a kind of `BLOWS`, once or as `REPEATS` says."""
    kind, repeat = BLOWS[name], REPEATS[name]
    going_on = repeat.single == 0.0 and draw.random() < 0.75
    times = _going_on(repeat, draw) if going_on else series(draw, _gaps(repeat, draw))
    levels_db = draw.uniform(*repeat.scatter_db) * draw.standard_normal(len(times))
    if name == "basketball" and draw.random() < 0.4:
        times, levels_db = _bounces(draw)
    span = Span(draw, distance(draw, kind.farthest_m))
    contact_s = between(draw, *kind.contact_s)
    sound_db = draw.uniform(*kind.noise_db)
    swell_s, fall_s = between(draw, 0.2e-3, 2e-3), between(draw, *kind.noise_s)
    rebound_s = between(draw, 1.5e-3, 8e-3) if name == "nail_gun" or draw.random() < 0.3 else 0.0
    for at, level_db in zip(times, levels_db, strict=True):
        peak = gain_of(level_db)
        softer = contact_s * gain_of(-0.2 * level_db)
        span.pulse(at, Contact(peak, softer))
        if rebound_s:
            span.pulse(at + rebound_s, Contact(peak * draw.uniform(0.2, 0.9), softer))
    blows = span.sound.copy()
    modes = int(draw.integers(kind.modes[0], kind.modes[1] + 1))
    hertz = np.exp(draw.uniform(*np.log(kind.hertz), modes))
    # A mode's loss goes up with its frequency, and a thing has one material.
    decay_s = between(draw, *kind.decay_s) * (hertz / hertz.min()) ** -draw.uniform(0.2, 1.0)
    gains = 10 ** (draw.uniform(-14, 0, modes) / 20) * draw.choice([-1.0, 1.0], modes)
    rung = ringing(blows, hertz, decay_s, gains)
    loudest, ring = np.max(np.abs(blows)), np.max(np.abs(rung))
    if ring > 0:
        span.sound += rung * (loudest / ring * gain_of(draw.uniform(*kind.ring_db)))
    for at, level_db in zip(times, levels_db, strict=True):
        rattle = noise(draw, 5 * fall_s, *kind.noise_hz, swell_s, fall_s)
        span.wave(at, rattle, gain_of(level_db + sound_db))
    if going_on:
        motor = noise(draw, BEFORE_S + AFTER_S, 60, between(draw, 300, 4000), 1e-3, 1e3)
        span.wave(-BEFORE_S, motor, gain_of(draw.uniform(-35, -8)))
    return span.heard(any_air(draw))


def tyre_burst(draw: Draw) -> Sound:
    """Burst a tyre: a soft, long blast, then air that rushes out."""
    span = Span(draw, distance(draw, 600.0))
    span.pulse(0.0, Blast(100.0, between(draw, 1e-3, 5e-3), between(draw, 0.05e-3, 0.4e-3)))
    rush_s = between(draw, 0.03, 0.4)
    span.wave(
        0.0, noise(draw, 4 * rush_s, 300, 4000, 3e-3, rush_s), 100 * gain_of(draw.uniform(-35, -12))
    )
    return span.heard(any_air(draw))


def balloon(draw: Draw) -> Sound:
    """Pop a balloon: an N-wave as long as sound takes across it."""
    span = Span(draw, distance(draw, 200.0))
    for at in series(
        draw, between(draw, 0.1, 1.5) * draw.exponential(1.0, int(draw.integers(0, 3)))
    ):
        span.pulse(at, NWave(draw.uniform(0.5, 1.0), 2 * draw.uniform(0.06, 0.2) / 343.0))
        flap = noise(draw, 0.02, 800, 5000, 0.5e-3, between(draw, 1e-3, 5e-3))
        span.wave(at, flap, gain_of(draw.uniform(-30, -12)))
    return span.heard(any_air(draw))


def whip(draw: Draw) -> Sound:
    """Crack a whip: a small N-wave, or two close together (Krehl, Engemann & Schwenkel 1998)."""
    span = Span(draw, distance(draw, 200.0))
    for at in series(draw, draw.uniform(0.4, 1.2, int(draw.integers(0, 3)))):
        for after_s in (0.0, between(draw, 0.3e-3, 3e-3))[: int(draw.integers(1, 3))]:
            crack = NWave(draw.uniform(0.4, 1.0), between(draw, 0.05e-3, 0.25e-3))
            span.pulse(at + after_s, crack)
        whoosh = noise(draw, 0.15, 300, 3000, 0.05, 0.05)[::-1]
        span.wave(at - 0.15, whoosh, gain_of(draw.uniform(-60, -35)))
    return span.heard(any_air(draw))


def sonic_boom(draw: Draw) -> Sound:
    """Let an aircraft's N-wave pass: two thumps 0.08 to 0.25 s apart, with rises of 1 to 10 ms."""
    span = Span(draw, 1000.0)
    duration_s, rise_s = draw.uniform(0.08, 0.25), between(draw, 1e-3, 10e-3)
    t = np.arange(round((duration_s + 8 * rise_s) * RATE)) / RATE
    ramp = np.where(t < duration_s, 1 - 2 * t / duration_s, 0.0)
    front = np.exp(-np.arange(round(8 * rise_s * RATE)) / (rise_s / 2.2 * RATE))
    span.wave(0.0, np.convolve(ramp, front)[: len(t)], 1.0)
    return span.heard(any_air(draw))


def thunder(draw: Draw) -> Sound:
    """Let a channel of lightning thunder, near (crack and rumble) or far (rumble alone).

    Every stretch of a tortuous channel sends an N-wave of 10 to 30 ms (Few 1969; Ribner & Roy
    1982); the stretches lie at different distances, which spreads a flash over seconds.
    """
    foot_m = between(draw, 100.0, 5000.0)
    stretches = 400
    step_m = between(draw, 3.0, 12.0)
    way = draw.standard_normal((stretches, 3)) * 0.8 + np.array([0.0, 0.0, 0.7])
    places = np.cumsum(step_m * way / np.linalg.norm(way, axis=1, keepdims=True), axis=0)
    places += np.array([foot_m, 0.0, 0.0])
    away_m = np.linalg.norm(places, axis=1)
    arrival_s = (away_m - away_m.min()) / 343.0
    side = 1 - np.abs(np.sum(way * places, axis=1)) / (np.linalg.norm(way, axis=1) * away_m)
    span = Span(draw, min(float(away_m.min()), 3000.0))
    started_s = 0.0 if foot_m < 1000 else -float(np.quantile(arrival_s, draw.uniform(0, 0.7)))
    duration_s = between(draw, 8e-3, 30e-3)
    shapes = [NWave(1.0, duration_s * scale) for scale in (0.1, 0.25, 0.5, 1.0)]
    gains = (0.1 + side**2) / away_m * np.exp(0.5 * draw.standard_normal(stretches))
    times = arrival_s + started_s
    near = times < AFTER_S
    span.pulses(times[near], shapes, draw.integers(0, 4, int(near.sum())), gains[near])
    # Strong shocks and turbulence round the fronts, the more the farther.
    corner = np.exp(-2 * np.pi * between(draw, 600, 3000) * (foot_m / 300 + 1) ** -0.5 / RATE)
    span.sound = signal.lfilter([(1 - corner) ** 2], [1, -2 * corner, corner**2], span.sound)
    return span.heard(any_air(draw))


def _gaps(repeat: Repeat, draw: Draw) -> Sound:
    if draw.random() < repeat.single:
        return np.zeros(0)
    middle_s = between(draw, *repeat.gap_s)
    uneven = between(draw, *repeat.uneven)
    most = min(repeat.most, 2 + int(2.0 / middle_s))
    count = int(draw.integers(1, most + 1))
    return np.maximum(middle_s * np.exp(uneven * draw.standard_normal(count)), 5e-3)


def _going_on(repeat: Repeat, draw: Draw) -> Sound:
    """Give the times of a machine that ran before the span and runs on after it."""
    middle_s = between(draw, *repeat.gap_s)
    uneven = between(draw, *repeat.uneven)
    count = int(1.3 * (BEFORE_S + AFTER_S) / middle_s)
    ahead = np.cumsum(middle_s * np.exp(uneven * draw.standard_normal(count)))
    behind = np.cumsum(middle_s * np.exp(uneven * draw.standard_normal(count)))
    times = np.concatenate([-behind[::-1], [0.0], ahead])
    return times[(times > -BEFORE_S) & (times < AFTER_S)]


def _bounces(draw: Draw) -> tuple[Sound, Sound]:
    """Let a ball bounce out: each gap and each level by the same factor below the last."""
    kept = draw.uniform(0.7, 0.88)
    gaps = draw.uniform(0.4, 0.8) * kept ** np.arange(12)
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    levels_db = 20 * np.log10(kept) * np.arange(13) + draw.standard_normal(13)
    inside = times < AFTER_S
    return times[inside], levels_db[inside]
