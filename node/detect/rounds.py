"""Which impulses of an event are shots, and which are echoes of them.

Between direction and classification: in come the impulses of an event, with their directions where
there are any, and the sound round them; out go the indices of the shots. Pure.

Two things tell a second shot from an echo of the first. One is where it comes from: an echo cannot
lead, so the first arrival's bearing is a gun's, and what comes from there at its level is a shot
(`by_bearing`, signal.md §6). The other needs but one microphone: a second shot from the same place
repeats the whole response of the street to the first, echoes and all, where an echo is followed by
something else (`by_response`). Groups of impulses that resemble each other, sound after them
included, are as large as the shots are many; of equal groups the earliest is the shots themselves,
the later ones are their echoes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect.response import likeness
from node.types import Impulse, Rounds

Float64Array = npt.NDArray[np.float64]

# Sound wanted before an event's first onset and after its last.
LEAD_S: Final = 0.02
TAIL_S: Final = 0.20

# Two impulses are the same response if they resemble each other as much; on recorded shots true
# repeats reach 0.9 in the median, echoes 0.25 (FP1, FP3, FP5 of the live-fire set).
ALIKE: Final = 0.55
PERHAPS_ALIKE: Final = 0.40
# The levels of one gun at one place agree within so much (signal.md §6: 1 to 2 dB, 4 by bearing).
SAME_LEVEL_DB: Final = 4.0
# With a second proof they may differ by more: a shooter who turns is 10 dB weaker to his rear.
TURNED_DB: Final = 8.0
# No gun in a hand fires twice within so long: 1 500 rounds a minute.
FASTEST_S: Final = 0.04

# A trigger tells the peak of so much after an onset; before an onset lies its rise.
PEAK_S: Final = 0.025
OWN_BEFORE_S: Final = 0.0005

# Bearings within so much, or three sigma, are one.
SAME_BEARING_DEG: Final = 15.0
# The whole of it must be located before bearings are believed.
MOSTLY: Final = 0.6
# A second gun: so many arrivals from elsewhere, about as loud, of which no single delay after the
# first gun's shots explains more than this share.
SECOND_GUN: Final = 2
SECOND_GUN_DB: Final = 3.0
# Weaker by up to this it may still be one: then the count is a minimum.
PERHAPS_A_GUN_DB: Final = 10.0
EXPLAINED: Final = 0.6
SAME_LAG_S: Final = 0.002
ECHO_S: Final = (0.015, 0.8)

# A cadence is told if the middle half of the intervals spreads less than this, relative.
STEADY: Final = 0.25


def count_rounds(
    impulses: Sequence[Impulse],
    sound: npt.NDArray[np.float32],
    first_sample: int,
    sample_rate_hz: int,
) -> Rounds:
    """Tell shots from their echoes.

    Parameters
    ----------
    impulses
        Of one event, in order of onset; at least one.
    sound
        The microphones' sound, shape [n, channels], full scale at 1, from `LEAD_S` before the
        first onset to `TAIL_S` after the last.
    first_sample
        Index of `sound[0]` on the sample counter.
    sample_rate_hz
        Rate of both.
    """
    if len(impulses) == 1:
        return Rounds((0,), is_minimum=False)
    onset_s = np.array([i.onset_sample - first_sample for i in impulses]) / sample_rate_hz
    level_db = np.array([impulse.snr_db for impulse in impulses])
    level_db += _louder_next_db(sound, onset_s, sample_rate_hz)
    alike = likeness(sound, onset_s, level_db, sample_rate_hz)
    located = [impulse.direction is not None for impulse in impulses]
    if located[0] and np.mean(located) >= MOSTLY:
        azimuth_deg = np.array(
            [np.nan if i.direction is None else i.direction.azimuth_deg for i in impulses]
        )
        sigma_deg = np.array(
            [np.nan if i.direction is None else i.direction.sigma_deg for i in impulses]
        )
        shots, is_minimum = by_bearing(onset_s, level_db, azimuth_deg, sigma_deg, alike)
    else:
        shots, is_minimum = by_response(onset_s, level_db, alike)
    return rounds_of(impulses, shots, is_minimum, sample_rate_hz)


def rounds_of(
    impulses: Sequence[Impulse], shots: Sequence[int], is_minimum: bool, sample_rate_hz: int
) -> Rounds:
    """Name shots among impulses, with the cadence of just these."""
    at_s = np.array([impulses[i].onset_sample for i in shots]) / sample_rate_hz
    return Rounds(tuple(shots), is_minimum, cadence_rpm(at_s))


def by_response(
    onset_s: Float64Array, level_db: Float64Array, alike: Float64Array
) -> tuple[list[int], bool]:
    """Tell shots by what follows them.

    Parameters
    ----------
    onset_s, level_db
        Shape [impulses].
    alike
        How much the responses resemble each other, shape [impulses, impulses]; NaN where that
        cannot be told.

    Returns
    -------
    tuple of list of int and bool
        The shots, and whether there may have been more.
    """
    shots = [0]
    for first in range(len(onset_s)):
        group = [first]
        for i in range(first + 1, len(onset_s)):
            repeats = alike[first, i] >= ALIKE
            level = abs(level_db[i] - level_db[first]) <= TURNED_DB
            if not (repeats and level):
                continue
            if onset_s[i] - onset_s[group[-1]] >= FASTEST_S:
                group.append(i)
            elif len(group) > 1 and level_db[i] > level_db[group[-1]]:
                group[-1] = i  # the one before was an echo that came just before the shot
        if len(group) > len(shots):
            shots = group
    rest = [i for i in range(len(onset_s)) if i not in shots]
    # What resembles a shot somewhat may be one in another's reverberation.
    unsure = any(
        np.nanmax(alike[i, shots]) >= PERHAPS_ALIKE and onset_s[i] > onset_s[shots[0]] + FASTEST_S
        for i in rest
        if np.isfinite(alike[i, shots]).any()
    )
    return shots, unsure


def by_bearing(
    onset_s: Float64Array,
    level_db: Float64Array,
    azimuth_deg: Float64Array,
    sigma_deg: Float64Array,
    alike: Float64Array,
) -> tuple[list[int], bool]:
    """Tell shots by where they come from, at which level; all of shape [impulses].

    An azimuth that is not known is NaN; the first must be known. Returns as `by_response`.
    """
    direct = _same_bearing(azimuth_deg, sigma_deg, 0) | (
        np.isnan(azimuth_deg) & (np.nan_to_num(alike[0]) >= ALIKE)
    )
    usual_db = _usual_db(level_db[direct])
    below_db = usual_db - level_db
    shots = direct & (below_db <= SAME_LEVEL_DB)
    # Weaker ones from there: a shooter who turns, or a wall behind him. The response tells.
    proven = (np.nan_to_num(alike[:, shots]).max(axis=1, initial=0.0) >= ALIKE) & direct
    shots |= proven & (below_db <= TURNED_DB)
    shots[0] = True
    more, perhaps = np.zeros_like(shots), False
    left = ~direct & ~np.isnan(azimuth_deg)
    for i in np.flatnonzero(left)[np.argsort(-level_db[left], kind="stable")].tolist():
        if not left[i]:
            continue
        cluster = left & _same_bearing(azimuth_deg, sigma_deg, i)
        left &= ~cluster
        if cluster.sum() < SECOND_GUN:
            # A lone one that is as loud as the gun: another gun, or a wall that is as near.
            perhaps |= bool(usual_db - level_db[i] <= SECOND_GUN_DB)
            continue
        loud = cluster & (level_db > _usual_db(level_db[cluster]) - SAME_LEVEL_DB)
        weaker_db = usual_db - float(np.median(level_db[loud]))
        if weaker_db > PERHAPS_A_GUN_DB or _explained(onset_s[loud], onset_s[shots]) >= EXPLAINED:
            continue
        perhaps = True
        if weaker_db <= SECOND_GUN_DB:
            more |= loud
    chosen = _apart(onset_s, level_db, shots | more)
    strong_unknown = np.isnan(azimuth_deg) & (below_db <= SAME_LEVEL_DB) & ~shots
    return chosen, perhaps or bool(strong_unknown.any())


def cadence_rpm(shot_s: Float64Array) -> float | None:
    """Give rounds a minute by the median interval; None below three shots or if it wanders."""
    if len(shot_s) < 3:
        return None
    gaps_s = np.diff(shot_s)
    middle_s = float(np.median(gaps_s))
    spread_s = float(np.subtract(*np.percentile(gaps_s, [75, 25])))
    return 60 / middle_s if spread_s <= STEADY * middle_s else None


def same_bearing(one: Impulse, other: Impulse) -> bool:
    """Whether two impulses may come from one place: they do unless their bearings say not."""
    if one.direction is None or other.direction is None:
        return True
    azimuth_deg = np.array([one.direction.azimuth_deg, other.direction.azimuth_deg])
    sigma_deg = np.array([one.direction.sigma_deg, other.direction.sigma_deg])
    return bool(_same_bearing(azimuth_deg, sigma_deg, 0)[1])


def _louder_next_db(
    sound: npt.NDArray[np.float32], onset_s: Float64Array, sample_rate_hz: int
) -> Float64Array:
    """Give by how much an impulse's level is that of one that came just after it, in dB, negative.

    A trigger tells the peak of what follows for some time: of an echo just before a shot, the
    shot's.
    """
    off_db = np.zeros(len(onset_s))
    for i in np.flatnonzero(np.diff(onset_s) < PEAK_S).tolist():
        first = int((onset_s[i] - OWN_BEFORE_S) * sample_rate_hz)
        own = int((onset_s[i + 1] - OWN_BEFORE_S) * sample_rate_hz)
        last = int((onset_s[i] + PEAK_S) * sample_rate_hz)
        if not 0 <= first < own < last <= len(sound):
            continue
        x = np.abs(sound[first:last] - sound[first:last].mean(axis=0))
        peak, own_peak = float(x.max()), float(x[: own - first].max())
        if 0 < own_peak < peak:
            off_db[i] = 20 * math.log10(own_peak / peak)
    return off_db


def _same_bearing(
    azimuth_deg: Float64Array, sigma_deg: Float64Array, i: int
) -> npt.NDArray[np.bool_]:
    apart_deg = np.abs((azimuth_deg - azimuth_deg[i] + 180) % 360 - 180)
    return np.asarray(
        apart_deg <= np.maximum(SAME_BEARING_DEG, 3 * np.hypot(sigma_deg, sigma_deg[i]))
    )


def _usual_db(level_db: Float64Array) -> float:
    """Give the middle of the upper levels: of the shots, not of the echoes among them."""
    return float(np.median(level_db[level_db > level_db.max() - SAME_LEVEL_DB - 1.0]))


def _explained(late_s: Float64Array, shot_s: Float64Array) -> float:
    """Give the share of arrivals that one delay after the shots explains best."""
    lag_s = late_s[:, None] - shot_s[None]
    inside = lag_s[(lag_s > ECHO_S[0]) & (lag_s < ECHO_S[1])]
    shares = [float((np.abs(lag_s - lag) < SAME_LAG_S).any(axis=1).mean()) for lag in inside]
    return max(shares, default=0.0)


def _apart(
    onset_s: Float64Array, level_db: Float64Array, shots: npt.NDArray[np.bool_]
) -> list[int]:
    """Of shots closer than any gun fires, keep the louder."""
    kept: list[int] = []
    for i in np.flatnonzero(shots).tolist():
        if kept and onset_s[i] - onset_s[kept[-1]] < FASTEST_S:
            if level_db[i] > level_db[kept[-1]] and kept[-1] != 0:
                kept[-1] = i
        else:
            kept.append(i)
    return kept
