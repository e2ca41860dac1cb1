"""Sources of shots in a pool of arrivals: which belong together, where they were fired, how many.

In comes a pool; out go sources, the likeliest first, each with the moments of its shots and the
errors of both. Found one after the other: what one explains as direct sound is taken away, what
may be its echo counts for less, and the rest is searched again.

Shots from one place come to a node by one path. Its error does not average out over them, and if it
is an echo's path it is so for all; what they add is that their spacing is the same at every node.
So the place is settled by one arrival for each node and path, stacked of all the shots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from node.network.arrivals import BoolArray, FloatArray, IntArray, Pool, unique
from node.network.compiled import compiled
from node.network.kernel import Given, at_moments, descend, distinct, promising, scores
from node.network.likelihood import FIRED, LONGEST_STEP_M, Hypotheses, Likelihood
from node.network.medium import Medium
from node.network.seeds import seeds
from node.network.stack import FASTEST_S, Stack, single, stack

PATHS_S: Final = (0.003, 0.006, 0.010)
"""How much a town delays sound on its ways: an open place, streets, hills (10 ms: what the
live-fire set leaves over)."""
PATHS_LIKELY: Final = (0.35, 0.35, 0.3)
"""How likely each is before anything was heard: where only few nodes hear, nothing else tells."""

_COARSE_S: Final = 0.03
_MIDDLE_S: Final = 0.012
_PROMISING: Final = 64
_KEPT: Final = 8
_MODES: Final = 6
_SAME_M: Final = 20.0
_SAME_S: Final = 0.03
_COARSE_STEPS: Final = 2
_JOINT_STEPS: Final = 3
_FINE_STEPS: Final = 4
# What a place must reach at the coarse spread and at the middle one to be looked at further, with
# bearings and without: of 416 sources that were incidents in the end one stayed below.
_HOPELESS: Final = {True: (9.0, 12.0), False: (5.0, 8.0)}
_FAR_BEHIND: Final = 14.0

DIRECT: Final = 0.5
"""Above this probability an arrival is taken for direct sound."""
# Of the nodes that hear the shot that most hear, so many hear every one.
_AGREE: Final = 0.55
_MOST_SHOTS: Final = 60
ECHO_S: Final = 1.0
"""So long after a shot its echoes come."""
# How often an echo of a shot comes to a node that hears it, meanwhile.
_ECHO_PER_S: Final = 1.0
# A wall mirrors a source at its own moment; a second gun fires at another.
_MIRROR_S: Final = 0.025


@dataclass(frozen=True)
class Source:
    """A place from which shots were fired, as one pool tells it.

    Attributes
    ----------
    state
        East, north, up (m), speed of sound, wind to the east and north (m/s), and when the first
        shot was fired (s).
    covariance
        Of `state`, shape [7, 7].
    fired_s
        When each shot was fired, in order of time.
    direct
        For each shot, the probability that each arrival of the pool is its direct sound, [k, m].
    late_s
        Each arrival less what is predicted of each shot, [k, m].
    evidence
        Log of the odds against clutter.
    path_s
        The spread of the paths.
    stacked, stacked_direct
        The pool that the place was settled by, an arrival for each node and path; and the
        probability that each is direct sound.
    """

    state: FloatArray
    covariance: FloatArray
    fired_s: FloatArray
    direct: FloatArray
    late_s: FloatArray
    evidence: float
    path_s: float
    stacked: Pool
    stacked_direct: FloatArray

    @property
    def place_m(self) -> FloatArray:
        """East and north, metres."""
        return self.state[:2]

    @property
    def used(self) -> BoolArray:
        """Which arrivals are direct sound of a shot, shape [m]."""
        return np.asarray((self.direct > DIRECT).any(axis=0))

    def nodes(self, pool: Pool) -> IntArray:
        """Give the nodes whose direct sound it rests on."""
        return unique(pool.node[self.used])


def find(
    pool: Pool,
    medium: Medium,
    *,
    least_evidence: float = 0.0,
    most_sources: int = 6,
    most_seeds: int = 600,
) -> list[Source]:
    """Find the sources in a pool."""
    found: list[Source] = []
    left = np.ones(len(pool), np.bool_)
    clutter = pool.clutter_per_s
    while len(found) < most_sources and len(unique(pool.node[left])) >= 2:
        rest = replace(pool, clutter_per_s=clutter).only(left)
        source = best(rest, medium, most_seeds=most_seeds)
        if source is None or source.evidence < least_evidence:
            break
        whole = _in_whole(source, left)
        if not whole.used.any():
            break
        left = left & ~whole.used
        if any(among(source.fired_s, other.fired_s) == len(source.fired_s) for other in found):
            continue
        found.append(whole)
        clutter = as_echoes(clutter, whole.late_s)
    return found


def best(
    pool: Pool,
    medium: Medium,
    *,
    most_seeds: int = 600,
    with_arrivals: IntArray | None = None,
) -> Source | None:
    """Find the likeliest source in a pool; None where no three times, or two bearings, meet.

    Parameters
    ----------
    with_arrivals
        One of these is to have a part in it.
    """
    places, moments = seeds(pool, medium.speed_m_s, most=most_seeds, with_arrivals=with_arrivals)
    if not len(places):
        return None
    likelihood = Likelihood(pool, medium)
    start = likelihood.start(places, moments, _COARSE_S).state
    modes = _coarse(start, likelihood.given, *_HOPELESS[bool(np.isfinite(pool.azimuth_rad).any())])
    return _finish(pool, medium, likelihood, modes) if len(modes) else None


def refine(pool: Pool, medium: Medium, source: Source) -> Source | None:
    """Fit a source that is known anew to a changed pool; None where nothing is left of it."""
    return _finish(pool, medium, Likelihood(pool, medium), source.state[None])


@compiled
def _coarse(state: FloatArray, given: Given, coarse: float, middle: float) -> FloatArray:
    """Give the best places, settled to some metres; none where no few nodes agree anywhere.

    Shape [k, 7]; `coarse` and `middle` are what they must reach at those spreads.
    """
    if len(state) > _PROMISING:
        state = state[promising(state, _COARSE_S, given, _PROMISING)]
    likely = scores(state, np.full(len(state), _COARSE_S), given)
    if likely.max() < coarse:
        return state[:0]
    state = state[distinct(state, np.argsort(-likely), _KEPT, _SAME_M, _SAME_S)]
    for spread_s in (_COARSE_S, _MIDDLE_S):
        path_s = np.full(len(state), spread_s)
        state = descend(state, path_s, given, _COARSE_STEPS, LONGEST_STEP_M)
    likely = scores(state, np.full(len(state), _MIDDLE_S), given)
    if likely.max() < middle:
        return state[:0]
    kept: IntArray = distinct(state, np.argsort(-likely), _MODES, _SAME_M, _SAME_S)
    near: FloatArray = state[kept[likely[kept] > likely.max() - _FAR_BEHIND]]
    return near


def _finish(pool: Pool, medium: Medium, likelihood: Likelihood, modes: FloatArray) -> Source | None:
    """Look for all shots of each place [s, 7], and settle that which explains most by them all."""
    choice = _of_one_shot if likelihood.one_each else _of_all_shots
    chosen = choice(pool, medium, likelihood, modes)
    if chosen is None:
        return None
    h, stacked, of_stack = chosen
    h = of_stack.settle(h.along(PATHS_S), _FINE_STEPS)
    peak = of_stack.peak(h)
    likely = peak.evidence + np.log(PATHS_LIKELY)
    share = np.exp(likely - likely.max())
    evidence = float(np.log(share.sum()) + likely.max())
    share /= share.sum()
    # What is not known of the paths is part of the errors: the mean over them, and its spread.
    state = share @ h.state
    off = h.state - state
    spread = peak.covariance + off[:, :, None] * off[:, None, :]
    path = int(np.argmax(share))
    direct, late_s = stacked.unstack(peak.direct[path], peak.late_s[path], len(pool))
    return Source(
        state,
        np.einsum("s,sij->ij", share, spread),
        state[FIRED] + stacked.gaps_s,
        direct,
        late_s,
        evidence,
        float(share @ np.array(PATHS_S)),
        stacked.pool,
        peak.direct[path],
    )


Choice = tuple[Hypotheses, Stack, Likelihood]


def _of_one_shot(
    pool: Pool, medium: Medium, likelihood: Likelihood, modes: FloatArray
) -> Choice | None:
    h = Hypotheses(modes, np.full(len(modes), _MIDDLE_S))
    mode = int(np.argmax(likelihood.peak(h).evidence))
    return h.take(np.array([mode])), single(pool), likelihood


def _of_all_shots(
    pool: Pool, medium: Medium, likelihood: Likelihood, modes: FloatArray
) -> Choice | None:
    # With an even cadence, one node's second shot and another's third make a place, too; only all
    # of the shots together tell that it is wrong.
    tried: list[tuple[float, Choice]] = []
    for mode in modes:
        stacked = _stack(pool, likelihood, mode)
        if not len(stacked.pool):
            continue
        of_stack = likelihood if stacked.pool is pool else Likelihood(stacked.pool, medium)
        h = Hypotheses(mode[None].copy(), np.array([_MIDDLE_S]))
        h.state[:, FIRED] += stacked.shift_s
        h = of_stack.settle(h, _JOINT_STEPS)
        score = float(of_stack.peak(h).evidence[0])
        tried.append((score, (h, stacked, of_stack)))
    return max(tried, key=lambda one: one[0])[1] if tried else None


def _stack(pool: Pool, likelihood: Likelihood, state: FloatArray) -> Stack:
    """Find the moments at which nodes agree that something was fired at a place, and stack them."""
    late_s, shots_s = _moments(state, likelihood.given)
    return single(pool) if len(shots_s) == 1 else stack(pool, late_s, shots_s)


@compiled
def _moments(state: FloatArray, given: Given) -> tuple[FloatArray, FloatArray]:
    """Give how late arrivals are against a place's own shot, and when all were fired after it."""
    starts = given[3]
    nodes = len(starts) - 1
    late_s, direct = at_moments(state, _MIDDLE_S, given)
    count = len(late_s) + 1
    moments = np.zeros(count)
    moments[1:] = late_s
    shots = np.empty(_MOST_SHOTS)
    found = 0
    least = 0.0
    heard = np.empty(count)
    agree = np.empty(count)
    while found < _MOST_SHOTS:
        for moment in range(count):
            heard[moment] = 0.0
            agree[moment] = 0.0
            for node in range(nodes):
                of_node = direct[moment, starts[node] : starts[node + 1]].max()
                heard[moment] += of_node
                agree[moment] += of_node > DIRECT
        if least == 0.0:
            least = max(2.0, _AGREE * agree.max())
        choice = int(np.argmax(heard * (agree >= least))) if found else 0
        if found and agree[choice] < least:
            break
        at = moments[choice]
        shots[found] = at
        found += 1
        # An arrival is of one shot.
        for arrival in range(count - 1):
            if direct[choice, arrival] > DIRECT:
                direct[:, arrival] = 0.0
        for moment in range(count):
            if abs(moments[moment] - at) < FASTEST_S:
                direct[moment] = 0.0
    return late_s, np.sort(shots[:found])


def _in_whole(source: Source, which: BoolArray) -> Source:
    """Give a source as the pool has it from which some arrivals were left out."""
    direct = np.zeros((len(source.fired_s), len(which)))
    late_s = np.full(direct.shape, np.nan)
    direct[:, which] = source.direct
    late_s[:, which] = source.late_s
    return replace(source, direct=direct, late_s=late_s)


@compiled
def as_echoes(clutter_per_s: FloatArray, late_s: FloatArray) -> FloatArray:
    """Let arrivals [m] that may be echoes of shots, so late after each [k, m], count for less."""
    dimmed = clutter_per_s.copy()
    for arrival in range(len(dimmed)):
        for shot in range(len(late_s)):
            if 0 < late_s[shot, arrival] < ECHO_S:
                dimmed[arrival] = max(dimmed[arrival], _ECHO_PER_S)
    return dimmed


def among(mine_s: FloatArray, others_s: FloatArray) -> int:
    """Count moments that are others', too, as a wall's picture of a source has them."""
    return int((np.abs(mine_s[:, None] - others_s).min(axis=1) < _MIRROR_S).sum())
