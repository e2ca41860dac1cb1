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

from dataclasses import dataclass
from typing import Final

import numpy as np

from node.network.arrivals import FloatArray, IntArray, Pool
from node.network.kernel import descend, evaluate
from node.network.medium import Medium

# What mounting and turbulence add to an array's own error of bearing (signal.md §4: 2°, 1°).
_BEARING_EXTRA_RAD: Final = np.radians(2.2)
# A later shot of an event has the first one's bearing, unless another gun fired it.
_OTHER_GUN: Final = 0.3

# How far the ground under a source is from what the nodes' heights tell of it.
_HEIGHT_SIGMA_M: Final = 20.0

# A shot may be anywhere round the nodes that hear it, at any moment of a few seconds.
_ROUND_NODES_M: Final = 600.0
_WITHIN_S: Final = 5.0

_LONGEST_STEP_M: Final = 150.0
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


class Likelihood:
    """The likelihood of one pool."""

    def __init__(self, pool: Pool, medium: Medium) -> None:
        self.pool = pool
        self.medium = medium
        starts = np.flatnonzero(np.diff(pool.node, prepend=-1))
        heard = pool.node[starts]
        silent = np.ones(len(pool.place_m), np.bool_)
        silent[heard] = False
        heard_m = pool.place_m[heard]
        sigma = (medium.speed_sigma_m_s, medium.wind_sigma_m_s, medium.wind_sigma_m_s)
        # The rest has the flat prior of the evidence; a trace keeps what no node sees from flying.
        known = np.array([_ROUND_NODES_M**-2] * 2 + [_HEIGHT_SIGMA_M**-2, *(s**-2 for s in sigma)])
        middle = heard_m.mean(0) if len(heard) else np.zeros(3)
        self._height_m = float(middle[2])
        self._given = (
            np.append(known, 1e-6),
            np.array([*middle[:2], 0.0, medium.speed_m_s, *medium.wind_m_s, 0.0]),
            _columns(pool, medium),
            np.append(starts, len(pool)),
            heard_m,
            pool.place_m[silent],
        )
        self._log_prior_peak = 0.5 * float(np.log(known / _TWO_PI).sum()) - np.log(_WITHIN_S)

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
        likelihood, direct, late_s, _, _ = evaluate(h.state, h.path_s, *self._given, False)
        return Weighed(likelihood, direct, late_s)

    def settle(self, h: Hypotheses, steps: int) -> Hypotheses:
        """Take Gauss-Newton steps of expectation-maximisation from each hypothesis."""
        state = descend(h.state, h.path_s, *self._given, steps, _LONGEST_STEP_M)
        return Hypotheses(state, h.path_s)

    def peak(self, h: Hypotheses) -> tuple[Weighed, FloatArray]:
        """Weigh hypotheses, and give the information on their states, shape [s, 7, 7]."""
        likelihood, direct, late_s, information, _ = evaluate(h.state, h.path_s, *self._given, True)
        return Weighed(likelihood, direct, late_s), information

    def evidence(self, weighed: Weighed, information: FloatArray) -> FloatArray:
        """Weigh peaks by their width (Laplace): log of the odds against clutter, shape [s]."""
        width = 0.5 * (PARAMETERS * np.log(_TWO_PI) - np.linalg.slogdet(information)[1])
        return np.asarray(weighed.log_likelihood + width + self._log_prior_peak)


def _columns(pool: Pool, medium: Medium) -> FloatArray:
    """Give the arrivals as `evaluate` wants them."""
    columns = np.empty((len(pool), 12))
    place_s2 = pool.place_sigma_m[pool.node] ** 2
    has_bearing = np.isfinite(pool.azimuth_rad)
    spread2 = pool.azimuth_sigma_rad**2 + _BEARING_EXTRA_RAD**2
    columns[:, :3] = pool.place_m[pool.node]
    columns[:, 3] = pool.sigma_s**2 + place_s2 / medium.speed_m_s**2
    columns[:, 4] = pool.time_s
    columns[:, 5] = np.where(has_bearing, pool.azimuth_rad, 0.0)
    columns[:, 6] = np.where(has_bearing, spread2, 0.0)
    columns[:, 7] = np.where(pool.first, 0.0, _OTHER_GUN)
    columns[:, 8] = pool.first
    columns[:, 9] = pool.clutter_per_s
    columns[:, 10] = pool.late_share
    columns[:, 11] = place_s2
    return columns
