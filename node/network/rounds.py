"""Which of the rounds that were heard may be of a known incident, further shots among them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from node.network.arrivals import BoolArray, FloatArray, IntArray, is_in, unique
from node.network.memory import NOBODY, Memory
from node.network.neighbours import SLACK_S, SLOWEST_M_S
from node.network.policy import LocateSettings
from node.network.sources import ECHO_S
from node.network.track import ONE_SHOT_S, Track

FEW: Final = 6
"""A place that rests on fewer nodes may be far off, and its moment so."""

# Before a shot nothing is of it.
_EARLY_S: Final = 0.5
_EARLY_OF_FEW_S: Final = 4.0
_BEFORE_S: Final = 0.3
_MOST: Final = 400
_MOST_BEYOND: Final = 12
# If so many of the nodes that an incident rests on agree, there was a further shot.
_AGREE: Final = 0.3

Weaker = Callable[[int], bool]


def rounds_of(
    memory: Memory, track: Track, settings: LocateSettings, weaker: Weaker | None
) -> IntArray:
    """Give the rounds that may be of an incident: free ones, its own, a weaker one's.

    Parameters
    ----------
    weaker
        Says of an incident's number whether what it holds may be taken from it; None where nothing
        is to be taken.
    """
    few = len(track.used_nodes) < FEW
    wanted = np.concatenate([track.source.fired_s, _further(memory, track, settings, weaker)])
    rows = memory.heard(
        track.source.state[:3],
        settings.reach_m,
        wanted.min() - (_EARLY_OF_FEW_S if few else _EARLY_S),
        wanted.max() + settings.reach_m / SLOWEST_M_S + ECHO_S,
    )
    rows = _free(memory, track, rows, weaker)
    times, places = memory.column("time_s", rows), memory.places_m[memory.nodes_of(rows)]
    late = (times - track.way_s(places))[:, None] - wanted
    inside = ((late > -_BEFORE_S) & (late < ECHO_S)).any(axis=1)
    beyond = np.zeros(len(rows), np.bool_)
    if weaker is not None and few:
        beyond = _fits_most(memory, track, times, places) & ~inside
    order = np.argsort(memory.column("clutter_per_s", rows), kind="stable")
    chosen = [order[inside[order]][:_MOST], order[beyond[order]][:_MOST_BEYOND]]
    return np.asarray(rows[np.concatenate(chosen)])


def graded(memory: Memory, rows: IntArray, settings: LocateSettings) -> IntArray:
    """Give the rounds that some node calls a shot; all, where that does not count."""
    return np.asarray(rows[memory.flags("graded", rows)]) if settings.graded_nodes else rows


def _free(memory: Memory, track: Track, rows: IntArray, weaker: Weaker | None) -> IntArray:
    claims = memory.claimed_by(rows)
    free = (claims == NOBODY) | (claims == track.number)
    if weaker is not None:
        for number in unique(claims[~free]):
            if weaker(int(number)):
                free |= claims == number
    return np.asarray(rows[free])


def _further(
    memory: Memory, track: Track, settings: LocateSettings, weaker: Weaker | None
) -> FloatArray:
    """Give when else many of an incident's nodes say that something was fired at its place."""
    begins, ends = track.begins_s - settings.gap_s, track.ends_s + settings.gap_s
    reach_s = settings.reach_m / SLOWEST_M_S
    rows = memory.heard(track.source.state[:3], settings.reach_m, begins, ends + reach_s)
    rows = graded(memory, _free(memory, track, rows, weaker), settings)
    nodes = memory.nodes_of(rows)
    fired = memory.column("time_s", rows) - track.way_s(memory.places_m[nodes])
    inside = (fired > begins) & (fired < ends) & is_in(nodes, track.used_nodes)
    order = np.argsort(fired[inside])
    fired, nodes = fired[inside][order], nodes[inside][order]
    least = max(2.0, _AGREE * len(track.used_nodes))
    upto = np.searchsorted(fired, fired + ONE_SHOT_S)
    many = np.flatnonzero(upto - np.arange(len(fired)) >= least)
    agree = [at for at in many if len(unique(nodes[at : upto[at]])) >= least]
    return np.asarray(fired[agree])


def _fits_most(
    memory: Memory, track: Track, times_s: FloatArray, places_m: FloatArray
) -> BoolArray:
    """Say which arrivals may be of one shot with most of those that a place of few rests on.

    It may be far off, and with it what it predicts.
    """
    used = track.used[memory.remembers(track.used)]
    held = memory.places_m[memory.nodes_of(used)]
    apart_m = np.sqrt(((places_m[:, None] - held) ** 2).sum(-1))
    off_s = np.abs(times_s[:, None] - memory.column("time_s", used))
    fits = off_s <= apart_m / SLOWEST_M_S + SLACK_S
    return np.asarray(2 * fits.sum(axis=1) >= max(len(used), 1))
