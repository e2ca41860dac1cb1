"""Which nodes heard an incident, which of them it rests on, and which should have heard it."""

from __future__ import annotations

import numpy as np

from node.messages.incident import Witness
from node.network.arrivals import FloatArray
from node.network.doubts import Doubts
from node.network.memory import NOBODY, Memory
from node.network.track import ECHO_S, Track

# A node whose clock or place is wrong is looked for within so much of when it should have heard.
_ASTRAY_S = 3.5
_USED_FIRST_S = 100.0


def witnesses(track: Track, memory: Memory, doubts: Doubts) -> tuple[Witness, ...]:
    """Give what became of each node that heard something which may be of an incident."""
    rows = track.pool.key
    late = track.late_s(track.pool.time_s, track.pool.place_m[track.pool.node])
    nearest = late[np.arange(len(late)), np.abs(late).argmin(axis=1)]
    used = track.source.used
    graded = memory.column("graded", rows).astype(bool)
    claims = memory.claimed_by(rows)
    echo = (nearest > 0) & (nearest < ECHO_S)
    astray = graded & (np.abs(nearest) < _ASTRAY_S)
    free = (claims == NOBODY) | (claims == track.number)
    part = used | (free & (echo | astray))
    rank = np.abs(nearest) + np.where(used, 0.0, _USED_FIRST_S)
    best: dict[int, int] = {}
    for at in np.flatnonzero(part):
        node = int(track.pool.node[at])
        if node not in best or rank[at] < rank[best[node]]:
            best[node] = int(at)
    chosen = list(best.values())
    out = []
    for at, event in zip(chosen, memory.events_of(rows[chosen]), strict=True):
        is_used, residual = bool(used[at]), float(nearest[at])
        out.append(
            Witness(
                node_id=event.detection.node_id,
                event_id=event.detection.event_id,
                residual_s=residual,
                used=is_used,
                grade=event.detection.grade,
                doubt=None if is_used else doubts.of(event.detection.node_id, residual),
            )
        )
    return tuple(out)


def silent(track: Track, memory: Memory) -> tuple[str, ...]:
    """Give the nodes that are as near as the nearer half of those that heard it, and did not."""
    places = memory.places_m
    used = _away(places[track.used_nodes], track)
    away = _away(places[track.nodes], track)
    present = np.isin(np.arange(len(track.nodes)), track.pool.node)
    ought = (away <= np.median(used)) & ~present
    return tuple(memory.node_ids[node] for node in track.nodes[ought])


def _away(place_m: FloatArray, track: Track) -> FloatArray:
    return np.asarray(np.hypot(*(place_m[:, :2] - track.source.place_m).T))
