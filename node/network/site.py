"""One site: its detections become incidents as they come. Pure: no clock, no I/O.

A detection that a known incident predicts joins it, which is fitted anew a moment later, together
with what else has come. One that none predicts is searched for a new source with its neighbours at
once. When no more comes, an incident is gone through once more with all that was heard round it.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Final, Literal

import numpy as np

from node.messages import Detection, Incident
from node.messages.detection import Local, Position
from node.network.arrivals import ALL_TOLD, FloatArray, IntArray, Pool, is_in, unique
from node.network.doubts import Doubts
from node.network.lateness import Lateness
from node.network.medium import Medium
from node.network.memory import NOBODY, Event, Memory
from node.network.neighbours import MOST_OF_NODE, SLOWEST_M_S, beside
from node.network.plane import Plane
from node.network.policy import LocateSettings, Word, asked_of_new, passes
from node.network.region import covariance
from node.network.rounds import FEW, graded, rounds_of
from node.network.sources import ECHO_S, Source, best, find, refine
from node.network.telling import Told, incident_name, tell
from node.network.track import Track
from node.network.witnesses import astray, silent, witnesses
from node.types import NS_PER_S

UNKNOWN_SIGMA_M: Final = 2.0
"""Standard error of a surveyed place whose survey is silent, metres."""

# With much to do, incidents are gone through so much later at the most.
_PUT_OFF_S: Final = 30.0
_MOST_OWN: Final = 24
# Of an incident's rounds so many must be a new fit's for it to be the same incident.
_SHARED: Final = 0.5
# Two incidents that take each other's rounds do so no more after this.
_MOST_SETTLED: Final = 3
# So many nodes at a time are rid of incidents that are over.
_SWEPT: Final = 4
_SURELY_SAME_M: Final = 25.0
_SAME_M: Final = 50.0
_FARTHEST_SAME_M: Final = 300.0
# Silence says little of a node, and nothing of one that is farther off.
_SILENCE_M: Final = 700.0
# By what was told in so much time it is judged how much comes by chance.
_OF_LATE_S: Final = 60.0
_OPEN_SEEDS: Final = 120
_FIT_SEEDS: Final = 240

_Due = tuple[float, int, Track]


class Site:
    """What is known of one site, in one frame.

    Parameters
    ----------
    name, frame
        Of the site, and of its surveyed frame; None for places on Earth.
    air
        What is thought of the air before any shot.
    doubts
        What becomes of its nodes' words.
    """

    def __init__(
        self, name: str, frame: str | None, settings: LocateSettings, air: Medium, doubts: Doubts
    ) -> None:
        self.medium = air
        self._name = name
        self._frame = frame
        self._settings = settings
        self._doubts = doubts
        self._plane: Plane | None = None
        self._memory: Memory | None = None
        self._given: set[str] = set()
        self._places: dict[str, Position | Local] = {}
        self._down: set[str] = set()
        self._tracks: dict[int, Track] = {}
        self._of_node: dict[int, deque[Track]] = defaultdict(deque)  # in order of time, about
        self._refits: list[_Due] = []
        self._settles: list[_Due] = []
        self._looks: list[tuple[float, int, Event]] = []
        self._order = count()
        self._lateness = Lateness()
        self._founded: Counter[str] = Counter()
        self._now_s = 0.0
        self._sweep = 0
        self._reach_s = settings.reach_m / SLOWEST_M_S

    # What is known of the nodes

    def is_given(self, node_id: str) -> bool:
        """Whether somebody other than its detections says where a node stands."""
        return node_id in self._given

    def place(self, node_id: str, place: Position | Local, *, given: bool) -> None:
        """Say where a node stands."""
        if given:
            self._given.add(node_id)
        if self._places.get(node_id) != place:
            self._places[node_id] = place
            if self._memory is not None:
                self._put(self._memory, node_id, place)

    def up(self, node_id: str, up: bool) -> None:
        """Say whether a node listens."""
        if up is (node_id not in self._down):
            return
        (self._down.discard if up else self._down.add)(node_id)
        if self._memory is not None:
            self._memory.replant()

    def _put(self, memory: Memory, node_id: str, place: Position | Local) -> None:
        if isinstance(place, Local):
            sigma_m = UNKNOWN_SIGMA_M if place.sigma_m is None else place.sigma_m
            memory.place(node_id, (place.x_m, place.y_m, place.z_m), sigma_m)
            self._introduce(memory, node_id)
            return
        if self._plane is None:
            self._plane = Plane(place.lat_deg, place.lon_deg)
        east_m, north_m = self._plane.metres(place.lat_deg, place.lon_deg)
        if math.isfinite(east_m + north_m):
            memory.place(node_id, (east_m, north_m, place.alt_m), place.sigma_m)
            self._introduce(memory, node_id)

    def _introduce(self, memory: Memory, node_id: str) -> None:
        """Have a node that was placed know of the incidents that it may hear."""
        node = memory.node(node_id)
        assert node is not None  # noqa: S101
        known, (east_m, north_m) = self._of_node[node], memory.place_of(node)
        for track in self._tracks.values():
            away_m = math.hypot(*(track.source.place_m - (east_m, north_m)))
            if not track.over and away_m < self._settings.reach_m and track not in known:
                known.append(track)

    # Time

    def hear(self, detection: Detection, now_ns: int) -> list[Incident]:
        """Take a detection, or a later revision of one; what is due, is left."""
        memory = self._memory
        if memory is None:
            memory = self._memory = Memory(now_ns, self._settings.reach_m, self._down)
            for node_id, place in self._places.items():
                self._put(memory, node_id, place)
        self._pass_to(memory, now_ns)
        self._forget(memory)
        node = memory.node(detection.node_id)
        if node is None:
            return []
        before = memory.event(node, detection.event_id)
        if before is not None:
            if before.revision >= detection.revision:
                return []
            memory.withdraw(node, detection.event_id)
            self._recall(memory, before)
        if detection.type == "cancel":
            return []
        event = memory.take(detection, node)
        self._lateness.note(self._now_s - float(memory.column("time_s", event.rows[-1:])[0]))
        return self._hear(memory, event)

    def work(self, now_ns: int) -> list[Incident] | None:
        """Do the most urgent of what is due; None where nothing is."""
        memory = self._memory
        if memory is None:
            return None
        self._pass_to(memory, now_ns)
        told = self._work(memory)
        if told is None:
            self._forget(memory)
        return told

    def _pass_to(self, memory: Memory, now_ns: int) -> None:
        self._now_s = max(self._now_s, (now_ns - memory.epoch_ns) / NS_PER_S)

    def finish(self) -> list[Incident]:
        """Settle all that is open."""
        told: list[Incident] = []
        memory = self._memory
        while memory is not None and (self._refits or self._settles or self._looks):
            next_s = min(due[0][0] for due in (self._refits, self._settles, self._looks) if due)
            self._now_s = max(self._now_s, next_s)
            told += self._work(memory) or []
        return told

    def _work(self, memory: Memory) -> list[Incident] | None:
        # What was heard since is told before what was told is gone through, if there is much to do.
        late = _pop(self._settles, self._now_s - _PUT_OFF_S)
        if late is None and (track := _pop(self._refits, self._now_s)) is not None:
            track.fits_s = np.inf
            return self._fit(memory, track, searched=len(track.used_nodes) < FEW)
        if late is None and self._looks and self._looks[0][0] <= self._now_s:
            _, _, event = heapq.heappop(self._looks)
            if memory.event(event.node, event.event_id) is not event:  # forgotten, or revised
                return []
            own = event.rows[memory.claimed_by(event.rows) == NOBODY]
            return self._open(memory, event, own, again=True) if len(own) else []
        if (track := late or _pop(self._settles, self._now_s)) is not None:
            track.fits_s = track.settles_s = np.inf
            return self._settle(memory, track)
        return None

    def _stir(self, track: Track) -> None:
        """Have an incident fitted anew soon, and settled when no more comes."""
        if math.isinf(track.fits_s):
            track.fits_s = self._now_s + self._settings.update_s
            heapq.heappush(self._refits, (track.fits_s, next(self._order), track))
        if math.isinf(track.settles_s):
            track.settles_s = self._now_s + self._settings.settle_s
            heapq.heappush(self._settles, (track.settles_s, next(self._order), track))

    def _jolt(self, track: Track) -> None:
        """Have an incident fitted anew for what another took or left; not for ever."""
        if track.settled < _MOST_SETTLED:
            self._stir(track)

    def _recall(self, memory: Memory, gone: Event) -> None:
        """Have incidents fitted anew that rest on what no more stands."""
        for number in np.unique(memory.claimed_by(gone.rows)):
            if int(number) in self._tracks:
                self._stir(self._tracks[int(number)])

    def _forget(self, memory: Memory) -> None:
        before_s = self._now_s - self._settings.keep_s
        memory.forget(before_s)
        while self._tracks:
            number, track = next(iter(self._tracks.items()))
            if track.ends_s >= before_s and not track.over:
                break
            track.over = True
            del self._tracks[number]
            self._founded.pop(track.founder, None)
        for _ in range(_SWEPT):
            self._sweep = (self._sweep + 1) % max(len(memory.node_ids), 1)
            known = self._of_node.get(self._sweep)
            while known and known[0].over:
                known.popleft()

    # Where a detection belongs

    def _hear(self, memory: Memory, event: Event) -> list[Incident]:
        times = memory.column("time_s", event.rows)
        sigmas = memory.column("sigma_s", event.rows)
        place = memory.places_m[event.node]
        east_m, north_m = place[:2].tolist()
        begins_s, ends_s = float(times[0]), float(times[-1])
        azimuth_rad, azimuth_sigma_rad = memory.bearing(event)
        free = np.ones(len(times), np.bool_)
        for track in self._about(event.node, begins_s, ends_s):
            if not track.may_reach(east_m, north_m, begins_s, ends_s):
                continue
            direct = track.hears(times, sigmas, place, azimuth_rad, azimuth_sigma_rad)
            if not direct.any():
                continue
            self._stir(track)
            mine = event.rows[direct & free]
            if len(mine):  # until it is fitted anew, nobody else is to make something of them
                memory.claim(mine, track.number)
                track.expected = np.append(track.expected, mine)
            free &= ~direct
        may_begin = event.word.grade != "not_gunfire" or not self._settings.graded_nodes
        return self._open(memory, event, event.rows[free]) if may_begin and free.any() else []

    def _about(self, node: int, begins_s: float, ends_s: float) -> Iterator[Track]:
        """Give the incidents whose sound a node may hear in a span of time."""
        tracks = self._of_node[node]
        while tracks and tracks[0].over:
            tracks.popleft()
        for track in reversed(tracks):
            if track.ends_s < begins_s - self._reach_s - 2 * self._settings.gap_s:
                break
            if not track.over and track.begins_s <= ends_s + ECHO_S:
                yield track

    def _open(
        self, memory: Memory, event: Event, own: IntArray, *, again: bool = False
    ) -> list[Incident]:
        """Search what a detection and its neighbours heard for a source that is not known yet.

        Parameters
        ----------
        again
            Whether it was searched before, and all that heard it must have told so since.
        """
        settings = self._settings
        own = own[:_MOST_OWN]
        others = beside(
            memory, event.node, own, reach_m=settings.reach_m, speed_m_s=self.medium.speed_m_s
        )
        rows = np.concatenate([own, others])
        told: list[Incident] = []
        if (known := self._from_known(memory, event.node, own, rows)) is not None:
            told = self._again(memory, known)
            own, rows = (each[memory.claimed_by(each) == NOBODY] for each in (own, rows))
            if not len(own):
                return told
        nodes = memory.nodes_of(rows)
        graded = unique(nodes[memory.flags("graded", rows)])
        bearings = unique(nodes[np.isfinite(memory.column("azimuth_rad", rows))])
        heard = unique(nodes)
        enough = len(heard) >= settings.nodes or len(bearings) >= settings.nodes_with_bearings
        if len(graded) < settings.graded_nodes or not enough:
            return told
        middle = np.median(memory.places_m[heard], axis=0)
        among = self._listening(memory, middle, heard)
        times = memory.column("time_s", event.rows)
        lasting_s = float(times[-1] - times[0])
        told_s = ALL_TOLD if again else self._lateness.told_s(self._now_s, lasting_s)
        pool = self._dimmed(memory, memory.pool(among, rows, told_s))
        mine = np.flatnonzero(is_in(pool.key, own[:MOST_OF_NODE]))
        source = best(pool, self.medium, most_seeds=_OPEN_SEEDS, with_arrivals=mine)
        if source is None or not source.used[mine].any():
            return told
        track = Track(NOBODY, "", source, pool, among)
        if not self._passes(memory, track):
            return told
        awaited_s = _awaited_s(memory, track)
        early = told_s[0] < awaited_s
        if source.evidence < self._asked(memory, track, early=early):
            if early and source.evidence >= self._asked(memory, track, early=False):
                due_s = max(awaited_s + lasting_s + self._lateness.slowest_s, self._now_s)
                heapq.heappush(self._looks, (due_s, next(self._order), event))
            return told
        if self._is_echo(track):
            return told
        if (known := self._same(track)) is not None:
            return told + self._again(memory, known)
        return [*told, self._begin(memory, track, event.event_id)]

    def _again(self, memory: Memory, track: Track) -> list[Incident]:
        """Fit an incident anew at once: it seems to have had a further shot."""
        told = self._fit(memory, track, searched=False)
        if not track.over:
            self._stir(track)
        return told

    def _from_known(self, memory: Memory, node: int, own: IntArray, rows: IntArray) -> Track | None:
        """Give the known incident from whose place, as further nodes agree, there came a shot."""
        times, nodes = memory.column("time_s", rows), memory.nodes_of(rows)
        places = memory.places_m[nodes]
        for track in self._about(node, float(times[0]), float(times[: len(own)].max())):
            least = max(float(self._settings.nodes), len(track.used_nodes) / 2)
            if track.agreed(times, places, nodes, len(own), least):
                return track
        return None

    def _listening(self, memory: Memory, place_m: FloatArray, heard: IntArray) -> IntArray:
        """Give the nodes round a place that listen or have heard something."""
        nodes = unique(np.concatenate([memory.near(place_m, _SILENCE_M), heard]))
        return np.asarray(nodes[~memory.is_deaf(nodes) | is_in(nodes, heard)])

    def _dimmed(self, memory: Memory, pool: Pool) -> Pool:
        """Let what may be a known incident's echo count for less."""
        if not len(pool):
            return pool
        places = pool.place_m[pool.node]
        first, last = float(pool.time_s.min()), float(pool.time_s.max())
        clutter = pool.clutter_per_s
        for track in self._about(int(memory.nodes_of(pool.key[:1])[0]), first, last):
            clutter = track.dimmed(clutter, pool.time_s, places)
        return replace(pool, clutter_per_s=clutter)

    def _begin(self, memory: Memory, track: Track, founder: str) -> Incident:
        track.number = next(self._order)
        track.founder = founder
        track.name = incident_name(founder, self._founded[founder])
        self._founded[founder] += 1
        self._tracks[track.number] = track
        self._hold(memory, track)
        self._stir(track)
        track.said = self._told(memory, track, "new")
        return track.said

    def _hold(self, memory: Memory, track: Track) -> None:
        """Take the rounds of a track, and have its nodes know of it."""
        rows = track.used
        for number in unique(memory.claimed_by(rows)):
            if number not in (NOBODY, track.number) and int(number) in self._tracks:
                self._jolt(self._tracks[int(number)])
        memory.claim(rows, track.number)
        for node in memory.near(track.source.state[:3], self._settings.reach_m):
            tracks = self._of_node[int(node)]
            if track not in tracks:
                tracks.append(track)

    # What passes

    def _asked(self, memory: Memory, track: Track, *, early: bool) -> float:
        """Give the odds that a new incident needs, by how much else was told round it of late."""
        since_s = self._now_s - _OF_LATE_S
        rows = memory.heard(track.source.state[:3], _SILENCE_M, since_s, self._now_s)
        rows = rows[memory.flags("first", rows) & memory.flags("graded", rows)]
        others = rows[~is_in(rows, track.used)]
        words = int(is_in(memory.nodes_of(others), track.nodes).sum())
        per_node_s = words / (len(track.nodes) * _OF_LATE_S)
        return asked_of_new(self._settings, early=early, per_node_s=per_node_s)

    def _passes(self, memory: Memory, track: Track) -> bool:
        return passes(
            self._settings,
            log_odds=track.source.evidence,
            nodes=len(track.used_nodes),
            bearings=track.crossing,
            words=_words(memory, track),
            told=track.said is not None,
        )

    def _others(self, track: Track) -> Iterator[Track]:
        node = int(track.used_nodes[0])
        begins = track.begins_s - self._settings.gap_s
        for other in self._about(node, begins, track.ends_s + self._settings.gap_s + self._reach_s):
            if other is not track:
                yield other

    def _same(self, track: Track) -> Track | None:
        """Give the incident that a source belongs to: the same place, and no long pause."""
        gap_s = self._settings.gap_s
        for other in self._others(track):
            if track.begins_s >= other.ends_s + gap_s or other.begins_s >= track.ends_s + gap_s:
                continue
            apart = track.source.place_m - other.source.place_m
            far_m = math.hypot(*apart)
            if far_m < _SURELY_SAME_M:
                return other
            if far_m >= _FARTHEST_SAME_M:
                continue
            spread = track.source.covariance[:2, :2] + other.source.covariance[:2, :2]
            near = far_m < _SAME_M or apart @ np.linalg.solve(spread, apart) < 9.0
            if near and self._explains(other, track):
                return other
        return None

    def _explains(self, known: Track, track: Track) -> bool:
        """Say whether a known place makes the same moment of what another was made of."""
        pool, used = track.pool, track.source.used
        nodes = pool.node[used]
        least = max(len(unique(nodes)) - 1.0, 2.0)
        return known.agreed(pool.time_s[used], pool.place_m[nodes], nodes, len(nodes), least)

    def _is_echo(self, track: Track) -> bool:
        return any(
            track.is_echo_of(other)
            for other in self._others(track)
            if other.source.evidence > track.source.evidence
        )

    # Fitting

    def _fit(self, memory: Memory, track: Track, *, searched: bool) -> list[Incident]:
        """Fit an incident anew to all that was heard round it; or search that for it."""
        source = track.source
        self._release(memory, track)
        weaker = partial(self._weaker, track) if searched else None
        rows = rounds_of(memory, track, self._settings, weaker)
        if not len(rows):
            return self._end(memory, track)
        among = self._listening(memory, source.state[:3], unique(memory.nodes_of(rows)))
        told_s = self._lateness.told_s(self._now_s, track.ends_s - track.begins_s)
        pool = memory.pool(among, rows, told_s)
        chosen: Source | None = None
        whole = frozenset(pool.key.tolist())
        if searched and whole != track.whole:
            again = best(pool, self.medium, most_seeds=_FIT_SEEDS)
            if again is not None:
                held = track.used
                held = held[memory.remembers(held)]  # what was revised since has other rows
                shared = is_in(held, pool.key[again.used])
                chosen = again if shared.sum() >= _SHARED * len(held) else None
        elif searched:
            if not self._gives_way(track):
                return []
            memory.claim(track.used, NOBODY)
            return self._end(memory, track)
        refined = None if chosen is not None else refine(pool, self.medium, source)
        chosen = chosen or refined
        memory.claim(track.used, NOBODY)
        if chosen is None:
            return self._end(memory, track)
        track.rest_on(chosen, pool, among)
        if searched:
            track.whole = whole if told_s[0] > _awaited_s(memory, track) else frozenset()
        if not self._passes(memory, track) or self._is_echo(track):
            return self._end(memory, track)
        if self._gives_way(track):
            return self._end(memory, track)
        self._hold(memory, track)
        return self._renew(memory, track)

    def _gives_way(self, track: Track) -> bool:
        """Say whether an incident is the weaker of two at one place; the other is fitted anew."""
        other = self._same(track)
        if other is None:
            return False
        self._jolt(other)
        return other.source.evidence >= track.source.evidence

    def _weaker(self, track: Track, number: int) -> bool:
        """Say whether an incident's rounds may be taken for another."""
        other = self._tracks.get(number)
        return other is None or other.source.evidence < track.source.evidence

    def _settle(self, memory: Memory, track: Track) -> list[Incident]:
        """Go through what was heard round an incident once more, and weigh its nodes."""
        track.settled += 1
        told = self._fit(memory, track, searched=True)
        if track.over:
            return told
        rows = track.pool.key
        left = rows[memory.claimed_by(rows) == NOBODY]
        left = graded(memory, left, self._settings)
        if len(unique(memory.nodes_of(left))) >= self._settings.nodes_with_bearings:
            pool = self._dimmed(memory, memory.pool(track.nodes, left))
            odds = self._settings.least_log_odds
            for source in find(pool, self.medium, least_evidence=odds, most_sources=3):
                other = Track(NOBODY, "", source, pool, track.nodes)
                if (
                    self._passes(memory, other)
                    and source.evidence >= self._asked(memory, other, early=False)
                    and not self._is_echo(other)
                    and self._same(other) is None
                ):
                    founder = memory.events_of(other.used)[0].event_id
                    told.append(self._begin(memory, other, founder))
        for event in memory.events_of(track.used):
            self._doubts.note(event.word.node_id, event.event_id, 0.0, used=True)
        for event, residual_s in astray(track, memory):
            self._doubts.note(event.word.node_id, event.event_id, residual_s, used=False)
        return told

    # Telling

    def _release(self, memory: Memory, track: Track) -> None:
        """Let go of rounds that an incident was expected to have."""
        rows = track.expected[memory.remembers(track.expected)]
        memory.claim(rows[memory.claimed_by(rows) == track.number], NOBODY)
        track.expected = rows[:0]

    def _end(self, memory: Memory, track: Track) -> list[Incident]:
        track.over = True
        said = track.said
        if said is None:
            return []
        taken_back = {"type": "cancel", "revision": said.revision + 1}
        track.said = said.model_copy(update=taken_back)
        return [track.said]

    def _renew(self, memory: Memory, track: Track) -> list[Incident]:
        said, spread = track.said, track.spread_m2
        incident = self._told(memory, track, "update")
        if (
            said is not None
            and _alike(said, incident)
            and np.allclose(spread, track.spread_m2, 0.2)
        ):
            return []
        track.said = incident
        return [incident]

    def _told(self, memory: Memory, track: Track, kind: Literal["new", "update"]) -> Incident:
        track.spread_m2 = covariance(track.source, self.medium)
        told = Told(
            kind,
            self._name,
            memory.epoch_ns,
            self._plane,
            self._frame,
            _words(memory, track),
            witnesses(track, memory, self._doubts),
            silent(track, memory),
        )
        return tell(track, told, self._settings)


def _pop(due: list[_Due], until_s: float) -> Track | None:
    """Take the first that is due; what was done meanwhile, or is over, is passed over."""
    while due and due[0][0] <= until_s:
        at_s, _, track = heapq.heappop(due)
        if not track.over and at_s in (track.fits_s, track.settles_s):
            return track
    return None


def _awaited_s(memory: Memory, track: Track) -> float:
    """Give when its sound has come to all round it, if any listen but those that it rests on."""
    near = memory.near(track.source.state[:3], _SILENCE_M)
    others = near[~memory.is_deaf(near) & ~is_in(near, track.used_nodes)]
    return track.begins_s + _SILENCE_M / SLOWEST_M_S if len(others) else -math.inf


def _words(memory: Memory, track: Track) -> list[Word]:
    """Give what the detections say that a source rests on, each once."""
    events = {id(event): event for event in memory.events_of(track.used)}
    return [event.word for event in events.values()]


def _alike(said: Incident, now: Incident) -> bool:
    """Whether two messages say the same of nodes, rounds and grade."""
    heard = [[(w.node_id, w.event_id, w.used) for w in one.nodes] for one in (said, now)]
    return (
        heard[0] == heard[1]
        and said.round_count == now.round_count
        and said.grade == now.grade
        and said.silent_nodes == now.silent_nodes
    )
