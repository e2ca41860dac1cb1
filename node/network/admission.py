"""Which messages count: the gate before the locator. Pure: no clock, no I/O.

In comes what a broker or a file brought, with the moment at which it came; out goes a detection to
locate with, or why not. Nothing that is refused moves a place: a forged message, one that came
before, one of another node's, one from the future or of an hour ago, more than a node can hear.
Whoever has a node's key can still lie in its name: that is for the locator, to whom the other nodes
tell it.
"""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Final, Literal

from node.messages import (
    Detection,
    Node,
    Status,
    parse_detection,
    parse_node,
    parse_status,
)
from node.messages.detection import Local, Position
from node.messages.signing import canonical, is_signed_by, read_object, signature_bytes
from node.messages.topics import ROOT
from node.messages.trust import spans_hold
from node.network.allowance import Allowance
from node.network.content import apart_m, content_of, mark_of, place_fault, span_ns
from node.network.keys import Keys
from node.network.locate_settings import InputSettings
from node.network.places import Places
from node.network.signed_form import signed_form
from node.types import NS_PER_S
from node.utc import parse_utc_ns

LONGEST_BYTES: Final = 2**16
"""No detection is longer: some five hundred rounds. Births have their own bound, the contract's."""

MOST_EVENTS: Final = 200_000
"""Events that are remembered, to know what comes again; the oldest are forgotten."""

MOST_NODES: Final = 20_000
"""Nodes of which it is remembered where they stand and in which run."""

_BIRTHS_S: Final = 1.0
_BIRTHS_AT_ONCE: Final = 20
_ASK_AGAIN_NS: Final = NS_PER_S // 2

_MOST_REVISIONS: Final = 64

# Five standard errors, and what two surveys of a roof may differ by.
_PLACE_SIGMAS: Final = 5.0
_PLACE_SLACK_M: Final = 10.0

_TOPIC: Final = re.compile(rf"{re.escape(ROOT)}/([^/]+)/([^/]+)/([^/]+)")

Kind = Literal[
    "unreadable",
    "misplaced",
    "retained",
    "repeated",
    "superseded",
    "contradictory",
    "unsigned",
    "unknown",
    "unlisted",
    "forged",
    "expired",
    "future",
    "late",
    "clock",
    "flood",
]
"""Why a detection was refused; docs/do/locate-shots.md says what each means."""

HARMLESS: Final[frozenset[Kind]] = frozenset({"repeated", "superseded"})
"""What happens on any day: MQTT delivers at least once."""

Who = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that does not count, and why; `who` is (site, node) as far as that is known."""

    kind: Kind
    sentence: str
    who: Who = ("", "")


@dataclass(frozen=True, slots=True)
class Admitted:
    """A detection that counts.

    Attributes
    ----------
    doubt
        What is odd about it all the same: it stands elsewhere than the list or its birth says,
        whose place is the one that counts; or in another frame than others of its site.
    """

    detection: Detection
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Birth:
    """A birth that counts: where the node says that it stands; None where it does not."""

    node: Node
    place: Position | Local | None


class Admission:
    """Decides, message by message.

    Parameters
    ----------
    settings
        Which messages count.
    keys
        Whose signatures count; None where none is asked for (files, trials).
    places
        Where nodes stand by a list; then nodes that are not in it do not count.
    live
        Whether messages come as they are sent: what is late is refused, and what is retained.

    Attributes
    ----------
    taken, unverified
        How many detections were admitted, and how many of them nobody vouches for.
    refused
        How many were not, by kind; what the caller counts by `count`.
    """

    def __init__(
        self,
        settings: InputSettings | None = None,
        keys: Keys | None = None,
        places: Places | None = None,
        *,
        live: bool = True,
    ) -> None:
        self.settings = settings or InputSettings()
        self.keys = keys
        self.places = places
        self.taken = 0
        self.unverified = 0
        self.refused: Counter[Kind] = Counter()
        self._live = live
        # (site, node, event) → of each revision that was admitted the two marks of what it said
        self._events: OrderedDict[tuple[str, str, str], dict[int, tuple[bytes, bytes]]] = (
            OrderedDict()
        )
        self._detections, self._newborn = Allowance(), Allowance()
        self._asked_ns = 0
        self._births: OrderedDict[Who, tuple[int, Position | Local | None]] = OrderedDict()
        self._frames: OrderedDict[str, str | None] = OrderedDict()  # of each site the first

    def count(self, refusal: Refusal) -> None:
        """Count what is refused for good; a message may be tried again before."""
        self.refused[refusal.kind] += 1

    def place(self, site: str, node_id: str) -> Position | Local | None:
        """Give where a node stands by the list, or else by its birth."""
        listed = self.places.of(site, node_id) if self.places is not None else None
        return listed or self._births.get((site, node_id), (0, None))[1]

    def detection(
        self,
        payload: bytes,
        now_ns: int | None,
        topic: str | None = None,
        *,
        retained: bool = False,
    ) -> Admitted | Refusal:
        """Judge a detection.

        Parameters
        ----------
        payload
            What came.
        now_ns
            When it came, UTC; None where that is not known.
        topic
            Where it came; None where that is not known.
        retained
            Whether the broker had kept it from before.
        """
        if len(payload) > LONGEST_BYTES:
            return Refusal("unreadable", "is longer than any detection", _who_of(topic))
        try:
            said = parse_detection(payload)
            first_ns, last_ns = span_ns(said)
            _check_places(said)
        except ValueError as error:
            return Refusal("unreadable", _short(error), _who_of(topic))
        who = (said.site, said.node_id)
        if topic is not None and topic != f"{ROOT}/{said.site}/{said.node_id}/detection":
            return Refusal(
                "misplaced",
                f"says that it is of {said.site}/{said.node_id}, whose topic this is not",
                _who_of(topic),
            )
        if retained and self._live:
            # Nodes never have one kept; whoever did it, it would come anew to each who subscribes.
            return Refusal("retained", "was kept by the broker: somebody plays it again", who)
        event = (*who, said.event_id)
        before = self._events.get(event)
        mark, known = mark_of(payload), (before or {}).get(said.revision)
        if known is not None and known[0] == mark:
            return Refusal("repeated", "came before", who)
        if (early := self._by_time(said, first_ns, last_ns, now_ns)) is not None:
            return early
        if self.places is not None and self.places.of(*who) is None:
            return Refusal("unlisted", "is not in the list of nodes: add it if it is ours", who)
        if (
            now_ns is not None
            and self._live
            and not self._detections.may(
                who, now_ns, self.settings.per_node_s, self.settings.per_node_at_once
            )
        ):
            return Refusal(
                "flood",
                f"sends more than {self.settings.per_node_s:g} detections a second: what is beyond "
                "is left out",
                who,
            )
        if (wrong := self._by_signature(said, payload, first_ns, now_ns)) is not None:
            return wrong
        place = self.place(*who) or said.position or said.local
        if place is None:
            return Refusal(
                "unlisted",
                "says not where it stands, nor does its birth message: list it in NODES.toml",
                who,
            )
        if before is not None:
            if known is not None and known[1] == content_of(said):
                return Refusal("repeated", "came before, written otherwise", who)
            if known is not None:
                return Refusal(
                    "contradictory",
                    f"event {said.event_id} revision {said.revision} came with other content "
                    "before; the first counts",
                    who,
                )
            if said.revision < max(before):
                before[said.revision] = (mark, content_of(said))
                return Refusal("superseded", "a later revision has come already", who)
            if len(before) >= _MOST_REVISIONS:
                return Refusal("flood", f"event {said.event_id} is told anew without end", who)
        self._events.setdefault(event, {})[said.revision] = (mark, content_of(said))
        if len(self._events) > MOST_EVENTS:
            self._events.popitem(last=False)
        self.taken += 1
        return Admitted(said, self._elsewhere(said) or self._in_another_frame(said.site, place))

    def birth(
        self, payload: bytes, now_ns: int | None, topic: str | None = None
    ) -> Birth | Refusal:
        """Judge a node's birth message, and take its certificate and place."""
        try:
            if len(payload) > LONGEST_BYTES:
                raise ValueError("is longer than any birth message")
            said = parse_node(payload)
            utc_ns = parse_utc_ns(said.utc)
            _check_places(said)
        except ValueError as error:
            return Refusal("unreadable", _short(error), _who_of(topic))
        who = (said.site, said.node_id)
        if topic is not None and topic != f"{ROOT}/{said.site}/{said.node_id}/node":
            return Refusal(
                "misplaced",
                f"says that it is of {said.site}/{said.node_id}, whose topic this is not",
                _who_of(topic),
            )
        if (
            now_ns is not None
            and self._live
            and not self._newborn.may(who, now_ns, _BIRTHS_S, _BIRTHS_AT_ONCE)
        ):
            return Refusal("flood", "is born without end: what is beyond is left out", who)
        if self.keys is not None and said.key is not None:
            self.keys.offer(*who, said.key.certificate or "", said.key.public_key)
        wrong = self._birth_by_signature(said, payload, now_ns)
        if wrong is not None:
            return wrong
        if now_ns is not None and utc_ns > now_ns + self._ahead_ns:
            return Refusal("future", "a birth message of the future: its place does not count", who)
        if self.places is not None and self.places.of(*who) is None:
            return Refusal("unlisted", "is not in the list of nodes: add it if it is ours", who)
        known_ns, _ = self._births.get(who, (-1, None))
        if utc_ns < known_ns:
            return Refusal("superseded", "a later birth message has come already", who)
        place = said.position or said.local
        self._births[who] = (utc_ns, place)
        self._births.move_to_end(who)
        if len(self._births) > MOST_NODES:
            self._births.popitem(last=False)
        return Birth(said, place)

    def status(self, payload: bytes, topic: str | None = None) -> Status | Refusal:
        """Read a status. It is not signed: it bears on who was silent, and on no place."""
        try:
            if len(payload) > LONGEST_BYTES:
                raise ValueError("is longer than any status")
            said = parse_status(payload)
        except ValueError as error:
            return Refusal("unreadable", _short(error), _who_of(topic))
        if topic is not None and topic != f"{ROOT}/{said.site}/{said.node_id}/status":
            return Refusal("misplaced", "is not of the node whose topic this is", _who_of(topic))
        return said

    @property
    def _ahead_ns(self) -> int:
        return round(self.settings.ahead_s * NS_PER_S)

    def _by_time(
        self, said: Detection, first_ns: int, last_ns: int, now_ns: int | None
    ) -> Refusal | None:
        who = (said.site, said.node_id)
        sigma_s = max(said.clock.sigma_s, *(one.sigma_s for one in said.rounds))
        if sigma_s > self.settings.worst_clock_s or (self._live and said.clock.source == "free"):
            return Refusal(
                "clock",
                f"its clock is not to be trusted ({said.clock.source}, ±{sigma_s:.3g} s): see "
                "gunfire-node check there",
                who,
            )
        if now_ns is None:
            return None
        if last_ns > now_ns + self._ahead_ns:
            return Refusal(
                "future",
                f"its onset lies {_lasts((last_ns - now_ns) / NS_PER_S)} in the future: see its "
                "clock, and this machine's",
                who,
            )
        age_s = (now_ns - first_ns) / NS_PER_S
        if self._live and age_s > self.settings.oldest_s:
            return Refusal("late", f"came {_lasts(age_s)} after its onset: not located live", who)
        return None

    def _by_signature(
        self, said: Detection, payload: bytes, first_ns: int, now_ns: int | None
    ) -> Refusal | None:
        who = (said.site, said.node_id)
        if said.signature is None:
            if self.settings.unsigned:
                self.unverified += 1
                return None
            return Refusal("unsigned", "is not signed", who)
        if self.keys is None:
            self.unverified += 1
            return None
        keys = self.keys.of(*who)
        if not keys:
            return Refusal("unknown", f"no key counts for it: {self.keys.why_none(*who)}", who)
        try:
            form = signed_form(payload)
            signature = signature_bytes(said.signature)
            signed = [key for key in keys if is_signed_by(key.public, signature, form)]
            if not signed and (other := canonical(read_object(payload))) != form:
                form = other
                signed = [key for key in keys if is_signed_by(key.public, signature, form)]
        except ValueError as error:
            return Refusal("forged", _short(error), who)
        if not signed:
            whose = self.keys.whose(*who, signature, form) if self._may_ask(now_ns) else ""
            sentence = f"is signed {whose}" if whose else "was forged or altered"
            return Refusal("forged", f"{sentence}: its signature is not of this node", who)
        # Who stole a key that was revoked since may date a message back; live there is no since.
        moments = [first_ns, now_ns] if self._live and now_ns is not None else [first_ns]
        if not all(any(spans_hold(key.spans, moment) for key in signed) for moment in moments):
            return Refusal(
                "expired", "is signed while its certificate was not valid, expired or revoked", who
            )
        return None

    def _birth_by_signature(self, said: Node, payload: bytes, now_ns: int | None) -> Refusal | None:
        who = (said.site, said.node_id)
        if self.keys is None or (said.signature is None and self.settings.unsigned):
            return None
        if said.signature is None:
            return Refusal("unsigned", "its birth message is not signed: its place is not", who)
        keys = self.keys.of(*who)
        if not keys:
            return Refusal("unknown", f"no key counts for it: {self.keys.why_none(*who)}", who)
        try:
            form = canonical(read_object(payload))
            signature = signature_bytes(said.signature)
        except ValueError as error:
            return Refusal("forged", _short(error), who)
        signed = [key for key in keys if is_signed_by(key.public, signature, form)]
        if not signed:
            return Refusal("forged", "its birth message was forged or altered", who)
        if (
            self._live
            and now_ns is not None
            and not any(spans_hold(key.spans, now_ns) for key in signed)
        ):
            return Refusal("expired", "its certificate is not valid, expired or revoked", who)
        return None

    def _may_ask(self, now_ns: int | None) -> bool:
        """Whether to look for whose key it was: that takes milliseconds, and is for people."""
        if now_ns is not None and 0 <= now_ns - self._asked_ns < _ASK_AGAIN_NS:
            return False
        self._asked_ns = now_ns or 0
        return True

    def _elsewhere(self, said: Detection) -> str:
        place = self.place(said.site, said.node_id)
        own = said.position if isinstance(place, Position) else said.local
        if place is None or own is None:
            return ""
        off_m = apart_m(place, own)
        sigma_m = math.hypot(place.sigma_m or 0.0, own.sigma_m or 0.0)
        if off_m <= _PLACE_SIGMAS * sigma_m + _PLACE_SLACK_M:
            return ""
        listed = self.places is not None and self.places.of(said.site, said.node_id) is not None
        by = "the list of nodes" if listed else "its birth message"
        return f"says that it stands {off_m:,.0f} m from where {by} has it, which counts"

    def _in_another_frame(self, site: str, place: Position | Local) -> str:
        """Say that a node stands in another frame than the first of its site, if it does."""
        frame = place.frame if isinstance(place, Local) else None
        first = self._frames.setdefault(site, frame)
        if len(self._frames) > MOST_NODES:
            self._frames.popitem(last=False)
        if frame == first:
            return ""
        return (
            f"stands {_of_frame(frame)}, others of its site {_of_frame(first)}: they are not "
            "located together; give all one kind of place in NODES.toml"
        )


def _check_places(said: Detection | Node) -> None:
    for place in (said.position, said.local):
        if place is not None and (fault := place_fault(place)):
            raise ValueError(fault)


def _of_frame(frame: str | None) -> str:
    return "on Earth (lat_deg …)" if frame is None else f"in the frame {frame!r:.40}"


def _who_of(topic: str | None) -> Who:
    found = _TOPIC.fullmatch(topic or "")
    return (found[1][:64], found[2][:64]) if found else ("", "")


def _lasts(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def _short(error: ValueError) -> str:
    return " ".join(str(error).split())[:200]
