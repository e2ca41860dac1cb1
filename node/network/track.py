"""An incident in the making: a source of shots, and the rounds that it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from node.messages import Incident
from node.network.arrivals import BoolArray, FloatArray, IntArray, Pool, unique
from node.network.compiled import compiled
from node.network.likelihood import WIND_EAST, C
from node.network.sources import ECHO_S, Source, among, as_echoes

ONE_SHOT_S: Final = 0.06
"""If nodes agree within so much, something was fired."""

# A node may be off from what few others predict; beyond this it is not the same sound.
_SIGMAS: Final = 4.0
_LEAST_S: Final = 0.04
_MOST_S: Final = 0.4
_ROUGHLY_S: Final = 0.6
# Echoes are heard as far off as its nodes are, and so much farther.
_EARSHOT: Final = 1.3
_LEAST_EARSHOT_M: Final = 800.0
_LEAST_RAD: Final = math.radians(15)
# A wall mirrors a source at its own moment, many walls some time after it, give or take what the
# place is off; a second gun fires at other moments, and with another rhythm.
_EARLIEST_S: Final = -0.5
_LATEST_S: Final = 2.0
# The echoes of many walls fit one place only for few nodes.
_ECHOED: Final = 0.6
# An echo comes after the sound itself, where that is heard; so many of its arrivals do, at least.
_RETURNED: Final = 0.75
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
    fits_s, settles_s
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
    begins_s, ends_s
        When its first and its last shot were fired.
    used, used_nodes
        The rows that it takes for direct sound, and the nodes of the memory that these are of.
    crossing
        How many of them tell a bearing to it.
    """

    number: int
    name: str
    source: Source
    pool: Pool
    nodes: IntArray
    fits_s: float = np.inf
    settles_s: float = np.inf
    whole: frozenset[int] = frozenset()
    spread_m2: FloatArray = field(default_factory=lambda: np.zeros((2, 2)))
    said: Incident | None = None
    expected: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    founder: str = ""
    settled: int = 0
    over: bool = False
    begins_s: float = field(init=False)
    ends_s: float = field(init=False)
    used: IntArray = field(init=False)
    used_nodes: IntArray = field(init=False)
    crossing: int = field(init=False)

    def __post_init__(self) -> None:
        self.rest_on(self.source, self.pool, self.nodes)

    def rest_on(self, source: Source, pool: Pool, nodes: IntArray) -> None:
        """Put what was found now in the place of what was found before."""
        self.source, self.pool, self.nodes = source, pool, nodes
        self.begins_s, self.ends_s = float(source.fired_s[0]), float(source.fired_s[-1])
        direct = source.used
        self.used = pool.key[direct]
        heard = source.nodes(pool)
        self.used_nodes = nodes[heard]
        bearings = direct & pool.first & np.isfinite(pool.azimuth_rad)
        self.crossing = len(unique(pool.node[bearings]))
        used_m = pool.place_m[heard]
        far_m = np.sqrt(((used_m - source.state[:3]) ** 2).sum(-1)).max(initial=0.0)
        self._earshot_m = max(_EARSHOT * float(far_m), _LEAST_EARSHOT_M)
        self._east_m, self._north_m, self._c = source.state[[0, 1, C]].tolist()

    def may_reach(self, east_m: float, north_m: float, begins_s: float, ends_s: float) -> bool:
        """Say roughly whether its sound, echoes too, is at a place in a span of time."""
        away_m = math.hypot(self._east_m - east_m, self._north_m - north_m)
        way_s = away_m / self._c
        return bool(
            away_m < self._earshot_m
            and ends_s > self.begins_s + way_s - _ROUGHLY_S
            and begins_s < self.ends_s + way_s + ECHO_S + _ROUGHLY_S
        )

    def dimmed(
        self, clutter_per_s: FloatArray, time_s: FloatArray, place_m: FloatArray
    ) -> FloatArray:
        """Let arrivals that may be its echoes count for less; all [m], places [m, 3]."""
        source = self.source
        return _dimmed(
            source.state, source.fired_s, self._earshot_m, clutter_per_s, time_s, place_m
        )

    def is_in_earshot(self, place_m: FloatArray) -> BoolArray:
        """Say where its echoes may be heard, too: hardly farther off than it is itself; [m, 3]."""
        away = place_m - self.source.state[:3]
        return np.asarray((away**2).sum(-1) < self._earshot_m**2)

    def late_s(self, time_s: FloatArray, place_m: FloatArray) -> FloatArray:
        """Give how late arrivals are against the shots, shape [m, shots].

        Parameters
        ----------
        time_s, place_m
            When they came, shape [m], and where to, shape [m, 3].
        """
        return _late_s(self.source.state, self.source.fired_s, time_s, place_m)

    def way_s(self, place_m: FloatArray) -> FloatArray:
        """Give how long its sound takes to places [m, 3], shape [m]."""
        return _ways_s(self.source.state, place_m)

    def hears(
        self,
        time_s: FloatArray,
        sigma_s: FloatArray,
        place_m: FloatArray,
        azimuth_rad: float = math.nan,
        azimuth_sigma_rad: float = math.inf,
    ) -> BoolArray:
        """Say which arrivals at a place [3] may be direct sound of a shot, shape [m].

        By when they came, and the first of them by where it came from, if that is known.
        """
        source = self.source
        return _hears(
            source.state,
            source.covariance,
            source.path_s,
            source.fired_s,
            time_s,
            sigma_s,
            place_m,
            azimuth_rad,
            azimuth_sigma_rad,
        )

    def agreed(
        self, time_s: FloatArray, place_m: FloatArray, node: IntArray, own: int, least: float
    ) -> bool:
        """Say whether of the nodes of arrivals so many agree that something was fired here.

        At the moment that one of the first `own` arrivals says.
        """
        return _agreed(self.source.state, time_s, place_m, node, own, least)

    def is_echo_of(self, other: Track) -> bool:
        """Say whether its shots are another's, mirrored by a wall, or as many walls return them."""
        if (
            self.begins_s - other.ends_s >= _LATEST_S + ECHO_S
            or other.begins_s - self.ends_s >= -_EARLIEST_S
        ):
            return False
        used = self.source.used
        places = self.pool.place_m[self.pool.node[used]]
        after = (other.late_s(self.pool.time_s[used], places) > -_LEAST_S).any(axis=1)
        if np.mean(after & other.is_in_earshot(places)) < _RETURNED:
            return False
        mine, others = self.source.fired_s, other.source.fired_s
        if among(mine, others) == len(mine):
            return True
        if len(self.used_nodes) >= max(_SEEN_BY_MANY, _ECHOED * len(other.used_nodes)):
            return False
        lags = [at - of for at in mine for of in others if _EARLIEST_S < at - of < _LATEST_S]
        if len(mine) > 1 and any(
            among(mine - lag, others) >= len(mine) - len(mine) // 4 for lag in lags
        ):
            return True
        # Two walls that each return all of the shots.
        whole = [lag for lag in lags if among(others + lag, mine) == len(others)]
        returned = sum(any(among(at - lag, others) for lag in whole) for at in mine[:, None])
        return len(others) > 1 and returned >= len(mine) - len(mine) // 4


@compiled
def _way_s(state: FloatArray, east_m: float, north_m: float, up_m: float) -> float:
    east, north, up = state[0] - east_m, state[1] - north_m, state[2] - up_m
    r = max(np.sqrt(east * east + north * north + up * up), 1.0)
    return float(r / (state[C] - (east * state[WIND_EAST] + north * state[WIND_EAST + 1]) / r))


@compiled
def _ways_s(state: FloatArray, place_m: FloatArray) -> FloatArray:
    way_s = np.empty(len(place_m))
    for m in range(len(place_m)):
        way_s[m] = _way_s(state, place_m[m, 0], place_m[m, 1], place_m[m, 2])
    return way_s


@compiled
def _late_s(
    state: FloatArray, fired_s: FloatArray, time_s: FloatArray, place_m: FloatArray
) -> FloatArray:
    late_s = np.empty((len(time_s), len(fired_s)))
    for m in range(len(time_s)):
        late_s[m] = time_s[m] - _way_s(state, place_m[m, 0], place_m[m, 1], place_m[m, 2]) - fired_s
    return late_s


@compiled
def _dimmed(
    state: FloatArray,
    fired_s: FloatArray,
    earshot_m: float,
    clutter_per_s: FloatArray,
    time_s: FloatArray,
    place_m: FloatArray,
) -> FloatArray:
    late_s = np.empty((len(fired_s), len(time_s)))
    for m in range(len(time_s)):
        way_s = _way_s(state, place_m[m, 0], place_m[m, 1], place_m[m, 2])
        heard = way_s * state[C] < earshot_m
        late_s[:, m] = time_s[m] - way_s - fired_s if heard else np.full(len(fired_s), np.nan)
    return as_echoes(clutter_per_s, late_s)


@compiled
def _hears(
    state: FloatArray,
    covariance: FloatArray,
    path_s: float,
    fired_s: FloatArray,
    time_s: FloatArray,
    sigma_s: FloatArray,
    place_m: FloatArray,
    azimuth_rad: float,
    azimuth_sigma_rad: float,
) -> BoolArray:
    way_s = _way_s(state, place_m[0], place_m[1], place_m[2])
    east, north = state[0] - place_m[0], state[1] - place_m[1]
    far_m = max(np.sqrt(east * east + north * north), 1.0)
    east, north = east / far_m, north / far_m
    xx, xy, yy = covariance[0, 0], covariance[0, 1], covariance[1, 1]
    spread = (east * east * xx + 2 * east * north * xy + north * north * yy) / state[C] ** 2
    spread += path_s * path_s
    hears = np.zeros(len(time_s), np.bool_)
    for m in range(len(time_s)):
        gate_s = _SIGMAS * np.sqrt(spread + sigma_s[m] ** 2)
        gate_s = min(max(gate_s, _LEAST_S), _MOST_S)
        for fired in fired_s:
            hears[m] |= abs(time_s[m] - way_s - fired) < gate_s
    if np.isfinite(azimuth_rad):
        across = (north * north * xx - 2 * east * north * xy + east * east * yy) / far_m**2
        turn = (azimuth_rad - np.arctan2(east, north) + np.pi) % (2 * np.pi) - np.pi
        gate_rad = max(_SIGMAS * np.sqrt(across + azimuth_sigma_rad**2), _LEAST_RAD)
        hears[0] &= abs(turn) < gate_rad
    return hears


@compiled
def _agreed(
    state: FloatArray,
    time_s: FloatArray,
    place_m: FloatArray,
    node: IntArray,
    own: int,
    least: float,
) -> bool:
    fired = np.empty(len(time_s))
    for m in range(len(time_s)):
        fired[m] = time_s[m] - _way_s(state, place_m[m, 0], place_m[m, 1], place_m[m, 2])
    counted = np.empty(len(time_s), np.int64)
    for at in range(own):
        nodes = 0
        for m in range(len(time_s)):
            if (
                abs(fired[m] - fired[at]) < ONE_SHOT_S / 2
                and not (counted[:nodes] == node[m]).any()
            ):
                counted[nodes] = node[m]
                nodes += 1
        if nodes >= least:
            return True
    return False
