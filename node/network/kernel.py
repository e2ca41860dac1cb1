"""The arithmetic of the likelihood, compiled: every hypothesis against every arrival.

What it computes, and why, is told by node/network/likelihood.py. In numpy nearly all of the cost
was that of the calls; see docs/decisions/0030-locating.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, cast

import numpy as np
from numba import njit

from node.network.arrivals import FloatArray, IntArray

# An echo alone is later by a wall's distance at the least, and by an exponential time beyond.
LATE_S: Final = 0.12
"""Mean lateness of a lone echo beyond the least one, seconds (signal.md §4)."""
DETOUR_S: Final = 0.02
"""An echo is later by a wall's distance: what is later by less went round a corner, and its node is
believed."""

# A pistol is heard at 1366 m and may be masked at 300 m (the live-fire set): silence says little.
_HEARD: Final = 0.8
_REACH_M: Final = 900.0

# Sources are below the roofs where nodes stand, on ground that the nodes' heights tell of.
_BELOW_M: Final = 8.0
_NEAR_M: Final = 50.0

_NEAREST_M: Final = 1.0
_TWO_PI: Final = 2 * np.pi
_SIZE: Final = 7


_Function = TypeVar("_Function", bound=Callable[..., object])


def _compiled(function: _Function) -> _Function:
    """Compile at the first call, and keep that beside this file or in the user's cache."""
    try:
        return cast("_Function", njit(cache=True)(function))
    except RuntimeError:  # neither can be written: it is compiled in every process
        return cast("_Function", njit(function))


@_compiled
def evaluate(
    state: FloatArray,
    path_s: FloatArray,
    prior: FloatArray,
    mean: FloatArray,
    arrivals: FloatArray,
    starts: IntArray,
    heard_m: FloatArray,
    silent_m: FloatArray,
    derive: bool,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Weigh hypotheses; where asked to, with the information and gradient at each.

    Parameters
    ----------
    state
        As `Hypotheses.state`, shape [s, 7].
    path_s
        Spread of the paths, shape [s].
    prior, mean
        Information that there was before on each of the state, and its mean; shape [7]. The mean
        of the height is worked out here.
    arrivals
        A row each, by node: place (3), variance of the time, time, azimuth, variance of it (0 where
        there is none), share of other guns, whether the bearing is its own, clutter a second, share
        of lone echoes, variance of the place; shape [m, 12].
    starts
        Where each node's arrivals begin, and the end; shape [n + 1].
    heard_m, silent_m
        Places of nodes that heard something, in that order, and of those that did not.

    Returns
    -------
    tuple
        Log-likelihood [s], probability of direct sound [s, m], lateness [s, m], information
        [s, 7, 7] and gradient [s, 7] (empty unless derived).
    """
    count, total = len(state), len(arrivals)
    likelihood = np.zeros(count)
    direct = np.empty((count, total))
    late = np.empty((count, total))
    rows = count if derive else 0
    information = np.zeros((rows, _SIZE, _SIZE))
    gradient = np.zeros((rows, _SIZE))
    factor = np.empty((total, 6))  # east, north, up, distance, speed, variance of the time
    beam = np.zeros((total, 2))  # how far off the bearing is, variance of it
    jacobian = np.empty(_SIZE)
    for s in range(count):
        x, y, z, c, wind_east, wind_north, fired = state[s]
        for node in range(len(starts) - 1):
            of_node = 0.0
            reach = 0.0
            for m in range(starts[node], starts[node + 1]):
                row = arrivals[m]
                east, north, up = x - row[0], y - row[1], z - row[2]
                r = max(np.sqrt(east * east + north * north + up * up), _NEAREST_M)
                east, north, up = east / r, north / r, up / r
                speed = c - east * wind_east - north * wind_north
                off = row[4] - fired - r / speed
                variance = row[3] + path_s[s] * path_s[s]
                likely = np.exp(-0.5 * off * off / variance) / np.sqrt(_TWO_PI * variance)
                likely *= 1 - row[10]
                if row[6] > 0:
                    turn = (row[5] - np.arctan2(east, north) + np.pi) % _TWO_PI - np.pi
                    spread = row[6] + row[11] / (r * r)
                    own = np.exp(-0.5 * turn * turn / spread) * np.sqrt(_TWO_PI / spread)
                    likely *= row[7] + (1 - row[7]) * own
                    beam[m, 0], beam[m, 1] = turn, spread
                echo = 0.0
                if off > DETOUR_S:
                    echo = row[10] / LATE_S * np.exp(-(off - DETOUR_S) / LATE_S)
                reach = _HEARD * np.exp(-((r / _REACH_M) ** 2))
                share = reach / row[9]
                direct[s, m] = likely * share
                of_node += (likely + echo) * share
                late[s, m] = off
                factor[m, 0], factor[m, 1], factor[m, 2] = east, north, up
                factor[m, 3], factor[m, 4], factor[m, 5] = r, speed, variance
            of_node += 1 - reach
            likelihood[s] += np.log(of_node)
            for m in range(starts[node], starts[node + 1]):
                direct[s, m] /= of_node
        for node in range(len(silent_m)):
            east, north = x - silent_m[node, 0], y - silent_m[node, 1]
            r2 = east * east + north * north
            likelihood[s] += np.log1p(-_HEARD * np.exp(-r2 / (_REACH_M * _REACH_M)))
        height = 0.0
        weights = 0.0
        for node in range(len(heard_m)):
            east, north = x - heard_m[node, 0], y - heard_m[node, 1]
            weight = 1 / (east * east + north * north + _NEAR_M * _NEAR_M)
            height += weight * heard_m[node, 2]
            weights += weight
        for at in range(_SIZE - 1):
            expected = height / weights - _BELOW_M if at == 2 else mean[at]
            departure = state[s, at] - expected
            likelihood[s] -= 0.5 * prior[at] * departure * departure
            if derive:
                gradient[s, at] -= prior[at] * departure
        if not derive:
            continue
        for at in range(_SIZE):
            information[s, at, at] += prior[at]
        for m in range(total):
            if direct[s, m] < 1e-9:
                continue
            east, north, up, r, speed = (
                factor[m, 0],
                factor[m, 1],
                factor[m, 2],
                factor[m, 3],
                factor[m, 4],
            )
            slow = r / (speed * speed)
            jacobian[0], jacobian[1], jacobian[2] = east / speed, north / speed, up / speed
            jacobian[3], jacobian[4], jacobian[5] = -slow, slow * east, slow * north
            jacobian[6] = 1.0
            weight = direct[s, m] / factor[m, 5]
            for i in range(_SIZE):
                gradient[s, i] += jacobian[i] * weight * late[s, m]
                for j in range(_SIZE):
                    information[s, i, j] += jacobian[i] * weight * jacobian[j]
            if arrivals[m, 6] > 0 and arrivals[m, 8] > 0:
                flat = max((east * east + north * north) * r, 1e-3)
                across_x, across_y = north / flat, -east / flat
                weight = direct[s, m] / beam[m, 1]
                gradient[s, 0] += across_x * weight * beam[m, 0]
                gradient[s, 1] += across_y * weight * beam[m, 0]
                information[s, 0, 0] += across_x * weight * across_x
                information[s, 0, 1] += across_x * weight * across_y
                information[s, 1, 0] += across_x * weight * across_y
                information[s, 1, 1] += across_y * weight * across_y
    return likelihood, direct, late, information, gradient


@_compiled
def descend(
    state: FloatArray,
    path_s: FloatArray,
    prior: FloatArray,
    mean: FloatArray,
    arrivals: FloatArray,
    starts: IntArray,
    heard_m: FloatArray,
    silent_m: FloatArray,
    steps: int,
    longest_m: float,
) -> FloatArray:
    """Take Gauss-Newton steps of expectation-maximisation, none longer than `longest_m`; [s, 7]."""
    state = state.copy()
    for _ in range(steps):
        _, _, _, information, gradient = evaluate(
            state, path_s, prior, mean, arrivals, starts, heard_m, silent_m, True
        )
        for s in range(len(state)):
            move = np.linalg.solve(information[s], gradient[s])
            far = np.sqrt(move[0] * move[0] + move[1] * move[1])
            if far > longest_m:
                move *= longest_m / far
            state[s] += move
    return state


@_compiled
def distinct(
    state: FloatArray, order: IntArray, most: int, apart_m: float, apart_s: float
) -> IntArray:
    """Give the first of an order of hypotheses that are not one, as many as asked for."""
    kept = np.empty(most, np.int64)
    count = 0
    for i in order:
        new = True
        for at in range(count):
            k = kept[at]
            east, north = state[k, 0] - state[i, 0], state[k, 1] - state[i, 1]
            near = east * east + north * north < apart_m * apart_m
            if near and abs(state[k, 6] - state[i, 6]) < apart_s:
                new = False
                break
        if new:
            kept[count] = i
            count += 1
            if count == most:
                break
    return kept[:count]


def warm() -> None:
    """Compile all of it now: some seconds, once for each version of it."""
    state, prior = np.full((1, _SIZE), 300.0), np.ones(_SIZE)
    arrivals = np.ones((1, 12))
    given = (prior, np.zeros(_SIZE), arrivals, np.array([0, 1]), np.zeros((1, 3)), np.ones((1, 3)))
    evaluate(state, np.ones(1), *given, True)
    descend(state, np.ones(1), *given, 1, 1.0)
    distinct(state, np.zeros(1, np.int64), 1, 1.0, 1.0)
