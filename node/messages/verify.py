"""The verification of a log: every line read, every signature checked, every chain judged.

In come lines, as subscribers keep them, twice: first to gather certificates, which may come later
than what they certify, then to judge. Out comes a report. Only numbers, digests and links are
kept, so a log may be larger than memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from node.messages.chain import MOMENT_UNKNOWN, Chain, Finding, Kind
from node.messages.checkpoint import CHECKPOINT_SCHEMA
from node.messages.detection import DETECTION_SCHEMA
from node.messages.fields import TOPIC_LEVEL
from node.messages.health import HEALTH_SCHEMA
from node.messages.incident import INCIDENT_SCHEMA
from node.messages.node import NODE_SCHEMA
from node.messages.signing import (
    canonical,
    digest,
    is_signed_by,
    key_id,
    read_object,
    signature_bytes,
)
from node.messages.snippet import SNIPPET_SCHEMA
from node.messages.status import STATUS_SCHEMA
from node.messages.trust import Trust, raw_public_key, read_certificates, spans_hold
from node.messages.wire import LONGEST_MESSAGE, parse_checkpoint
from node.utc import parse_utc_ns

LONGEST_LINE: Final = LONGEST_MESSAGE

MOST_FINDINGS: Final = 1000
"""So many are named; all are counted."""

_SIGNED: Final = {
    DETECTION_SCHEMA: "detection",
    CHECKPOINT_SCHEMA: "checkpoint",
    NODE_SCHEMA: "node",
}
_NOT_SIGNED: Final = {
    STATUS_SCHEMA: "status",
    HEALTH_SCHEMA: "health",
    INCIDENT_SCHEMA: "incident",
    SNIPPET_SCHEMA: "snippet",
}
_KINDS: Final = _SIGNED | _NOT_SIGNED
_NODE: Final = b"gunfire.node"
_MARK: Final = b"\xef\xbb\xbf"
_TOPIC: Final = re.compile(rb"(gunfire/v1/[^\s{]+)\s+(?=\{)")
_HEX_64: Final = re.compile(r"[0-9a-f]{64}")
# Of so many altered messages it is tried whether they only changed places.
_MOST_MOVED: Final = 64
# So many keys that do not count are kept, to say whose a foreign message is.
_MOST_STRANGERS: Final = 64


@dataclass
class Report:
    """What was found.

    Attributes
    ----------
    chains
        What the log holds of each node, by its name.
    findings
        In the order of the log, those that have no line of their own last; at most
        `MOST_FINDINGS`.
    count
        How many there were in all.
    not_judged
        Messages of kinds that are not signed.
    """

    chains: dict[str, Chain]
    findings: list[Finding]
    count: int
    not_judged: int

    @property
    def holds(self) -> bool:
        """Whether nothing was found, in a log that holds anything signed at all."""
        return not self.count and any(chain.messages for chain in self.chains.values())


@dataclass
class _Moved:
    """An altered message, kept to see whether it stood elsewhere."""

    place: int
    document: dict[str, Any]
    seq: int


@dataclass
class Verifier:
    """Judges a log line by line: `gather` all of it first, then `take` all, then `report`.

    Parameters
    ----------
    trust
        Whose signatures count.
    place
        Says where a line is.
    """

    trust: Trust
    place: Callable[[int], str] = "line {}".format
    _chains: dict[str, Chain] = field(default_factory=dict)
    _findings: list[Finding] = field(default_factory=list)
    _count: int = 0
    _not_judged: int = 0
    _strangers: dict[str, tuple[Ed25519PublicKey, str]] = field(default_factory=dict)
    _moved: dict[str, list[_Moved]] = field(default_factory=dict)

    def gather(self, line: bytes) -> None:
        """Look for a certificate in a line; only what the CA has issued will count."""
        if _NODE not in line:  # whatever a writer of JSON escapes, a letter it does not
            return
        try:
            document = read_object(_split(line)[1])
            key = document["key"]
            pem = key["certificate"] or ""
            public = raw_public_key(key["public_key"])
            certificates = read_certificates(pem.encode())
            name = f"{_level(document, 'site')}/{_level(document, 'node_id')}"
        except (ValueError, KeyError, TypeError, AttributeError):
            return  # told when it is taken
        why = "no certificate over it came with it"
        for certificate in certificates:
            why = self.trust.offer(certificate)
        if public is not None and why and len(self._strangers) < _MOST_STRANGERS:
            self._strangers[key_id(public.public_bytes_raw())] = (public, f"{name}: {why}")

    def take(self, line: bytes, number: int) -> None:
        """Judge a line; `number` counts the log's lines from 1."""
        if not line.removeprefix(_MARK).strip():
            return
        if len(line) > LONGEST_LINE:
            self._find(Finding("unreadable", "is longer than any message", number))
            return
        try:
            topic, payload = _split(line)
            document = read_object(payload)
            schema = document.get("schema")
            if not isinstance(schema, str) or schema not in _KINDS:
                raise ValueError(f"is of no kind that is known: schema {schema!r:.80}")
            # One with a signature may be a detection that is passed off as something else.
            if schema in _NOT_SIGNED and "signature" not in document:
                self._not_judged += 1
                return
            site, node_id = _level(document, "site"), _level(document, "node_id")
        except ValueError as error:
            self._find(Finding("unreadable", _sentence(error), number))
            return
        name = f"{site}/{node_id}"
        chain = self._chains.get(name)
        if chain is None:
            chain = Chain(name, self.trust.keys(site, node_id), self.place)
            if chain.keys or len(self._chains) < MOST_FINDINGS:  # names are cheap to invent
                self._chains[name] = chain
        if topic is not None and topic != f"gunfire/v1/{name}/{_KINDS[schema]}":
            sentence = f"came on the topic {topic!r:.300}, where it does not belong"
            self._find(Finding("foreign", sentence, number, name, _seq(document)))
        if schema == DETECTION_SCHEMA:
            self._take_detection(chain, document, number)
        else:
            self._take_other(chain, document, number)

    def report(self, first_seq: int | None = None) -> Report:
        """Judge the chains, and give all that was found.

        `first_seq` is the number that each node's messages should begin with, if it is known.
        """
        self._tell_moved()
        for name in sorted(self._chains):
            for finding in self._chains[name].findings(first_seq):
                self._find(finding)
        self._findings.sort(key=lambda finding: (finding.line == 0, finding.line))
        return Report(self._chains, self._findings, self._count, self._not_judged)

    def _take_detection(self, chain: Chain, document: dict[str, Any], number: int) -> None:
        seq = _seq(document)
        try:
            if seq is None:
                raise ValueError("has no number (seq)")
            form = canonical(document)
            prev_hash = document.get("prev_hash")
            if document.get("signature") is None:
                raise _WrongError("unsigned", "is not signed")
            signature = signature_bytes(document["signature"])
            key = self._signed(chain, form, signature)
            if not isinstance(prev_hash, str) or not _HEX_64.fullmatch(prev_hash):
                raise ValueError("has no link to the message before it (prev_hash)")
            onset_ns = parse_utc_ns(str(document.get("onset_utc")))
        except _WrongError as wrong:
            finding = Finding(wrong.kind, str(wrong), number, chain.name, seq)
            self._tell_bad(chain, document, finding)
            return
        except ValueError as error:
            finding = Finding("altered", _sentence(error), number, chain.name, seq)
            self._tell_bad(chain, document, finding)
            return
        clock = document.get("clock")
        free = not isinstance(clock, dict) or clock.get("source") == "free"
        # One that says itself that it is too late needs no clock that is right.
        if free and not _after_all(chain.keys[key].spans, onset_ns):
            onset_ns = MOMENT_UNKNOWN
        chain.add(seq, number, onset_ns, key, digest(form), prev_hash)

    def _take_other(self, chain: Chain, document: dict[str, Any], number: int) -> None:
        kind = _KINDS[document["schema"]]
        seq = None if document["schema"] in _SIGNED else _seq(document)
        try:
            if document.get("signature") is None:
                raise _WrongError("unsigned", "is not signed")
            signature = signature_bytes(document["signature"])
            form = canonical(document)
            key = chain.keys[self._signed(chain, form, signature)]
            if document["schema"] in _NOT_SIGNED:
                self._not_judged += 1
                return
            utc_ns = parse_utc_ns(str(document.get("utc")))
            if _after_all(key.spans, utc_ns):
                raise _WrongError(
                    "expired", "is signed after its certificate expired or was revoked"
                )
            # One from before the clock was set says nothing that the next one does not say.
            if kind == "checkpoint" and spans_hold(key.spans, utc_ns):
                chain.add_checkpoint(parse_checkpoint(form), number)
        except _WrongError as wrong:
            sentence = f"the {kind} message {wrong}"
            self._tell_bad(chain, document, Finding(wrong.kind, sentence, number, chain.name, seq))
        except ValueError as error:
            sentence = f"the {kind} message {_sentence(error)}"
            self._tell_bad(chain, document, Finding("altered", sentence, number, chain.name, seq))

    def _signed(self, chain: Chain, form: bytes, signature: bytes) -> int:
        """Give the number of the key that has signed; raise where none has that counts."""
        for number, key in enumerate(chain.keys):
            if is_signed_by(key.public, signature, form):
                return number
        for public, why in self._other_keys() if self._findings_left() else ():
            if is_signed_by(public, signature, form):
                raise _WrongError("foreign", f"is signed by a key that does not count here ({why})")
        if not chain.keys:
            raise _WrongError(
                "foreign", f"comes from {chain.name}, for which no certified key is known"
            )
        raise _WrongError(
            "altered", "was altered or forged: its signature does not fit what it says"
        )

    def _other_keys(self) -> Iterable[tuple[Ed25519PublicKey, str]]:
        yield from self._strangers.values()
        for name, key in self.trust.everybody():
            yield key.public, f"that of {name}"

    def _tell_bad(self, chain: Chain, document: dict[str, Any], finding: Finding) -> None:
        if finding.seq is not None:
            chain.told_seqs.add(finding.seq)
            if finding.kind == "altered" and chain.keys and self._findings_left():
                kept = self._moved.setdefault(chain.name, [])
                if len(kept) < _MOST_MOVED:
                    kept.append(_Moved(len(self._findings), document, finding.seq))
        self._find(finding)

    def _tell_moved(self) -> None:
        """Say of altered messages which ones are whole but for their number."""
        for name, moved in self._moved.items():
            chain = self._chains[name]
            for one in moved:
                for other in moved:
                    if one is other or not self._is_whole(chain, one.document, other.seq):
                        continue
                    old = self._findings[one.place]
                    sentence = f"was seq {other.seq} when it was signed: the order was changed"
                    self._findings[one.place] = old._replace(kind="reordered", sentence=sentence)

    def _is_whole(self, chain: Chain, document: dict[str, Any], seq: int) -> bool:
        try:
            form = canonical({**document, "seq": seq})
            signature = signature_bytes(document.get("signature"))
        except ValueError:
            return False
        return any(is_signed_by(key.public, signature, form) for key in chain.keys)

    def _findings_left(self) -> bool:
        return len(self._findings) < MOST_FINDINGS

    def _find(self, finding: Finding) -> None:
        self._count += 1
        if self._findings_left():
            self._findings.append(finding)


class _WrongError(Exception):
    """A message does not hold: of what kind that is, and in words."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind: Kind = kind


def _split(line: bytes) -> tuple[str | None, bytes]:
    """Take a topic off the payload, as `mosquitto_sub -v` puts it before."""
    line = line.removeprefix(_MARK).strip()  # editors put a byte-order mark before the first
    match = _TOPIC.match(line)
    return (
        (None, line) if match is None else (match[1].decode(errors="replace"), line[match.end() :])
    )


def _level(document: dict[str, Any], name: str) -> str:
    level = document.get(name)
    if not isinstance(level, str) or not re.fullmatch(TOPIC_LEVEL, level):
        raise ValueError(f"names no {name}")
    return level


def _seq(document: dict[str, Any]) -> int | None:
    seq = document.get("seq")
    if isinstance(seq, float) and seq.is_integer():  # 7.0 is 7, in JSON and in what is signed
        seq = int(seq)
    return seq if isinstance(seq, int) and not isinstance(seq, bool) and 0 < seq < 2**53 else None


def _after_all(spans: list[tuple[int, int]], utc_ns: int) -> bool:
    return all(utc_ns >= ends_ns for _, ends_ns in spans)


def _sentence(error: ValueError) -> str:
    text = " ".join(str(error).split())[:200]
    return (
        text
        if text.startswith(("is ", "has ", "gives ", "holds ", "its ", "names "))
        else (f"cannot be read: {text}")
    )
