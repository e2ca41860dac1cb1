"""Where and when a shot may have been, by as few arrivals as settle it.

Three times do, or two and a bearing.

In comes a pool; out go places on the plane and moments, many of them wrong, for the likelihood to
choose from. Heights and wind are left out here.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from math import comb
from typing import Final

import numpy as np

from node.network.arrivals import FloatArray, IntArray, Pool

# What a path may add to a pair's difference of times, besides what a slower air does.
_SLACK_S: Final = 0.04
_SLACK_OF_C: Final = 0.03
_LONGEST_S: Final = 6.0
_NEAR_PARALLEL: Final = 1e-3

Seeds = tuple[FloatArray, FloatArray]


def seeds(
    pool: Pool,
    speed_m_s: float,
    rng: np.random.Generator,
    *,
    most: int,
    with_arrivals: IntArray | None = None,
) -> Seeds:
    """Give places [s, 2] and moments [s].

    Parameters
    ----------
    speed_m_s
        Speed of sound.
    most
        So many triples are tried; of more, a sample is.
    with_arrivals
        Only those that one of these has part in.
    """
    found = [
        _of_triples(pool, _triples(pool, speed_m_s, rng, most, with_arrivals), speed_m_s),
        _of_beams(pool, _pairs(pool, speed_m_s, rng, most, with_arrivals), speed_m_s),
    ]
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def _triples(
    pool: Pool,
    speed_m_s: float,
    rng: np.random.Generator,
    most: int,
    with_arrivals: IntArray | None,
) -> IntArray:
    count = len(pool)
    if with_arrivals is not None:
        pairs = _combinations(count, 2)
        own = np.repeat(with_arrivals, len(pairs))
        triples = np.column_stack([own, np.tile(pairs, (len(with_arrivals), 1))])
    elif comb(count, 3) <= 3 * most:
        triples = _combinations(count, 3)
    else:
        # Drawn node by node: one that has many arrivals is not to have most of the triples.
        heard, starts, sizes = np.unique(pool.node, return_index=True, return_counts=True)
        if len(heard) < 3:
            return np.zeros((0, 3), np.int64)
        which = np.argsort(rng.random((3 * most, len(heard))), axis=1)[:, :3]
        arrival = starts[which] + (rng.random(which.shape) * sizes[which]).astype(np.int64)
        triples = np.sort(arrival, axis=1)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        triples = triples[_may_be_one(pool, triples[:, a], triples[:, b], speed_m_s)]
    return _some(triples, most, rng)


@lru_cache(maxsize=256)
def _combinations(count: int, size: int) -> IntArray:
    return np.array(list(combinations(range(count), size)), np.int64).reshape(-1, size)


def _pairs(
    pool: Pool,
    speed_m_s: float,
    rng: np.random.Generator,
    most: int,
    with_arrivals: IntArray | None,
) -> IntArray:
    """Give pairs of which the first tells a bearing."""
    usable = np.flatnonzero(np.isfinite(pool.azimuth_rad) & pool.first)
    pairs = np.stack(np.meshgrid(usable, np.arange(len(pool))), axis=-1).reshape(-1, 2)
    if with_arrivals is not None:
        pairs = pairs[np.isin(pairs, with_arrivals).any(axis=1)]
    pairs = pairs[_may_be_one(pool, pairs[:, 0], pairs[:, 1], speed_m_s)]
    return _some(pairs, most, rng)


def _some(choices: IntArray, most: int, rng: np.random.Generator) -> IntArray:
    if len(choices) <= most:
        return choices
    return np.asarray(choices[rng.permutation(len(choices))[:most]])


def _may_be_one(pool: Pool, a: IntArray, b: IntArray, speed_m_s: float) -> FloatArray:
    apart_m = np.hypot(*(pool.place_m[pool.node[a], :2] - pool.place_m[pool.node[b], :2]).T)
    longest_s = apart_m / (speed_m_s * (1 - _SLACK_OF_C)) + _SLACK_S
    longest_s += 3 * np.hypot(pool.sigma_s[a], pool.sigma_s[b])
    near = np.abs(pool.time_s[a] - pool.time_s[b]) <= longest_s
    return np.asarray(near & (pool.node[a] != pool.node[b]))


def _of_triples(pool: Pool, triples: IntArray, c: float) -> Seeds:
    """Solve |x - p_i| = c (t_i - t) for three nodes: a line in t, then a quadratic."""
    if not len(triples):
        return np.zeros((0, 2)), np.zeros(0)
    p = pool.place_m[pool.node[triples], :2]
    t = pool.time_s[triples]
    later = t[:, 1:] - t[:, :1]
    d = p[:, 1:] - p[:, :1]
    det = d[:, 0, 0] * d[:, 1, 1] - d[:, 0, 1] * d[:, 1, 0]
    det = np.where(np.abs(det) < _NEAR_PARALLEL, _NEAR_PARALLEL, det)

    def across(v: FloatArray) -> FloatArray:
        x = d[:, 1, 1] * v[:, 0] - d[:, 0, 1] * v[:, 1]
        y = d[:, 0, 0] * v[:, 1] - d[:, 1, 0] * v[:, 0]
        return np.stack([x / det, y / det], axis=1)

    # x - p_0 = a + b s, where s = t - t_0 ≤ 0 and |x - p_0| = -c s.
    a = across(0.5 * ((d**2).sum(-1) - (c * later) ** 2))
    b = across(c * c * later)
    q2, q1, q0 = (b * b).sum(1) - c * c, 2 * (a * b).sum(1), (a * a).sum(1)
    root = np.sqrt(np.maximum(q1 * q1 - 4 * q2 * q0, 0.0))  # where none is, the nearest miss
    q2 = np.where(np.abs(q2) < 1e-6, 1e-6, q2)
    places, moments = [], []
    for sign in (-1.0, 1.0):
        s = (sign * root - q1) / (2 * q2)
        right = (s <= 0) & (s > -_LONGEST_S)
        places.append((p[:, 0] + a + b * s[:, None])[right])
        moments.append((t[:, 0] + s)[right])
    return np.concatenate(places), np.concatenate(moments)


def _of_beams(pool: Pool, pairs: IntArray, c: float) -> Seeds:
    """Follow a bearing to where another node hears it so much later: a line and a hyperbola."""
    if not len(pairs):
        return np.zeros((0, 2)), np.zeros(0)
    p = pool.place_m[pool.node[pairs], :2]
    azimuth = pool.azimuth_rad[pairs[:, 0]]
    u = np.stack([np.sin(azimuth), np.cos(azimuth)], axis=-1)
    d = p[:, 1] - p[:, 0]
    farther_m = c * (pool.time_s[pairs[:, 1]] - pool.time_s[pairs[:, 0]])
    far = along_beam(d, u, farther_m)
    ahead = (far > 0) & (far < c * _LONGEST_S)
    places = (p[:, 0] + far[:, None] * u)[ahead]
    return places, (pool.time_s[pairs[:, 0]] - far / c)[ahead]


def along_beam(d: FloatArray, u: FloatArray, farther_m: FloatArray) -> FloatArray:
    """Give how far along a bearing lies what another node hears so much later.

    The s of |d - s u| = s + farther, negative where it lies behind.

    Parameters
    ----------
    d
        From the node with the bearing to the other, shape [n, 2], m.
    u
        Where the bearing leads, of length 1, shape [n, 2] or [2].
    farther_m
        What sound travels in the time between the two, shape [n].
    """
    below = 2 * (farther_m + (d * u).sum(-1))
    return np.asarray(((d**2).sum(1) - farther_m**2) / np.where(np.abs(below) < 1e-3, 1e-3, below))
