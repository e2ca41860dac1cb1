"""How well a place, an air and a moment of firing explain what came to the nodes.

In come a pool of arrivals and a batch of hypotheses; out go their log-likelihoods, which arrivals
each takes for direct sound, and a Gauss-Newton step towards a better one. The model (after
signal.md §4): sound of a shot fired at s and t reaches node i at t + |s - p_i| / (c + v·u_i). What
a node then reports is, with its own standard error, that direct sound, later by some path (over a
roof, round a corner) whose spread is part of the hypothesis; or, in a share of cases, an echo alone, later by an exponential time, from anywhere; or nothing. Beside it come arrivals that have
nothing to do with the shot, at `clutter_per_s`. Each node's share is the ratio of that to clutter
alone, so that nodes, heard or silent, add up to the evidence for the shot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from node.network.arrivals import FloatArray, IntArray, Pool
from node.network.medium import Medium

LATE_S: Final = 0.12
"""Mean lateness of a lone echo beyond the least one, seconds (signal.md §4)."""
DETOUR_S: Final = 0.02
"""An echo is later by a wall's distance: what is later by less went round a corner, and its node is
believed."""

# What mounting and turbulence add to an array's own error of bearing (signal.md §4: 2°, 1°).
_BEARING_EXTRA_RAD: Final = np.radians(2.2)
# A later shot of an event has the first one's bearing, unless another gun fired it.
_OTHER_GUN: Final = 0.3

# A pistol is heard at 1366 m and may be masked at 300 m (the live-fire set): silence says little.
_HEARD: Final = 0.8
_REACH_M: Final = 900.0

# Sources are below the roofs where nodes stand, on ground that the nodes' heights tell of.
_BELOW_M: Final = 8.0
_HEIGHT_SIGMA_M: Final = 20.0
_NEAR_M: Final = 50.0

# A shot may be anywhere round the nodes that hear it, at any moment of a few seconds.
_ROUND_NODES_M: Final = 600.0
_WITHIN_S: Final = 5.0

_NEAREST_M: Final = 1.0
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
        self._place_m = pool.place_m[pool.node]
        heard, self._starts = np.unique(pool.node, return_index=True)
        self._of_heard = np.searchsorted(heard, pool.node)
        self._silent_m = np.delete(pool.place_m, heard, axis=0)
        self._place_sigma_m = pool.place_sigma_m[pool.node]
        self._own_s2 = pool.sigma_s**2 + (self._place_sigma_m / medium.speed_m_s) ** 2
        self._has_bearing = np.isfinite(pool.azimuth_rad)
        self._any_bearing = bool(self._has_bearing.any())
        self._azimuth = np.where(self._has_bearing, pool.azimuth_rad, 0.0)
        spread = np.hypot(pool.azimuth_sigma_rad, _BEARING_EXTRA_RAD)
        self._bearing_s2 = np.where(self._has_bearing, spread, 1.0) ** 2
        self._other_gun = np.where(pool.first, 0.0, _OTHER_GUN)
        sigma = (medium.speed_sigma_m_s, medium.wind_sigma_m_s, medium.wind_sigma_m_s)
        known = np.array([_ROUND_NODES_M**-2] * 2 + [_HEIGHT_SIGMA_M**-2, *(s**-2 for s in sigma)])
        self._prior = np.append(known, 1e-6)
        self._log_prior_peak = 0.5 * float(np.log(known / _TWO_PI).sum()) - np.log(_WITHIN_S)
        self._heard_m = pool.place_m[heard]
        self._middle_m = self._heard_m[:, :2].mean(0)

    def start(self, places_m: FloatArray, fired_s: FloatArray, path_s: float) -> Hypotheses:
        """Make hypotheses at places on the plane, shape [s, 2], fired at [s]."""
        state = np.empty((len(places_m), PARAMETERS))
        state[:, :2] = places_m
        state[:, Z] = self._height_m(places_m)
        state[:, C] = self.medium.speed_m_s
        state[:, WIND_EAST:FIRED] = self.medium.wind_m_s
        state[:, FIRED] = fired_s
        return Hypotheses(state, np.full(len(places_m), path_s))

    def weigh(self, h: Hypotheses) -> Weighed:
        """Say how well each hypothesis explains the pool."""
        return self._weigh(h)[0]

    def step(self, h: Hypotheses) -> tuple[Weighed, Hypotheses, FloatArray]:
        """Take a Gauss-Newton step of expectation-maximisation, in place of each hypothesis.

        Returns
        -------
        tuple
            How the hypotheses were weighed before it; the new ones; and the information on their
            states, shape [s, 7, 7].
        """
        weighed, r, u, speed, variance, bearing = self._weigh(h)
        slow = r / speed**2
        jacobian = np.empty((*r.shape, PARAMETERS))
        jacobian[..., :3] = u / speed[..., None]
        jacobian[..., C] = -slow
        jacobian[..., WIND_EAST] = slow * u[..., 0]
        jacobian[..., WIND_NORTH] = slow * u[..., 1]
        jacobian[..., FIRED] = 1.0
        weighted = jacobian * (weighed.direct / variance)[..., None]
        information = np.swapaxes(jacobian, 1, 2) @ weighted
        gradient = (weighted * weighed.late_s[..., None]).sum(1)
        if bearing is not None:
            off, weight = bearing
            flat = np.maximum((u[..., 0] ** 2 + u[..., 1] ** 2) * r, 1e-3)
            across = np.stack([u[..., 1], -u[..., 0]], -1) / flat[..., None]
            weighted = across * weight[..., None]
            information[:, :2, :2] += np.swapaxes(across, 1, 2) @ weighted
            gradient[:, :2] += (weighted * off[..., None]).sum(1)
        diagonal = np.arange(PARAMETERS)
        information[:, diagonal, diagonal] += self._prior
        gradient[:, :FIRED] -= self._prior[:FIRED] * self._departure(h.state)
        move = np.linalg.solve(information, gradient[..., None])[..., 0]
        far = np.hypot(move[:, 0], move[:, 1])
        move *= np.minimum(1.0, _LONGEST_STEP_M / np.maximum(far, 1e-9))[:, None]
        return weighed, Hypotheses(h.state + move, h.path_s), information

    def evidence(self, weighed: Weighed, information: FloatArray) -> FloatArray:
        """Weigh peaks by their width (Laplace): log of the odds against clutter, shape [s]."""
        width = 0.5 * (PARAMETERS * np.log(_TWO_PI) - np.linalg.slogdet(information)[1])
        return np.asarray(weighed.log_likelihood + width + self._log_prior_peak)

    def _height_m(self, places_m: FloatArray) -> FloatArray:
        """Guess the height of sources at places, shape [s, 2], by the nodes that heard them."""
        away = places_m[:, None, :] - self._heard_m[:, :2]
        weight = 1 / (away[..., 0] ** 2 + away[..., 1] ** 2 + _NEAR_M**2)
        return np.asarray((weight @ self._heard_m[:, 2]) / weight.sum(1) - _BELOW_M)

    def _departure(self, state: FloatArray) -> FloatArray:
        """Give how far all but the moment is from what was thought of it, shape [s, 6]."""
        away = state[:, :FIRED].copy()
        away[:, :2] -= self._middle_m
        away[:, Z] -= self._height_m(state[:, :2])
        away[:, C] -= self.medium.speed_m_s
        away[:, WIND_EAST:] -= self.medium.wind_m_s
        return away

    def _weigh(
        self, h: Hypotheses
    ) -> tuple[
        Weighed,
        FloatArray,
        FloatArray,
        FloatArray,
        FloatArray,
        tuple[FloatArray, FloatArray] | None,
    ]:
        r, u = _from_node(h.state, self._place_m)
        speed = h.state[:, C, None] - (
            u[..., 0] * h.state[:, WIND_EAST, None] + u[..., 1] * h.state[:, WIND_NORTH, None]
        )
        late = self.pool.time_s - h.state[:, FIRED, None] - r / speed
        variance = self._own_s2 + (h.path_s**2)[:, None]
        direct = np.exp(-0.5 * late**2 / variance) / np.sqrt(_TWO_PI * variance)
        direct *= 1 - self.pool.late_share
        detour = late - DETOUR_S
        echo = np.where(detour > 0, np.exp(-np.maximum(detour, 0) / LATE_S), 0.0)
        echo *= self.pool.late_share / LATE_S
        bearing = None
        if self._any_bearing:
            towards = np.arctan2(u[..., 0], u[..., 1])
            off = (self._azimuth - towards + np.pi) % _TWO_PI - np.pi
            spread = self._bearing_s2 + (self._place_sigma_m / r) ** 2
            own = np.exp(-0.5 * off**2 / spread) * np.sqrt(_TWO_PI / spread)
            own = self._other_gun + (1 - self._other_gun) * own
            direct *= np.where(self._has_bearing, own, 1.0)
        reach = _HEARD * np.exp(-((r / _REACH_M) ** 2))
        share = reach / self.pool.clutter_per_s
        direct *= share
        of_node = np.add.reduceat(direct + echo * share, self._starts, axis=1)
        of_node += 1 - reach[:, self._starts]
        likelihood = np.log(of_node).sum(1)
        direct /= of_node[:, self._of_heard]
        if len(self._silent_m):
            away, _ = _from_node(h.state, self._silent_m)
            likelihood += np.log1p(-_HEARD * np.exp(-((away / _REACH_M) ** 2))).sum(1)
        likelihood -= 0.5 * (self._departure(h.state) ** 2 * self._prior[:FIRED]).sum(1)
        if self._any_bearing:
            weight = np.where(self._has_bearing & self.pool.first, direct, 0.0)
            bearing = (off, weight / spread)
        return Weighed(likelihood, direct, late), r, u, speed, variance, bearing


def _from_node(state: FloatArray, place_m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Give distances [s, m] and directions [s, m, 3] from places to sources."""
    away = state[:, None, :3] - place_m[None]
    distance = np.maximum(np.sqrt(np.einsum("...i,...i->...", away, away)), _NEAREST_M)
    return distance, away / distance[..., None]
