"""Where else it may have been: what few nodes leave open, which the peak's own width does not tell.

With three times, any three fit somewhere; if one of them was an echo, it was elsewhere. In comes a
source; out goes the covariance of its place with all other places in it, by their probability on a
grid. With more nodes than that, or with bearings, they check one another.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from node.network.arrivals import FloatArray
from node.network.likelihood import Hypotheses, Likelihood
from node.network.medium import Medium
from node.network.sources import DIRECT, Source

FEW: Final = 4
"""So many nodes or fewer do not check one another enough."""

_HALF_M: Final = 700.0
_STEP_M: Final = 20.0
# Wide enough that no peak falls between the grid's points.
_SPREAD_S: Final = 0.035
_ELSEWHERE_M: Final = 45.0
_MOST_ARRIVALS: Final = 12


def covariance(source: Source, medium: Medium) -> FloatArray:
    """Give the covariance of a place that few nodes tell, shape [2, 2], m².

    That of the peak, and the second moment about it of all other places, by their probability.
    """
    pool = source.stacked
    peak = source.covariance[:2, :2]
    used = np.unique(pool.node[source.stacked_direct > DIRECT])
    if len(used) > FEW or np.isfinite(pool.azimuth_rad[np.isin(pool.node, used)]).any():
        return peak
    pool = pool.only(np.argsort(pool.clutter_per_s)[:_MOST_ARRIVALS])
    pool = pool.only(np.lexsort((pool.time_s, pool.node)))
    steps = np.arange(-_HALF_M, _HALF_M + 1, _STEP_M)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    likelihood = Likelihood(pool, medium)
    h = likelihood.start(source.place_m + grid, np.zeros(len(grid)), _SPREAD_S)
    late = likelihood.weigh(h).late_s  # when each would have been fired, if it is direct sound
    by_arrival = [likelihood.scores(_at(h, late[:, arrival])) for arrival in range(len(pool))]
    log = np.logaddexp.reduce(np.array(by_arrival), axis=0)
    share = np.exp(log - log.max())
    share /= share.sum()
    share[np.hypot(*grid.T) < _ELSEWHERE_M] = 0.0
    return np.asarray(peak + (grid * share[:, None]).T @ grid)


def _at(h: Hypotheses, fired_s: FloatArray) -> Hypotheses:
    state = h.state.copy()
    state[:, -1] = fired_s
    return Hypotheses(state, h.path_s)
