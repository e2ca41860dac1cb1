"""Which bins rise out of the background on enough channels at once.

A bin fires on a channel when its level over 1 ms stands `threshold_db` above the slow floor and
`contrast_db` above the mean power of the 50 ms before it. The first keeps out the murmur of the
street; the second is the step kernel of ShotSpotter's Tech Note 098 (peers.md A.3) in decibels,
and keeps out what swells rather than bangs, and the reverberation of a shot that came before.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect.levels import BIN_S, Mask, Power

PAST_S: Final = 0.05
PAST_BINS: Final = round(PAST_S / BIN_S)
LEVEL_BINS: Final = 2


def spread_bins(crossing_s: float) -> int:
    """Give the half-width in bins within which channels count as one arrival.

    It is how long sound takes across the array.
    """
    return math.ceil(crossing_s / BIN_S)


def history_bins(spread: int) -> int:
    """Give how many bins before a bin can have a say in whether it fires."""
    return PAST_BINS + spread


def level_power(power: Power, live: Mask) -> tuple[Power, Mask]:
    """Give the mean power over each bin and the one after it, and whether both are alive.

    The last bin of the answer, which has none after it, stands alone.
    """
    level = power.copy()
    level[:-1] += power[1:]
    level[:-1] *= 0.5
    alive = live.copy()
    alive[:-1] &= live[1:]
    return level, alive


def past_power(power: Power, live: Mask, floor_power: npt.NDArray[np.float64]) -> Power:
    """Give the mean power of the `PAST_BINS` bins before each bin from number `PAST_BINS` on.

    `power` and `live` have shape [PAST_BINS + n, channels], the answer [n, channels]. A dead bin
    counts for what it holds, but never for less than the floor.
    """
    known = power if live.all() else np.where(live, power, np.maximum(power, floor_power))
    total = np.zeros((len(power) + 1, power.shape[1]))
    np.cumsum(known, axis=0, out=total[1:])
    mean = (total[PAST_BINS:-1] - total[: -PAST_BINS - 1]) / PAST_BINS
    return np.asarray(np.maximum(mean, 1e-30))


def coincident(margin: Power, live: Mask, spread: int) -> Power:
    """Give the margin that more than half of the living channels reach, shape [bins].

    A channel may reach it up to `spread` bins earlier or later.

    Of four channels three must agree, of three two, of two both; one speaks for itself. A dead
    channel has no vote. So one channel that is dead, stuck, humming or popping can neither blind
    nor trigger three others.
    """
    voted = np.where(live, margin, -np.inf)
    if margin.shape[1] == 1:
        return voted[:, 0]
    near = voted.copy()
    for shift in range(1, spread + 1):
        np.maximum(near[shift:], voted[:-shift], out=near[shift:])
        np.maximum(near[:-shift], voted[shift:], out=near[:-shift])
    need = live.sum(axis=1) // 2 + 1
    ordered = np.sort(near, axis=1)[:, ::-1]
    agreed = np.take_along_axis(ordered, np.minimum(need, margin.shape[1])[:, None] - 1, axis=1)
    return np.where(live.any(axis=1), agreed[:, 0], -np.inf)
