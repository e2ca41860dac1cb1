"""The arithmetic of the likelihood, compiled: every hypothesis against every arrival.

What it computes, and why, is told by node/network/likelihood.py.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from node.network.arrivals import FloatArray, IntArray
from node.network.compiled import compiled

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
# Beyond these a density is nothing: exp(-100), exp(-25).
_FAR_SQUARE: Final = 200.0
_FAR_LATE_S: Final = 25 * LATE_S
_SMALL: Final = 1e-200

Given = tuple[FloatArray, FloatArray, FloatArray, IntArray, FloatArray, FloatArray, FloatArray]
"""What all hypotheses of a pool share.

The information that there was before on each of the state, and its mean, shape [7] (that of the
height is worked out here). The arrivals, a row each, by node: place (3), variance of the time,
time, azimuth, variance of it (0 where there is none), share of other guns, whether the bearing is
its own, clutter a second, share of lone echoes, variance of the place; shape [m, 12]. Where each
node's arrivals begin, and the end, [n + 1]. Places of nodes that heard something, in that order,
and of those that did not. Up to when all is told, and from when on nothing is yet, [2].
"""


@compiled
def _way(state: FloatArray, row: FloatArray) -> tuple[float, float, float, float, float]:
    """Give direction to the source (2), distance, speed of sound from it, chance to be heard."""
    east, north, up = state[0] - row[0], state[1] - row[1], state[2] - row[2]
    r = max(np.sqrt(east * east + north * north + up * up), _NEAREST_M)
    east, north = east / r, north / r
    speed = state[3] - east * state[4] - north * state[5]
    return east, north, r, speed, _HEARD * np.exp(-((r / _REACH_M) ** 2))


@compiled
def _told(told_s: FloatArray, came_s: float) -> float:
    """Give the chance that a node has told by now of what came to it."""
    return float(min(max((told_s[1] - came_s) / (told_s[1] - told_s[0]), 0.0), 1.0))


@compiled
def _in_time(row: FloatArray, off: float, path_s: float) -> tuple[float, float]:
    """Give the densities of an arrival so late: as direct sound, and as an echo."""
    variance = row[3] + path_s * path_s
    square = off * off / variance
    likely, echo = 0.0, 0.0
    if square < _FAR_SQUARE:
        likely = (1 - row[10]) * np.exp(-0.5 * square) / np.sqrt(_TWO_PI * variance)
    if DETOUR_S < off < _FAR_LATE_S:
        echo = row[10] / LATE_S * np.exp(-(off - DETOUR_S) / LATE_S)
    return likely, echo


@compiled
def _bearing(row: FloatArray, east: float, north: float, r: float) -> tuple[float, float, float]:
    """Give by how much a bearing makes an arrival likelier; how far it is off; its variance."""
    turn = (row[5] - np.arctan2(east, north) + np.pi) % _TWO_PI - np.pi
    spread = row[6] + row[11] / (r * r)
    own = np.exp(-0.5 * turn * turn / spread) * np.sqrt(_TWO_PI / spread)
    return row[7] + (1 - row[7]) * own, turn, spread


@compiled
def _weigh(
    state: FloatArray,
    path_s: float,
    given: Given,
    direct: FloatArray,
    late: FloatArray,
    factor: FloatArray,
) -> float:
    """Weigh a hypothesis: give its log-likelihood, fill in [m], [m] and what `_derive` needs.

    `factor` is, for each arrival, the unit vector to the source (3), the distance, the speed on
    the way, the variance of the time, how far off its bearing is, and the variance of that.
    """
    prior, mean, arrivals, starts, heard_m, silent_m, told_s = given
    x, y, z = state[0], state[1], state[2]
    likelihood = 0.0
    height = 0.0
    weights = 0.0
    for node in range(len(starts) - 1):
        row = arrivals[starts[node]]
        weight = 1 / ((x - row[0]) ** 2 + (y - row[1]) ** 2 + _NEAR_M * _NEAR_M)
        height += weight * heard_m[node, 2]
        weights += weight
        east, north, r, speed, reach = _way(state, row)
        of_node = 1 - reach * _told(told_s, state[6] + r / speed)
        for m in range(starts[node], starts[node + 1]):
            row = arrivals[m]
            off = row[4] - state[6] - r / speed
            likely, echo = _in_time(row, off, path_s)
            if row[6] > 0 and likely > 0:
                better, factor[m, 6], factor[m, 7] = _bearing(row, east, north, r)
                likely *= better
            share = reach / row[9]
            direct[m] = likely * share
            of_node += (likely + echo) * share
            late[m] = off
            factor[m, 0], factor[m, 1], factor[m, 2] = east, north, (z - row[2]) / r
            factor[m, 3], factor[m, 4], factor[m, 5] = r, speed, row[3] + path_s * path_s
        likelihood += np.log(of_node)
        for m in range(starts[node], starts[node + 1]):
            direct[m] /= of_node
    chance = 1.0
    for node in range(len(silent_m)):
        east, north = x - silent_m[node, 0], y - silent_m[node, 1]
        r2 = east * east + north * north
        told = _told(told_s, state[6] + np.sqrt(r2) / state[3])
        chance *= 1 - told * _HEARD * np.exp(-r2 / (_REACH_M * _REACH_M))
        if chance < _SMALL:
            likelihood += np.log(chance)
            chance = 1.0
    likelihood += np.log(chance)
    mean[2] = height / weights - _BELOW_M
    for at in range(_SIZE - 1):
        departure = state[at] - mean[at]
        likelihood -= 0.5 * prior[at] * departure * departure
    return float(likelihood)


@compiled
def _derive(
    state: FloatArray,
    given: Given,
    direct: FloatArray,
    late: FloatArray,
    factor: FloatArray,
    information: FloatArray,
    gradient: FloatArray,
) -> None:
    """Fill in the information [7, 7] and the gradient [7] at a hypothesis that was weighed."""
    prior, mean, arrivals = given[0], given[1], given[2]
    jacobian = np.empty(_SIZE)
    information[:] = 0.0
    for at in range(_SIZE):
        information[at, at] = prior[at]
        gradient[at] = prior[at] * (mean[at] - state[at]) if at < _SIZE - 1 else 0.0
    for m in range(len(arrivals)):
        if direct[m] < 1e-9:
            continue
        east, north, up = factor[m, 0], factor[m, 1], factor[m, 2]
        r, speed = factor[m, 3], factor[m, 4]
        slow = r / (speed * speed)
        jacobian[0], jacobian[1], jacobian[2] = east / speed, north / speed, up / speed
        jacobian[3], jacobian[4], jacobian[5] = -slow, slow * east, slow * north
        jacobian[6] = 1.0
        weight = direct[m] / factor[m, 5]
        for i in range(_SIZE):
            gradient[i] += jacobian[i] * weight * late[m]
            for j in range(_SIZE):
                information[i, j] += jacobian[i] * weight * jacobian[j]
        if arrivals[m, 6] > 0 and arrivals[m, 8] > 0:
            flat = max((east * east + north * north) * r, 1e-3)
            across_x, across_y = north / flat, -east / flat
            weight = direct[m] / factor[m, 7]
            gradient[0] += across_x * weight * factor[m, 6]
            gradient[1] += across_y * weight * factor[m, 6]
            information[0, 0] += across_x * weight * across_x
            information[0, 1] += across_x * weight * across_y
            information[1, 0] += across_x * weight * across_y
            information[1, 1] += across_y * weight * across_y


@compiled
def _lower(information: FloatArray, lower: FloatArray) -> None:
    """Fill in the Cholesky factor of an information."""
    for i in range(_SIZE):
        for j in range(i + 1):
            rest = information[i, j]
            for k in range(j):
                rest -= lower[i, k] * lower[j, k]
            lower[i, j] = np.sqrt(max(rest, 1e-300)) if i == j else rest / lower[j, j]


@compiled
def _solved(lower: FloatArray, right: FloatArray) -> None:
    """Solve L Lᵀ x = b in place."""
    for i in range(_SIZE):
        for k in range(i):
            right[i] -= lower[i, k] * right[k]
        right[i] /= lower[i, i]
    for i in range(_SIZE - 1, -1, -1):
        for k in range(i + 1, _SIZE):
            right[i] -= lower[k, i] * right[k]
        right[i] /= lower[i, i]


@compiled
def weigh(
    state: FloatArray, path_s: FloatArray, given: Given
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Give log-likelihoods [s], probabilities of direct sound and latenesses [s, m]."""
    count, total = len(state), len(given[2])
    likelihood = np.empty(count)
    direct, late = np.empty((count, total)), np.empty((count, total))
    factor = np.empty((total, 8))
    for s in range(count):
        likelihood[s] = _weigh(state[s], path_s[s], given, direct[s], late[s], factor)
    return likelihood, direct, late


@compiled
def scores(state: FloatArray, path_s: FloatArray, given: Given) -> FloatArray:
    """Give log-likelihoods alone, shape [s]."""
    total = len(given[2])
    likelihood = np.empty(len(state))
    direct, late, factor = np.empty(total), np.empty(total), np.empty((total, 8))
    for s in range(len(state)):
        likelihood[s] = _weigh(state[s], path_s[s], given, direct, late, factor)
    return likelihood


@compiled
def peak(
    state: FloatArray, path_s: FloatArray, given: Given
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
    """Weigh hypotheses that are settled, with how wide each peak is.

    Returns
    -------
    tuple
        Log-likelihood [s], probability of direct sound [s, m], lateness [s, m], covariance of the
        state [s, 7, 7], and log of the determinant of its inverse [s].
    """
    count, total = len(state), len(given[2])
    likelihood, width = np.empty(count), np.zeros(count)
    direct, late = np.empty((count, total)), np.empty((count, total))
    factor = np.empty((total, 8))
    information, gradient = np.empty((_SIZE, _SIZE)), np.empty(_SIZE)
    lower = np.zeros((_SIZE, _SIZE))
    covariance = np.zeros((count, _SIZE, _SIZE))
    for s in range(count):
        likelihood[s] = _weigh(state[s], path_s[s], given, direct[s], late[s], factor)
        _derive(state[s], given, direct[s], late[s], factor, information, gradient)
        _lower(information, lower)
        for at in range(_SIZE):
            width[s] += 2 * np.log(lower[at, at])
            covariance[s, at, at] = 1.0
            _solved(lower, covariance[s, at])
    return likelihood, direct, late, covariance, width


@compiled
def descend(
    state: FloatArray, path_s: FloatArray, given: Given, steps: int, longest_m: float
) -> FloatArray:
    """Take Gauss-Newton steps of expectation-maximisation, none longer than `longest_m`; [s, 7]."""
    total = len(given[2])
    state = state.copy()
    direct, late, factor = np.empty(total), np.empty(total), np.empty((total, 8))
    information, move = np.empty((_SIZE, _SIZE)), np.empty(_SIZE)
    lower = np.zeros((_SIZE, _SIZE))
    for s in range(len(state)):
        for _ in range(steps):
            _weigh(state[s], path_s[s], given, direct, late, factor)
            _derive(state[s], given, direct, late, factor, information, move)
            _lower(information, lower)
            _solved(lower, move)
            far = np.sqrt(move[0] * move[0] + move[1] * move[1])
            if far > longest_m:
                move *= longest_m / far
            state[s] += move
    return state


@compiled
def promising(state: FloatArray, path_s: float, given: Given, most: int) -> IntArray:
    """Give hypotheses that many arrivals fit roughly, as many as asked for: [k].

    By parabolas in place of what `scores` weighs by, and without wind and silence.
    """
    arrivals, starts = given[2], given[3]
    total = len(arrivals)
    east_of, north_of = np.sin(arrivals[:, 5]), np.cos(arrivals[:, 5])
    gate_s, worth, worth_of_beam = np.empty(total), np.empty(total), np.zeros(total)
    for m in range(total):
        row = arrivals[m]
        sigma_s = np.sqrt(row[3] + path_s * path_s)
        gate_s[m] = 3 * sigma_s
        worth[m] = np.log1p((1 - row[10]) * _HEARD / row[9] / (np.sqrt(_TWO_PI) * sigma_s))
        if row[6] > 0 and row[8] > 0:
            worth_of_beam[m] = 0.5 * np.log(_TWO_PI / row[6])
    rough = np.zeros(len(state))
    for s in range(len(state)):
        x, y, z, c, fired = state[s, 0], state[s, 1], state[s, 2], state[s, 3], state[s, 6]
        for node in range(len(starts) - 1):
            row = arrivals[starts[node]]
            east, north, up = x - row[0], y - row[1], z - row[2]
            r = max(np.sqrt(east * east + north * north + up * up), _NEAREST_M)
            due_s = fired + r / c
            best = 0.0
            for m in range(starts[node], starts[node + 1]):
                off = abs(arrivals[m, 4] - due_s)
                if off >= gate_s[m]:
                    continue
                value = worth[m] * (1 - (off / gate_s[m]) ** 2)
                if worth_of_beam[m] > 0:
                    along = (east * east_of[m] + north * north_of[m]) / r
                    # 1 - cos is half the square of the angle: nothing is left at three sigmas.
                    value += worth_of_beam[m] - (1 - along) / arrivals[m, 6]
                best = max(best, value)
            rough[s] += best
    return np.argsort(-rough)[:most]


@compiled
def at_moments(state: FloatArray, path_s: float, given: Given) -> tuple[FloatArray, FloatArray]:
    """Weigh shots of one place, fired such that each arrival in turn is direct sound of one.

    Returns
    -------
    tuple
        How late each arrival is against the place's own shot, shape [m]; and probabilities of
        direct sound, of its own shot and of those so much later, shape [m + 1, m].
    """
    arrivals, starts = given[2], given[3]
    total = len(arrivals)
    late, moments = np.empty(total), np.zeros(total + 1)
    direct = np.empty((total + 1, total))
    shares, betters, reaches = np.empty(total), np.ones(total), np.empty(len(starts) - 1)
    for node in range(len(starts) - 1):
        east, north, r, speed, reach = _way(state, arrivals[starts[node]])
        reaches[node] = reach
        for m in range(starts[node], starts[node + 1]):
            row = arrivals[m]
            late[m] = moments[m + 1] = row[4] - state[6] - r / speed
            shares[m] = reach / row[9]
            if row[6] > 0:
                betters[m] = _bearing(row, east, north, r)[0]
    for moment in range(total + 1):
        for node in range(len(starts) - 1):
            of_node = 1 - reaches[node]
            for m in range(starts[node], starts[node + 1]):
                likely, echo = _in_time(arrivals[m], late[m] - moments[moment], path_s)
                direct[moment, m] = likely * betters[m] * shares[m]
                of_node += direct[moment, m] + echo * shares[m]
            for m in range(starts[node], starts[node + 1]):
                direct[moment, m] /= of_node
    return late, direct


@compiled
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
