"""Arrivals of several shots from one place, stacked: one for each node and path.

In come a pool, how late each arrival is against one shot of a place, and when the shots were fired
after each other; out goes a pool in which each arrival stands for all shots that came by one path.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from node.network.arrivals import FloatArray, IntArray, Pool

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
        shots = len(self.gaps_s)
        of_shot = np.zeros((shots, arrivals))
        late = np.full((shots, arrivals), np.nan)
        for path, members in enumerate(self.members):
            for shot, arrival in enumerate(members):
                if arrival >= 0:
                    of_shot[shot, arrival] = max(of_shot[shot, arrival], direct[path])
                    late[shot, arrival] = late_s[path]
        return of_shot, late


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
    gaps = shots_s - shots_s[0]
    late_s = late_s - shots_s[0]
    gaps = _settled(pool, late_s, gaps)
    members, times, sigmas, firsts = [], [], [], []
    clutter = []
    for node in np.unique(pool.node):
        mine = np.flatnonzero(pool.node == node)
        for group in _paths(late_s[mine], gaps, pool.clutter_per_s[mine]):
            which = np.where(group >= 0, mine[group], -1)
            shots = np.flatnonzero(which >= 0)
            own = which[shots]
            members.append(which)
            times.append(np.mean(pool.time_s[own] - gaps[shots]))
            sigmas.append(np.sqrt(np.mean(pool.sigma_s[own] ** 2) / len(own)))
            firsts.append(own[int(np.argmax(pool.first[own]))])
            # That clutter looks like it: once at its rate, and again at each further shot.
            again = pool.clutter_per_s[own[1:]] * np.sqrt(2 * np.pi) * _SPACING_S / _AGAIN
            missed = (1 - _AGAIN) ** (len(gaps) - len(own))
            clutter.append(pool.clutter_per_s[own[0]] * np.prod(np.minimum(again, 1.0)) / missed)
    first = np.array(firsts, np.int64)
    stacked = replace(
        pool.only(first),
        time_s=np.array(times),
        sigma_s=np.array(sigmas),
        clutter_per_s=np.array(clutter),
    )
    return Stack(
        stacked, gaps, float(shots_s[0]), np.array(members, np.int64).reshape(-1, len(gaps))
    )


def _paths(late_s: FloatArray, gaps_s: FloatArray, clutter: FloatArray) -> list[IntArray]:
    """Give the paths of one node: for each the arrival of each shot, or -1; the fullest first."""
    after = late_s[None, :] - gaps_s[:, None]  # shot, arrival
    candidates = after[(after > _EARLIEST_S) & (after < _LATEST_S)]
    found: list[tuple[float, float, IntArray]] = []
    for delay in candidates:
        off = np.abs(after - delay)
        nearest = off.argmin(axis=1)
        fits = off[np.arange(len(gaps_s)), nearest] < 3 * _SPACING_S
        group = np.where(fits, nearest, -1)
        score = float(-np.log(np.minimum(clutter[group[fits]], 1.0)).sum() + 3 * fits.sum())
        found.append((-score, abs(delay), group))
    found.sort(key=lambda one: one[:2])
    kept: list[IntArray] = []
    taken = np.zeros(len(late_s), np.bool_)
    for _, _, group in found:
        own = group[group >= 0]
        if not taken[own].any():
            kept.append(group)
            taken[own] = True
        if len(kept) == _MOST_PATHS:
            break
    return kept


def _settled(pool: Pool, late_s: FloatArray, gaps_s: FloatArray) -> FloatArray:
    """Settle the shots' spacing by all nodes: the median of what each says of it."""
    if len(gaps_s) == 1:
        return gaps_s
    says: list[list[float]] = [[] for _ in gaps_s]
    for node in np.unique(pool.node):
        mine = np.flatnonzero(pool.node == node)
        paths = _paths(late_s[mine], gaps_s, pool.clutter_per_s[mine])[:1]
        for group in paths:
            if group[0] >= 0:
                for shot in np.flatnonzero(group >= 0)[1:]:
                    says[shot].append(float(late_s[mine[group[shot]]] - late_s[mine[group[0]]]))
    settled = [np.median(said) if said else gap for said, gap in zip(says, gaps_s, strict=True)]
    settled[0] = 0.0
    apart = np.diff(np.sort(settled), prepend=-np.inf) > FASTEST_S
    return np.sort(settled)[apart]
