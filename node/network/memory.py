"""What the nodes of a site heard lately, as columns that the solver's pools are cut from.

In come detections, each with its highest revision, and nodes' places; out go pools of rounds near a
place and a moment. A round is a row, a detection an event of some rows; rows are found by squares
of ground and stretches of time, so that a query's cost does not grow with the city or the hours.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.spatial import cKDTree

from node.messages import Detection
from node.network.arrivals import BoolArray, FloatArray, IntArray, Pool
from node.types import NS_PER_S, Grade
from node.utc import parse_utc_ns

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

_ROW: Final = np.dtype(
    [
        ("time_s", np.float64),
        ("sigma_s", np.float64),
        ("azimuth_rad", np.float64),
        ("azimuth_sigma_rad", np.float64),
        ("clutter_per_s", np.float64),
        ("late_share", np.float64),
        ("node", np.int64),
        ("event", np.int64),
        ("claimed_by", np.int64),
        ("first", np.bool_),
        ("graded", np.bool_),
        ("stands", np.bool_),
    ]
)


@dataclass(frozen=True)
class Event:
    """A detection as it is remembered.

    Attributes
    ----------
    node
        Index of its node.
    rows
        Its rounds.
    """

    detection: Detection
    node: int
    rows: IntArray


class Memory:
    """Nodes of a site and what they heard.

    Parameters
    ----------
    epoch_ns
        UTC that its seconds count from.
    reach_m
        No node hears a shot from farther off.
    """

    def __init__(self, epoch_ns: int, reach_m: float) -> None:
        self.epoch_ns = epoch_ns
        self.node_ids: list[str] = []
        self._index: dict[str, int] = {}
        self._reach_m = reach_m
        self._place_m: list[tuple[float, float, float]] = []
        self._sigma_m: list[float] = []
        self._tree: cKDTree | None = None
        self._places: FloatArray = np.zeros((0, 3))
        self._sigmas: FloatArray = np.zeros(0)
        self._rows = np.zeros(_ROWS, _ROW)
        self._base = 0  # number of the row that stands first
        self._end = 0
        self._blocks: dict[tuple[int, int, int], list[int]] = defaultdict(list)
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

    @property
    def places_m(self) -> FloatArray:
        """The places of all nodes, shape [n, 3], metres."""
        self._plant()
        return self._places

    def near(self, place_m: FloatArray, radius_m: float) -> IntArray:
        """Give the nodes within a radius of a place, ascending."""
        found = self._plant().query_ball_point(place_m[:2], radius_m, return_sorted=True)
        return np.array(found, np.int64)

    # What was heard

    def event(self, node: int, event_id: str) -> Event | None:
        """Give what is remembered of an event."""
        number = self._numbers.get((node, event_id))
        return None if number is None else self._events[number]

    def take(self, detection: Detection, node: int) -> Event:
        """Remember a detection, in place of what it revises."""
        self.withdraw(node, detection.event_id)
        number = self._next_event
        self._next_event += 1
        count = len(detection.rounds)
        self._make_room(count)
        rows = np.arange(self._end, self._end + count)
        self._end += count
        self._fill(self._rows[rows[0] - self._base :][:count], detection, node, number)
        x, y = self._cell(self.places_m[node])
        for row in rows:
            key = (x, y, int(self._rows["time_s"][row - self._base] // _BLOCK_S))
            self._blocks[key].append(int(row))
            self._block_keys[key[2]].add(key)
        event = Event(detection, node, rows)
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
        self._rows["stands"][gone.rows - self._base] = False
        return gone

    def forget(self, before_s: float) -> None:
        """Forget what was heard before a moment."""
        while self._order:
            event = self._events[self._order[0]]
            last = int(event.rows[-1]) - self._base
            if self._rows["time_s"][last] >= before_s:
                break
            number = self._order.popleft()
            del self._events[number]
            if self._numbers.get((event.node, event.detection.event_id)) == number:
                del self._numbers[event.node, event.detection.event_id]
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
        found: list[int] = []
        for stretch in range(int(begins_s // _BLOCK_S), int(ends_s // _BLOCK_S) + 1):
            if stretch in self._block_keys:
                for x in range(left, right + 1):
                    for y in range(low, high + 1):
                        found += self._blocks.get((x, y, stretch), ())
        rows = np.array(found, np.int64)
        rows = rows[rows >= self._base]
        column = self._rows[rows - self._base]
        inside = (column["time_s"] >= begins_s) & (column["time_s"] <= ends_s) & column["stands"]
        return np.asarray(rows[inside])

    def column(self, name: str, rows: IntArray) -> FloatArray:
        """Give what a column says of rows."""
        return np.asarray(self._rows[name][rows - self._base])

    def nodes_of(self, rows: IntArray) -> IntArray:
        """Give the node of each row."""
        return np.asarray(self._rows["node"][rows - self._base])

    def claimed_by(self, rows: IntArray) -> IntArray:
        """Give who has claimed each row."""
        return np.asarray(self._rows["claimed_by"][rows - self._base])

    def claim(self, rows: IntArray, who: int) -> None:
        """Let somebody have rows, or nobody."""
        rows = rows[rows >= self._base]
        self._rows["claimed_by"][rows - self._base] = who

    def events_of(self, rows: IntArray) -> list[Event]:
        """Give the event of each row."""
        return [self._events[int(number)] for number in self._rows["event"][rows - self._base]]

    def remembers(self, rows: IntArray) -> BoolArray:
        """Say which rows still are here."""
        known = rows >= self._base
        known[known] = self._rows["stands"][rows[known] - self._base]
        return np.asarray(known)

    def pool(self, nodes: IntArray, rows: IntArray) -> Pool:
        """Make a pool of some rows; its nodes are those given, some of which may be silent.

        An arrival's `key` is its row; its `node` is where that stands in `nodes`.
        """
        self._plant()
        column = self._rows[rows - self._base]
        order = np.lexsort((column["time_s"], column["node"]))
        column = column[order]
        return Pool(
            self._places[nodes],
            self._sigmas[nodes],
            np.searchsorted(nodes, column["node"]),
            column["time_s"],
            column["sigma_s"],
            column["azimuth_rad"],
            column["azimuth_sigma_rad"],
            column["first"],
            column["clutter_per_s"],
            column["late_share"],
            rows[order],
        )

    def _cell(self, place_m: FloatArray) -> tuple[int, int]:
        return int(place_m[0] // self._reach_m), int(place_m[1] // self._reach_m)

    def _fill(self, row: np.ndarray, detection: Detection, node: int, number: int) -> None:  # type: ignore[type-arg]
        rounds, direction = detection.rounds, detection.direction
        weak = _AT_DB - np.clip([one.snr_db for one in rounds], -50.0, 150.0)
        spread = np.clip(10 ** (weak / _CLUTTER_DB), *_CLUTTER_RANGE)
        row["time_s"] = [(parse_utc_ns(one.utc) - self.epoch_ns) / NS_PER_S for one in rounds]
        row["sigma_s"] = [one.sigma_s for one in rounds]
        row["clutter_per_s"] = spread * _CLUTTER_PER_S[detection.grade]
        row["late_share"] = np.clip(_LATE * 10 ** (weak / _LATE_DB), *_LATE_RANGE)
        row["azimuth_rad"] = np.nan if direction is None else np.radians(direction.azimuth_deg)
        row["azimuth_sigma_rad"] = (
            np.inf if direction is None else np.radians(max(direction.sigma_deg, 0.1))
        )
        row["node"] = node
        row["event"] = number
        row["claimed_by"] = NOBODY
        row["first"] = False
        row["first"][0] = True
        row["graded"] = detection.grade != "not_gunfire"
        row["stands"] = True

    def _make_room(self, count: int) -> None:
        if self._end - self._base + count <= len(self._rows):
            return
        first = int(self._events[self._order[0]].rows[0]) if self._order else self._end
        kept = self._rows[first - self._base : self._end - self._base]
        size = max(_ROWS, 2 * (len(kept) + count))
        rows = np.zeros(size, _ROW)
        rows[: len(kept)] = kept
        self._rows, self._base = rows, first

    def _plant(self) -> cKDTree:
        if self._tree is None:
            self._places = np.array(self._place_m).reshape(-1, 3)
            self._sigmas = np.array(self._sigma_m)
            self._tree = cKDTree(self._places[:, :2])
        return self._tree
