"""The subscriber: what nodes publish, read, checked, and each message once.

Used by `gunfire-node watch` and `demo`, and by whoever wants nodes' words in Python:

    from node.network import subscribe

    with subscribe("mqtt://broker", kinds=["detection"]) as words:
        for word in words:
            if word.is_news and word.message.grade == "gunfire":
                print(word.message.onset_utc, word.message.node_id)

What this cannot see, a forged message among them, is for `gunfire-node verify`.
"""

import logging
import queue
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, get_args

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from node.deliver import BrokerAddress, SessionOptions
from node.deliver.handler import Loss
from node.deliver.session import CONNECT_TIMEOUT_S, Session
from node.errors import BrokerError
from node.messages import (
    Checkpoint,
    Detection,
    Health,
    Incident,
    Node,
    SnippetMessage,
    Status,
    incident_topic,
    parse_checkpoint,
    parse_detection,
    parse_health,
    parse_incident,
    parse_node,
    parse_snippet,
    parse_status,
    subscription,
)
from node.messages.topics import ROOT
from node.messages.wire import LONGEST_MESSAGE
from node.network.numbers import Numbers

log = logging.getLogger(__name__)

# How many (event_id, revision) are remembered to recognise a repeat: a week of a detection every
# few seconds from a node.
REMEMBERED: Final = 100_000

MOST_WAITING_BYTES: Final = 2**24
"""So much waits here for whoever reads, some 8,000 detections; the rest waits at the broker."""

MOST_NODES: Final = 10_000
"""Of so many nodes it is known which numbers are missing: names are cheap to invent."""

_ROOM_S: Final = 0.05
_STOP_S: Final = 3.0
_BREAK_OFF_S: Final = 0.2

Kind = Literal["detection", "status", "health", "node", "checkpoint", "snippet", "incident"]
Said = Detection | Status | Health | Node | Checkpoint | SnippetMessage | Incident

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_READ: Final[dict[str, Callable[[bytes], Said]]] = {
    "detection": parse_detection,
    "status": parse_status,
    "health": parse_health,
    "node": parse_node,
    "checkpoint": parse_checkpoint,
    "snippet": parse_snippet,
    "incident": parse_incident,
}


@dataclass(frozen=True, slots=True)
class Word:
    """One message of a node, or of the network that locates.

    Attributes
    ----------
    topic, message, payload
        Where it came, what it says, and what the broker sent.
    retained
        The broker kept it from before we subscribed.
    superseded
        A later revision of the same event has come already: new ones are sent before old ones.
    missing
        Numbers of the node's detections that are now known not to have come. They may still be on
        their way; `Subscription.missing` says which are open.
    """

    topic: str
    message: Said
    payload: bytes
    retained: bool
    superseded: bool = False
    missing: range = range(0)

    @property
    def delayed(self) -> bool:
        """Whether a detection had to wait on the node's disk, or may have come before."""
        transport = self.message.transport if isinstance(self.message, Detection) else None
        return transport is not None and transport.delayed

    @property
    def is_news(self) -> bool:
        """Whether it may raise an alarm: it was sent just now, and nothing later is known."""
        return not (self.retained or self.delayed or self.superseded)


def subscribe(
    broker: str,
    *,
    kinds: Collection[Kind] = ("detection", "status"),
    site: str = "+",
    node_id: str = "+",
    ca_file: Path | None = None,
    cert_file: Path | None = None,
    key_file: Path | None = None,
    client_id: str | None = None,
    session_expiry_s: int = 0,
) -> "Subscription":
    """Subscribe at mqtt://host:port, or mqtts:// with certificates; see `Subscription`."""
    address = BrokerAddress.from_url(
        broker, ca_file=ca_file, cert_file=cert_file, key_file=key_file
    )
    return Subscription(
        address,
        kinds=kinds,
        site=site,
        node_id=node_id,
        client_id=client_id,
        session_expiry_s=session_expiry_s,
    )


class Subscription:
    """What nodes say at a broker; a context manager to iterate over.

    A detection is given once, however often it arrives. What is not a valid message, or one of
    another node than its topic's, is counted in `invalid` and passed over. The connection is made
    again for ever once it has stood. Who reads more slowly than messages come has the rest wait at
    the broker. That ends the connection after 45 s in which nothing is read, and keeps what comes
    for a `client_id` with a `session_expiry_s` alone. `away` says why the connection does not
    stand, and nothing where it does.

    Parameters
    ----------
    address
        The broker.
    kinds
        Which messages. Holes in the detections are closed by gaps that nodes tell in checkpoints:
        have those too where `missing` is to be right.
    site, node_id
        Whose; '+' for every one.
    client_id
        A name of one's own at the broker; a new one each time if absent.
    session_expiry_s
        How long the broker is to keep what arrives while we are away; needs a `client_id`.

    Raises
    ------
    BrokerError
        On entering, if the broker cannot be reached or does not let us subscribe.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        kinds: Collection[Kind] = ("detection", "status"),
        site: str = "+",
        node_id: str = "+",
        client_id: str | None = None,
        session_expiry_s: int = 0,
    ) -> None:
        if session_expiry_s and client_id is None:
            raise ValueError("a session that is to last needs a client_id to be known again by")
        self.invalid = 0
        self.repeated = 0
        self.away = ""
        self._filters = [(_filter(kind, site, node_id), 1) for kind in kinds]
        self._words: queue.SimpleQueue[Word | None] = queue.SimpleQueue()
        self._come_bytes = 0  # the session's thread alone adds to it,
        self._gone_bytes = 0  # and to this one who reads
        # A node's own names for its events: it cannot use up another's.
        self._seen: OrderedDict[tuple[str, str, int], None] = OrderedDict()
        self._revisions: OrderedDict[tuple[str, str], int] = OrderedDict()  # the highest of each
        self._numbers: dict[tuple[str, str], Numbers] = {}
        self._closing = False
        self._closed = False  # and nothing comes any more
        # A refusal, or None where there is none. Queues, since `close` may be called by a signal
        # on the very thread that waits, where an Event's lock could stop it for ever.
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._answered = False
        self._address = address
        self._session = Session(
            address,
            client_id or f"gunfire-watch-{uuid.uuid4().hex[:12]}",
            self,
            SessionOptions(
                reconnect_max_s=5,
                clean_start=session_expiry_s == 0,
                session_expiry_s=session_expiry_s,
            ),
        )

    @property
    def waiting(self) -> int:
        """How many messages have come and were not given yet."""
        return self._words.qsize()

    def next(self, timeout_s: float | None = None) -> Word | None:
        """Give the next message; None if `timeout_s` passes first.

        After `close` what has come before is still given, since the broker was told that it has
        come and will not send it again; then None.
        """
        word = None
        try:
            if not self._closed:
                word = self._words.get(timeout=timeout_s)
            while word is None and self._closed:
                word = self._words.get_nowait()
        except queue.Empty:
            return None
        if word is not None:
            self._gone_bytes += len(word.payload)
        return word

    def missing(self) -> dict[tuple[str, str], tuple[range, ...]]:
        """Give, for each (site, node) with holes, the numbers of detections that have not come.

        From the first that this subscription saw on. What a node has told as a gap is no hole.
        """
        numbers = dict(self._numbers)
        return {who: known.missing for who, known in numbers.items() if known.missing}

    def within(self, seconds: float) -> Iterator[Word]:
        """Give what arrives in the next seconds."""
        until_s = time.monotonic() + seconds
        while not self._closing and (left_s := until_s - time.monotonic()) > 0:
            if (word := self.next(left_s)) is not None:
                yield word

    def close(self) -> None:
        """Disconnect; entering ends, and an iteration once it has given what has come.

        A signal's handler may call it.
        """
        self._closing = True
        self._answers.put(None)
        # A connection in the making cannot be broken off; its thread ends by itself.
        self._session.stop(_STOP_S if self._answered else _BREAK_OFF_S)
        self._closed = True
        self._words.put(None)

    def __iter__(self) -> Iterator[Word]:
        while (word := self.next()) is not None:
            yield word

    def __enter__(self) -> Self:
        if self._closing:
            return self
        self._session.start()
        try:
            refusal = self._answers.get(timeout=CONNECT_TIMEOUT_S)
        except queue.Empty:
            refusal = f"broker {self._address}: does not answer"
        if refusal is not None and not self._closing:
            self.close()
            raise BrokerError(refusal)
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # What follows is called by the session, on its thread.

    def connected(self, client: Client, properties: Properties | None) -> None:
        """Subscribe, on every connection: a broker may have forgotten us."""
        client.subscribe(self._filters)

    def disconnected(self, loss: Loss) -> None:
        """Remember why, for whoever waits for the first connection."""
        self.away = loss.sentence
        self._answer(loss.sentence)

    def subscribed(self, codes: list[ReasonCode]) -> None:
        """Let `__enter__` go on, or say why not."""
        refusal = refusal_of(self._address, codes)
        self.away = refusal or ""
        if refusal is not None and self._answered:  # nobody waits: a later connection
            log.error("%s", refusal)
        self._answer(refusal)

    def received(self, message: MQTTMessage) -> None:
        """Check a message and hand it on, unless it came before."""
        topic, payload = message.topic, bytes(message.payload)
        try:
            said = _read(topic, payload)
        except ValueError as error:
            self.invalid += 1
            if self.invalid.bit_count() == 1:  # the first, second, fourth …: of a flood few lines
                log.warning("%r: %s (%d so far that are passed over)", topic, error, self.invalid)
            return
        superseded, missing = False, range(0)
        if isinstance(said, Detection):
            if self._came_before(said):
                self.repeated += 1
                return
            superseded = self._superseded(said)
            missing = self._numbers_of(said).see(said.seq)
        elif isinstance(said, Checkpoint):
            numbers = self._numbers_of(said)
            missing = numbers.expect(said.seq)
            for gap in said.gaps:
                numbers.fill(gap.from_seq, gap.to_seq)
        self._wait_for_room()
        self._come_bytes += len(payload)
        self._words.put(Word(topic, said, payload, message.retain, superseded, missing))

    def published(self, mid: int, code: ReasonCode) -> None:
        """Pass over it: a subscriber publishes nothing."""

    def turn(self) -> None:
        """Do nothing: all that happens is received."""

    def fault(self, error: Exception) -> None:
        """Count what could not be taken as invalid; the session has logged it."""
        self.invalid += 1

    def _answer(self, refusal: str | None) -> None:
        if not self._answered:
            self._answered = True
            self._answers.put(refusal)

    def _wait_for_room(self) -> None:
        # The broker notices that we do not read on, and keeps the rest.
        while (
            self._come_bytes - self._gone_bytes > MOST_WAITING_BYTES
            and not self._words.empty()
            and not self._closing
        ):
            time.sleep(_ROOM_S)

    def _numbers_of(self, said: Detection | Checkpoint) -> Numbers:
        numbers = self._numbers.get((said.site, said.node_id))
        if numbers is None:
            numbers = Numbers()
            if len(self._numbers) < MOST_NODES:
                self._numbers[said.site, said.node_id] = numbers
        return numbers

    def _came_before(self, detection: Detection) -> bool:
        key = (f"{detection.site}/{detection.node_id}", detection.event_id, detection.revision)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def _superseded(self, detection: Detection) -> bool:
        event = (f"{detection.site}/{detection.node_id}", detection.event_id)
        highest = self._revisions.pop(event, -1)
        self._revisions[event] = max(highest, detection.revision)
        if len(self._revisions) > REMEMBERED:
            self._revisions.popitem(last=False)
        return highest > detection.revision


def refusal_of(address: BrokerAddress, codes: list[ReasonCode]) -> str | None:
    """Say that a broker does not let us subscribe, and what to do; None where it does."""
    refused = [str(code) for code in codes if code.is_failure]
    if not refused:
        return None
    return f"broker {address}: does not let us subscribe ({refused[0]}): check user and access list"


def _filter(kind: Kind, site: str, node_id: str) -> str:
    if kind == "incident":
        return incident_topic(site)
    return subscription(kind, site, node_id)


def _read(topic: str, payload: bytes) -> Said:
    if len(payload) > LONGEST_MESSAGE:
        raise ValueError("is longer than any message")
    kind = topic.rpartition("/")[2]
    if kind not in _READ:
        raise ValueError(f"no such kind of message: {kind!r}")
    said = _READ[kind](payload)
    # A broker lets each node publish on its own topics; what the message says, it does not read.
    who = said.site if isinstance(said, Incident) else f"{said.site}/{said.node_id}"
    if topic != f"{ROOT}/{who}/{kind}":
        raise ValueError(f"says that it is of {who}, whose topic this is not")
    return said
