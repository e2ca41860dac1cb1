"""Arrivals of several shots from one place, stacked: one for each node and path.

In come a pool, how late each arrival is against one shot of a place, and when the shots were fired
after each other; out goes a pool in which each arrival stands for all shots that came by one path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from node.network.arrivals import BoolArray, FloatArray, IntArray, Pool
from node.network.compiled import compiled

# Shots by one path keep their spacing to within the errors of two onsets and a gun's own movement.
_SPACING_S: Final = 0.006
FASTEST_S: Final = 0.04
"""No gun in a hand fires twice within so long (node/detect/rounds.py)."""
_EARLIEST_S: Final = -0.08
_LATEST_S: Final = 0.6
_MOST_PATHS: Final = 3
# A node that hears a shot hears the next from there; not always, nor counts it.
_AGAIN: Final = 0.85


@dataclass(frozen=True)
class Stack:
    """A pool of stacked arrivals.

    Attributes
    ----------
    pool
        An arrival for each node and path; its time is as if all were of the first shot.
    gaps_s
        The shots, after the first, shape [k]; the first is 0.
    shift_s
        The first shot, after that of the place.
    members
        For each stacked arrival and shot the arrival of the pool it came from, or -1; [p, k].
    """

    pool: Pool
    gaps_s: FloatArray
    shift_s: float
    members: IntArray

    def unstack(
        self, direct: FloatArray, late_s: FloatArray, arrivals: int
    ) -> tuple[FloatArray, FloatArray]:
        """Give for each shot and arrival of the pool what was found of the stacked ones."""
        return _unstack(self.members, direct, late_s, arrivals)


def single(pool: Pool) -> Stack:
    """Stack a pool of one shot: each arrival for itself."""
    return Stack(pool, np.zeros(1), 0.0, np.arange(len(pool))[:, None])


def stack(pool: Pool, late_s: FloatArray, shots_s: FloatArray) -> Stack:
    """Stack a pool.

    Parameters
    ----------
    late_s
        How late each arrival is against the place's own shot, shape [m].
    shots_s
        When the shots were fired after that one, ascending, shape [k]; 0 is among them.
    """
    gaps, members, times, sigmas, firsts, clutter = _stacked(
        pool.node,
        pool.time_s,
        pool.sigma_s,
        pool.clutter_per_s,
        pool.first,
        late_s - shots_s[0],
        shots_s - shots_s[0],
    )
    stacked = replace(pool.only(firsts), time_s=times, sigma_s=sigmas, clutter_per_s=clutter)
    return Stack(stacked, gaps, float(shots_s[0]), members)


@compiled
def _stacked(
    node: IntArray,
    time_s: FloatArray,
    sigma_s: FloatArray,
    clutter_per_s: FloatArray,
    first: BoolArray,
    late_s: FloatArray,
    gaps_s: FloatArray,
) -> tuple[FloatArray, IntArray, FloatArray, FloatArray, IntArray, FloatArray]:
    """Give the settled spacing, and of each path its members, time, error, first and clutter."""
    count = len(node)
    edges = np.flatnonzero(np.diff(node)) + 1
    starts = np.zeros(len(edges) + 2, np.int64)
    starts[1:-1], starts[-1] = edges, count
    gaps = _settled(late_s, gaps_s, clutter_per_s, starts)
    shots = len(gaps)
    members = np.empty((count, shots), np.int64)
    times, sigmas, clutter = np.empty(count), np.empty(count), np.empty(count)
    firsts = np.empty(count, np.int64)
    paths = 0
    for n in range(len(starts) - 1):
        begin, end = starts[n], starts[n + 1]
        for group in _paths(late_s[begin:end], gaps, clutter_per_s[begin:end], _MOST_PATHS):
            time, variance, held = 0.0, 0.0, 0
            lead = own = -1
            rate = 1.0
            for shot in range(shots):
                members[paths, shot] = -1
                if group[shot] < 0:
                    continue
                at = begin + group[shot]
                members[paths, shot] = at
                time += time_s[at] - gaps[shot]
                variance += sigma_s[at] ** 2
                # That clutter looks like it: once at its rate, and again at each further shot.
                if held == 0:
                    own = at
                    rate = clutter_per_s[at]
                else:
                    again = clutter_per_s[at] * np.sqrt(2 * np.pi) * _SPACING_S / _AGAIN
                    rate *= min(again, 1.0)
                if lead < 0 and first[at]:
                    lead = at
                held += 1
            times[paths] = time / held
            sigmas[paths] = np.sqrt(variance / held / held)
            firsts[paths] = lead if lead >= 0 else own
            clutter[paths] = rate / (1 - _AGAIN) ** (shots - held)
            paths += 1
    return gaps, members[:paths], times[:paths], sigmas[:paths], firsts[:paths], clutter[:paths]


@compiled
def _paths(late_s: FloatArray, gaps_s: FloatArray, clutter: FloatArray, most: int) -> IntArray:
    """Give the paths of one node: for each the arrival of each shot, or -1; the fullest first.

    Shape [paths, shots].
    """
    count, shots = len(late_s), len(gaps_s)
    groups = np.empty((count * shots, shots), np.int64)
    score = np.empty(count * shots)
    delays = np.empty(count * shots)
    found = 0
    for of_shot in range(shots):
        for of in range(count):
            delay = late_s[of] - gaps_s[of_shot]
            if not _EARLIEST_S < delay < _LATEST_S:
                continue
            score[found] = 0.0
            delays[found] = abs(delay)
            for shot in range(shots):
                nearest, least = -1, 3 * _SPACING_S
                for arrival in range(count):
                    off = abs(late_s[arrival] - gaps_s[shot] - delay)
                    if off < least:
                        nearest, least = arrival, off
                groups[found, shot] = nearest
                if nearest >= 0:
                    score[found] += 3 - np.log(min(clutter[nearest], 1.0))
            found += 1
    kept = np.empty((min(most, count), shots), np.int64)
    taken = np.zeros(count, np.bool_)
    tried = np.zeros(found, np.bool_)
    paths = 0
    for _ in range(found):
        best = -1
        for at in range(found):
            if tried[at]:
                continue
            better = best < 0 or score[at] > score[best]
            if better or (score[at] == score[best] and delays[at] < delays[best]):
                best = at
        tried[best] = True
        free = True
        for shot in range(shots):
            if groups[best, shot] >= 0 and taken[groups[best, shot]]:
                free = False
        if not free:
            continue
        kept[paths] = groups[best]
        for shot in range(shots):
            if groups[best, shot] >= 0:
                taken[groups[best, shot]] = True
        paths += 1
        if paths == len(kept):
            break
    return kept[:paths]


@compiled
def _settled(
    late_s: FloatArray, gaps_s: FloatArray, clutter: FloatArray, starts: IntArray
) -> FloatArray:
    """Settle the shots' spacing by all nodes: the median of what each says of it."""
    shots, nodes = len(gaps_s), len(starts) - 1
    says = np.empty((shots, nodes))
    said = np.zeros(shots, np.int64)
    for n in range(nodes):
        begin, end = starts[n], starts[n + 1]
        for group in _paths(late_s[begin:end], gaps_s, clutter[begin:end], 1):
            for shot in range(1, shots):
                if group[0] >= 0 and group[shot] >= 0:
                    says[shot, said[shot]] = late_s[begin + group[shot]] - late_s[begin + group[0]]
                    said[shot] += 1
    settled = gaps_s.copy()
    settled[0] = 0.0
    for shot in range(1, shots):
        if said[shot]:
            settled[shot] = np.median(says[shot, : said[shot]])
    settled = np.sort(settled)
    apart = np.ones(shots, np.bool_)
    apart[1:] = np.diff(settled) > FASTEST_S
    return settled[apart]


@compiled
def _unstack(
    members: IntArray, direct: FloatArray, late_s: FloatArray, arrivals: int
) -> tuple[FloatArray, FloatArray]:
    paths, shots = members.shape
    of_shot = np.zeros((shots, arrivals))
    late = np.full((shots, arrivals), np.nan)
    for path in range(paths):
        for shot in range(shots):
            arrival = members[path, shot]
            if arrival >= 0:
                of_shot[shot, arrival] = max(of_shot[shot, arrival], direct[path])
                late[shot, arrival] = late_s[path]
    return of_shot, late
