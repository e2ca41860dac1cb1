"""Where and when a shot may have been, by as few arrivals as settle it.

Three times do, or two and a bearing.

In comes a pool; out go places on the plane and moments, many of them wrong, for the likelihood to
choose from. Heights and wind are left out here.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from node.network.arrivals import BoolArray, FloatArray, IntArray, Pool
from node.network.compiled import compiled

# What a path may add to a pair's difference of times, besides what a slower air does.
_SLACK_S: Final = 0.04
_SLACK_OF_C: Final = 0.03
_LONGEST_S: Final = 6.0
_NEAR_PARALLEL: Final = 1e-3
# Of so many more triples than are tried all are looked through.
_ALL: Final = 3

Seeds = tuple[FloatArray, FloatArray]


def seeds(
    pool: Pool, speed_m_s: float, *, most: int, with_arrivals: IntArray | None = None
) -> Seeds:
    """Give places [s, 2] and moments [s].

    Parameters
    ----------
    speed_m_s
        Speed of sound.
    most
        So many triples are tried, and so many pairs; of more, a sample is, the same each time.
    with_arrivals
        Only those that one of these has part in.
    """
    own = np.ones(len(pool), np.bool_)
    if with_arrivals is not None:
        own[:] = False
        own[with_arrivals] = True
    found = _seeds(
        pool.place_m,
        pool.node,
        pool.time_s,
        pool.sigma_s,
        pool.azimuth_rad,
        pool.first,
        own,
        with_arrivals is not None,
        speed_m_s,
        most,
    )
    return found[:, :2], found[:, 2]


@compiled
def _seeds(
    place_m: FloatArray,
    node: IntArray,
    time_s: FloatArray,
    sigma_s: FloatArray,
    azimuth_rad: FloatArray,
    first: BoolArray,
    own: BoolArray,
    restricted: bool,
    c: float,
    most: int,
) -> FloatArray:
    """Give a row each: east, north, moment."""
    np.random.seed(1)
    count = len(time_s)
    place_m = place_m[node]
    may = _may_be_one(place_m, node, time_s, sigma_s, c)
    out = np.empty((3 * most, 3))
    found = 0
    if restricted or count * (count - 1) * (count - 2) // 6 <= _ALL * most:
        left = 0
        wanted = 0
        for choosing in (False, True):
            if choosing:
                wanted = min(left, most)
            for i in range(count):
                for j in range(i + 1, count):
                    if not may[i, j]:
                        continue
                    for k in range(j + 1, count):
                        if not (may[i, k] and may[j, k] and (own[i] or own[j] or own[k])):
                            continue
                        if not choosing:
                            left += 1
                            continue
                        if wanted == left or np.random.random() * left < wanted:
                            wanted -= 1
                            found = _of_triple(place_m, time_s, i, j, k, c, out, found)
                        left -= 1
    else:
        # Drawn node by node: one that has many arrivals is not to have most of the triples.
        starts = np.flatnonzero(np.diff(node)) + 1
        nodes = len(starts) + 1
        taken = 0
        for _ in range(_ALL * most if nodes >= 3 else 0):
            i = _drawn(starts, count, np.random.randint(nodes))
            j = _drawn(starts, count, np.random.randint(nodes))
            k = _drawn(starts, count, np.random.randint(nodes))
            if may[i, j] and may[i, k] and may[j, k] and taken < most:
                taken += 1
                found = _of_triple(place_m, time_s, i, j, k, c, out, found)
    left = 0
    wanted = 0
    for choosing in (False, True):
        if choosing:
            wanted = min(left, most)
        for i in range(count):
            if not first[i] or not np.isfinite(azimuth_rad[i]):
                continue
            for j in range(count):
                if not may[i, j] or not (own[i] or own[j]):
                    continue
                if not choosing:
                    left += 1
                    continue
                if wanted == left or np.random.random() * left < wanted:
                    wanted -= 1
                    found = _of_beam(place_m, time_s, azimuth_rad[i], i, j, c, out, found)
                left -= 1
    return out[:found]


@compiled
def _drawn(starts: IntArray, count: int, node: int) -> int:
    """Draw an arrival of a node."""
    begin = starts[node - 1] if node > 0 else 0
    end = starts[node] if node < len(starts) else count
    return int(np.random.randint(begin, end))


@compiled
def _may_be_one(
    place_m: FloatArray, node: IntArray, time_s: FloatArray, sigma_s: FloatArray, c: float
) -> BoolArray:
    """Say which pairs of arrivals may be of one shot, shape [m, m]."""
    count = len(time_s)
    may = np.zeros((count, count), np.bool_)
    for a in range(count):
        for b in range(a):
            if node[a] == node[b]:
                continue
            apart_m = np.hypot(place_m[a, 0] - place_m[b, 0], place_m[a, 1] - place_m[b, 1])
            longest_s = apart_m / (c * (1 - _SLACK_OF_C)) + _SLACK_S
            longest_s += 3 * np.hypot(sigma_s[a], sigma_s[b])
            may[a, b] = may[b, a] = abs(time_s[a] - time_s[b]) <= longest_s
    return may


@compiled
def _of_triple(
    place_m: FloatArray,
    time_s: FloatArray,
    i: int,
    j: int,
    k: int,
    c: float,
    out: FloatArray,
    found: int,
) -> int:
    """Solve |x - p_i| = c (t_i - t) for three nodes: a line in t, then a quadratic."""
    x1, y1 = place_m[j, 0] - place_m[i, 0], place_m[j, 1] - place_m[i, 1]
    x2, y2 = place_m[k, 0] - place_m[i, 0], place_m[k, 1] - place_m[i, 1]
    later1, later2 = time_s[j] - time_s[i], time_s[k] - time_s[i]
    det = x1 * y2 - y1 * x2
    if abs(det) < _NEAR_PARALLEL:
        det = _NEAR_PARALLEL
    # x - p_0 = a + b s, where s = t - t_0 ≤ 0 and |x - p_0| = -c s.
    v1 = 0.5 * (x1 * x1 + y1 * y1 - (c * later1) ** 2)
    v2 = 0.5 * (x2 * x2 + y2 * y2 - (c * later2) ** 2)
    ax, ay = (y2 * v1 - y1 * v2) / det, (x1 * v2 - x2 * v1) / det
    v1, v2 = c * c * later1, c * c * later2
    bx, by = (y2 * v1 - y1 * v2) / det, (x1 * v2 - x2 * v1) / det
    q2, q1, q0 = bx * bx + by * by - c * c, 2 * (ax * bx + ay * by), ax * ax + ay * ay
    root = np.sqrt(max(q1 * q1 - 4 * q2 * q0, 0.0))  # where none is, the nearest miss
    if abs(q2) < 1e-6:
        q2 = 1e-6
    for sign in (-1.0, 1.0):
        s = (sign * root - q1) / (2 * q2)
        if -_LONGEST_S < s <= 0:
            out[found, 0] = place_m[i, 0] + ax + bx * s
            out[found, 1] = place_m[i, 1] + ay + by * s
            out[found, 2] = time_s[i] + s
            found += 1
    return found


@compiled
def _of_beam(
    place_m: FloatArray,
    time_s: FloatArray,
    azimuth_rad: float,
    i: int,
    j: int,
    c: float,
    out: FloatArray,
    found: int,
) -> int:
    """Follow a bearing to where another node hears it so much later: a line and a hyperbola."""
    east, north = np.sin(azimuth_rad), np.cos(azimuth_rad)
    farther_m = c * (time_s[j] - time_s[i])
    dx, dy = place_m[j, 0] - place_m[i, 0], place_m[j, 1] - place_m[i, 1]
    far = along_beam(dx, dy, east, north, farther_m)
    if 0 < far < c * _LONGEST_S:
        out[found, 0] = place_m[i, 0] + far * east
        out[found, 1] = place_m[i, 1] + far * north
        out[found, 2] = time_s[i] - far / c
        found += 1
    return found


@compiled
def along_beam(dx: float, dy: float, east: float, north: float, farther_m: float) -> float:
    """Give how far along a bearing lies what another node hears so much later, metres.

    The s of |d - s u| = s + farther, negative where it lies behind.

    Parameters
    ----------
    dx, dy
        d, from the node with the bearing to the other, m.
    east, north
        u, where the bearing leads, of length 1.
    farther_m
        What sound travels in the time between the two.
    """
    below = 2 * (farther_m + dx * east + dy * north)
    if abs(below) < 1e-3:
        below = 1e-3
    return (dx * dx + dy * dy - farther_m * farther_m) / below
