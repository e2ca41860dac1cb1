"""An incident in the making: a source of shots, and the rounds that it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from node.messages import Incident
from node.network.arrivals import FloatArray, IntArray, Pool
from node.network.likelihood import FIRED, WIND_EAST, C
from node.network.sources import DIRECT, ECHO_S, Source, among

# A node may be off from what few others predict; beyond this it is not the same sound.
_SIGMAS: Final = 4.0
_LEAST_S: Final = 0.04
_MOST_S: Final = 0.4
_ROUGHLY_S: Final = 0.6
# A wall mirrors a source at its own moment, many walls some time after it, give or take what the
# place is off; a second gun fires at other moments, and with another rhythm.
_EARLIEST_S: Final = -0.5
_LATEST_S: Final = 2.0
# The echoes of many walls fit one place only for few nodes.
_ECHOED: Final = 0.6
_SEEN_BY_MANY: Final = 6


@dataclass(eq=False)
class Track:
    """An incident in the making.

    Attributes
    ----------
    number, name
        Of the incident, here and in messages.
    source, pool, nodes
        What was found, in which pool, whose arrivals' keys are rows and whose nodes these are.
    due_s, settles_s
        When it is to be fitted anew, and gone through once more; infinity where nothing is due.
    whole
        The rows of the pool that was last searched from the beginning.
    spread_m2
        Covariance of its place, shape [2, 2].
    said
        What was published of it last.
    expected
        Rows that came where it was to be heard, since it was last fitted.
    founder
        The event that it began with.
    settled
        How often it was gone through once more.
    over
        Whether it is no more.
    """

    number: int
    name: str
    source: Source
    pool: Pool
    nodes: IntArray
    due_s: float = np.inf
    settles_s: float = np.inf
    whole: frozenset[int] = frozenset()
    spread_m2: FloatArray = field(default_factory=lambda: np.zeros((2, 2)))
    said: Incident | None = None
    expected: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    founder: str = ""
    settled: int = 0
    over: bool = False

    @property
    def begins_s(self) -> float:
        """When its first shot was fired."""
        return float(self.source.fired_s[0])

    @property
    def ends_s(self) -> float:
        """When its last shot was fired."""
        return float(self.source.fired_s[-1])

    def may_reach(self, east_m: float, north_m: float, begins_s: float, ends_s: float) -> bool:
        """Say roughly whether its sound, echoes too, is at a place in a span of time."""
        away_m = math.hypot(self.source.state[0] - east_m, self.source.state[1] - north_m)
        way_s = away_m / self.source.state[C]
        return bool(
            ends_s > self.source.fired_s[0] + way_s - _ROUGHLY_S
            and begins_s < self.source.fired_s[-1] + way_s + ECHO_S + _ROUGHLY_S
        )

    def late_s(self, time_s: FloatArray, place_m: FloatArray) -> FloatArray:
        """Give how late arrivals are against the shots, shape [m, shots].

        Parameters
        ----------
        time_s, place_m
            When they came, shape [m], and where to, shape [m, 3].
        """
        return np.asarray((time_s - self.way_s(place_m))[..., None] - self.source.fired_s)

    def way_s(self, place_m: FloatArray) -> FloatArray:
        """Give how long its sound takes to places [m, 3], shape [m]."""
        away = self.source.state[:3] - place_m
        r = np.maximum(np.sqrt((away**2).sum(-1)), 1.0)
        speed = self.source.state[C] - away[..., :2] @ self.source.state[WIND_EAST:FIRED] / r
        return np.asarray(r / speed)

    def gate_s(self, place_m: FloatArray, sigma_s: FloatArray) -> FloatArray:
        """Give within how much of what is predicted an arrival may be direct sound, shape [m]."""
        away = self.source.place_m - place_m[..., :2]
        toward = away / np.maximum(np.hypot(away[..., 0], away[..., 1]), 1.0)[..., None]
        toward /= self.source.state[C]
        spread = ((toward @ self.source.covariance[:2, :2]) * toward).sum(-1)
        gate = _SIGMAS * np.sqrt(spread + self.source.path_s**2 + sigma_s**2)
        return np.asarray(np.clip(gate, _LEAST_S, _MOST_S))

    @property
    def used(self) -> IntArray:
        """The rows that it takes for direct sound."""
        return np.asarray(self.pool.key[self.source.used])

    @property
    def used_nodes(self) -> IntArray:
        """The nodes of the memory whose direct sound it rests on."""
        return np.asarray(self.nodes[self.source.nodes(self.pool)])

    @property
    def crossing(self) -> int:
        """How many of them tell a bearing to it."""
        direct = (self.source.direct > DIRECT).any(axis=0) & self.pool.first
        return len(np.unique(self.pool.node[direct & np.isfinite(self.pool.azimuth_rad)]))

    def is_echo_of(self, other: Track) -> bool:
        """Say whether its shots are another's, mirrored by a wall, or as many walls return them."""
        mine, others = self.source.fired_s, other.source.fired_s
        if among(mine, others) == len(mine):
            return True
        if len(self.used_nodes) >= max(_SEEN_BY_MANY, _ECHOED * len(other.used_nodes)):
            return False
        lags = [mine[0] - at for at in others if _EARLIEST_S < mine[0] - at < _LATEST_S]
        return len(mine) > 1 and any(
            among(mine - lag, others) >= len(mine) - len(mine) // 4 for lag in lags
        )
