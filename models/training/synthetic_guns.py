"""Simulated gunfire: muzzle blasts from all round, bullets' N-waves ahead of them, bursts.

Blasts are Friedlander waves (Maher 2006, "Modeling and signal processing of acoustic gunshot
recordings"), with levels after Dater 2014 and NIOSH (`node.simulate.sounds`). One gun differs more
with azimuth than guns do among themselves (Beck, Nakasone & Marr 2011, J. Acoust. Soc. Am. 129,
1748; Maher & Shaw 2010), so level, duration and what comes with the blast are drawn widely.
Suppressed weapons are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from models.training.synthetic_span import (
    Draw,
    NWave,
    Sound,
    Span,
    any_air,
    between,
    distance,
    gain_of,
    noise,
    series,
)
from node.simulate.propagation import Atmosphere
from node.simulate.pulses import Blast, Pulse
from node.simulate.sounds import Calibre, MuzzleBlast

HANDGUNS: Final[tuple[Calibre, ...]] = (".22LR", "9mm", "9mm", ".45ACP")
LONG_GUNS: Final[tuple[Calibre, ...]] = ("5.56", "7.62x39", ".308", "12ga")
CYCLIC_RPM: Final = (450.0, 1200.0)
LONGEST_LEAD_S: Final = 0.6
_ROUND_DB: Final = (0.5, 2.0)
"""Standard deviation of the level from round to round of one gun."""


@dataclass(frozen=True)
class Bullet:
    """What makes an N-wave: muzzle speed in m/s, share of it lost per m, width and length in m."""

    speed_m_s: float
    drag_per_m: float
    width_m: float
    length_m: float


# Nominal ballistics of common loads; slugs for the shotgun. Pistol bullets are left out, since they
# fly at the speed of sound, where Whitham's formula does not hold.
BULLETS: Final[dict[Calibre, Bullet]] = {
    "5.56": Bullet(930.0, 8.0e-4, 5.7e-3, 21e-3),
    "7.62x39": Bullet(715.0, 9.0e-4, 7.9e-3, 26e-3),
    ".308": Bullet(820.0, 5.5e-4, 7.8e-3, 30e-3),
    "12ga": Bullet(460.0, 2.0e-3, 18.5e-3, 25e-3),
}


@dataclass(frozen=True)
class Crack:
    """A bullet's N-wave at a listener: its lead on the muzzle blast in s, its path in m."""

    lead_s: float
    path_m: float
    wave: NWave


@dataclass(frozen=True)
class Gun:
    """A weapon in a hand at a place: all of its rounds are alike but for a small scatter."""

    distance_m: float
    air: Atmosphere
    blast: Blast
    gain: float
    crack: Crack | None = None
    extras: tuple[tuple[float, Pulse], ...] = ()
    jet_db: float = -25.0
    jet_s: float = 3e-3
    scatter_db: float = field(default=1.0)

    def fire(self, draw: Draw, times_s: Sequence[float] | Sound) -> Sound:
        """Fire rounds so that their blasts are heard at `times_s`: shape [SPAN]."""
        muzzle = Span(draw, self.distance_m)
        bullets = Span(draw, self.crack.path_m) if self.crack else None
        for time_s in times_s:
            gain = self.gain * gain_of(self.scatter_db * draw.standard_normal())
            muzzle.pulse(time_s, self.blast, gain)
            for delay_s, pulse in self.extras:
                muzzle.pulse(time_s + delay_s, pulse, gain)
            jet = noise(draw, 5 * self.jet_s, 400.0, 4000.0, self.jet_s / 4, self.jet_s)
            muzzle.wave(time_s, jet, gain * gain_of(self.jet_db) * self.blast.peak_pa)
            if self.crack and bullets:
                spread_db = 1.5 * draw.standard_normal()
                bullets.pulse(time_s - self.crack.lead_s, self.crack.wave, gain_of(spread_db))
        heard = muzzle.heard(self.air)
        return heard + bullets.heard(self.air) if bullets else heard


def gun(
    draw: Draw, calibres: Sequence[Calibre] = HANDGUNS + LONG_GUNS, distance_m: float | None = None
) -> Gun:
    """Draw a gun, heard from anywhere round it; no bullet passes by."""
    if distance_m is None:
        distance_m = distance(draw)
    return _gun(draw, calibres[draw.integers(len(calibres))], distance_m, draw.uniform(0, 180))


def supersonic_gun(draw: Draw) -> Gun:
    """Draw a long gun whose bullet is heard before its muzzle, by up to `LONGEST_LEAD_S`."""
    air = any_air(draw)
    while True:
        calibre = LONG_GUNS[draw.integers(len(LONG_GUNS))]
        distance_m = between(draw, 20.0, 1500.0)
        off_axis_deg = between(draw, 0.3, 75.0)
        crack = crack_of(BULLETS[calibre], distance_m, off_axis_deg, air)
        if crack is not None and 3e-4 < crack.lead_s <= LONGEST_LEAD_S:
            return _gun(draw, calibre, distance_m, off_axis_deg, crack, air)


def crack_of(
    bullet: Bullet, distance_m: float, off_axis_deg: float, air: Atmosphere
) -> Crack | None:
    """Find the N-wave that reaches a listener, or None where it passes him by.

    By Fermat's principle it comes from where flight and sound together take the least time. Peak
    and duration: Whitham 1952, "The flow pattern of a supersonic projectile", for the miss
    distance; the bullet slows down exponentially with the way.
    """
    c = air.sound_speed_m_s
    ahead_m, miss_m = (
        distance_m * np.cos(np.deg2rad(off_axis_deg)),
        max(1.0, distance_m * np.sin(np.deg2rad(off_axis_deg))),
    )
    supersonic_m = np.log(bullet.speed_m_s / (1.02 * c)) / bullet.drag_per_m
    flown_m = np.linspace(0.0, min(supersonic_m, max(ahead_m, 0.0)), 400)
    flight_s = np.expm1(bullet.drag_per_m * flown_m) / (bullet.drag_per_m * bullet.speed_m_s)
    path_m = np.hypot(ahead_m - flown_m, miss_m)
    arrival_s = flight_s + path_m / c
    first = int(np.argmin(arrival_s))
    if first in (0, len(flown_m) - 1):
        return None
    mach = bullet.speed_m_s * np.exp(-bullet.drag_per_m * flown_m[first]) / c
    excess = mach**2 - 1
    slender = bullet.width_m / bullet.length_m**0.25
    peak_pa = 0.53 * air.pressure_pa * excess**0.125 * slender / miss_m**0.75
    duration_s = 1.82 * mach * miss_m**0.25 * slender / (c * excess**0.375)
    return Crack(
        lead_s=float(distance_m / c - arrival_s[first]),
        path_m=float(path_m[first]),
        wave=NWave(float(peak_pa * path_m[first]), float(duration_s)),
    )


def single_shot(draw: Draw) -> Sound:
    """Fire one round."""
    return gun(draw).fire(draw, [0.0])


def supersonic_shot(draw: Draw) -> Sound:
    """Fire one round past the listener: the N-wave at `LEAD`, or the blast."""
    weapon = supersonic_gun(draw)
    return weapon.fire(draw, [_lead_s(weapon) if draw.random() < 0.65 else 0.0])


def double_tap(draw: Draw) -> Sound:
    """Fire two rounds, or two pairs, as fast as a practised finger does."""
    gaps = [draw.uniform(0.13, 0.3)]
    if draw.random() < 0.25:
        gaps += [draw.uniform(0.4, 0.8), draw.uniform(0.13, 0.3)]
    return gun(draw).fire(draw, series(draw, gaps))


def semi_automatic(draw: Draw) -> Sound:
    """Fire 2 to 10 rounds at a human cadence of 0.15 to 1 s."""
    weapon = _rarely_supersonic(draw)
    times = series(draw, _human_gaps(draw))
    return weapon.fire(draw, times + _lead_s(weapon))


def full_automatic(draw: Draw) -> Sound:
    """Fire a burst of 3 to 30 rounds at a cyclic rate, even within 1 to 3 %."""
    weapon = _rarely_supersonic(draw)
    gap_s = 60.0 / draw.uniform(*CYCLIC_RPM)
    rounds = 3 if draw.random() < 0.35 else int(draw.integers(3, 31))
    gaps = gap_s * (1 + draw.uniform(0.01, 0.03) * draw.standard_normal(rounds - 1))
    return weapon.fire(draw, series(draw, gaps) + _lead_s(weapon))


def several_shooters(draw: Draw) -> Sound:
    """Let two or three fire from places of their own, each at a cadence of his own."""
    first_m = distance(draw)
    heard = gun(draw, distance_m=first_m).fire(draw, series(draw, _human_gaps(draw)))
    for _ in range(int(draw.integers(1, 3))):
        other_m = float(np.clip(first_m * between(draw, 0.5, 2.0), 10.0, 1500.0))
        start_s = draw.uniform(0.02, 0.9)
        if draw.random() < 0.25:
            gaps = np.full(int(draw.integers(2, 12)), 60.0 / draw.uniform(*CYCLIC_RPM))
        else:
            gaps = _human_gaps(draw)
        times = series(draw, gaps, inner=0.0) + start_s
        heard += gun(draw, distance_m=other_m).fire(draw, times)
    return heard


def _human_gaps(draw: Draw) -> Sound:
    middle_s = between(draw, 0.15, 1.0)
    uneven = draw.uniform(0.08, 0.3)
    gaps = middle_s * np.exp(uneven * draw.standard_normal(int(draw.integers(1, 10))))
    return np.maximum(gaps, 0.12)


def _rarely_supersonic(draw: Draw) -> Gun:
    return supersonic_gun(draw) if draw.random() < 0.2 else gun(draw)


def _lead_s(weapon: Gun) -> float:
    return weapon.crack.lead_s if weapon.crack else 0.0


def _gun(
    draw: Draw,
    calibre: Calibre,
    distance_m: float,
    off_axis_deg: float,
    crack: Crack | None = None,
    air: Atmosphere | None = None,
) -> Gun:
    sound = MuzzleBlast(calibre=calibre).draw(draw)
    (_, drawn) = sound.pulses[0]
    if not isinstance(drawn, Blast):
        raise TypeError("a muzzle blast is one blast")
    # To the rear the blast is weaker (Maher & Shaw 2010), and taken to be longer: an assumption.
    behind = (1 - np.cos(np.deg2rad(off_axis_deg))) / 2
    stretch = (1 + draw.uniform(0.1, 0.5) * behind) * np.exp(0.15 * draw.standard_normal())
    phase_s = float(drawn.positive_phase_s * stretch)
    blast = Blast(drawn.peak_pa, phase_s)
    extras: list[tuple[float, Pulse]] = []
    for _ in range(int(draw.integers(0, 3))):
        # Gas from a cylinder gap, a brake's ports or a second shock of the plume.
        weaker = gain_of(draw.uniform(-20, -6))
        delay_s = draw.uniform(0.5, 4) * phase_s
        extras.append((delay_s, Blast(weaker * blast.peak_pa, phase_s * draw.uniform(0.4, 1.2))))
    return Gun(
        distance_m=distance_m,
        air=air or any_air(draw),
        blast=blast,
        gain=sound.directivity(off_axis_deg),
        crack=crack,
        extras=tuple(extras),
        jet_db=draw.uniform(-36, -16),
        jet_s=between(draw, 1e-3, 8e-3),
        scatter_db=draw.uniform(*_ROUND_DB),
    )
