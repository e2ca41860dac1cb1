"""Detections in, incidents out: the stream of the subscriber's side. Pure: no clock, no I/O.

A detection that a known incident predicts joins it, which is fitted anew a moment later, together
with what else has come. One that none predicts is searched for a new source with its neighbours at
once. When no more comes, an incident is gone through once more with all that was heard round it.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict, deque
from itertools import count
from typing import Final

import numpy as np

from node.messages import Detection, Incident
from node.messages.detection import Local, Position
from node.messages.incident import Witness
from node.network.arrivals import IntArray
from node.network.doubts import Doubts
from node.network.hearing import UNKNOWN_SIGMA_M, Heard, Memory
from node.network.medium import Medium, Weather, medium
from node.network.plane import Plane
from node.network.policy import GRADES, LocateSettings, grade_of, pooled
from node.network.region import covariance
from node.network.sources import best, find, refine
from node.network.telling import incident_name, tell
from node.network.track import ECHO_S, Track
from node.types import NS_PER_S

# Sound of the coldest day (signal.md §4).
_SLOWEST_M_S: Final = 310.0
# What a path may add to a pair's difference of times.
_SLACK_S: Final = 0.15
_MOST_ARRIVALS: Final = 40
_MOST_IN_FIT: Final = 400
# Of an incident's shots so many must be another's for both to be one.
_SHARED: Final = 0.5
_SAME_M: Final = 50.0
_SAME_S: Final = 0.1
# A wall mirrors a source at its own moment; a second gun fires at another.
_MIRROR_S: Final = 0.025
_ECHO_PER_S: Final = 1.0
# Before a shot nothing is of it; a place that rests on few nodes may be far off, and its moment so.
_FEW: Final = 6
_EARLY_S: Final = 1.2
_EARLY_OF_FEW_S: Final = 4.0
_MOVED_M: Final = 0.5
_FIT_SEEDS: Final = 600
_OPEN_SEEDS: Final = 300


class Locator:
    """Detections in, incidents out.

    Times are the caller's: `now_ns` is when something became known here (UTC, ns), and never runs
    backwards. Over a file it is when the node published, or the onset.
    """

    def __init__(self, settings: LocateSettings | None = None) -> None:
        self.settings = settings or LocateSettings()
        self._sites: dict[tuple[str, str | None], _Site] = {}
        self._weather: dict[str, Weather] = {}
        self._doubts: dict[str, Doubts] = defaultdict(Doubts)

    def place(self, site: str, node_id: str, place: Position | Local) -> None:
        """Say where a node stands, by its birth message or a list; above what detections say."""
        self._site(site, place).place(node_id, place, given=True)

    def up(self, site: str, node_id: str, up: bool) -> None:
        """Say whether a node listens: one that does not, is not silent."""
        for (name, _), one in self._sites.items():
            if name == site:
                one.up(node_id, up)

    def weather(self, site: str, weather: Weather) -> None:
        """Say what the weather is at a site from now on."""
        self._weather[site] = weather
        for (name, _), one in self._sites.items():
            if name == site:
                one.medium = medium(weather)

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        """Take a detection, or a later revision of one; give what is new of incidents."""
        known = [
            one
            for (name, _), one in self._sites.items()
            if name == detection.site and one.is_given(detection.node_id)
        ]
        place = detection.position or detection.local
        if not known and place is not None:
            site = self._site(detection.site, place)
            site.place(detection.node_id, place, given=False)
            known = [site]
        return known[0].push(detection, now_ns) if known else []

    def tick(self, now_ns: int) -> list[Incident]:
        """Let time pass: what waited for later nodes is settled."""
        return [incident for one in self._sites.values() for incident in one.tick(now_ns)]

    def finish(self) -> list[Incident]:
        """Settle all; nothing more comes."""
        return [incident for one in self._sites.values() for incident in one.finish()]

    @property
    def doubts(self) -> dict[tuple[str, str], str]:
        """Nodes (site, node) whose clock or place does not agree with the others, and how."""
        return {
            (site, node): said
            for site, doubts in self._doubts.items()
            for node, said in doubts.told().items()
        }

    def _site(self, site: str, place: Position | Local) -> _Site:
        frame = place.frame if isinstance(place, Local) else None
        key = (site, frame)
        if key not in self._sites:
            air = medium(self._weather.get(site, Weather()))
            self._sites[key] = _Site(site, frame, self.settings, air, self._doubts[site])
        return self._sites[key]


class _Site:
    """What is known of one site, in one frame."""

    def __init__(
        self, name: str, frame: str | None, settings: LocateSettings, air: Medium, doubts: Doubts
    ) -> None:
        self.name = name
        self.medium = air
        self._frame = frame
        self._settings = settings
        self._doubts = doubts
        self._plane: Plane | None = None
        self._memory: Memory | None = None
        self._given: dict[str, bool] = {}
        self._places: dict[str, Position | Local] = {}
        self._tracks: dict[int, deque[Track]] = defaultdict(deque)  # by node
        self._all: deque[Track] = deque()
        self._due: list[tuple[float, int, Track]] = []
        self._order = count()
        self._founded: Counter[str] = Counter()
        self._now_s = 0.0
        self._down: set[str] = set()
        self._reach_s = settings.reach_m / _SLOWEST_M_S

    # What is known of the nodes

    def is_given(self, node_id: str) -> bool:
        """Whether somebody other than its detections says where a node stands."""
        return self._given.get(node_id, False)

    def place(self, node_id: str, place: Position | Local, *, given: bool) -> None:
        """Say where a node stands."""
        if self._places.get(node_id) == place:
            self._given[node_id] = given or self._given[node_id]
            return
        self._places[node_id] = place
        self._given[node_id] = given or self._given.get(node_id, False)
        if self._memory is not None:
            self._put(node_id)

    def up(self, node_id: str, up: bool) -> None:
        """Say whether a node listens."""
        if up:
            self._down.discard(node_id)
        else:
            self._down.add(node_id)

    def _put(self, node_id: str) -> None:
        place, memory = self._places[node_id], self._remember()
        if isinstance(place, Local):
            sigma = place.sigma_m if place.sigma_m is not None else UNKNOWN_SIGMA_M
            memory.place(node_id, (place.x_m, place.y_m, place.z_m), sigma)
            return
        if self._plane is None:
            self._plane = Plane(place.lat_deg, place.lon_deg)
        east, north = self._plane.metres(place.lat_deg, place.lon_deg)
        if math.isfinite(east):
            memory.place(node_id, (east, north, place.alt_m), place.sigma_m)

    def _remember(self) -> Memory:
        if self._memory is None:
            raise AssertionError("nothing was heard yet")
        return self._memory

    # Time

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        """Take a detection."""
        if self._memory is None:
            self._memory = Memory(now_ns, self._settings.reach_m)
            for node_id in self._places:
                self._put(node_id)
        memory = self._memory
        told = self.tick(now_ns)
        node = memory.node(detection.node_id)
        if node is None:
            return told
        if detection.type == "cancel":
            gone = memory.withdraw(detection, node)
            if gone is not None:
                self._recall(gone)
            return told
        before = memory.event(node, detection.event_id)
        one = memory.take(detection, node)
        if one is None:
            return told
        if before is not None:
            self._recall(before)
        return told + self._place(one)

    def tick(self, now_ns: int) -> list[Incident]:
        """Do what is due."""
        if self._memory is None:
            return []
        self._now_s = max(self._now_s, (now_ns - self._memory.epoch_ns) / NS_PER_S)
        told = []
        while self._due and self._due[0][0] <= self._now_s:
            _, _, track = heapq.heappop(self._due)
            told += self._work(track)
        self._forget()
        return told

    def finish(self) -> list[Incident]:
        """Settle all that is open."""
        told = []
        while self._due:
            at_s, _, track = heapq.heappop(self._due)
            self._now_s = max(self._now_s, at_s)
            told += self._work(track)
        return told

    def _forget(self) -> None:
        before_s = self._now_s - self._settings.keep_s
        while self._all and self._all[0].source.fired_s[-1] < before_s:
            track = self._all.popleft()
            track.over = True
        self._remember().forget_slowly(before_s)

    def _wake(self, track: Track, at_s: float) -> None:
        if at_s < track.due_s:
            track.due_s = at_s
            heapq.heappush(self._due, (at_s, next(self._order), track))

    def _work(self, track: Track) -> list[Incident]:
        if track.over:
            return []
        if track.due_s <= self._now_s:
            track.due_s = np.inf
            settling = track.settles_s <= self._now_s
            if settling:
                track.settles_s = np.inf
            told = self._fit(track, whole=settling or len(track.used_nodes()) < _FEW)
            if settling:
                return told + self._settle(track)
            self._wake(track, track.settles_s)
            return told
        return []

    def _recall(self, one: Heard) -> None:
        """Have incidents that rest on what is no more true fitted anew."""
        for track in list(self._tracks.get(one.node, ())):
            if not track.over and any(heard is one for heard, _ in track.found):
                track.settles_s = min(track.settles_s, self._now_s + self._settings.settle_s)
                self._wake(track, self._now_s + self._settings.update_s)

    # Where a detection belongs

    def _place(self, one: Heard) -> list[Incident]:
        memory = self._remember()
        place_m = memory.place_of(one.node)
        free = np.ones(len(one.times_s), np.bool_)
        tracks = self._tracks.get(one.node, deque())
        for track in list(tracks):
            if track.over:
                tracks.remove(track)
                continue
            direct, echo = track.hears(one, place_m)
            if direct.any() or echo.any():
                free &= ~direct
                track.settles_s = max(
                    self._now_s + self._settings.settle_s if np.isinf(track.settles_s) else 0.0,
                    min(track.settles_s, self._now_s + self._settings.settle_s),
                )
                self._wake(track, self._now_s + self._settings.update_s)
        return self._open(one) if free.any() else []

    def _open(self, one: Heard) -> list[Incident]:
        """Search what a detection and its neighbours heard for a source that is not known yet."""
        memory, settings = self._remember(), self._settings
        span = 2 * self._reach_s
        others = memory.within(
            memory.neighbours(one.node), one.times_s[0] - span, one.times_s[-1] + span
        )
        found = self._near(one, others)
        nodes = {h.node for h, _ in found}
        bearings = {h.node for h, _ in found if math.isfinite(h.azimuth_rad)}
        graded = {h.node for h, _ in found if h.graded}
        if len(graded) < settings.graded_nodes or (
            len(nodes) < settings.nodes and len(bearings) < settings.nodes_with_bearings
        ):
            return []
        heard_at = np.array(sorted(nodes))
        middle = np.median(memory.places()[heard_at], axis=0)
        among = self._listening(np.union1d(heard_at, memory.near(middle, settings.reach_m)), nodes)
        pool = memory.pool(among, found)
        pool = self._dimmed(pool, found)
        source = best(pool, self.medium, np.random.default_rng(1), most_seeds=_OPEN_SEEDS)
        if source is None:
            return []
        mine = [k for k, key in enumerate(pool.key) if found[key][0] is one]
        if not source.used[mine].any():
            return []
        track = Track("", source, pool, found, among)
        if not self._passes(track) or self._is_echo(track):
            return []
        known = self._same(track)
        if known is not None:
            self._wake(known, self._now_s + settings.update_s)
            return []
        return self._begin(track, one.detection.event_id)

    def _near(self, one: Heard, others: list[Heard]) -> list[tuple[Heard, int]]:
        """Give the free rounds that may be of a shot that a detection is of, the likeliest."""
        places = self._remember().places()
        own = [k for k, claim in enumerate(one.claimed_by) if claim is None]
        times = one.times_s[own]
        found: list[tuple[float, Heard, int]] = []
        for other in others:
            if other is one:
                continue
            apart = math.dist(places[one.node], places[other.node]) / _SLOWEST_M_S + _SLACK_S
            for k, claim in enumerate(other.claimed_by):
                off = np.abs(times - other.times_s[k]).min()
                if claim is None and off <= apart:
                    found.append((float(other.clutter_per_s[k]) * (1 + apart), other, k))
        found.sort(key=lambda entry: entry[0])
        best_ones = [(other, k) for _, other, k in found[:_MOST_ARRIVALS]]
        return [(one, k) for k in own] + best_ones

    def _begin(self, track: Track, founder: str) -> list[Incident]:
        track.name = incident_name(founder, self._founded[founder])
        self._founded[founder] += 1
        track.settles_s = self._now_s + self._settings.settle_s
        track.claim()
        self._register(track)
        self._all.append(track)
        self._wake(track, self._now_s + self._settings.update_s)
        return [self._say(track, "new")]

    def _register(self, track: Track) -> None:
        for node in self._remember().near(track.source.state[:3], self._settings.reach_m):
            tracks = self._tracks[int(node)]
            if track not in tracks:
                tracks.append(track)

    def _listening(self, nodes: IntArray, heard: set[int]) -> IntArray:
        memory = self._remember()
        down = {memory.node(node_id) for node_id in self._down}
        return np.array([n for n in nodes if n in heard or n not in down], np.int64)

    # What passes

    def _passes(self, track: Track) -> bool:
        settings, source = self._settings, track.source
        if source.evidence < settings.least_log_odds:
            return False
        used = {id(one): one for one, _ in track.used()}.values()
        nodes = {one.node for one in used}
        enough = len(nodes) >= settings.nodes or track.crosses() >= settings.nodes_with_bearings
        if not enough or len({h.node for h in used if h.graded}) < settings.graded_nodes:
            return False
        grade = grade_of(
            pooled([h.detection.scores for h in used]), [h.detection.thresholds for h in used]
        )
        return GRADES.index(grade) >= GRADES.index(settings.least_grade)

    def _same(self, track: Track) -> Track | None:
        """Give the incident that a source belongs to: the same place, and no long pause."""
        fired = track.source.fired_s
        for other in self._tracks.get(int(track.used_nodes()[0]), ()):
            if other is track or other.over:
                continue
            pause = min(
                abs(fired[0] - other.source.fired_s[-1]), abs(other.source.fired_s[0] - fired[-1])
            )
            inside = (
                other.source.fired_s[0] - self._settings.gap_s
                <= fired[0]
                <= other.source.fired_s[-1] + self._settings.gap_s
            )
            apart = track.source.place_m - other.source.place_m
            spread = track.source.covariance[:2, :2] + other.source.covariance[:2, :2]
            near = np.hypot(*apart) < _SAME_M or apart @ np.linalg.solve(spread, apart) < 9.0
            if near and np.hypot(*apart) < 6 * _SAME_M and (inside or pause < self._settings.gap_s):
                return other
        return None

    def _is_echo(self, track: Track) -> bool:
        """Whether all shots of a source are another's, mirrored by a wall or by many."""
        fired = track.source.fired_s
        for other in self._tracks.get(int(track.used_nodes()[0]), ()):
            if other is track or other.over:
                continue
            late = fired[:, None] - other.source.fired_s[None]
            if (np.abs(late).min(axis=1) < _MIRROR_S).all():
                return True
            late = np.where(late >= 0, late, np.inf).min(axis=1)
            if len(fired) > 1 and (late < ECHO_S).all() and np.ptp(late) < _MIRROR_S:
                return True
        return False

    def _dimmed(self, pool, found):  # type: ignore[no-untyped-def]
        """Let what may be a known incident's echo count for less."""
        from dataclasses import replace

        clutter = pool.clutter_per_s.copy()
        memory = self._remember()
        for at, key in enumerate(pool.key):
            one, k = found[key]
            for track in self._tracks.get(one.node, ()):
                if not track.over:
                    late = track.late_s(one, memory.place_of(one.node))[k]
                    if ((late > 0) & (late < ECHO_S)).any():
                        clutter[at] = max(clutter[at], _ECHO_PER_S)
        return replace(pool, clutter_per_s=clutter)

    # Fitting

    def _fit(self, track: Track, *, whole: bool) -> list[Incident]:
        """Fit an incident anew to all that was heard round it."""
        memory, settings = self._remember(), self._settings
        source = track.source
        near = memory.near(source.state[:3], settings.reach_m)
        begins = source.fired_s[0] - _EARLY_OF_FEW_S
        ends = source.fired_s[-1] + settings.gap_s + self._reach_s
        found = [
            (one, k)
            for one in memory.within(near, begins, ends)
            for k, claim in enumerate(one.claimed_by)
            if claim is None or claim is track or (whole and _weaker(claim, track))
        ]
        kept = self._plausible(track, found)
        if not kept:
            return self._end(track)
        among = self._listening(near, {one.node for one, _ in kept})
        pool = memory.pool(among, kept)
        refined = refine(pool, self.medium, source)
        fits = [] if refined is None else [refined]
        if whole:
            again = best(pool, self.medium, np.random.default_rng(1), most_seeds=_FIT_SEEDS)
            held = {(id(one), k) for one, k in track.used()}
            if again is not None:
                has = {(id(kept[key][0]), kept[key][1]) for key in pool.key[again.used]}
                if len(has & held) >= _SHARED * min(len(held), len(has)):
                    fits.append(again)
        if not fits:
            return self._end(track)
        chosen = max(fits, key=lambda fit: fit.evidence)
        track.release()
        track.source, track.pool, track.found, track.nodes = chosen, pool, kept, among
        if not self._passes(track):
            return self._end(track)
        other = self._same(track)
        if other is not None and other.source.evidence >= chosen.evidence:
            self._wake(other, self._now_s)
            return self._end(track)
        for one, k in track.used():
            loser = one.claimed_by[k]
            if loser is not None and loser is not track:
                self._wake(loser, self._now_s)
        track.claim()
        self._register(track)
        return self._renew(track)

    def _plausible(self, track: Track, found: list[tuple[Heard, int]]) -> list[tuple[Heard, int]]:
        memory = self._remember()
        early_s = _EARLY_OF_FEW_S if len(track.used_nodes()) < _FEW else _EARLY_S
        kept = []
        for one, k in found:
            late = track.late_s(one, memory.place_of(one.node))[k]
            if late.max() > -early_s and late.min() < self._settings.gap_s + ECHO_S:
                kept.append((one, k))
        kept.sort(key=lambda entry: float(entry[0].clutter_per_s[entry[1]]))
        return kept[:_MOST_IN_FIT]

    def _settle(self, track: Track) -> list[Incident]:
        """Go through what an incident leaves over, and weigh its nodes."""
        told: list[Incident] = []
        memory, settings = self._remember(), self._settings
        if track.over:
            return told
        left = [
            (one, k)
            for one, k in track.found
            if one.claimed_by[k] is None and one.detection.grade != "not_gunfire"
        ]
        if len({one.node for one, _ in left}) >= settings.nodes_with_bearings and left:
            pool = self._dimmed(memory.pool(track.nodes, left), left)
            for source in find(
                pool, self.medium, least_evidence=settings.least_log_odds, most_sources=3
            ):
                other = Track("", source, pool, left, track.nodes)
                if self._passes(other) and not self._is_echo(other) and self._same(other) is None:
                    founder = other.used()[0][0].detection.event_id
                    told += self._begin(other, founder)
        self._weigh_nodes(track)
        return told

    def _weigh_nodes(self, track: Track) -> None:
        for witness in self._witnesses(track):
            self._doubts.note(witness.node_id, witness.residual_s or 0.0, witness.used)

    def _end(self, track: Track) -> list[Incident]:
        track.release()
        track.over = True
        return [self._say(track, "cancel")] if track.said is not None else []

    # Telling

    def _renew(self, track: Track) -> list[Incident]:
        said = track.said
        incident = self._told(track, "update")
        if said is not None and _alike(said, incident, track):
            return []
        track.said = incident
        track.place = track.source.state[:3].copy()
        return [incident]

    def _say(self, track: Track, kind: str) -> Incident:
        if kind == "cancel" and track.said is not None:
            last = track.said
            incident = last.model_copy(update={"type": "cancel", "revision": last.revision + 1})
        else:
            incident = self._told(track, kind)
        track.said = incident
        track.place = track.source.state[:3].copy()
        return incident

    def _told(self, track: Track, kind: str) -> Incident:
        track.spread_m2 = covariance(track.source, self.medium)
        return tell(
            track,
            site=self.name,
            epoch_ns=self._remember().epoch_ns,
            plane=self._plane,
            frame=self._frame,
            settings=self._settings,
            kind=kind,  # type: ignore[arg-type]
            witnesses=tuple(self._witnesses(track)),
            silent=self._silent(track),
        )

    def _witnesses(self, track: Track) -> list[Witness]:
        memory = self._remember()
        used = {id(one) for one, _ in track.used()}
        parts: dict[int, Heard] = {id(one): one for one, _ in track.found}
        out: dict[int, tuple[float, Witness]] = {}
        for one in parts.values():
            late = track.late_s(one, memory.place_of(one.node))
            nearest = float(late.flat[int(np.abs(late).argmin())])
            is_used = id(one) in used
            if (
                not is_used
                and not (one.graded and -3.5 < nearest < 3.5)
                and not 0 < nearest < ECHO_S
            ):
                continue
            claims = [c for c in one.claimed_by if c is not None and c is not track]
            if claims and not is_used:
                continue
            rank = abs(nearest) + (0 if is_used else 10)
            if one.node in out and out[one.node][0] <= rank:
                continue
            node_id = one.detection.node_id
            out[one.node] = (
                rank,
                Witness(
                    node_id=node_id,
                    event_id=one.detection.event_id,
                    residual_s=nearest,
                    used=is_used,
                    grade=one.detection.grade,
                    doubt=None if is_used else self._doubts.of(node_id, nearest),
                ),
            )
        return [witness for _, (_, witness) in sorted(out.items())]

    def _silent(self, track: Track) -> tuple[str, ...]:
        memory = self._remember()
        used = track.used_nodes()
        places = memory.places()
        away = np.hypot(*(places[track.nodes, :2] - track.source.place_m).T)
        heard = np.hypot(*(places[used, :2] - track.source.place_m).T)
        present = {one.node for one, _ in track.found}
        ought = (away <= np.median(heard)) if len(heard) else np.zeros(len(away), bool)
        return tuple(
            memory.node_ids[n]
            for n, should in zip(track.nodes, ought, strict=True)
            if should and n not in present
        )


def _weaker(one: Track, other: Track) -> bool:
    return one.source.evidence < other.source.evidence


def _alike(said: Incident, now: Incident, track: Track) -> bool:
    moved = np.hypot(*(track.place[:2] - track.source.place_m))
    return bool(
        moved < _MOVED_M
        and said.round_count == now.round_count
        and said.grade == now.grade
        and [(w.node_id, w.event_id, w.used) for w in said.nodes]
        == [(w.node_id, w.event_id, w.used) for w in now.nodes]
        and said.silent_nodes == now.silent_nodes
    )
