"""Which rounds of other nodes may be of the same shot as a detection's, the likeliest of them."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from node.network.arrivals import BoolArray, FloatArray, IntArray
from node.network.compiled import compiled
from node.network.memory import NOBODY, Memory
from node.network.seeds import along_beam

SLOWEST_M_S: Final = 310.0
"""Sound of the coldest day (signal.md §4)."""
SLACK_S: Final = 0.15
"""What a path may add to a pair's difference of times."""
MOST_OF_NODE: Final = 3
_MOST: Final = 36
_BEAM_RAD: Final = math.radians(30)


def beside(
    memory: Memory, node: int, own: IntArray, *, reach_m: float, speed_m_s: float
) -> IntArray:
    """Give free rounds of other nodes that may be of the same shot as some of a node's.

    At most 36, and of a node at most three: those that come by chance most rarely. Where both tell
    a bearing, these meet: that of the first, followed to where the other hears it so much later,
    gives a place, and the other's bearing leads there, too.
    """
    times = memory.column("time_s", own)
    span_s, far_m = 2 * reach_m / SLOWEST_M_S, 2 * reach_m
    place_m = memory.places_m[node]
    rows = memory.heard(place_m, far_m, times[0] - span_s, times[-1] + span_s)
    rows = rows[memory.claimed_by(rows) == NOBODY]
    azimuth_rad = math.nan
    if memory.flags("first", own[:1])[0]:
        azimuth_rad = float(memory.column("azimuth_rad", own[:1])[0])
    chosen = _chosen(
        times,
        azimuth_rad,
        place_m,
        node,
        memory.column("time_s", rows),
        memory.column("azimuth_rad", rows),
        memory.flags("first", rows),
        memory.column("clutter_per_s", rows),
        memory.nodes_of(rows),
        memory.places_m,
        far_m,
        speed_m_s,
    )
    return np.asarray(rows[chosen])


@compiled
def _chosen(
    own_s: FloatArray,
    own_azimuth_rad: float,
    place_m: FloatArray,
    own_node: int,
    time_s: FloatArray,
    azimuth_rad: FloatArray,
    first: BoolArray,
    clutter_per_s: FloatArray,
    node: IntArray,
    places_m: FloatArray,
    far_m: float,
    c: float,
) -> IntArray:
    fits = np.empty(len(node), np.int64)
    chance = np.empty(len(node))
    count = 0
    for m in range(len(node)):
        n = node[m]
        if n == own_node:
            continue
        dx, dy = places_m[n, 0] - place_m[0], places_m[n, 1] - place_m[1]
        up = places_m[n, 2] - place_m[2]
        away_m = np.sqrt(dx * dx + dy * dy + up * up)
        apart_s = away_m / SLOWEST_M_S + SLACK_S
        if away_m > far_m or np.abs(own_s - time_s[m]).min() > apart_s:
            continue
        if first[m] and not _may_meet(
            dx, dy, c * (time_s[m] - own_s[0]), own_azimuth_rad, azimuth_rad[m], far_m
        ):
            continue
        # Of a long burst's rounds at a node, the first is the likeliest to be of the first shot.
        chance[count] = clutter_per_s[m] * apart_s
        fits[count] = m
        count += 1
    order = np.argsort(chance[:count], kind="mergesort")
    kept = np.empty(count, np.int64)
    found = 0
    turns = np.zeros(len(places_m), np.int64)
    for firsts in (True, False):
        for at in order:
            m = fits[at]
            if first[m] == firsts and turns[node[m]] < MOST_OF_NODE:
                turns[node[m]] += 1
                kept[found] = at
                found += 1
    kept = kept[:found]
    kept = kept[np.argsort(chance[kept], kind="mergesort")][:_MOST]
    return fits[kept]


@compiled
def _may_meet(
    dx: float,
    dy: float,
    farther_m: float,
    azimuth_rad: float,
    other_rad: float,
    far_m: float,
) -> bool:
    """Say whether two bearings lead to the place that the first and the times give."""
    if not (np.isfinite(azimuth_rad) and np.isfinite(other_rad)):
        return True
    east, north = np.sin(azimuth_rad), np.cos(azimuth_rad)
    far = along_beam(dx, dy, east, north, farther_m)
    if far < 0 or far > far_m:
        return False
    seen_rad = np.arctan2(far * east - dx, far * north - dy)
    off = (other_rad - seen_rad + np.pi) % (2 * np.pi) - np.pi
    return bool(abs(off) < _BEAM_RAD)
