"""An incident in the making: a source of shots, and the detections that it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from node.messages import Incident
from node.network.arrivals import BoolArray, FloatArray, IntArray, Pool
from node.network.hearing import Heard
from node.network.likelihood import FIRED, WIND_EAST, C
from node.network.sources import DIRECT, Source

# A node may be off from what few others predict; beyond this it is not the same sound.
_SIGMAS = 4.0
_LEAST_S = 0.04
_MOST_S = 0.4
ECHO_S = 1.0
"""So long after a shot its echoes come."""


@dataclass(eq=False)
class Track:
    """An incident in the making.

    Attributes
    ----------
    name
        Of the incident.
    source, pool, found, nodes
        What was found, in which pool, of which rounds, among which nodes of the memory.
    due_s, settles_s
        When it is to be fitted anew, and gone through once more; infinity where nothing is due.
    spread_m2
        Covariance of its place, shape [2, 2].
    said
        What was published of it last.
    """

    name: str
    source: Source
    pool: Pool
    found: list[tuple[Heard, int]]
    nodes: IntArray
    due_s: float = np.inf
    settles_s: float = np.inf
    spread_m2: FloatArray = field(default_factory=lambda: np.zeros((2, 2)))
    said: Incident | None = None
    over: bool = False
    place: FloatArray = field(default_factory=lambda: np.zeros(3))

    def predicted_s(self, place_m: FloatArray) -> float:
        """Give when sound of the first shot comes to a place [3]."""
        away = self.source.state[:3] - place_m
        r = max(float(np.sqrt(away @ away)), 1.0)
        speed = self.source.state[C] - away[:2] @ self.source.state[WIND_EAST:FIRED] / r
        return float(self.source.state[FIRED] + r / speed)

    def late_s(self, one: Heard, place_m: FloatArray) -> FloatArray:
        """Give how late rounds are against the shots at a node, shape [rounds, shots]."""
        shots = self.predicted_s(place_m) + self.source.fired_s - self.source.fired_s[0]
        return np.asarray(one.times_s[:, None] - shots[None, :])

    def hears(self, one: Heard, place_m: FloatArray) -> tuple[BoolArray, BoolArray]:
        """Say which rounds of a detection may be direct sound of it, and which an echo."""
        late = self.late_s(one, place_m)
        away = self.source.state[:2] - place_m[:2]
        toward = away / max(float(np.hypot(*away)), 1.0) / self.source.state[C]
        spread = float(toward @ self.source.covariance[:2, :2] @ toward)
        gate = _SIGMAS * np.sqrt(spread + self.source.path_s**2 + one.sigmas_s**2)
        gate = np.clip(gate, _LEAST_S, _MOST_S)[:, None]
        direct = (np.abs(late) < gate).any(axis=1)
        echo = ((late > 0) & (late < ECHO_S)).any(axis=1) & ~direct
        return direct, echo

    def used(self) -> list[tuple[Heard, int]]:
        """Give the rounds that it takes for direct sound."""
        return [self.found[key] for key in self.pool.key[self.source.used]]

    def used_nodes(self) -> IntArray:
        """Give the nodes of the memory whose direct sound it rests on."""
        return self.nodes[self.source.nodes(self.pool)]

    def claim(self) -> None:
        """Take its rounds."""
        for one, k in self.used():
            one.claimed_by[k] = self

    def release(self) -> None:
        """Leave its rounds to others."""
        for one, k in self.found:
            if one.claimed_by[k] is self:
                one.claimed_by[k] = None

    def crosses(self) -> int:
        """Count the nodes that it rests on and that tell a bearing to it."""
        direct = (self.source.direct > DIRECT).any(axis=0) & self.pool.first
        return len(np.unique(self.pool.node[direct & np.isfinite(self.pool.azimuth_rad)]))
