"""Simulated fireworks: shells in all their parts, salvos, crackers, whistles, crackle.

A shell's charge goes with the cube of its diameter, and a blast's duration and peak with the cube
root of the charge (Hopkinson, Cranz): 25 us of positive phase per mm, as in `node.simulate.cast`.
A whistling tube's note goes down as it burns out and the cavity lengthens (Maxwell 1952,
"Pyrotechnic whistles"). Flight times and heights follow the trade's rule of 100 ft an inch; levels
of one against the other are assumptions with a wide spread.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from models.training.synthetic_span import (
    AFTER_S,
    BEFORE_S,
    Draw,
    Sound,
    Span,
    any_air,
    between,
    distance,
    gain_of,
    noise,
    series,
    whistle,
)
from node.simulate.cast import SHELL_PHASE_S_PER_MM
from node.simulate.pulses import Blast, Ring, peak_pa
from node.simulate.sounds import BURST_PHASE_S

SHELL_MM: Final = (30.0, 200.0)
"""From a cake's shot to the largest shell that a town sees."""
CRACKER_PHASE_S: Final = (0.12e-3, 0.25e-3)
CRACKER_DB: Final = (143.0, 157.0)
_SCATTER_DB: Final = (5.0, 8.0)
_STEPS: Final = np.linspace(-2.0, 2.0, 7)


def shell_burst(draw: Draw) -> Sound:
    """Break one shell aloft, and nothing else."""
    span = _sky(draw)
    _burst(span, 0.0, _diameter_mm(draw))
    return span.heard(any_air(draw))


def flash_salute(draw: Draw) -> Sound:
    """Set off flash powder aloft: a front as sharp as a shot's, and longer."""
    span = _sky(draw)
    for at in series(draw, draw.uniform(0.1, 1.2, 1 if draw.random() < 0.2 else 0)):
        _burst(span, at, between(draw, 20, 100), flash=True)
    return span.heard(any_air(draw))


def shell(draw: Draw) -> Sound:
    """Give a shell in one of the forms that a span can hold of it.

    Lift and burst of a small one; lift with tail; whistle, then burst; burst, then crackle; burst
    with the crackle of the one before.
    """
    span = _sky(draw)
    diameter_mm = _diameter_mm(draw)
    form = draw.integers(5)
    if form == 0:
        diameter_mm = between(draw, 20, 40)
        _lift(span, 0.0, diameter_mm)
        _burst(span, draw.uniform(0.7, 1.3), diameter_mm)
    elif form == 1:
        _lift(span, 0.0, diameter_mm)
        _tail(span, draw.uniform(0.01, 0.1), draw.uniform(0.5, AFTER_S))
        if draw.random() < 0.4:
            _crackle(span, -draw.uniform(0.1, 0.5), draw.uniform(0.3, 1.0))
    elif form == 2:
        _burst(span, 0.0, diameter_mm)
        _tail(span, -BEFORE_S, BEFORE_S - draw.uniform(0, 0.15))
    elif form == 3:
        _burst(span, 0.0, diameter_mm)
        _crackle(span, draw.uniform(0.15, 0.8), draw.uniform(0.3, 2.0))
    else:
        _burst(span, 0.0, diameter_mm)
        _crackle(span, -BEFORE_S - draw.uniform(0.0, 0.3), draw.uniform(0.5, 1.5))
    return span.heard(any_air(draw))


def salvo(draw: Draw) -> Sound:
    """Break 2 to 20 shells, of like or of different size, evenly fired or not."""
    span = _sky(draw)
    bursts = round(between(draw, 2, 20))
    middle_s = 2.0 / bursts * draw.uniform(0.5, 1.5)
    uneven = draw.choice([0.05, 0.3, 1.0])
    gaps = middle_s * draw.gamma(1 / uneven**2, uneven**2, bursts - 1)
    alike_mm, spread = _diameter_mm(draw), draw.uniform(0.0, 0.5)
    flash = draw.random() < 0.25
    for at in series(draw, gaps):
        diameter_mm = float(np.clip(alike_mm * np.exp(spread * draw.standard_normal()), 15, 250))
        _burst(span, at, diameter_mm, flash=flash)
    return span.heard(any_air(draw))


def finale(draw: Draw) -> Sound:
    """Let everything go at once: bursts, salutes, lifts, whistles and crackle."""
    span = _sky(draw)
    _burst(span, 0.0, _diameter_mm(draw), flash=draw.random() < 0.4)
    for _ in range(int(draw.integers(6, 26))):
        at = draw.uniform(-BEFORE_S, AFTER_S)
        if draw.random() < 0.25:
            _lift(span, at, _diameter_mm(draw))
        else:
            _burst(span, at, _diameter_mm(draw), flash=draw.random() < 0.3)
    for _ in range(int(draw.integers(0, 3))):
        _crackle(span, draw.uniform(-BEFORE_S, 1.0), draw.uniform(0.3, 2.0))
        _tail(span, draw.uniform(-BEFORE_S, 1.0), draw.uniform(0.3, 1.0))
    return span.heard(any_air(draw))


def firecracker(draw: Draw) -> Sound:
    """Set off one cracker on the ground; a few are large ones, as long as a pistol's blast."""
    span = _ground(draw)
    phase_s = between(draw, *CRACKER_PHASE_S)
    if draw.random() < 0.12:
        phase_s = between(draw, 0.25e-3, 0.7e-3)
    _pop(span, 0.0, phase_s, peak_pa(draw.uniform(*CRACKER_DB)))
    return span.heard(any_air(draw))


def cracker_string(draw: Draw) -> Sound:
    """Set off a string, braided (5 to 60 ms apart) or of single crackers (0.05 to 0.4 s)."""
    span = _ground(draw)
    fast = draw.random() < 0.6
    middle_s = between(draw, 5e-3, 60e-3) if fast else between(draw, 50e-3, 0.4)
    crackers = int(between(draw, 5, 2.2 / middle_s)) if middle_s < 0.4 else 5
    gaps = middle_s * draw.gamma(draw.uniform(0.8, 2.0), 1.0, crackers)
    scatter_db = draw.uniform(*_SCATTER_DB)
    phase_s, peak = between(draw, *CRACKER_PHASE_S), peak_pa(draw.uniform(*CRACKER_DB))
    times = series(draw, gaps)
    off_db = np.clip(draw.standard_normal(len(times)), -2.5, 2.5)
    # A weaker charge is a shorter one, too: half of the scatter is taken to be its doing.
    shapes = [Blast(peak, phase_s * gain_of(scatter_db / 2 * step)) for step in _STEPS]
    nearest = np.abs(off_db[:, None] - _STEPS).argmin(axis=1)
    span.pulses(times, shapes, nearest, 10 ** (scatter_db * off_db / 20))
    return span.heard(any_air(draw))


def crackle(draw: Draw) -> Sound:
    """Let the stars of a shell or a fountain crackle: 30 to 300 pops in 0.3 to 2 s."""
    span = _sky(draw)
    if draw.random() < 0.5:
        _crackle(span, 0.0, draw.uniform(0.3, 2.0))
    else:
        _crackle(span, -BEFORE_S, draw.uniform(1.2, 2.0))
    if draw.random() < 0.3:
        span.wave(
            -BEFORE_S, noise(draw, 2.0, 800, 5000, 0.05, 5.0), peak_pa(draw.uniform(100, 125))
        )
    return span.heard(any_air(draw))


def bottle_rocket(draw: Draw) -> Sound:
    """Launch a rocket: hiss or whistle, then a small report, either of them at `LEAD`."""
    span = _sky(draw, 400.0)
    climb_s = draw.uniform(0.4, 1.4)
    report_s = 0.0 if draw.random() < 0.6 else climb_s
    start_s = report_s - climb_s
    if draw.random() < 0.6:
        _tail(span, start_s, climb_s * draw.uniform(0.6, 1.0), whistles=True)
    hissing = noise(draw, climb_s, between(draw, 400, 2000), 5000, 0.02, climb_s)
    span.wave(start_s, hissing, peak_pa(draw.uniform(112, 132)))
    _pop(span, report_s, between(draw, 0.1e-3, 0.35e-3), peak_pa(draw.uniform(138, 152)))
    return span.heard(any_air(draw))


def screamer(draw: Draw) -> Sound:
    """Let one to six whistles scream, without a report or with one that comes later."""
    span = _sky(draw, 400.0)
    _tail(span, 0.0, draw.uniform(0.4, AFTER_S), whistles=True)
    for _ in range(int(draw.integers(0, 6))):
        _tail(span, draw.uniform(0.0, 0.8), draw.uniform(0.3, 1.2), whistles=True)
    if draw.random() < 0.3:
        _pop(span, draw.uniform(0.6, 1.3), 0.2e-3, peak_pa(draw.uniform(138, 150)))
    return span.heard(any_air(draw))


def roman_candle(draw: Draw) -> Sound:
    """Shoot stars from a tube: soft thumps 1 to 3 s apart, some of them with pops or crackle."""
    span = _ground(draw, 400.0)
    times = series(draw, draw.uniform(1.0, 3.0, 2))
    for at in times:
        _lift(span, at, between(draw, 10, 25))
        if draw.random() < 0.5:
            burst_s = at + draw.uniform(0.35, 0.9)
            _pop(span, burst_s, between(draw, 0.15e-3, 0.5e-3), peak_pa(draw.uniform(130, 146)))
            if draw.random() < 0.5:
                _crackle(span, burst_s, draw.uniform(0.2, 0.6))
    return span.heard(any_air(draw))


def _sky(draw: Draw, farthest_m: float = 1500.0) -> Span:
    return Span(draw, distance(draw, farthest_m))


def _ground(draw: Draw, farthest_m: float = 600.0) -> Span:
    return Span(draw, distance(draw, farthest_m))


def _diameter_mm(draw: Draw) -> float:
    return between(draw, *SHELL_MM)


def _burst(span: Span, at_s: float, diameter_mm: float, *, flash: bool = False) -> None:
    """Break a shell: a blast, and the roar of stars and shreds that burn and fly."""
    draw = span.draw
    scaled_s = diameter_mm * SHELL_PHASE_S_PER_MM * between(draw, 0.7, 1.4)
    phase_s = float(np.clip(scaled_s, *BURST_PHASE_S))
    level = 166 + 20 * np.log10(diameter_mm / 100) + 2.5 * draw.standard_normal()
    rise_s = between(draw, 2e-6, 20e-6) if flash else between(draw, 20e-6, 300e-6)
    peak = peak_pa(level + (3 if flash else 0))
    span.pulse(at_s, Blast(peak, phase_s, rise_s))
    decay_s = between(draw, 0.02, 0.2)
    roar = noise(draw, 4 * decay_s, 100, between(draw, 500, 3000), 2e-3, decay_s)
    span.wave(
        at_s, roar, peak * gain_of(draw.uniform(-52, -38) if flash else draw.uniform(-48, -26))
    )


def _lift(span: Span, at_s: float, diameter_mm: float) -> None:
    """Throw a shell out of its mortar: gas out of a tube, deeper for a larger one."""
    draw = span.draw
    hertz = 130 * (diameter_mm / 75) ** -0.5 * between(draw, 0.7, 1.4)
    peak = peak_pa(143 + 20 * np.log10(diameter_mm / 75) + 4 * draw.standard_normal())
    span.pulse(at_s, Ring(peak, hertz, hertz * draw.uniform(1.2, 3.0)))
    puff = noise(draw, 0.1, 100, between(draw, 300, 1500), 2e-3, between(draw, 5e-3, 30e-3))
    span.wave(at_s, puff, peak * gain_of(draw.uniform(-25, -8)))


def _tail(span: Span, at_s: float, seconds: float, *, whistles: bool | None = None) -> None:
    """Add what a rising or burning thing does on its way: a whistle or a hiss."""
    draw = span.draw
    peak = peak_pa(draw.uniform(115, 138))
    if draw.random() < 0.6 if whistles is None else whistles:
        first_hz = between(draw, 1000, 4500)
        span.wave(at_s, whistle(draw, seconds, first_hz, first_hz * between(draw, 0.6, 1.15)), peak)
    else:
        corner_hz = between(draw, 300, 2000)
        span.wave(at_s, noise(draw, seconds, corner_hz, 5000, seconds / 3, 10.0), peak)


def _pop(span: Span, at_s: float, phase_s: float, peak: float) -> None:
    span.pulse(at_s, Blast(peak, phase_s, between(span.draw, 2e-6, 30e-6)))


def _crackle(span: Span, at_s: float, seconds: float) -> None:
    """Add small pops that swell and thin out again."""
    draw = span.draw
    pops = int(between(draw, 30, 300))
    phases_s = between(draw, 0.05e-3, 0.15e-3) * np.exp(0.3 * draw.standard_normal(8))
    peak = peak_pa(draw.uniform(120, 140))
    times = np.sort(draw.beta(draw.uniform(1, 3), draw.uniform(1, 4), pops)) * seconds
    gains = 10 ** (draw.uniform(*_SCATTER_DB) / 20 * draw.standard_normal(pops))
    shapes = [Blast(peak, float(phase_s)) for phase_s in phases_s]
    span.pulses(at_s + times - times[0], shapes, draw.integers(0, 8, pops), gains)
