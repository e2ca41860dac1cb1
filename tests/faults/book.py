"""What was made and what was received, set side by side; and both beside the truth."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple, Self

from node.messages.signing import NO_HASH, canonical, digest
from node.types import NS_PER_S
from node.utc import parse_utc_ns
from tests.faults.auditor import Heard
from tests.faults.firing_range import RATE_HZ, firing_range
from tests.faults.nursery import Key, Life, signed_part

RIGHT_NS: Final = 1_000_000
"""An onset is right to a millisecond: sixteen samples of this card."""
SETTLING_S: Final = 2.0
"""Of a life's sound, from its start: the floor is not known yet."""
WORKING_S: Final = 6.0
"""From an onset until its detection is in the outbox for certain: the longest event, the window
that is judged, and a block."""


@dataclass(frozen=True)
class Tally:
    """What some lives came to.

    Attributes
    ----------
    made
        Messages that were durable, by (event_id, revision); of so many events.
    received, doubled
        How many of them came, and how often a message came again.
    lost
        Durable, and never received.
    altered, retimed
        Received otherwise than made; with another time.
    wrong
        Received and never made, or telling a shot at a moment when there was none.
    shots, unheard
        That reached the microphone well inside a life; those of them that no received message
        tells to a millisecond.
    latest_s
        Longest from durable to received.
    samples_lost, waited_s
        By the card; longest that sound waited in it.
    """

    made: int = 0
    events: int = 0
    received: int = 0
    doubled: int = 0
    lost: int = 0
    altered: int = 0
    retimed: int = 0
    wrong: int = 0
    shots: int = 0
    unheard: int = 0
    latest_s: float = 0.0
    samples_lost: int = 0
    waited_s: float = 0.0

    def __add__(self, other: Self) -> Self:
        values = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name not in ("latest_s", "waited_s")
        }
        return type(self)(
            **values,
            latest_s=max(self.latest_s, other.latest_s),
            waited_s=max(self.waited_s, other.waited_s),
        )

    @property
    def is_good(self) -> bool:
        """Whether nothing is lost, altered or wrong."""
        return not (self.lost or self.altered or self.retimed or self.wrong or self.unheard)


class Copy(NamedTuple):
    """One copy of a message as it was received."""

    payload: bytes
    at_s: float


@dataclass
class Book:
    """All that was received, and when; threads wait on it for what is to come."""

    heard: list[Heard] = field(default_factory=list)
    copies: dict[Key, list[Copy]] = field(default_factory=dict)
    news: threading.Condition = field(default_factory=threading.Condition)

    def take(self, heard: Heard) -> None:
        """Write down a message."""
        with self.news:
            self.heard.append(heard)
            if heard.kind == "detection":
                document = signed_part(heard.payload)
                key = document["event_id"], document["revision"]
                self.copies.setdefault(key, []).append(Copy(heard.payload, heard.at_s))
            self.news.notify_all()

    def stir(self) -> None:
        """Have those who wait look again."""
        with self.news:
            self.news.notify_all()

    def wait(self, claim: Callable[[], object], seconds: float) -> bool:
        """Wait until a claim holds; say whether it came to."""
        with self.news:
            return bool(self.news.wait_for(claim, seconds))

    def missing(self, lives: Iterable[Life]) -> set[Key]:
        """Give what is durable and has not come."""
        return {key for life in lives for key in list(life.durable_s)} - self.copies.keys()

    def tally(self, lives: Iterable[Life]) -> Tally:
        """Judge some lives that are over."""
        total = Tally()
        for life in lives:
            total += self._judge(life)
        return total

    def _judge(self, life: Life) -> Tally:
        ours = {key: self.copies[key] for key in life.made.keys() & self.copies.keys()}
        altered = retimed = 0
        for key, copies in ours.items():
            made = [signed_part(making.payload) for making in life.made[key]]
            for copy in copies:
                received = signed_part(copy.payload)
                altered += received not in made
                retimed += times(received) not in [times(document) for document in made]
        truths = _Truths(life)
        told = [
            time_ns for copies in ours.values() for time_ns in times(signed_part(copies[0].payload))
        ]
        shots = [] if life.silent else truths.well_inside()
        delays = [
            copies[0].at_s - life.durable_s[key]
            for key, copies in ours.items()
            if key in life.durable_s
        ]
        return Tally(
            made=len(life.durable_s),
            events=len({event_id for event_id, _ in life.durable_s}),
            received=len(life.durable_s.keys() & ours.keys()),
            doubled=sum(len(copies) - 1 for copies in ours.values()),
            lost=len(life.durable_s.keys() - ours.keys()),
            altered=altered,
            retimed=retimed,
            wrong=sum(not truths.tells(time_ns) for time_ns in told),
            shots=len(shots),
            unheard=truths.untold(shots, told),
            latest_s=max(delays, default=0.0),
            samples_lost=life.lost,
            waited_s=life.waited_s,
        )

    def strangers(self, lives: Iterable[Life]) -> int:
        """Count what was received that no life has made."""
        return len(self.copies.keys() - {key for life in lives for key in life.made})

    def chain_faults(self) -> list[str]:
        """Say where the numbers or the links of all that was received are broken."""
        forms: dict[int, dict[str, dict[str, Any]]] = {}
        for copies in self.copies.values():
            document = signed_part(copies[0].payload)
            forms.setdefault(document["seq"], {})[digest(canonical(document))] = document
        faults = [f"seq {seq} twice" for seq, found in forms.items() if len(found) > 1]
        faults += [f"seq {n} missing" for n in range(1, max(forms, default=0)) if n not in forms]
        before = NO_HASH
        for seq in sorted(forms):
            ((link, document),) = list(forms[seq].items())[:1]
            if (document["prev_hash"] != before and seq - 1 in forms) or document[
                "signature"
            ] is None:
                faults.append(f"seq {seq} is not linked to the one before")
            before = link
        return faults


class _Truths:
    """Where the shots of a life really were, by each clock that it had."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._onsets = [] if life.silent else firing_range().onsets_until(life.taken + RATE_HZ * 9)

    def _utc_ns(self, onset: float, offset_ns: int) -> int:
        return self._life.start_ns + round(onset * NS_PER_S / RATE_HZ) + offset_ns

    def well_inside(self) -> list[float]:
        """Give the onsets of which a detection must be durable."""
        last = self._life.taken - WORKING_S * RATE_HZ
        return [
            onset
            for onset in self._onsets
            if SETTLING_S * RATE_HZ < onset < last
            and all(
                onset < begin - WORKING_S * RATE_HZ or onset > end + WORKING_S * RATE_HZ
                for begin, end in self._life.losses
            )
        ]

    def untold(self, onsets: list[float], told_ns: list[int]) -> int:
        """Count the onsets that nothing told."""
        told_ns = sorted(told_ns)
        return sum(
            not any(_is_near(self._utc_ns(onset, offset), told_ns) for offset in self._offsets())
            for onset in onsets
        )

    def tells(self, time_ns: int) -> bool:
        """Say whether there was a shot at that moment."""
        return any(
            _is_near(time_ns, [self._utc_ns(onset, offset) for onset in self._onsets])
            for offset in self._offsets()
        )

    def _offsets(self) -> list[int]:
        return self._life.offsets_ns


def _is_near(time_ns: int, sorted_ns: list[int]) -> bool:
    at = bisect_left(sorted_ns, time_ns - RIGHT_NS)
    return at < len(sorted_ns) and sorted_ns[at] <= time_ns + RIGHT_NS


def times(document: dict[str, Any]) -> list[int]:
    """Give all times of a detection, in ns."""
    return [
        parse_utc_ns(document["onset_utc"]),
        *(parse_utc_ns(r["utc"]) for r in document["rounds"]),
    ]
