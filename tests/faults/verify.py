"""What `gunfire-node verify` finds: faults put into a log at random places, one at a time.

A log of three nodes with real keys under a real CA, as a subscriber keeps it. Each time one fault
is put in, the whole is judged, and what is named first must be the very message that it was done
to; a good log must hold.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.messages.signing import read_object
from node.messages.trust import Trust
from node.messages.verify import Verifier
from tests.evidence import Claim
from tests.hil.fleet_ca import FleetCa
from tests.parts import Part, Tell
from tests.unit.signed_log import SignedNode, changed, number

TRIALS: Final = 200
GOOD: Final = 100_000
MOST_S: Final = 60.0
_NODES: Final = 3
_EACH: Final = 120
_SEED: Final = 5


@dataclass(frozen=True)
class Fault:
    """A log with one fault, and how verify must name it: kind, line (0 for none), node, number."""

    lines: list[bytes]
    kind: str
    line: int
    node: str
    seq: int | None


class Bench:
    """A good log, and all that is needed to spoil it."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.ca = FleetCa(folder)
        self.rng = rng
        begin = dt.datetime.now(dt.UTC)
        self.nodes = [SignedNode(f"roof-{n}", begin) for n in range(_NODES)]
        self.lines: list[bytes] = []
        for node in self.nodes:
            node.certified(self.ca)
            self.lines += node.log(_EACH)
        self.detections = [i for i, line in enumerate(self.lines) if number(line) is not None]

    def judge(self, lines: list[bytes]) -> tuple[bool, tuple[str, int, str, int | None] | None]:
        """Verify a log; say whether it holds, and what was named first."""
        trust = Trust.of_authority(self.ca.certificate_file.read_bytes())
        verifier = Verifier(trust)
        for line in lines:
            verifier.gather(line)
        for i, line in enumerate(lines, 1):
            verifier.take(line, i)
        report = verifier.report(first_seq=1)
        if not report.findings:
            return report.holds, None
        first = report.findings[0]
        return report.holds, (first.kind, first.line, first.node, first.seq)

    def name(self, i: int) -> str:
        document = json.loads(self.lines[i])
        return f"{document['site']}/{document['node_id']}"

    def some(self) -> int:
        """Give the place of some detection that is neither first nor last of its node."""
        while True:
            i = self.rng.choice(self.detections)
            if number(self.lines[i]) not in (1, _EACH):
                return i

    def replaced(self, i: int, line: bytes) -> list[bytes]:
        return [*self.lines[:i], line, *self.lines[i + 1 :]]

    def one_bit(self) -> Fault:
        """Change one bit that says something: not one of `transport`, nor the e of 1e-06."""
        while True:
            i = self.some()
            line = bytearray(self.lines[i])
            bit = self.rng.randrange(8 * len(line))
            line[bit // 8] ^= 1 << bit % 8
            good = read_object(self.lines[i])
            try:
                document = read_object(bytes(line))
            except ValueError:
                return Fault(self.replaced(i, bytes(line)), "", i + 1, "", None)
            if {**document, "transport": 0} != {**good, "transport": 0} and b"\n" not in line:
                return Fault(self.replaced(i, bytes(line)), "", i + 1, "", None)

    def dropped(self) -> Fault:
        i = self.some()
        lines = [*self.lines[:i], *self.lines[i + 1 :]]
        return Fault(lines, "missing", 0, self.name(i), number(self.lines[i]))

    def swapped(self) -> Fault:
        """Give two messages of a node each other's number."""
        one, other = sorted((self.some(), self.some()))
        while self.name(one) != self.name(other) or one == other:
            one, other = sorted((self.some(), self.some()))
        seqs = number(self.lines[one]), number(self.lines[other])
        lines = self.replaced(one, changed(self.lines[one], seq=seqs[1]))
        lines[other] = changed(self.lines[other], seq=seqs[0])
        return Fault(lines, "reordered", one + 1, self.name(one), seqs[1])

    def forged_signature(self) -> Fault:
        """Keep the text of a message, and put the signature of another one under it."""
        i, other = self.some(), self.some()
        while i == other:
            other = self.some()
        line = changed(self.lines[i], signature=json.loads(self.lines[other])["signature"])
        return Fault(self.replaced(i, line), "altered", i + 1, self.name(i), number(line))

    def foreign_key(self) -> Fault:
        """Sign a message anew, in its place, by a key that is certified for another node."""
        i = self.some()
        stranger = next(n for n in self.nodes if f"{n.origin.site}/{n.node_id}" != self.name(i))
        document = json.loads(self.lines[i])
        forger = SignedNode(document["node_id"], dt.datetime.now(dt.UTC), stranger.key)
        forger.seq, forger.head = document["seq"] - 1, document["prev_hash"]
        line = forger.detection()
        return Fault(self.replaced(i, line), "foreign", i + 1, self.name(i), document["seq"])

    def truncated(self) -> Fault:
        """Cut a node's last messages and checkpoints off; its newest checkpoint was kept."""
        node = self.rng.choice(self.nodes)
        keep = self.rng.randrange(2, _EACH)
        name = f"{node.origin.site}/{node.node_id}"
        mine = [i for i in range(len(self.lines)) if self.name(i) == name]
        cut = {i for i in mine if (number(self.lines[i]) or 0) > keep}
        lines = [line for i, line in enumerate(self.lines) if i not in cut]
        return Fault(lines, "truncated", 0, name, keep + 1)


def measure(tell: Tell) -> Part:
    """Put each kind of fault in, many times, and judge many good messages."""
    rng = random.Random(_SEED)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), rng)
        holds, first = bench.judge(bench.lines)
        assert holds, first
        kinds: dict[str, Callable[[], Fault]] = {
            "one bit changed": bench.one_bit,
            "one message dropped": bench.dropped,
            "two messages swapped": bench.swapped,
            "a forged signature": bench.forged_signature,
            "a foreign key": bench.foreign_key,
            "a truncated tail": bench.truncated,
        }
        claims = [_found(bench, what, make, tell) for what, make in kinds.items()]
        claims += _good(bench, tell)
    return Part(tuple(claims))


def _found(bench: Bench, what: str, make: Callable[[], Fault], tell: Tell) -> Claim:
    found = 0
    for trial in range(TRIALS):
        tell(f"verify, {what}: {trial} of {TRIALS}")
        fault = make()
        holds, first = bench.judge(fault.lines)
        found += not holds and first is not None and _named(fault, first)
    claim = f"verify: {what}: found, and the right message named, of {TRIALS}"
    return Claim(claim, found, "logs", f"{TRIALS}", found == TRIALS)


def _named(fault: Fault, first: tuple[str, int, str, int | None]) -> bool:
    if not fault.kind:  # a changed bit may be in what names it: its line tells
        return first[1] == fault.line
    return first == (fault.kind, fault.line, fault.node, fault.seq)


def _good(bench: Bench, tell: Tell) -> list[Claim]:
    node = SignedNode("roof-good", dt.datetime.now(dt.UTC) - dt.timedelta(hours=1))
    node.certified(bench.ca, not_after=dt.datetime.now(dt.UTC) + dt.timedelta(days=9))
    tell(f"verify: making {GOOD:,} good messages")
    lines = list(node.log(GOOD))
    tell(f"verify: judging {GOOD:,} good messages")
    begun_s = time.process_time()
    holds, _ = bench.judge(lines)
    took_s = time.process_time() - begun_s
    return [
        Claim(
            f"verify: {GOOD:,} good messages that are called so",
            GOOD if holds else 0,
            "messages",
            f"{GOOD:,}",
            holds,
        ),
        Claim(
            f"verify: {GOOD:,} good messages, time of one core",
            took_s,
            "s",
            "≤ 60",
            took_s <= MOST_S,
        ),
    ]
