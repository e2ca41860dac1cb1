"""What the nodes of a site heard lately, as columns that the solver's pools are cut from.

In come detections, each with its highest revision, and nodes' places; out go pools of rounds near a
place and a moment. A round is a row, a detection an event of some rows; rows are found by squares
of ground and stretches of time, so that a query's cost does not grow with the city or the hours.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict, deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from scipy.spatial import cKDTree

from node.messages import Detection
from node.messages.fields import moment_ns
from node.network.arrivals import ALL_TOLD, BoolArray, FloatArray, IntArray, Pool
from node.network.compiled import compiled
from node.network.policy import Word
from node.types import NS_PER_S, Grade

# How often a node reports such an impulse without any shot, each second, at an SNR of 25 dB; and
# how that falls with the SNR: of the live-fire set's detections under 20 dB three in four are no
# shot's direct sound, above 40 dB one in forty.
_CLUTTER_PER_S: Final[dict[Grade, float]] = {
    "gunfire": 0.02,
    "probable_gunfire": 0.1,
    "not_gunfire": 1.0,
}
_AT_DB: Final = 25.0
_CLUTTER_DB: Final = 8.0
_CLUTTER_RANGE: Final = (0.15, 20.0)
# Where the direct way is barred, what comes round by a wall is weaker: 5 in 100 above 37 dB.
_LATE: Final = 0.2
_LATE_DB: Final = 20.0
_LATE_RANGE: Final = (0.05, 0.3)

NOBODY: Final = -1
"""Who has claimed a round that nobody has."""

_BLOCK_S: Final = 8.0
_ROWS: Final = 4096

_COLUMNS: Final = {
    "time_s": np.float64,
    "sigma_s": np.float64,
    "azimuth_rad": np.float64,
    "azimuth_sigma_rad": np.float64,
    "clutter_per_s": np.float64,
    "late_share": np.float64,
    "node": np.int64,
    "event": np.int64,
    "claimed_by": np.int64,
    "first": np.bool_,
    "graded": np.bool_,
    "stands": np.bool_,
}


@dataclass(frozen=True, slots=True)
class Event:
    """What is remembered of a detection: as little as is needed, there may be half a million.

    Attributes
    ----------
    node
        Index of its node.
    begin, end
        Its first round's row, and that after its last.
    """

    event_id: str
    revision: int
    word: Word
    node: int
    begin: int
    end: int

    @property
    def rows(self) -> IntArray:
        """Its rounds."""
        return np.arange(self.begin, self.end)


class Memory:
    """Nodes of a site and what they heard.

    Parameters
    ----------
    epoch_ns
        UTC that its seconds count from.
    reach_m
        No node hears a shot from farther off.
    down
        Names of nodes that do not listen; where it changes, `replant`.
    """

    def __init__(self, epoch_ns: int, reach_m: float, down: AbstractSet[str] = frozenset()) -> None:
        self.epoch_ns = epoch_ns
        self.node_ids: list[str] = []
        self._index: dict[str, int] = {}
        self._reach_m = reach_m
        self._place_m: list[tuple[float, float, float]] = []
        self._sigma_m: list[float] = []
        self._down = down
        self._deafness: BoolArray = np.zeros(0, np.bool_)
        self._tree: cKDTree | None = None
        self._places: FloatArray = np.zeros((0, 3))
        self._sigmas: FloatArray = np.zeros(0)
        self._columns: dict[str, Any] = _empty(_ROWS)
        self._base = 0  # number of the row that stands first
        self._end = 0
        self._blocks: dict[tuple[int, int, int], array[int]] = defaultdict(lambda: array("q"))
        self._block_keys: dict[int, set[tuple[int, int, int]]] = defaultdict(set)  # by time
        self._events: dict[int, Event] = {}
        self._numbers: dict[tuple[int, str], int] = {}
        self._order: deque[int] = deque()
        self._next_event = 0

    # Nodes

    def node(self, node_id: str) -> int | None:
        """Give the index of a node; None for one whose place is not known."""
        return self._index.get(node_id)

    def place(self, node_id: str, place_m: tuple[float, float, float], sigma_m: float) -> None:
        """Say where a node stands."""
        index = self._index.get(node_id)
        if index is None:
            self._index[node_id] = len(self.node_ids)
            self.node_ids.append(node_id)
            self._place_m.append(place_m)
            self._sigma_m.append(sigma_m)
        else:
            self._place_m[index], self._sigma_m[index] = place_m, sigma_m
        self._tree = None

    def place_of(self, node: int) -> tuple[float, float]:
        """Give east and north of a node, metres."""
        return self._place_m[node][:2]

    @property
    def places_m(self) -> FloatArray:
        """The places of all nodes, shape [n, 3], metres."""
        self._plant()
        return self._places

    def near(self, place_m: FloatArray, radius_m: float) -> IntArray:
        """Give the nodes within a radius of a place, ascending."""
        found = self._plant().query_ball_point(place_m[:2], radius_m, return_sorted=True)
        return np.array(found, np.int64)

    def replant(self) -> None:
        """Have what is known of nodes worked out anew: one began to listen, or ceased to."""
        self._tree = None

    def is_deaf(self, nodes: IntArray) -> BoolArray:
        """Say which nodes do not listen."""
        self._plant()
        return np.asarray(self._deafness[nodes])

    # What was heard

    def event(self, node: int, event_id: str) -> Event | None:
        """Give what is remembered of an event."""
        number = self._numbers.get((node, event_id))
        return None if number is None else self._events[number]

    def bearing(self, event: Event) -> tuple[float, float]:
        """Give where the first round of an event came from, and its standard error, radians."""
        at = event.begin - self._base
        columns = self._columns
        return float(columns["azimuth_rad"][at]), float(columns["azimuth_sigma_rad"][at])

    def take(self, detection: Detection, node: int) -> Event:
        """Remember a detection, in place of what it revises."""
        self.withdraw(node, detection.event_id)
        number = self._next_event
        self._next_event += 1
        count = len(detection.rounds)
        self._make_room(count)
        word = replace(Word.of(detection), node_id=self.node_ids[node])
        event = Event(
            detection.event_id, detection.revision, word, node, self._end, self._end + count
        )
        self._end += count
        times_s = self._fill(event.begin - self._base, detection, node, number)
        x, y = self._cell(self.places_m[node])
        for row, time_s in enumerate(times_s, event.begin):
            key = (x, y, int(time_s // _BLOCK_S))
            self._blocks[key].append(row)
            self._block_keys[key[2]].add(key)
        self._events[number] = event
        self._numbers[node, detection.event_id] = number
        self._order.append(number)
        return event

    def withdraw(self, node: int, event_id: str) -> Event | None:
        """Forget an event that its node takes back."""
        number = self._numbers.pop((node, event_id), None)
        if number is None:
            return None
        gone = self._events[number]
        self._columns["stands"][gone.rows - self._base] = False
        return gone

    def forget(self, before_s: float) -> None:
        """Forget what was heard before a moment."""
        while self._order:
            event = self._events[self._order[0]]
            last = event.end - 1 - self._base
            if self._columns["time_s"][last] >= before_s:
                break
            number = self._order.popleft()
            del self._events[number]
            if self._numbers.get((event.node, event.event_id)) == number:
                del self._numbers[event.node, event.event_id]
        for stretch in [b for b in self._block_keys if (b + 1) * _BLOCK_S < before_s]:
            for key in self._block_keys.pop(stretch):
                del self._blocks[key]

    def heard(
        self, place_m: FloatArray, radius_m: float, begins_s: float, ends_s: float
    ) -> IntArray:
        """Give the rows of nodes within about a radius of a place, in a span of time."""
        (left, low), (right, high) = (
            self._cell(place_m[:2] + off) for off in (-radius_m, radius_m)
        )
        found = array("q")
        for stretch in range(int(begins_s // _BLOCK_S), int(ends_s // _BLOCK_S) + 1):
            if stretch in self._block_keys:
                for x in range(left, right + 1):
                    for y in range(low, high + 1):
                        if (block := self._blocks.get((x, y, stretch))) is not None:
                            found += block
        rows = np.frombuffer(found, np.int64)
        column = self._columns
        return _inside(rows, self._base, column["time_s"], column["stands"], begins_s, ends_s)

    def column(self, name: str, rows: IntArray) -> FloatArray:
        """Give what a column says of rows."""
        return np.asarray(self._columns[name][rows - self._base])

    def flags(self, name: str, rows: IntArray) -> BoolArray:
        """Give whether something is so of rows."""
        return np.asarray(self._columns[name][rows - self._base])

    def nodes_of(self, rows: IntArray) -> IntArray:
        """Give the node of each row."""
        return np.asarray(self._columns["node"][rows - self._base])

    def claimed_by(self, rows: IntArray) -> IntArray:
        """Give who has claimed each row."""
        return np.asarray(self._columns["claimed_by"][rows - self._base])

    def claim(self, rows: IntArray, who: int) -> None:
        """Let somebody have rows, or nobody."""
        rows = rows[rows >= self._base]
        self._columns["claimed_by"][rows - self._base] = who

    def events_of(self, rows: IntArray) -> list[Event]:
        """Give the event of each row."""
        numbers = self._columns["event"][rows - self._base].tolist()
        return [self._events[number] for number in numbers]

    def remembers(self, rows: IntArray) -> BoolArray:
        """Say which rows still are here."""
        known = rows >= self._base
        known[known] = self._columns["stands"][rows[known] - self._base]
        return np.asarray(known)

    def pool(self, nodes: IntArray, rows: IntArray, told_s: tuple[float, float] = ALL_TOLD) -> Pool:
        """Make a pool of some rows; its nodes are those given, some of which may be silent.

        An arrival's `key` is its row; its `node` is where that stands in `nodes`.
        """
        self._plant()
        rows = rows[np.lexsort((self.column("time_s", rows), self.nodes_of(rows)))]
        return Pool(
            self._places[nodes],
            self._sigmas[nodes],
            np.searchsorted(nodes, self.nodes_of(rows)),
            self.column("time_s", rows),
            self.column("sigma_s", rows),
            self.column("azimuth_rad", rows),
            self.column("azimuth_sigma_rad", rows),
            self.flags("first", rows),
            self.column("clutter_per_s", rows),
            self.column("late_share", rows),
            rows,
            told_s,
        )

    def _cell(self, place_m: FloatArray) -> tuple[int, int]:
        return int(place_m[0] // self._reach_m), int(place_m[1] // self._reach_m)

    def _fill(self, at: int, detection: Detection, node: int, number: int) -> list[float]:
        """Write a detection's rounds, and give their times."""
        direction = detection.direction
        azimuth_rad, azimuth_sigma_rad = np.nan, np.inf
        if direction is not None:
            azimuth_rad = math.radians(direction.azimuth_deg)
            azimuth_sigma_rad = math.radians(max(direction.sigma_deg, 0.1))
        clutter_per_s = _CLUTTER_PER_S[detection.grade]
        graded = detection.grade != "not_gunfire"
        column = self._columns
        times_s = []
        for row, one in enumerate(detection.rounds, at):
            weak = _AT_DB - min(max(one.snr_db, -50.0), 150.0)
            times_s.append((moment_ns(one.utc) - self.epoch_ns) / NS_PER_S)
            column["time_s"][row] = times_s[-1]
            column["sigma_s"][row] = one.sigma_s
            column["azimuth_rad"][row] = azimuth_rad
            column["azimuth_sigma_rad"][row] = azimuth_sigma_rad
            column["clutter_per_s"][row] = clutter_per_s * _within(
                10 ** (weak / _CLUTTER_DB), _CLUTTER_RANGE
            )
            column["late_share"][row] = _within(_LATE * 10 ** (weak / _LATE_DB), _LATE_RANGE)
            column["node"][row] = node
            column["event"][row] = number
            column["claimed_by"][row] = NOBODY
            column["first"][row] = row == at
            column["graded"][row] = graded
            column["stands"][row] = True
        return times_s

    def _make_room(self, count: int) -> None:
        if self._end - self._base + count <= len(self._columns["time_s"]):
            return
        first = self._events[self._order[0]].begin if self._order else self._end
        kept = slice(first - self._base, self._end - self._base)
        many = self._end - first
        columns = _empty(max(_ROWS, 2 * (many + count)))
        for name, column in columns.items():
            column[:many] = self._columns[name][kept]
        self._columns, self._base = columns, first

    def _plant(self) -> cKDTree:
        if self._tree is None:
            self._places = np.array(self._place_m).reshape(-1, 3)
            self._sigmas = np.array(self._sigma_m)
            self._deafness = np.array([one in self._down for one in self.node_ids], np.bool_)
            self._tree = cKDTree(self._places[:, :2])
        return self._tree


def _empty(rows: int) -> dict[str, Any]:
    return {name: np.zeros(rows, kind) for name, kind in _COLUMNS.items()}


def _within(value: float, bounds: tuple[float, float]) -> float:
    return min(max(value, bounds[0]), bounds[1])


@compiled
def _inside(
    rows: IntArray,
    base: int,
    time_s: FloatArray,
    stands: BoolArray,
    begins_s: float,
    ends_s: float,
) -> IntArray:
    """Give those of rows that are still here, stand, and are of a span of time."""
    found = np.empty(len(rows), np.int64)
    count = 0
    for row in rows:
        at = row - base
        if at >= 0 and stands[at] and begins_s <= time_s[at] <= ends_s:
            found[count] = row
            count += 1
    return found[:count]
