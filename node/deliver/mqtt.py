"""The publisher: takes what waits in the outbox to the broker, and says how the node is.

After the outbox, before the broker. A row leaves the outbox only when the broker has acknowledged
it with a reason code of success, and the connection has stood for a moment after that: brokers
acknowledge before their own disk has it (see `SETTLE_S`). Whatever else happens, it stays and is
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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from node.deliver.address import BrokerAddress
from node.deliver.outbox import Outbox, OutboxRow
from node.deliver.session import Loss, Session, SessionOptions, Will, backoff_s
from node.errors import OutboxError

log = logging.getLogger(__name__)

WINDOW: Final = 20
"""Most detections under way to the broker at a time."""

MOST_ASIDES: Final = 4
"""Messages of QoS 0 that may wait for the sending thread's turn; older ones give way."""

SETTLE_S: Final = 2.0
"""How long the connection must stand after an acknowledgement before the row is removed.

Mosquitto acknowledges first and saves then, within a tenth of a second if it saves on changes at
all. Killed some 36 times under load, it lost 6 messages that it had acknowledged last; with this
pause none."""

# What a PUBLISH packet holds beside topic and payload: header, lengths, packet id, properties.
_PACKET_OVERHEAD_BYTES: Final = 16
_BAD_PAYLOAD: Final = 0x99
_OUTBOX_RETRY_S: Final = 5.0
_GOODBYE_S: Final = 1.0


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
        The broker, and who we are to it: the node's id.
    detection_topic, status_topic
        Where to publish.
    offline
        Makes the retained status `offline` from a reason; called on the sending thread before
        each connection (for the last will) and at the end.
    stamp
        Adds to a detection's bytes when it is sent (UTC, ns) and whether it was delayed.
    utc_now_ns
        Reads the clock; the publisher has none of its own.

    Notes
    -----
    A detection is fresh if it was committed while the connection stood and could be sent at once;
    one that had to wait, or may have been sent before, is `delayed`.
    """

    def __init__(
        self,
        outbox: Outbox,
        address: BrokerAddress,
        client_id: str,
        options: SessionOptions,
        *,
        detection_topic: str,
        status_topic: str,
        offline: Callable[[str], bytes],
        stamp: Callable[[bytes, int, bool], bytes],
        utc_now_ns: Callable[[], int],
    ) -> None:
        self._outbox = outbox
        self._address = address
        self._reconnect_max_s = options.reconnect_max_s
        self._detection_topic = detection_topic
        self._status_topic = status_topic
        self._offline = offline
        self._stamp = stamp
        self._utc_now_ns = utc_now_ns
        self._session = Session(address, client_id, self, options, self._will)

        # Shared with the caller's thread: replaced whole, never changed in place.
        self._trouble: dict[str, str] = {"connection": f"broker {address}: not connected yet"}
        self._connected = False
        self._acknowledged = self._faults = 0
        self._status: bytes | None = None
        self._asides: deque[tuple[str, bytes]] = deque(maxlen=MOST_ASIDES)
        self._close_by_s: float | None = None
        self._goodbye_said = threading.Event()

        # The sending thread's own, new with each connection.
        self._client: Client | None = None
        self._status_sent: bytes | None = None
        self._status_mid: int | None = None
        self._in_flight: dict[int, OutboxRow] = {}
        self._window = WINDOW
        self._max_packet_bytes: int | None = None
        self._more_may_wait = True
        self._delayed_up_to_seq = 0
        # The sending thread's own, for life.
        self._removable_s: dict[int, float] = {}  # seq of an acknowledged row → when it may go
        self._remove_again_s = 0.0
        self._last_word: bytes | None = None
        self._one_at_a_time = False
        self._refusals_in_a_row = 0
        self._hold_until_s = 0.0

    def start(self) -> None:
        """Start sending; returns at once, broker or not."""
        self._outbox.listen(self._appended)
        self._session.start()

    def set_status(self, payload: bytes) -> None:
        """Publish a status, retained; now if connected, and again after each connection."""
        self._status = payload
        self._session.wake()

    def say(self, topic: str, payload: bytes) -> None:
        """Publish once with QoS 0, if connected; nobody waits for it, and nothing is kept."""
        self._asides.append((topic, payload))
        self._session.wake()

    def delivery(self) -> Delivery:
        """Say how sending goes; from any thread."""
        reasons = list(self._trouble.values())
        if refused := self._outbox.refused:
            reasons.append(
                f"{refused} detections were refused by the broker for good and are kept in the "
                "outbox: see the log for why"
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
        self._in_flight = {}
        self._status_sent = self._status_mid = None
        receive_maximum = getattr(properties, "ReceiveMaximum", WINDOW)
        # One stays free for the status.
        self._window = 1 if self._one_at_a_time else max(1, min(WINDOW, receive_maximum - 1))
        self._max_packet_bytes = getattr(properties, "MaximumPacketSize", None)
        self._delayed_up_to_seq = self._outbox.last_seq
        self._more_may_wait = True
        self._hold_until_s = 0.0
        self._untrouble("connection")
        self._connected = True

    def disconnected(self, loss: Loss) -> None:
        """Note why; what was under way stays in the outbox, and is sent again."""
        self._connected = False
        self._client = None
        self._trouble = {**self._trouble, "connection": loss.sentence}
        if loss.blames_message:
            # MQTT does not say which message a broker hung up on: send one at a time until it
            # shows. If one alone was under way, it is known.
            self._one_at_a_time = len(self._in_flight) > 1
            if len(self._in_flight) == 1:
                (row,) = self._in_flight.values()
                self._refuse_for_good(row, loss.sentence)
        self._in_flight = {}
        # What was acknowledged only just now may have died with the broker.
        now_s = time.monotonic()
        self._removable_s = {seq: at for seq, at in self._removable_s.items() if at <= now_s}

    def published(self, mid: int, code: ReasonCode) -> None:
        """Take the broker's answer: only one of success removes a row."""
        if mid == self._status_mid:
            self._status_mid = None
            if code.is_failure:
                self._not_let("status", self._status_topic, code)
            else:
                self._untrouble("status")
            return
        row = self._in_flight.pop(mid, None)
        if row is None:
            return
        self._more_may_wait = True
        if not code.is_failure:
            self._acknowledged += 1
            self._removable_s[row.seq] = time.monotonic() + SETTLE_S
            self._refusals_in_a_row = 0
            self._untrouble("detection")
        elif code.value == _BAD_PAYLOAD:
            self._refuse_for_good(row, str(code))
        else:
            # Not this message's fault: the next would fare no better. Wait, and try again.
            self._not_let("detection", self._detection_topic, code)
            self._refusals_in_a_row += 1
            pause_s = backoff_s(self._refusals_in_a_row, self._reconnect_max_s)
            self._hold_until_s = time.monotonic() + pause_s

    def received(self, message: MQTTMessage) -> None:
        """Pass over a message: a node listens for none."""

    def subscribed(self, codes: list[ReasonCode]) -> None:
        """Pass over it: a node subscribes to nothing."""

    def turn(self) -> None:
        """Remove what was acknowledged, send what waits, and end if we are closing."""
        self._remove_acknowledged()
        self._send_status()
        self._send_detections()
        self._send_asides()
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
        # On the pipeline's thread; the flag before the call, so that the turn finds it.
        self._more_may_wait = True
        self._session.wake()

    def _will(self) -> Will:
        return Will(self._status_topic, self._offline("cut off: the broker lost the connection"))

    def _remove_acknowledged(self) -> None:
        now_s = time.monotonic()
        settled = [seq for seq, at in self._removable_s.items() if at <= now_s]
        if not settled or now_s < self._remove_again_s:
            return
        try:
            self._outbox.acknowledge(settled)
        except OutboxError as error:
            # They stay on disk and would be sent again by a later process: harmless.
            self._trouble = {**self._trouble, "outbox": str(error)}
            self._remove_again_s = now_s + _OUTBOX_RETRY_S
        else:
            for seq in settled:
                del self._removable_s[seq]
            self._untrouble("outbox")

    def _send_status(self) -> None:
        status = self._status
        if status is None or status == self._status_sent or self._status_mid is not None:
            return
        self._status_mid = self._publish(self._status_topic, status, retain=True)
        if self._status_mid is not None:
            self._status_sent = status

    def _send_asides(self) -> None:
        while self._asides:
            topic, payload = self._asides.popleft()
            if self._client is not None:
                self._client.publish(topic, payload, qos=0)

    def _send_detections(self) -> None:
        if self._hold_until_s:
            if time.monotonic() < self._hold_until_s:
                return
            self._hold_until_s = 0.0
            self._delayed_up_to_seq = self._outbox.last_seq
        free = self._window - len(self._in_flight)
        if not self._more_may_wait or free <= 0:
            return
        known = {row.seq for row in self._in_flight.values()} | self._removable_s.keys()
        self._more_may_wait = False  # before the look: what is appended after it sets it again
        try:
            rows = self._outbox.pending(limit=len(known) + free + 1)
        except OutboxError as error:
            self._trouble = {**self._trouble, "outbox": str(error)}
            self._more_may_wait = True
            self._hold_until_s = time.monotonic() + _OUTBOX_RETRY_S
            return
        waiting = [row for row in rows if row.seq not in known]
        for row in waiting[:free]:
            self._send_detection(row)
        if len(waiting) > free:
            self._more_may_wait = True
            self._delayed_up_to_seq = self._outbox.last_seq

    def _send_detection(self, row: OutboxRow) -> None:
        delayed = row.seq <= self._delayed_up_to_seq
        try:
            payload = self._stamp(row.payload, self._utc_now_ns(), delayed)
        except ValueError as error:
            self._refuse_for_good(row, f"cannot be read back from the disk ({error})")
            return
        packet_bytes = len(payload) + len(self._detection_topic) + _PACKET_OVERHEAD_BYTES
        if self._max_packet_bytes is not None and packet_bytes > self._max_packet_bytes:
            self._refuse_for_good(
                row, f"{packet_bytes} bytes, the broker takes {self._max_packet_bytes}"
            )
            return
        mid = self._publish(self._detection_topic, payload, retain=False)
        if mid is not None:
            self._in_flight[mid] = row

    def _publish(self, topic: str, payload: bytes, *, retain: bool) -> int | None:
        """Hand a message to paho; give its id, or None if the connection is gone."""
        if self._client is None:
            return None
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        return info.mid if info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def _refuse_for_good(self, row: OutboxRow, reason: str) -> None:
        log.error("detection seq %d (%s) set aside: %s", row.seq, row.event_id, reason)
        try:
            self._outbox.refuse(row.seq, reason)
        except OutboxError as error:
            self._trouble = {**self._trouble, "outbox": str(error)}

    def _not_let(self, what: str, topic: str, code: ReasonCode) -> None:
        sentence = (
            f"broker {self._address}: refuses our {what} ({code}): let this node publish on {topic}"
        )
        if self._trouble.get(what) != sentence:
            log.warning("%s", sentence)
        self._trouble = {**self._trouble, what: sentence}

    def _untrouble(self, what: str) -> None:
        self._trouble = {key: text for key, text in self._trouble.items() if key != what}

    def _say_goodbye(self, close_by_s: float) -> None:
        """Once all is sent, or time is up, say offline; `close` waits for the broker to have it."""
        under_way = self._in_flight or self._removable_s or self._more_may_wait
        if under_way and time.monotonic() < close_by_s:
            return
        if self._last_word is None:
            self._last_word = self._status = self._offline("stopped")
            self._send_status()
        elif self._status_sent == self._last_word and self._status_mid is None:
            self._goodbye_said.set()
