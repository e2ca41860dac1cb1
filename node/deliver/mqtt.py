"""The publisher: takes what waits in the outbox to the broker, and says how the node is.

After the outbox, before the broker. A row leaves the outbox only when the broker has acknowledged
it with a reason code of success, and the connection has stood for a moment after that: brokers
acknowledge before their own disk has it (see `backlog`). Whatever else happens, it stays and is
sent again, so a message may arrive twice and never not at all. Subscribers de-duplicate by
(event_id, revision).

The client id is the node's: a second connection of that name ends the first, so a broker never
holds two words on one node. Every connection is a clean start without expiry: the broker need
remember nothing of us, since the outbox does.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from node.deliver.address import BrokerAddress
from node.deliver.backlog import Backlog
from node.deliver.board import Board, Word
from node.deliver.handler import Clock, Loss, SessionOptions, Will
from node.deliver.outbox import Outbox, OutboxRow
from node.deliver.session import Session, backoff_s
from node.deliver.spool import Parcels, Spool
from node.errors import OutboxError

log = logging.getLogger(__name__)

MOST_ASIDES: Final = 4
"""Messages of QoS 0 that may wait for the sending thread's turn; older ones give way."""

ASIDE_EXPIRY_S: Final = 300
"""How long a broker may keep a message of QoS 0 for a subscriber who is away."""

# What a PUBLISH packet holds beside topic and payload: header, lengths, packet id, properties.
_PACKET_OVERHEAD_BYTES: Final = 16
_BAD_PAYLOAD: Final = 0x99
# A broker that has answered a ping has all that was sent before it. One that is without an answer
# for so many keep-alives gets none any more: there are such, and the connection looks well.
_UNANSWERED_KEEPALIVES: Final = 4
# Where the broker may hang up on a word, detections have so long to leave before it.
_ALONE_S: Final = 10.0
_OUTBOX_RETRY_S: Final = 5.0
# Another client by our name is told until a connection has stood for so long: it comes again.
_OUR_NAME_S: Final = 20.0
_GOODBYE_S: Final = 1.0
_MOST_RECEIVED: Final = 65535  # what a broker takes that does not say otherwise


@dataclass(frozen=True, slots=True)
class Delivery:
    """How sending goes: for the status.

    `reasons` are sentences on what is wrong, none if all is well.
    """

    connected: bool
    reasons: tuple[str, ...]
    acknowledged: int
    faults: int


class MqttPublisher:
    """Send from an outbox, for ever, on a thread of its own.

    Parameters
    ----------
    outbox
        Where detections wait; the publisher listens to it.
    address, client_id, options
        The broker, or several in order of preference, and who we are to it: the node's id.
    detection_topic, status_topic
        Where to publish.
    offline
        Makes the retained status `offline` from a reason; called on the sending thread before
        each connection (for the last will) and at the end.
    stamp
        Adds to a detection's bytes when it is sent (UTC, ns) and whether it was delayed.
    utc_now_ns
        Reads the clock; the publisher has none of its own.
    expiry_s
        How long a broker may keep a detection for a subscriber who is away; for ever if absent.
    clock_trusted
        Says whether something disciplines the clock. TLS is tried with one that nothing does, too,
        unless it is evidently wrong; called on the sending thread.
    spool, spool_topic
        Larger messages that are sent, with QoS 1, while no detection waits; none if absent.
    """

    def __init__(
        self,
        outbox: Outbox,
        address: BrokerAddress | Sequence[BrokerAddress],
        client_id: str,
        options: SessionOptions,
        *,
        detection_topic: str,
        status_topic: str,
        offline: Callable[[str], bytes],
        stamp: Callable[[bytes, int, bool], bytes],
        utc_now_ns: Callable[[], int],
        expiry_s: int | None = None,
        clock_trusted: Callable[[], bool] = lambda: False,
        spool: Spool | None = None,
        spool_topic: str = "",
    ) -> None:
        self._outbox = outbox
        self._backlog = Backlog(outbox)
        self._board = Board()
        self._parcels = (
            None if spool is None else Parcels(spool, spool_topic, self._board, expiry_s)
        )
        self._reconnect_max_s = options.reconnect_max_s
        self._keepalive_s = options.keepalive_s
        self._detection_topic = detection_topic
        self._status_topic = status_topic
        self._offline = offline
        self._stamp = stamp
        self._utc_now_ns = utc_now_ns
        self._expiry_s = expiry_s
        clock = Clock(utc_now_ns, clock_trusted)
        self._session = Session(address, client_id, self, options, self._will, clock)

        # Shared with the caller's thread: replaced whole, never changed in place.
        self._trouble: dict[str, str] = {
            "connection": f"broker {self._session.address}: not connected yet"
        }
        self._connected = False
        self._connected_s = 0.0
        self._acknowledged = self._faults = 0
        self._asides: deque[tuple[str, bytes]] = deque(maxlen=MOST_ASIDES)
        self._close_by_s: float | None = None
        self._goodbye_said = threading.Event()

        # The sending thread's own.
        self._client: Client | None = None
        self._receive_maximum = _MOST_RECEIVED
        self._max_packet_bytes: int | None = None
        self._word_sent_s = 0.0
        self._words_from_s = 0.0
        self._last_word_said = False
        self._one_at_a_time = False
        self._refusals_in_a_row = 0
        self._hold_until_s = 0.0

    def start(self) -> None:
        """Start sending; returns at once, broker or not. What was set aside is offered again."""
        try:
            self._outbox.reconsider()
        except OutboxError as error:
            log.warning("what was set aside is not offered again: %s", error)
        self._outbox.listen(self._appended)
        self._session.start()

    def set_status(self, payload: bytes) -> None:
        """Publish a status, retained; now if connected, and again after each connection."""
        self.keep(self._status_topic, payload)

    def keep(self, topic: str, payload: bytes) -> None:
        """Publish, retained, with QoS 1: now if connected, and again after each connection.

        Of each topic the newest payload counts.
        """
        self._board.put(Word(topic, payload, retain=True, expiry_s=None))
        self._session.wake()

    def tell(self, topic: str, payload: bytes) -> None:
        """Publish once with QoS 1: now, or after each connection until it is acknowledged.

        Of each topic the newest payload counts; an older one that waits is given up.
        """
        self._board.put(Word(topic, payload, retain=False, expiry_s=None))
        self._session.wake()

    def say(self, topic: str, payload: bytes) -> None:
        """Publish once with QoS 0, if connected; nobody waits for it, and nothing is kept."""
        self._asides.append((topic, payload))
        self._session.wake()

    def delivery(self) -> Delivery:
        """Say how sending goes; from any thread."""
        # One sentence may be of two troubles: who took our place, and so that there is none.
        reasons = [*dict.fromkeys(self._trouble.values()), *self._session.warnings()]
        if refused := self._outbox.refused:
            reasons.append(
                f"{refused} detections were refused by the broker for good and are kept in the "
                "outbox: see the log for why; the next start offers them again"
            )
        return Delivery(self._connected, tuple(reasons), self._acknowledged, self._faults)

    def close(self, drain_s: float = 5.0) -> None:
        """Send what can be sent in `drain_s`, say offline, disconnect, and end the thread.

        What could not be sent stays in the outbox, which is left open.
        """
        self._outbox.listen(None)
        self._close_by_s = time.monotonic() + drain_s
        self._session.wake()
        if self._connected or self._outbox.depth:
            self._goodbye_said.wait(drain_s + _GOODBYE_S)
        self._session.stop()
        self._connected = False

    # What follows is called by the session, on its thread.

    def connected(self, client: Client, properties: Properties | None) -> None:
        """Begin afresh: all that waits in the outbox now is late."""
        self._client = client
        self._receive_maximum = getattr(properties, "ReceiveMaximum", _MOST_RECEIVED)
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self._board.begin()
        if self._parcels is not None:
            self._parcels.begin()
        # One place stays free for a word of the board.
        self._backlog.begin(1 if self._one_at_a_time else self._receive_maximum - 1)
        self._hold_until_s = 0.0
        self._words_from_s = time.monotonic() + _ALONE_S
        self._untrouble("connection")
        self._connected_s = time.monotonic()
        self._connected = True

    def disconnected(self, loss: Loss) -> None:
        """Note why; what was under way stays in the outbox, and is sent again."""
        self._connected = False
        self._client = None
        self._trouble = {**self._trouble, "connection": loss.sentence}
        if loss.taken_over:
            self._trouble = {**self._trouble, "name": loss.sentence}
        if loss.blames_message:
            self._find_the_culprit(loss.sentence)
        self._backlog.end(time.monotonic())

    def published(self, mid: int, code: ReasonCode) -> None:
        """Take the broker's answer: only one of success removes a row."""
        now_s = time.monotonic()
        word = self._board.answered(mid, refused=code.is_failure, now_s=now_s)
        if word is not None:
            if code.is_failure:
                self._not_let(word.topic, code)
            else:
                self._untrouble(word.topic)
                if self._parcels is not None and word.topic == self._parcels.topic:
                    self._parcels.acknowledged(now_s)
            return
        row = self._backlog.answered(mid, now_s)
        if row is None:
            return
        if not code.is_failure:
            self._acknowledged += 1
            self._backlog.acknowledged(row, now_s)
            self._refusals_in_a_row = 0
            self._untrouble(self._detection_topic)
        elif code.value == _BAD_PAYLOAD:
            self._refuse_for_good(row, str(code))
        else:
            # Not this message's fault: the next would fare no better. Wait, and try again.
            self._not_let(self._detection_topic, code)
            self._refusals_in_a_row += 1
            pause_s = backoff_s(self._refusals_in_a_row, self._reconnect_max_s)
            self._hold_until_s = now_s + pause_s

    def received(self, message: MQTTMessage) -> None:
        """Pass over a message: a node listens for none."""

    def subscribed(self, codes: list[ReasonCode]) -> None:
        """Pass over it: a node subscribes to nothing."""

    def turn(self) -> None:
        """Remove what was acknowledged, send what waits, and end if we are closing."""
        self._remove_settled()
        if self._parcels is not None and self._connected:
            self._parcels.turn(time.monotonic(), idle=self._backlog.idle)
        self._send_words()
        self._send_detections()
        self._send_asides()
        self._widen()
        if time.monotonic() - self._connected_s > _OUR_NAME_S:
            self._untrouble("name")
        self._leave_if_unanswered()
        if self._close_by_s is not None:
            self._say_goodbye(self._close_by_s)

    def fault(self, error: Exception) -> None:
        """Count a defect of ours, and say so."""
        self._faults += 1
        self._trouble = {
            **self._trouble,
            "fault": f"a defect in sending ({error!r}): please report it with the log",
        }

    def _appended(self) -> None:
        # On the pipeline's thread; noted before the call, so that the turn finds it.
        self._backlog.appended()
        self._session.wake()

    def _will(self) -> Will:
        return Will(self._status_topic, self._offline("cut off: the broker lost the connection"))

    def _remove_settled(self) -> None:
        now_s = time.monotonic()
        try:
            if self._backlog.remove_settled(now_s):
                self._untrouble("outbox")
        except OutboxError as error:
            # They stay on disk and would be sent again by a later process: harmless.
            self._trouble = {**self._trouble, "outbox": str(error)}
            self._backlog.pause_removal(now_s + _OUTBOX_RETRY_S)

    def _send_words(self) -> None:
        now_s = time.monotonic()
        word = self._board.due(now_s)
        if word is None or len(self._backlog.in_flight) >= self._receive_maximum:
            return
        if self._backlog.alone and now_s < self._words_from_s and not self._last_word_said:
            return
        if self._one_at_a_time and self._backlog.in_flight:
            return
        too_large = self._too_large(word.topic, word.payload)
        if too_large:
            self._give_up(word, too_large)
            return
        mid = self._publish(word.topic, word.payload, retain=word.retain, expiry_s=word.expiry_s)
        if mid is not None:
            self._board.sent(mid, word)
            self._word_sent_s = time.monotonic()

    def _send_asides(self) -> None:
        while self._asides:
            topic, payload = self._asides.popleft()
            if self._client is not None:
                self._client.publish(
                    topic, payload, qos=0, properties=self._publish_properties(ASIDE_EXPIRY_S)
                )

    def _send_detections(self) -> None:
        if self._hold_until_s:
            if time.monotonic() < self._hold_until_s:
                return
            self._hold_until_s = 0.0
            self._backlog.rewind()
        if self._board.under_way and (self._one_at_a_time or self._receive_maximum == 1):
            return
        try:
            for row, delayed in self._backlog.take(time.monotonic()):
                if not self._send_detection(row, delayed):
                    break
            self._untrouble("outbox read")
        except OutboxError as error:
            self._trouble = {**self._trouble, "outbox read": str(error)}
            self._hold_until_s = time.monotonic() + _OUTBOX_RETRY_S

    def _send_detection(self, row: OutboxRow, delayed: bool) -> bool:
        """Send one, or set it aside if it cannot be; False if the connection is gone."""
        try:
            payload = self._stamp(row.payload, self._utc_now_ns(), delayed)
        except ValueError as error:
            self._refuse_for_good(row, f"cannot be read back from the disk ({error})")
            return True
        too_large = self._too_large(self._detection_topic, payload)
        if too_large:
            self._refuse_for_good(row, too_large)
            return True
        mid = self._publish(self._detection_topic, payload, retain=False, expiry_s=self._expiry_s)
        if mid is None:
            return False
        self._backlog.sent(mid, row, time.monotonic())
        return True

    def _publish(
        self, topic: str, payload: bytes, *, retain: bool, expiry_s: int | None
    ) -> int | None:
        """Hand a message to paho; give its id, or None if the connection is gone."""
        if self._client is None:
            return None
        info = self._client.publish(
            topic, payload, qos=1, retain=retain, properties=self._publish_properties(expiry_s)
        )
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def _publish_properties(self, expiry_s: int | None) -> Properties | None:
        if expiry_s is None or self._session.address.protocol != "5":
            return None
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = expiry_s
        return properties

    def _too_large(self, topic: str, payload: bytes) -> str:
        """Say that a message is larger than the broker announces to take; nothing if it is not."""
        packet_bytes = len(payload) + len(topic) + _PACKET_OVERHEAD_BYTES
        if self._max_packet_bytes is None or packet_bytes <= self._max_packet_bytes:
            return ""
        return f"{packet_bytes} bytes, the broker takes {self._max_packet_bytes}"

    def _find_the_culprit(self, why: str) -> None:
        """Find the message that a broker hung up on, since MQTT does not say which it was.

        If one alone was under way, it is known; else they are sent one at a time until it shows.
        """
        rows, words = self._backlog.in_flight, self._board.under_way
        self._one_at_a_time = len(rows) + len(words) > 1
        if self._one_at_a_time:
            return
        for row in rows:
            self._refuse_for_good(row, why)
        for word in words:
            self._give_up(word, why)

    def _widen(self) -> None:
        """Send several at a time again once all got through alone: the culprit was none of them."""
        if not self._one_at_a_time or self._backlog.waiting or self._board.under_way:
            return
        if self._board.due(time.monotonic()) is None:
            self._one_at_a_time = False
            self._backlog.begin(self._receive_maximum - 1)

    def _leave_if_unanswered(self) -> None:
        """Leave a broker that answers pings, or is asked for none, and no message."""
        since_s = self._backlog.unanswered_since_s
        if self._board.under_way:
            since_s = min(self._word_sent_s, since_s or self._word_sent_s)
        if self._client is None or since_s is None:
            return
        longest_s = _UNANSWERED_KEEPALIVES * max(self._keepalive_s, self._client.keepalive)
        if time.monotonic() - since_s > longest_s:
            self._session.leave_useless(
                f"does not acknowledge what it is sent, for {longest_s:g} s: see its log, and "
                "whether its own storage is in order"
            )

    def _give_up(self, word: Word, why: str) -> None:
        self._board.give_up(word)
        if self._parcels is not None and word.topic == self._parcels.topic:
            self._parcels.given_up()
        sentence = f"our {_kind(word.topic)} cannot be sent: {why}"
        log.error("%s", sentence)
        self._trouble = {**self._trouble, word.topic: sentence}

    def _refuse_for_good(self, row: OutboxRow, reason: str) -> None:
        log.error("detection seq %d (%s) set aside: %s", row.seq, row.event_id, reason)
        try:
            self._outbox.refuse(row.seq, reason)
            self._untrouble("outbox refusal")
        except OutboxError as error:
            self._trouble = {**self._trouble, "outbox refusal": str(error)}

    def _not_let(self, topic: str, code: ReasonCode) -> None:
        sentence = (
            f"broker {self._session.address}: refuses our {_kind(topic)} ({code}): let this node "
            f"publish on {topic}"
        )
        if self._trouble.get(topic) != sentence:
            log.warning("%s", sentence)
        self._trouble = {**self._trouble, topic: sentence}

    def _untrouble(self, what: str) -> None:
        if what in self._trouble:
            self._trouble = {key: text for key, text in self._trouble.items() if key != what}

    def _say_goodbye(self, close_by_s: float) -> None:
        """Once all is sent, or time is up, say offline; `close` waits for the broker to have it."""
        now_s = time.monotonic()
        words_left = self._board.under_way or self._board.due(now_s)
        if not self._last_word_said:
            parcels_left = self._parcels is not None and self._parcels.busy
            if (words_left or self._backlog.busy or parcels_left) and now_s < close_by_s:
                return
            self._last_word_said = True
            self.set_status(self._offline("stopped"))
        elif not words_left:
            self._goodbye_said.set()


def _kind(topic: str) -> str:
    return topic.rpartition("/")[2]
