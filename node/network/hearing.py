"""What nodes heard lately, as the solver wants it: the memory of one site.

In come detections, each with its highest revision, and nodes' places; out go pools of arrivals near
a place or a detection. A detection's rounds are its arrivals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.spatial import cKDTree

from node.messages import Detection
from node.network.arrivals import FloatArray, IntArray, Pool, pool_of
from node.types import NS_PER_S, Grade
from node.utc import parse_utc_ns

if TYPE_CHECKING:
    from node.network.track import Track

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

_FORGET_AT_ONCE: Final = 8

UNKNOWN_SIGMA_M: Final = 2.0
"""Standard error of a surveyed place whose survey is silent, metres."""


@dataclass(eq=False)
class Heard:
    """A detection, ready for the solver.

    Attributes
    ----------
    node
        Index of its node in the memory.
    times_s, sigmas_s
        Of its rounds: after the memory's epoch, and their standard errors, shape [k].
    clutter_per_s, late_share
        As `Pool` has them, shape [k].
    azimuth_rad, azimuth_sigma_rad
        Of the first round; NaN and infinity where not known.
    claimed_by
        For each round the incident that has it for direct sound.
    """

    detection: Detection
    node: int
    times_s: FloatArray
    sigmas_s: FloatArray
    clutter_per_s: FloatArray
    late_share: FloatArray
    azimuth_rad: float
    azimuth_sigma_rad: float
    claimed_by: list[Track | None] = field(default_factory=list)

    @property
    def graded(self) -> bool:
        """Whether its node calls it gunfire or probable gunfire."""
        return self.detection.grade != "not_gunfire"


def heard(detection: Detection, node: int, epoch_ns: int) -> Heard:
    """Make a detection ready."""
    rounds = detection.rounds
    snr_db = np.array([r.snr_db for r in rounds])
    weak = _AT_DB - snr_db
    clutter = np.clip(10 ** (weak / _CLUTTER_DB), *_CLUTTER_RANGE) * _CLUTTER_PER_S[detection.grade]
    direction = detection.direction
    return Heard(
        detection,
        node,
        np.array([(parse_utc_ns(r.utc) - epoch_ns) / NS_PER_S for r in rounds]),
        np.array([r.sigma_s for r in rounds]),
        clutter,
        np.clip(_LATE * 10 ** (weak / _LATE_DB), *_LATE_RANGE),
        np.nan if direction is None else float(np.radians(direction.azimuth_deg)),
        np.inf if direction is None else float(np.radians(max(direction.sigma_deg, 0.1))),
        [None] * len(rounds),
    )


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
        self._up: list[bool] = []
        self._heard: list[deque[Heard]] = []
        self._events: dict[tuple[int, str], Heard] = {}
        self._tree: cKDTree | None = None
        self._places: FloatArray = np.zeros((0, 3))
        self._sigmas: FloatArray = np.zeros(0)
        self._near: dict[int, IntArray] = {}
        self._forgets = 0

    def node(self, node_id: str) -> int | None:
        """Give the index of a node; None for one whose place is not known."""
        return self._index.get(node_id)

    def place(self, node_id: str, place_m: tuple[float, float, float], sigma_m: float) -> int:
        """Say where a node stands."""
        index = self._index.get(node_id)
        if index is None:
            index = self._index[node_id] = len(self.node_ids)
            self.node_ids.append(node_id)
            self._place_m.append(place_m)
            self._sigma_m.append(sigma_m)
            self._up.append(True)
            self._heard.append(deque())
        elif (self._place_m[index], self._sigma_m[index]) == (place_m, sigma_m):
            return index
        self._place_m[index], self._sigma_m[index] = place_m, sigma_m
        self._tree = None
        return index

    def up(self, index: int, up: bool) -> None:
        """Say whether a node listens."""
        self._up[index] = up

    def is_up(self, index: int) -> bool:
        """Whether a node listens."""
        return self._up[index]

    def take(self, detection: Detection, node: int) -> Heard | None:
        """Remember a detection above its earlier revisions; None where a later one is here."""
        before = self._events.get((node, detection.event_id))
        if before is not None:
            if before.detection.revision >= detection.revision:
                return None
            self._heard[node].remove(before)
            del self._events[node, detection.event_id]
        one = heard(detection, node, self.epoch_ns)
        self._events[node, detection.event_id] = one
        self._heard[node].append(one)
        return one

    def event(self, node: int, event_id: str) -> Heard | None:
        """Give what is remembered of an event."""
        return self._events.get((node, event_id))

    def withdraw(self, detection: Detection, node: int) -> Heard | None:
        """Forget an event that its node takes back."""
        before = self._events.pop((node, detection.event_id), None)
        if before is not None:
            self._heard[node].remove(before)
        return before

    def forget_slowly(self, before_s: float) -> None:
        """Forget what was heard before a moment; some nodes at a time."""
        for _ in range(min(_FORGET_AT_ONCE, len(self._heard))):
            self._forgets = (self._forgets + 1) % len(self._heard)
            queue = self._heard[self._forgets]
            while queue and queue[0].times_s[-1] < before_s:
                old = queue.popleft()
                self._events.pop((old.node, old.detection.event_id), None)

    def places(self) -> FloatArray:
        """Give the places of all nodes, shape [n, 3], metres."""
        self._plant()
        return self._places

    def place_of(self, node: int) -> FloatArray:
        """Give the place of a node, shape [3], metres."""
        return np.asarray(self.places()[node])

    def near(self, place_m: FloatArray, radius_m: float) -> IntArray:
        """Give the nodes within a radius of a place."""
        tree = self._plant()
        if not len(self._places):
            return np.zeros(0, np.int64)
        return np.array(sorted(tree.query_ball_point(place_m[:2], radius_m)), np.int64)

    def neighbours(self, node: int) -> IntArray:
        """Give the nodes that may hear the same shot as this one, itself among them."""
        self._plant()
        known = self._near.get(node)
        if known is None:
            known = self._near[node] = self.near(self._places[node], 2 * self._reach_m)
        return known

    def within(self, nodes: Iterable[int], begins_s: float, ends_s: float) -> list[Heard]:
        """Give what nodes heard in a span of time, in their order."""
        return [
            one
            for node in nodes
            for one in self._heard[node]
            if one.times_s[-1] >= begins_s and one.times_s[0] <= ends_s
        ]

    def pool(self, nodes: IntArray, found: Sequence[tuple[Heard, int]]) -> Pool:
        """Make a pool of some rounds; its nodes are those given, some of which may be silent.

        An arrival's `key` is where its round stands in `found`, its `node` where that stands in
        `nodes`.
        """
        self._plant()
        ones = [one for one, _ in found]
        rounds = [k for _, k in found]
        first = np.array([k == 0 for k in rounds])

        def each(name: str) -> FloatArray:
            return np.array([getattr(one, name)[k] for one, k in found])

        return pool_of(
            self._places[nodes],
            self._sigmas[nodes],
            np.searchsorted(nodes, np.array([one.node for one in ones])),
            each("times_s"),
            each("sigmas_s"),
            azimuth_rad=np.array([one.azimuth_rad for one in ones]),
            azimuth_sigma_rad=np.array([one.azimuth_sigma_rad for one in ones]),
            first=first,
            clutter_per_s=each("clutter_per_s"),
            late_share=each("late_share"),
        )

    def _plant(self) -> cKDTree:
        if self._tree is None:
            self._places = np.array(self._place_m).reshape(-1, 3)
            self._sigmas = np.array(self._sigma_m)
            self._tree = cKDTree(self._places[:, :2] if len(self._places) else np.zeros((1, 2)))
            self._near = {}
        return self._tree
