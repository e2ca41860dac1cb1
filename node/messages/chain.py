"""One node's chain as a log holds it: what is missing, doubled, cut off, or does not follow.

In come, of each message whose signature holds, its number, digest and link, in any order; and of
each signed checkpoint what it says. Out come findings. Some 120 bytes a message are kept.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from node.messages.checkpoint import Checkpoint, Gap
from node.messages.signing import NO_HASH
from node.messages.trust import TrustedKey

Kind = Literal[
    "unreadable",
    "unsigned",
    "altered",
    "reordered",
    "foreign",
    "expired",
    "missing",
    "doubled",
    "forked",
    "truncated",
]

MOMENT_UNKNOWN: Final = -1
_RECORD: Final = np.dtype(
    [
        ("seq", "<i8"),
        ("line", "<i8"),
        ("onset_ns", "<i8"),
        ("key", "<i4"),
        ("digest", "<u8", 4),
        ("prev", "<u8", 4),
    ]
)
_PACKED: Final = struct.Struct("<qqqi32s32s")  # the same
_Records = npt.NDArray[np.void]


class Finding(NamedTuple):
    """Something that does not hold.

    Attributes
    ----------
    line
        Of the log, counted over all its files from 1; 0 where no line can be named.
    seq
        Of the message, or the first of several; None where it cannot be read.
    """

    kind: Kind
    sentence: str
    line: int
    node: str = ""
    seq: int | None = None


@dataclass
class Chain:
    """What a log holds of one node.

    Attributes
    ----------
    name
        site/node_id.
    place
        Says where a line is.
    repeats
        Messages that came more than once, the same.
    told_seqs
        Numbers that messages bear whose signature does not hold, or which have none: they are
        told by themselves, so they are not missing besides.
    """

    name: str
    keys: list[TrustedKey] = field(default_factory=list)
    place: Callable[[int], str] = "line {}".format
    messages: int = 0
    repeats: int = 0
    told_seqs: set[int] = field(default_factory=set)
    checkpoints: list[tuple[int, str, str, int]] = field(default_factory=list)
    gaps: set[Gap] = field(default_factory=set)
    newest: Checkpoint | None = None
    first_seq: int | None = None
    last_seq: int | None = None
    _records: bytearray = field(default_factory=bytearray)

    def add(
        self, seq: int, line: int, onset_ns: int, key: int, digest: str, prev_hash: str
    ) -> None:
        """Take a message whose signature by `keys[key]` holds."""
        self._records += _PACKED.pack(
            seq, line, onset_ns, key, bytes.fromhex(digest), bytes.fromhex(prev_hash)
        )

    def add_checkpoint(self, checkpoint: Checkpoint, line: int) -> None:
        """Take a checkpoint whose signature holds. Gaps once sworn stay so."""
        self.checkpoints.append((checkpoint.seq, checkpoint.head, checkpoint.utc, line))
        self.gaps.update(checkpoint.gaps)
        newest = self.newest
        if newest is None or (checkpoint.seq, checkpoint.utc) >= (newest.seq, newest.utc):
            self.newest = checkpoint

    def findings(self, first_seq: int | None = None) -> Iterator[Finding]:
        """Judge the chain as a whole; `first_seq` is the number that the log should begin with."""
        everything = np.frombuffer(bytes(self._records), _RECORD)
        everything = everything[np.lexsort((everything["line"], everything["seq"]))]
        again = np.zeros(len(everything), bool)
        again[1:] = everything["seq"][1:] == everything["seq"][:-1]
        records = everything[~again]
        self.messages, self.repeats = len(records), int(again.sum())
        doubled = set()
        for found in self._doubled(everything, again):
            doubled.add(found.seq)
            yield found
        seqs = records["seq"].tolist()
        if seqs:
            self.first_seq, self.last_seq = seqs[0], seqs[-1]
        yield from self._out_of_their_time(records)
        yield from self._broken_links(records, doubled)
        yield from self._contradicted(records, doubled)
        yield from self._holes(seqs, first_seq)

    def _doubled(self, everything: _Records, again: npt.NDArray[np.bool_]) -> Iterator[Finding]:
        (others,) = np.nonzero(again)
        differ = (everything["digest"][others] != everything["digest"][others - 1]).any(axis=1)
        for i in others[differ]:
            one, other = everything[i - 1], everything[i]
            yield self._finding(
                "doubled",
                f"has the number of {self._place(one)} and says something else; the node signed "
                "both, as after a power cut that its disk did not survive, or with a copied card",
                other,
            )

    def _out_of_their_time(self, records: _Records) -> Iterator[Finding]:
        """Find what was signed when the key did not count.

        A message from before the clock was set is judged by its neighbours.
        """
        moments = _filled(records["onset_ns"])
        wrong = np.zeros(len(records), bool)
        for number, key in enumerate(self.keys):
            outside = np.ones(len(records), bool)
            for begins_ns, ends_ns in key.spans:
                outside &= ~((moments >= begins_ns) & (moments < ends_ns))
            wrong |= outside & (records["key"] == number) & (moments != MOMENT_UNKNOWN)
        for first, last in _runs(wrong):
            count = last - first + 1
            more = (
                f", and so {count - 1} more up to seq {records['seq'][last]}" if count > 1 else ""
            )
            yield self._finding(
                "expired",
                f"is signed while its certificate was not valid, expired or revoked{more}",
                records[first],
            )

    def _broken_links(self, records: _Records, doubled: set[int | None]) -> Iterator[Finding]:
        follows = np.zeros(len(records), bool)
        follows[1:] = records["seq"][1:] == records["seq"][:-1] + 1
        linked = np.zeros(len(records), bool)
        linked[1:] = (records["prev"][1:] == records["digest"][:-1]).all(axis=1)
        for i in np.nonzero(follows & ~linked)[0]:
            one, other = records[i - 1], records[i]
            if {int(one["seq"]), int(other["seq"])} & doubled:
                continue  # told already, and which of the two counts is not known
            if not other["prev"].any() and self._covered(int(one["seq"]), "lost"):
                continue
            yield self._finding(
                "forked",
                f"does not follow {self._place(one)}, though both are signed: the node has signed "
                "two histories, as with a copied card or a disk put back",
                other,
            )

    def _contradicted(self, records: _Records, doubled: set[int | None]) -> Iterator[Finding]:
        seqs = records["seq"]
        for seq, head, utc, line in self.checkpoints:
            i = int(np.searchsorted(seqs, seq))
            if head == NO_HASH or i == len(seqs) or seqs[i] != seq or seq in doubled:
                continue
            if _hex(records[i]["digest"]) != head:
                yield self._finding(
                    "forked",
                    f"is not the message of that number that the checkpoint of {utc} "
                    f"({self.place(line)}) vouches for, though both are signed",
                    records[i],
                )

    def _holes(self, seqs: list[int], first_seq: int | None) -> Iterator[Finding]:
        if first_seq is not None:
            before = seqs[0] if seqs else first_seq
            for low, high in self._uncovered(first_seq, before - 1):
                yield Finding(
                    "missing", f"{_range(low, high)} missing at the beginning", 0, self.name, low
                )
        for one, other in pairwise(seqs):
            if other > one + 1:
                for low, high in self._uncovered(one + 1, other - 1):
                    yield Finding(
                        "missing",
                        f"{_range(low, high)} missing, and no signed gap says so",
                        0,
                        self.name,
                        low,
                    )
        newest = self.newest
        if newest is None:
            return
        last = seqs[-1] if seqs else newest.seq if first_seq is None else first_seq - 1
        for low, high in self._uncovered(last + 1, newest.seq):
            yield Finding(
                "truncated",
                f"{_range(low, high)} missing at the end: the checkpoint of {newest.utc} vouches "
                f"for all up to seq {newest.seq}",
                0,
                self.name,
                low,
            )
        begin = min([*seqs[:1], *([] if first_seq is None else [first_seq])], default=None)
        if begin is not None:
            yield from self._overdrawn(seqs, begin, newest)

    def _overdrawn(self, seqs: list[int], begin: int, newest: Checkpoint) -> Iterator[Finding]:
        """Find gaps in which more is missing than the node itself dropped."""
        present = np.array(sorted({*seqs, *self.told_seqs}), np.int64)
        for gap in newest.gaps:
            if gap.count is None:
                continue
            # Of what came before the log begins it is not asked how much is there.
            low = max(gap.from_seq, begin)
            held = np.searchsorted(present, gap.to_seq + 1) - np.searchsorted(present, low)
            absent = gap.to_seq - low + 1 - int(held)
            if absent > gap.count:
                yield Finding(
                    "missing",
                    f"{absent} of seq {low} to {gap.to_seq} are missing, and the node "
                    f"says that it dropped {gap.count}",
                    0,
                    self.name,
                    low,
                )

    def _covered(self, seq: int, reason: str) -> bool:
        return any(g.from_seq <= seq <= g.to_seq and g.reason == reason for g in self.gaps)

    def _uncovered(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Give the parts of a range that no gap covers, and of which nothing was told yet."""
        begins, ends = self._excused
        i = bisect_left(ends, low)
        while i < len(begins) and begins[i] <= high:
            if low < begins[i]:
                yield low, begins[i] - 1
            low = ends[i] + 1
            i += 1
        if low <= high:
            yield low, high

    @cached_property
    def _excused(self) -> tuple[list[int], list[int]]:
        """Give first and last numbers of the ranges that need no telling, apart and in order."""
        begins: list[int] = []
        ends: list[int] = []
        ranges = [(gap.from_seq, gap.to_seq) for gap in self.gaps]
        for low, high in sorted([*ranges, *((seq, seq) for seq in self.told_seqs)]):
            if ends and low <= ends[-1] + 1:
                ends[-1] = max(ends[-1], high)
            else:
                begins.append(low)
                ends.append(high)
        return begins, ends

    def _place(self, record: Any) -> str:
        return self.place(int(record["line"]))

    def _finding(self, kind: Kind, sentence: str, record: Any) -> Finding:
        return Finding(kind, sentence, int(record["line"]), self.name, int(record["seq"]))


def _filled(moments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Put for each unknown moment the known one before it, or where there is none the one after."""
    known = np.nonzero(moments != MOMENT_UNKNOWN)[0]
    if not len(known):
        return moments
    nearest = np.searchsorted(known, np.arange(len(moments)), side="right") - 1
    filled: npt.NDArray[np.int64] = moments[known[np.maximum(nearest, 0)]]
    return filled


def _runs(flags: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    yield from zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True)


def _hex(words: npt.NDArray[np.uint64]) -> str:
    return words.astype("<u8").tobytes().hex()


def _range(low: int, high: int) -> str:
    return f"seq {low} is" if low == high else f"seq {low} to {high} are"
