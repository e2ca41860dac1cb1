"""The subscriber: what nodes publish, read, checked, and each message once.

Used by `gunfire-node watch` and `demo`, and by whoever wants nodes' words in Python:

    with Subscription(BrokerAddress.from_url("mqtt://broker")) as words:
        for word in words:
            print(word.topic, word.message)
"""

import logging
import queue
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from node.deliver import BrokerAddress, SessionOptions
from node.deliver.session import CONNECT_TIMEOUT_S, Loss, Session
from node.errors import BrokerError
from node.messages import Detection, Status, parse_detection, parse_status, subscription

log = logging.getLogger(__name__)

# How many (event_id, revision) are remembered to recognise a repeat: a week of a detection every
# few seconds from a node.
REMEMBERED: Final = 100_000

_STOP_S: Final = 3.0
_BREAK_OFF_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Word:
    """One message of a node. `payload` is what the broker sent; `retained` says it is not new."""

    topic: str
    message: Detection | Status
    payload: bytes
    retained: bool


class Subscription:
    """Detections and statuses of the nodes at a broker; a context manager to iterate over.

    A detection is given once, however often it arrives. What is not a valid message is counted
    in `invalid` and passed over. The connection is made again for ever once it has stood.

    Parameters
    ----------
    address
        The broker.
    site, node_id
        Whose; '+' for every one.
    detections, statuses
        Which kinds.
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
        site: str = "+",
        node_id: str = "+",
        detections: bool = True,
        statuses: bool = True,
        client_id: str | None = None,
        session_expiry_s: int = 0,
    ) -> None:
        if session_expiry_s and client_id is None:
            raise ValueError("a session that is to last needs a client_id to be known again by")
        self.invalid = 0
        self.repeated = 0
        self._filters: list[tuple[str, int]] = []
        if detections:
            self._filters.append((subscription("detection", site, node_id), 1))
        if statuses:
            self._filters.append((subscription("status", site, node_id), 1))
        self._words: queue.SimpleQueue[Word | None] = queue.SimpleQueue()
        self._seen: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._closed = False
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

    def next(self, timeout_s: float | None = None) -> Word | None:
        """Give the next message; None if `timeout_s` passes first, or after `close`."""
        if self._closed:
            return None
        try:
            return self._words.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def within(self, seconds: float) -> Iterator[Word]:
        """Give what arrives in the next seconds."""
        until_s = time.monotonic() + seconds
        while not self._closed and (left_s := until_s - time.monotonic()) > 0:
            if (word := self.next(left_s)) is not None:
                yield word

    def close(self) -> None:
        """Disconnect; entering or an iteration under way ends. A signal's handler may call it."""
        self._closed = True
        self._answers.put(None)
        self._words.put(None)
        # A connection in the making cannot be broken off; its thread ends by itself.
        self._session.stop(_STOP_S if self._answered else _BREAK_OFF_S)

    def __iter__(self) -> Iterator[Word]:
        while (word := self.next()) is not None:
            yield word

    def __enter__(self) -> Self:
        if self._closed:
            return self
        self._session.start()
        try:
            refusal = self._answers.get(timeout=CONNECT_TIMEOUT_S)
        except queue.Empty:
            refusal = f"broker {self._address}: does not answer"
        if refusal is not None and not self._closed:
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
        self._answer(loss.sentence)

    def subscribed(self, codes: list[ReasonCode]) -> None:
        """Let `__enter__` go on, or say why not."""
        refused = [str(code) for code in codes if code.is_failure]
        self._answer(
            f"broker {self._address}: does not let us subscribe ({refused[0]}): check user and "
            "access list"
            if refused
            else None
        )

    def received(self, message: MQTTMessage) -> None:
        """Check a message and hand it on, unless it came before."""
        try:
            word = _read(message)
        except ValueError as error:
            self.invalid += 1
            log.warning("%s: %s", message.topic, error)
            return
        if isinstance(word.message, Detection) and self._came_before(word.message):
            self.repeated += 1
            return
        self._words.put(word)

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

    def _came_before(self, detection: Detection) -> bool:
        key = (detection.event_id, detection.revision)
        if key in self._seen:
            return True
        self._seen[key] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        return False


def _read(message: MQTTMessage) -> Word:
    payload = bytes(message.payload)
    kind = message.topic.rpartition("/")[2]
    read: Detection | Status
    if kind == "detection":
        read = parse_detection(payload)
    elif kind == "status":
        read = parse_status(payload)
    else:
        raise ValueError(f"no such kind of message: {kind}")
    return Word(message.topic, read, payload, message.retain)
