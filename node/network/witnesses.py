"""Which nodes heard an incident, which of them it rests on, and which should have heard it."""

from __future__ import annotations

from typing import Final

import numpy as np

from node.messages.incident import Witness
from node.network.arrivals import FloatArray, is_in
from node.network.doubts import Doubts
from node.network.likelihood import C
from node.network.memory import NOBODY, Event, Memory
from node.network.sources import ECHO_S
from node.network.track import Track

# A node whose clock or place is wrong is looked for within so much of when it should have heard.
_ASTRAY_S: Final = 3.5
_ASTRAY_REACH_M: Final = 1000.0
_USED_FIRST_S: Final = 100.0


def witnesses(track: Track, memory: Memory, doubts: Doubts) -> tuple[Witness, ...]:
    """Give what became of each node that heard something which may be of an incident.

    Those are the nodes that it rests on, those that heard an echo of it, and those of which it is
    known that they are wrong and that heard something a few seconds off.
    """
    rows = track.pool.key
    late = track.late_s(track.pool.time_s, track.pool.place_m[track.pool.node])
    nearest = late[np.arange(len(late)), np.abs(late).argmin(axis=1)]
    used = track.source.used
    claims = memory.claimed_by(rows)
    free = (claims == NOBODY) | (claims == track.number)
    part = used | (free & (nearest > 0) & (nearest < ECHO_S))
    rank = np.abs(nearest) + np.where(used, 0.0, _USED_FIRST_S)
    best: dict[int, int] = {}
    for at in np.flatnonzero(part):
        node = int(track.pool.node[at])
        if node not in best or rank[at] < rank[best[node]]:
            best[node] = int(at)
    chosen = list(best.values())
    out = {}
    for at, event in zip(chosen, memory.events_of(rows[chosen]), strict=True):
        out[event.word.node_id] = _witness(event, float(nearest[at]), bool(used[at]), None)
    for event, residual in astray(track, memory):
        node_id = event.word.node_id
        doubt = doubts.of(node_id, (event.event_id, residual))
        if doubt is not None and not (node_id in out and out[node_id].used):
            out[node_id] = _witness(event, residual, False, doubt)
    return tuple(out.values())


def astray(track: Track, memory: Memory) -> list[tuple[Event, float]]:
    """Give what nodes that an incident does not rest on called a shot some seconds off.

    With each goes how late its first round is against the first shot, seconds.
    """
    rows = memory.heard(
        track.source.state[:3],
        _ASTRAY_REACH_M,
        track.begins_s - _ASTRAY_S,
        track.begins_s + _ASTRAY_S + _ASTRAY_REACH_M / float(track.source.state[C]),
    )
    first = memory.flags("first", rows) & memory.flags("graded", rows)
    rows = rows[first & (memory.claimed_by(rows) == NOBODY)]
    rows = rows[~is_in(memory.nodes_of(rows), track.used_nodes)]
    nodes = memory.nodes_of(rows)
    late = track.late_s(memory.column("time_s", rows), memory.places_m[nodes])[:, 0]
    nearest: dict[int, int] = {}
    for at in np.flatnonzero(np.abs(late) < _ASTRAY_S):
        node = int(nodes[at])
        if node not in nearest or abs(late[at]) < abs(late[nearest[node]]):
            nearest[node] = int(at)
    chosen = list(nearest.values())
    events = memory.events_of(rows[chosen])
    return [(event, float(late[at])) for event, at in zip(events, chosen, strict=True)]


def _witness(event: Event, residual_s: float, used: bool, doubt: str | None) -> Witness:
    return Witness(
        node_id=event.word.node_id,
        event_id=event.event_id,
        residual_s=residual_s,
        used=used,
        grade=event.word.grade,
        doubt=doubt,
    )


def silent(track: Track, memory: Memory) -> tuple[str, ...]:
    """Give the nodes that are as near as the nearer half of those that heard it, and did not."""
    places = memory.places_m
    used = _away(places[track.used_nodes], track)
    away = _away(places[track.nodes], track)
    present = is_in(np.arange(len(track.nodes)), track.pool.node)
    ought = (away <= np.median(used)) & ~present
    return tuple(memory.node_ids[node] for node in track.nodes[ought])


def _away(place_m: FloatArray, track: Track) -> FloatArray:
    return np.asarray(np.hypot(*(place_m[:, :2] - track.source.place_m).T))
