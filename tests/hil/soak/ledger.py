"""What was received of a node: every number once and linked, and what of the truth it tells.

A subscriber that the broker remembers writes down here what comes, on a thread of its own. Only
numbers and digests are kept, so that days of detections are a few megabytes.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from node.messages.signing import NO_HASH, canonical, digest, read_object
from node.types import NS_PER_S
from node.utc import parse_utc_ns
from tests.faults.auditor import Heard

RIGHT_NS: Final = NS_PER_S // 1000
"""An onset is right to a millisecond."""

Key = tuple[str, int]
"""Event id and revision: what a message is unique by."""


class Counts(NamedTuple):
    """Messages that came, copies of them, and numbers below the highest that have not come."""

    received: int
    again: int
    missing: int


@dataclass(frozen=True)
class Tally:
    """What a run came to.

    Attributes
    ----------
    made
        Detections that went into the outbox, by its own count.
    received, again
        Different ones that came, and copies of those.
    lost
        Numbers that never came.
    doubled
        Numbers that two messages have, messages that have two numbers, and events that begin where
        another does.
    unlinked
        Messages that do not name the one before, or are not signed.
    waiting
        Detections that were still in the outbox in the end.
    shots, unheard
        That reached the microphones well inside the run; those that nothing received tells.
    others
        Messages of other kinds that came, by kind.
    """

    made: int = 0
    received: int = 0
    again: int = 0
    lost: int = 0
    doubled: int = 0
    unlinked: int = 0
    waiting: int = 0
    shots: int = 0
    unheard: int = 0
    others: tuple[tuple[str, int], ...] = ()


class Ledger:
    """What came, from any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: dict[int, dict[str, tuple[str, bool]]] = {}  # seq: digest: link, signed
        self._numbers: defaultdict[Key, set[int]] = defaultdict(set)
        self._told_ns: set[int] = set()
        self._begins_ns: dict[str, tuple[int, int]] = {}  # event id: revision, onset
        self._others: Counter[str] = Counter()
        self._copies = 0

    def take(self, heard: Heard) -> None:
        """Write down a message."""
        if heard.kind != "detection":
            with self._lock:
                self._others[heard.kind] += 1
            return
        document = read_object(heard.payload)
        document.pop("transport", None)  # what only sending adds
        times = [document["onset_utc"], *(r["utc"] for r in document["rounds"])]
        times_ns = [parse_utc_ns(time) for time in times]
        event, revision = document["event_id"], document["revision"]
        with self._lock:
            self._copies += 1
            forms = self._forms.setdefault(document["seq"], {})
            signed = document["signature"] is not None
            forms[digest(canonical(document))] = document["prev_hash"], signed
            self._numbers[event, revision].add(document["seq"])
            self._told_ns.update(times_ns)
            told_last = (revision, times_ns[0])
            self._begins_ns[event] = max(told_last, self._begins_ns.get(event, told_last))

    def counts(self) -> Counts:
        """Say how it stands."""
        with self._lock:
            received = len(self._forms)
            return Counts(received, self._copies - received, max(self._forms, default=0) - received)

    def tally(self, made: int, waiting: int, shots_ns: Sequence[Sequence[int]]) -> Tally:
        """Judge a run that is over.

        Parameters
        ----------
        made, waiting
            How many detections went into the outbox, and how many are there still.
        shots_ns
            For each shot that was to be heard, when it was in ns of UTC, by each clock that the
            node has had.
        """
        counts = self.counts()
        with self._lock:
            told_ns = sorted(self._told_ns)
            twice = sum(len(forms) - 1 for forms in self._forms.values())
            twice += sum(len(numbers) - 1 for numbers in self._numbers.values())
            begins_ns = sorted(onset_ns for _, onset_ns in self._begins_ns.values())
            twice += sum(after - before <= RIGHT_NS for before, after in pairwise(begins_ns))
            return Tally(
                made=made,
                received=counts.received,
                again=counts.again,
                lost=len(set(range(1, made + 1)) - self._forms.keys()),
                doubled=twice,
                unlinked=_unlinked(self._forms),
                waiting=waiting,
                shots=len(shots_ns),
                unheard=sum(not _is_told(times_ns, told_ns) for times_ns in shots_ns),
                others=tuple(sorted(self._others.items())),
            )

    def unheard(self, shots_ns: Sequence[Sequence[int]]) -> list[int]:
        """Give the numbers of the shots that nothing tells."""
        with self._lock:
            told_ns = sorted(self._told_ns)
        return [i for i, times_ns in enumerate(shots_ns) if not _is_told(times_ns, told_ns)]


def _unlinked(forms: dict[int, dict[str, tuple[str, bool]]]) -> int:
    """Count messages that are not signed, or do not name the one before where that came."""
    found, before = 0, {NO_HASH}
    for seq in sorted(forms):
        known = seq == 1 or seq - 1 in forms
        found += sum(
            not signed or (known and link not in before) for link, signed in forms[seq].values()
        )
        before = set(forms[seq])
    return found


def _is_told(times_ns: Iterable[int], told_ns: list[int]) -> bool:
    for time_ns in times_ns:
        at = bisect_left(told_ns, time_ns - RIGHT_NS)
        if at < len(told_ns) and told_ns[at] <= time_ns + RIGHT_NS:
            return True
    return False
