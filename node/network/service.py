"""The locator as a service: nodes' messages in, incidents out, at one broker, for months.

Three threads: the session's takes messages off the network and puts incidents on it; the caller's,
in `run`, verifies and locates; a signal's handler may call `close`. What must outlast the network
waits: detections at the broker (with a name and an expiry), incidents here, in order.
"""

from __future__ import annotations

import logging
import queue
import time
import uuid
from collections.abc import Callable
from typing import Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from node.deliver import BrokerAddress, SessionOptions, publish_batch
from node.deliver.handler import Loss
from node.deliver.session import CONNECT_TIMEOUT_S, Session
from node.errors import BrokerError, GunfireNodeError
from node.messages import Incident, incident_topic, subscription, to_json
from node.network.garbage import Garbage
from node.network.intake import Arrival, Intake
from node.network.outgoing import Outgoing
from node.network.subscribe import refusal_of
from node.network.weather import WeatherFile, weather_topic
from node.timing import utc_now_ns

log = logging.getLogger(__name__)

MOST_WAITING_BYTES: Final = 2**23
"""So much waits here to be judged; the rest waits at the broker."""

LONGEST_TAKEN: Final = 2**17
"""What is longer is of no kind that is read here, and is not even kept to be judged."""

_TURN_S: Final = 0.05
# One turn for many: each costs as much as a message does, and wakes the locator's process.
_GATHER_S: Final = 0.008
_BEHIND: Final = 500  # half a second of a large city
_BATCH: Final = 64
_LOOK_AT_FILES_S: Final = 5.0
_REPORT_S: Final = 60.0
_SETTLE_S: Final = 15.0
_ROOM_S: Final = 0.02
_MOST_RECEIVED: Final = 65_535  # where a broker does not say how much may be under way (MQTT 5)
_WINDOW: Final = 100
_REFUSED_AGAIN_S: Final = 10.0
_MOST_SET_BACK_S: Final = 10.0


class LocateService:
    """Locates what a broker's nodes hear, until it is closed.

    The connection is made again for ever once it has stood.

    Parameters
    ----------
    address
        The broker.
    intake
        Judges and locates.
    told
        Gets each incident after it was handed to the broker, on the thread of `run`.
    site
        Of one site only; '+' for every one.
    client_id, session_expiry_s
        A name of one's own at the broker, and how long it keeps what comes while we are away.
    weather_file
        Looked at every few seconds.
    weather_topic
        Whether to subscribe to the weather.
    now_ns
        UTC; the host's clock.

    Attributes
    ----------
    outgoing
        What waits for the broker.
    away
        Why the connection does not stand; nothing where it does.
    """

    def __init__(
        self,
        address: BrokerAddress,
        intake: Intake,
        told: Callable[[Incident], None] = lambda _: None,
        *,
        site: str = "+",
        client_id: str | None = None,
        session_expiry_s: int = 0,
        weather_file: WeatherFile | None = None,
        weather_topic: bool = False,
        now_ns: Callable[[], int] = utc_now_ns,
    ) -> None:
        if session_expiry_s and client_id is None:
            raise ValueError("a session that is to last needs a client_id to be known again by")
        self.outgoing = Outgoing()
        self.away = ""
        self._address = address
        self._intake = intake
        self._told = told
        self._site = site
        self._weather_file = weather_file
        self._weather_topic = weather_topic
        self._now_ns = now_ns
        self._arrivals: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._come_bytes = 0  # the session's thread alone adds to it,
        self._gone_bytes = 0  # and to this one that of `run`
        self._closed = False
        self._client: Client | None = None
        self._window = _WINDOW
        self._hold_until_s = 0.0
        self._refused = 0
        self._long = 0
        # A refusal, or None where there is none; see `Subscription`.
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._answered = False
        self._look_s = self._report_s = time.monotonic()
        self._garbage = Garbage()
        self._reported = ""
        self._session = Session(
            address,
            client_id or f"gunfire-locate-{uuid.uuid4().hex[:12]}",
            self,
            SessionOptions(
                reconnect_max_s=5,
                clean_start=session_expiry_s == 0,
                session_expiry_s=session_expiry_s,
            ),
        )

    def run(self) -> None:
        """Serve until `close`.

        Raises
        ------
        BrokerError
            The broker cannot be reached at first, or does not let us subscribe.
        GunfireNodeError
            The host's clock was set back: all that is open was settled, and to go on would be to
            hear nothing until it is again what it was. To be started anew.
        """
        if self._closed:
            return
        self._session.start()
        try:
            self._wait_for_the_broker()
            while not self._ends():
                self._turn()
        finally:
            self._closed = True
            self._session.stop()  # what comes from now on waits at the broker, if we have a name
        set_back_s = self._intake.set_back_s
        self._settle()
        if set_back_s > _MOST_SET_BACK_S:
            raise GunfireNodeError(
                f"this machine's clock was set back by {set_back_s:,.0f} s: start the locator "
                "again, once the clock is right"
            )

    def close(self) -> None:
        """Have `run` end: what has come is judged, what is open settled and sent.

        A signal's handler may call it.
        """
        self._closed = True
        self.wake()
        self._answers.put(None)

    def wake(self) -> None:
        """Have `run` look at once whether the locator has found something; from any thread."""
        self._arrivals.put(None)

    def report(self) -> str:
        """Say in a line what came and what became of it."""
        parts = [self._intake.report(), f"{self.outgoing.published} published"]
        if (behind := self._arrivals.qsize()) > _BEHIND:
            parts.append(f"{behind} messages wait to be judged: this machine is too slow for them")
        if waiting := len(self.outgoing):
            parts.append(f"{waiting} wait for the broker")
        if self.outgoing.lost:
            parts.append(f"{self.outgoing.lost} given up, the broker being away too long")
        if self._refused:
            parts.append(f"{self._refused} refusals by the broker")
        if self._long:
            parts.append(f"{self._long} messages too long to be any")
        return "; ".join(parts)

    def _ends(self) -> bool:
        return self._closed or self._intake.set_back_s > _MOST_SET_BACK_S

    def _wait_for_the_broker(self) -> None:
        try:
            refusal = self._answers.get(timeout=CONNECT_TIMEOUT_S)
        except queue.Empty:
            refusal = f"broker {self._address}: does not answer"
        if refusal is not None and not self._closed:
            raise BrokerError(refusal)

    def _turn(self) -> None:
        """Judge what has come, let time pass, and look after files."""
        try:
            self._take(self._arrivals.get(timeout=_TURN_S))
            if self._arrivals.qsize() < _BATCH:
                time.sleep(_GATHER_S)
            for _ in range(_BATCH):
                self._take(self._arrivals.get_nowait())
        except queue.Empty:
            pass
        self._send(self._intake.turn(self._now_ns()))
        self._garbage.tidy()
        now_s = time.monotonic()
        if now_s - self._look_s >= _LOOK_AT_FILES_S:
            self._look_s = now_s
            if self._intake.admission.keys is not None:
                self._intake.admission.keys.renew()
            if self._weather_file is not None and self._weather_file.renewed():
                self._intake.weather(self._weather_file.weather)
        if now_s - self._report_s >= _REPORT_S:
            self._report_s = now_s
            if (report := self.report()) != self._reported:
                self._reported = report
                log.info("%s", report)

    def _take(self, arrival: Arrival | None) -> None:
        if arrival is None:
            return
        self._gone_bytes += len(arrival.payload)
        self._send(self._intake.take(arrival, self._now_ns()))

    def _send(self, incidents: list[Incident]) -> None:
        for incident in incidents:
            self.outgoing.put(incident)
        if incidents:
            self._session.wake()
        for incident in incidents:
            self._told(incident)

    def _settle(self) -> None:
        """Judge the rest, since the broker was told that it has come; send all, if it can be."""
        give_up_s = time.monotonic() + _SETTLE_S
        try:
            while time.monotonic() < give_up_s:
                self._take(self._arrivals.get_nowait())
            log.error("%d messages could not be judged any more", self._arrivals.qsize())
        except queue.Empty:
            pass
        self._send(self._intake.finish())
        self.outgoing.again(broken=True)
        rest = list(iter(lambda: self.outgoing.take(len(self.outgoing) + 1), None))
        if not rest:
            return
        messages = [(incident_topic(one.site), to_json(one)) for one in rest]
        try:
            self.outgoing.published += publish_batch(self._address, messages)
        except BrokerError as error:
            log.error("%d incidents could not be sent any more: %s", len(rest), error)

    # What follows is called by the session, on its thread.

    def connected(self, client: Client, properties: Properties | None) -> None:
        """Subscribe, on every connection: a broker may have forgotten us."""
        self._window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _MOST_RECEIVED))
        self._client = client
        filters = [(subscription(kind, self._site), 1) for kind in ("node", "status", "detection")]
        if self._weather_topic:
            filters.append((weather_topic(self._site), 1))
        client.subscribe(filters)

    def disconnected(self, loss: Loss) -> None:
        """Take back what was under way; it is sent again, and subscribers know it by its name."""
        self._client = None
        self.away = loss.sentence
        self.outgoing.again(broken=True)
        self._answer(loss.sentence)

    def subscribed(self, codes: list[ReasonCode]) -> None:
        """Let `run` go on, or say why not."""
        weather_code = codes[-1] if self._weather_topic else None
        if weather_code is not None and weather_code.is_failure:
            log.error(
                "the broker does not let us have the weather (%s): see its access list", codes
            )
        refusal = refusal_of(self._address, codes[:3])
        self.away = refusal or ""
        if refusal is not None and self._answered:  # nobody waits: a later connection
            log.error("%s", refusal)
        self._answer(refusal)

    def received(self, message: MQTTMessage) -> None:
        """Take a message to be judged."""
        if len(message.payload) > LONGEST_TAKEN:
            self._long += 1
            if self._long.bit_count() == 1:
                log.warning(
                    "%r: %d bytes are too long for any message that is read here (%d so far)",
                    message.topic,
                    len(message.payload),
                    self._long,
                )
            return
        while self._come_bytes - self._gone_bytes > MOST_WAITING_BYTES and not self._closed:
            time.sleep(_ROOM_S)  # the broker notices that we do not read on, and keeps the rest
        self._come_bytes += len(message.payload)
        self._arrivals.put(Arrival(message.topic, bytes(message.payload), message.retain))

    def published(self, mid: int, code: ReasonCode) -> None:
        """Take the broker's answer to an incident."""
        incident = self.outgoing.answered(mid)
        if incident is None:
            return
        if not code.is_failure:
            self.outgoing.published += 1
            return
        # Not this one's fault: the next would fare no better, until somebody mends the broker.
        self._refused += 1
        self.outgoing.refused(incident)
        self._hold_until_s = time.monotonic() + _REFUSED_AGAIN_S
        if self._refused.bit_count() == 1:
            log.error(
                "broker %s: refuses our incidents (%s): let this user write %s",
                self._address,
                code,
                incident_topic(incident.site),
            )

    def turn(self) -> None:
        """Publish what waits."""
        if self._client is None or time.monotonic() < self._hold_until_s:
            return
        if self._hold_until_s:
            self._hold_until_s = 0.0
            self.outgoing.again(broken=False)
        while (incident := self.outgoing.take(self._window)) is not None:
            info = self._client.publish(incident_topic(incident.site), to_json(incident), qos=1)
            self.outgoing.sent(info.mid, incident)
            if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                return  # the connection is gone, and `disconnected` comes

    def fault(self, error: Exception) -> None:
        """Pass over it: the session has logged it."""

    def _answer(self, refusal: str | None) -> None:
        if not self._answered:
            self._answered = True
            self._answers.put(refusal)
