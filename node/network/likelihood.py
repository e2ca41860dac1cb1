"""How well a place, an air and a moment of firing explain what came to the nodes.

In come a pool of arrivals and a batch of hypotheses; out go their log-likelihoods, which arrivals
each takes for direct sound, and better hypotheses. The model (after signal.md §4): sound of a shot
fired at s and t reaches node i at t + |s - p_i| / (c + v·u_i). What a node then reports is, with
its own standard error, that direct sound, later by some path (over a roof, round a corner) whose
spread is part of the hypothesis; or, in a share of cases, an echo alone, later by an exponential
time, from anywhere; or nothing. Beside it come arrivals that have nothing to do with the shot, at
`clutter_per_s`. Each node's share is the ratio of that to clutter alone, so that nodes, heard or
silent, add up to the evidence for the shot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from node.network.arrivals import BoolArray, FloatArray, IntArray, Pool
from node.network.compiled import compiled
from node.network.kernel import Given, descend, peak, scores, weigh
from node.network.medium import Medium

# What mounting and turbulence add to an array's own error of bearing (signal.md §4: 2°, 1°).
_BEARING_EXTRA_RAD: Final = math.radians(2.2)
# A later shot of an event has the first one's bearing, unless another gun fired it.
_OTHER_GUN: Final = 0.3

# How far the ground under a source is from what the nodes' heights tell of it.
_HEIGHT_SIGMA_M: Final = 20.0

# A shot may be anywhere round the nodes that hear it, at any moment of a few seconds.
_ROUND_NODES_M: Final = 600.0
_WITHIN_S: Final = 5.0

LONGEST_STEP_M: Final = 150.0
"""No step of a descent is longer."""

_TWO_PI: Final = 2 * np.pi

X, Y, Z, C, WIND_EAST, WIND_NORTH, FIRED = range(7)
PARAMETERS: Final = 7


@dataclass
class Hypotheses:
    """A batch of shots.

    Attributes
    ----------
    state
        East, north, up (m), speed of sound, wind to the east and north (m/s), and when it was fired
        (s); shape [s, 7].
    path_s
        Spread of the paths' lateness, shape [s].
    """

    state: FloatArray
    path_s: FloatArray

    def take(self, which: IntArray) -> Hypotheses:
        """Give some of them."""
        return Hypotheses(self.state[which], self.path_s[which])

    def along(self, paths_s: tuple[float, ...]) -> Hypotheses:
        """Give each with each of some spreads; those of one stand together."""
        which = np.repeat(np.arange(len(self.state)), len(paths_s))
        return Hypotheses(self.state[which], np.tile(paths_s, len(self.state)))


@dataclass(frozen=True)
class Weighed:
    """What became of a batch.

    Attributes
    ----------
    log_likelihood
        Against clutter alone, the priors of state included, shape [s].
    direct
        Probability that an arrival is the shot's direct sound, shape [s, m].
    late_s
        Each arrival less what is predicted, shape [s, m].
    """

    log_likelihood: FloatArray
    direct: FloatArray
    late_s: FloatArray


@dataclass(frozen=True)
class Peak(Weighed):
    """What became of a batch that was settled.

    Attributes
    ----------
    covariance
        Of each state, shape [s, 7, 7].
    evidence
        Log of the odds against clutter, shape [s].
    """

    covariance: FloatArray
    evidence: FloatArray


class Likelihood:
    """The likelihood of one pool.

    Attributes
    ----------
    given
        What all hypotheses share, as the kernel wants it.
    one_each
        Whether no node has two arrivals.
    """

    def __init__(self, pool: Pool, medium: Medium) -> None:
        self.pool = pool
        self.medium = medium
        known, self._log_prior_peak = _prior(medium)
        arrivals, starts, heard_m, silent_m = _columns(
            pool.place_m,
            pool.place_sigma_m,
            pool.node,
            pool.time_s,
            pool.sigma_s,
            pool.azimuth_rad,
            pool.azimuth_sigma_rad,
            pool.first,
            pool.clutter_per_s,
            pool.late_share,
            medium.speed_m_s,
        )
        east_m, north_m, self._height_m = heard_m.sum(axis=0) / max(len(heard_m), 1)
        mean = np.array([east_m, north_m, 0.0, medium.speed_m_s, *medium.wind_m_s, 0.0])
        told_s = np.array(pool.told_s)
        self.one_each = len(heard_m) == len(pool)
        self.given: Given = (known, mean, arrivals, starts, heard_m, silent_m, told_s)

    def start(self, places_m: FloatArray, fired_s: FloatArray, path_s: float) -> Hypotheses:
        """Make hypotheses at places on the plane, shape [s, 2], fired at [s]."""
        state = np.empty((len(places_m), PARAMETERS))
        state[:, :2] = places_m
        state[:, Z] = self._height_m
        state[:, C] = self.medium.speed_m_s
        state[:, WIND_EAST:FIRED] = self.medium.wind_m_s
        state[:, FIRED] = fired_s
        return Hypotheses(state, np.full(len(places_m), path_s))

    def weigh(self, h: Hypotheses) -> Weighed:
        """Say how well each hypothesis explains the pool."""
        return Weighed(*weigh(h.state, h.path_s, self.given))

    def scores(self, h: Hypotheses) -> FloatArray:
        """Give what `weigh` gives of log-likelihoods, alone."""
        return scores(h.state, h.path_s, self.given)

    def settle(self, h: Hypotheses, steps: int) -> Hypotheses:
        """Take Gauss-Newton steps of expectation-maximisation from each hypothesis."""
        return Hypotheses(descend(h.state, h.path_s, self.given, steps, LONGEST_STEP_M), h.path_s)

    def peak(self, h: Hypotheses) -> Peak:
        """Weigh hypotheses that are settled, each by the width of its peak, too (Laplace)."""
        likelihood, direct, late_s, covariance, log_det = peak(h.state, h.path_s, self.given)
        width = 0.5 * (PARAMETERS * np.log(_TWO_PI) - log_det)
        return Peak(
            likelihood, direct, late_s, covariance, likelihood + width + self._log_prior_peak
        )


@lru_cache(maxsize=64)
def _prior(medium: Medium) -> tuple[FloatArray, float]:
    """Give what is known of a state beforehand: the information, and the log of its peak."""
    sigma = (medium.speed_sigma_m_s, medium.wind_sigma_m_s, medium.wind_sigma_m_s)
    # The rest has the flat prior of the evidence; a trace keeps what no node sees from flying.
    known = np.array([_ROUND_NODES_M**-2] * 2 + [_HEIGHT_SIGMA_M**-2, *(s**-2 for s in sigma)])
    log_peak = 0.5 * float(np.log(known / _TWO_PI).sum()) - math.log(_WITHIN_S)
    return np.append(known, 1e-6), log_peak


@compiled
def _columns(
    place_m: FloatArray,
    place_sigma_m: FloatArray,
    node: IntArray,
    time_s: FloatArray,
    sigma_s: FloatArray,
    azimuth_rad: FloatArray,
    azimuth_sigma_rad: FloatArray,
    first: BoolArray,
    clutter_per_s: FloatArray,
    late_share: FloatArray,
    c: float,
) -> tuple[FloatArray, IntArray, FloatArray, FloatArray]:
    """Give arrivals, where each node's begin, and nodes that heard and that did not: `Given`."""
    count = len(time_s)
    columns = np.empty((count, 12))
    starts = np.empty(count + 1, np.int64)
    heard = np.zeros(len(place_m), np.bool_)
    nodes = 0
    for m in range(count):
        n = node[m]
        if m == 0 or n != node[m - 1]:
            starts[nodes] = m
            nodes += 1
            heard[n] = True
        place_s2 = place_sigma_m[n] ** 2
        columns[m, :3] = place_m[n]
        columns[m, 3] = sigma_s[m] ** 2 + place_s2 / (c * c)
        columns[m, 4] = time_s[m]
        has_bearing = np.isfinite(azimuth_rad[m])
        columns[m, 5] = azimuth_rad[m] if has_bearing else 0.0
        spread2 = azimuth_sigma_rad[m] ** 2 + _BEARING_EXTRA_RAD**2
        columns[m, 6] = spread2 if has_bearing else 0.0
        columns[m, 7] = 0.0 if first[m] else _OTHER_GUN
        columns[m, 8] = 1.0 if first[m] else 0.0
        columns[m, 9] = clutter_per_s[m]
        columns[m, 10] = late_share[m]
        columns[m, 11] = place_s2
    starts[nodes] = count
    return columns, starts[: nodes + 1].copy(), place_m[heard], place_m[~heard]
