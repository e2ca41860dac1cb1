"""A connection to a broker that is made again for ever, on one thread of its own.

The publisher and the subscriber build on it: they hand in a handler, whose methods are called on
the session's thread, never two at once. Each connection gets a fresh paho client, so nothing of
paho's own queue, which lives in memory, outlasts a connection: what must not be lost is kept by
the outbox, and sent again from there.

The thread turns paho's network loop itself (`loop_read`, `loop_write`, `loop_misc`), so that a
fault in a callback can be caught, counted and told, and cannot end the thread unseen.
"""

import contextlib
import logging
import os
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from paho.mqtt.client import Client
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from node.deliver.address import BrokerAddress, explain, explain_end, explain_refusal, new_client
from node.deliver.handler import Clock, Loss, SessionHandler, SessionOptions, Will
from node.deliver.tls import TlsWatch
from node.errors import BrokerError

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
FIRST_PAUSE_S: Final = 1.0
# A connection that held this long was a good one: the next pause is a short one again. Shorter
# ones (two nodes of one name that throw each other out) must not turn into a busy loop.
_GOOD_AFTER_S: Final = 10.0
_SUSPICIOUS: Final = 3
_TICK_S: Final = 1.0
_LOOK_AT_FILES_S: Final = 5.0
_PROBE_S: Final = 1.0
_LONGEST_STAY_S: Final = 3600.0
_HEAR_OUT_S: Final = 1.0
_MUCH: Final = 2**16

_MALFORMED: Final = 0x81
_PROTOCOL_ERROR: Final = 0x82
_TAKEN_OVER: Final = 0x8E
_TOO_LARGE: Final = 0x95
_BAD_PAYLOAD: Final = 0x99
_FAULTS_OF_A_MESSAGE: Final = (_MALFORMED, _PROTOCOL_ERROR, _TOO_LARGE, _BAD_PAYLOAD)


class Session:
    """Hold a connection to a broker, for ever, until `stop`.

    Parameters
    ----------
    address
        The broker, or several in order of preference: the next is tried when one cannot be
        reached; the preferred one is come back to once it answers again.
    client_id
        Our name there. One name can be connected once: a second connection ends the first.
    handler
        See `SessionHandler`.
    will
        Called before each connection; None for a session without a last will.
    clock
        To judge certificates' dates by. While it is not trusted and evidently wrong, no TLS is
        tried. Without one nothing is judged here.
    """

    def __init__(
        self,
        address: BrokerAddress | Sequence[BrokerAddress],
        client_id: str,
        handler: SessionHandler,
        options: SessionOptions,
        will: Callable[[], Will] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._addresses = (address,) if isinstance(address, BrokerAddress) else tuple(address)
        self._address = self._addresses[0]
        self._clock = clock
        self._client_id = client_id
        self._handler = handler
        self._options = options
        self._will = will
        self._accepted = False
        self._loss: Loss | None = None
        self._taken_over = self._leaving = self._useless = False
        self._preferred_loss = ""
        self._stay_s = options.return_s
        self._files = TlsWatch()
        self._stop = threading.Event()
        self._ear, self._bell = socket.socketpair()
        self._ear.setblocking(False)
        self._bell.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{client_id}", daemon=True)

    @property
    def address(self) -> BrokerAddress:
        """The broker that is connected to, or tried."""
        return self._address

    def warnings(self) -> tuple[str, ...]:
        """Give sentences on what goes well now and needs a hand all the same; from any thread."""
        address = self._address
        elsewhere = (
            (f"broker {address} is used, since the preferred one fails: {self._preferred_loss}",)
            if address != self._addresses[0] and self._preferred_loss
            else ()
        )
        utc_ns = None if self._clock is None else self._clock.utc_now_ns()
        return (*elsewhere, *self._files.warnings(utc_ns))

    def start(self) -> None:
        """Start the thread; returns at once, connected or not."""
        self._thread.start()

    def wake(self) -> None:
        """Have the handler take its turn soon; from any thread."""
        # A full pipe means that a call is under way; a closed one, that nobody is there to hear.
        with contextlib.suppress(OSError):
            self._bell.send(b"!")

    def leave_useless(self, why: str) -> None:
        """End this connection, since the broker does not do its part; by the handler's `turn`.

        It counts as a failed one, however long it stood: the last will is said, and the next try
        is at the next broker, or comes after a pause that grows.
        """
        self._useless = True
        self._lose(why)

    def stop(self, timeout_s: float = 3.0) -> None:
        """Disconnect cleanly (the last will is not spoken), and end the thread."""
        self._stop.set()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._hang_up()

    def _hang_up(self) -> None:
        self._ear.close()
        self._bell.close()

    def _run(self) -> None:
        try:
            self._connect_for_ever()
        finally:
            # `stop` does not wait for a connection in the making, which may take longer.
            if self._stop.is_set():
                self._hang_up()

    def _connect_for_ever(self) -> None:
        short_ones = place = 0
        told = ""
        while not self._stop.is_set():
            self._address = self._addresses[place]
            begun_s = time.monotonic()
            loss = self._connect_and_serve()
            if self._stop.is_set():
                break
            if place == 0:
                self._preferred_loss = loss.sentence
            lasted_s = time.monotonic() - begun_s if self._accepted else 0.0
            was_good = lasted_s >= _GOOD_AFTER_S and not (self._taken_over or self._useless)
            if was_good or self._leaving:
                short_ones = place = 0
            else:
                short_ones += 1
                place = (place + 1) % len(self._addresses)
            if self._accepted and short_ones >= _SUSPICIOUS and not self._useless:
                # Brokers need not say that another client took our place; many do not.
                loss = replace(
                    loss,
                    sentence=f"{loss.sentence}; time and again: see that no other client is called "
                    f"{self._client_id}",
                    taken_over=True,
                )
            if loss.sentence != told:  # an hour without a broker is one line, not a hundred
                told = loss.sentence
                log.warning("%s", told)
            self._call(self._handler.disconnected, loss)
            if self._leaving:
                continue
            # Others in the list are tried at once; the pause comes when all have failed.
            if self._accepted or place == 0:
                rounds = -(-short_ones // len(self._addresses))
                self._pause(backoff_s(rounds, self._options.reconnect_max_s))

    def _pause(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while not self._stop.is_set() and (left_s := until_s - time.monotonic()) > 0:
            self._wait([], min(left_s, _TICK_S))
            if self._files.changed():
                return  # what was wrong may be mended

    def _connect_and_serve(self) -> Loss:
        """Make one connection and serve it until it ends; say why it ended."""
        self._accepted = self._taken_over = self._leaving = self._useless = False
        self._loss = None
        client: Client | None = None
        try:
            if doubt := self._clock_doubt():
                return Loss(f"broker {self._address}: {doubt}")
            client = self._new_client()
            self._connect(client)
            self._serve(client)
        except BrokerError as error:
            return Loss(f"broker {self._address}: {error}")
        except (OSError, ValueError) as error:
            return Loss(f"broker {self._address}: {explain(error)}")
        except Exception as error:
            log.exception("fault in the session with %s", self._address)
            self._call(self._handler.fault, error)
            # paho raises where it cannot read an answer, such as one to a message it dislikes.
            return Loss(f"broker {self._address}: {error!r}", blames_message=self._accepted)
        finally:
            if client is not None:
                # One who goes to come back leaves the last will to be said, should that fail.
                _close(client, politely=not (self._leaving or self._useless))
        return self._told_loss()

    def _clock_doubt(self) -> str:
        """Say why TLS would only fail on the clock; nothing if it may be tried.

        A disciplined clock is believed. So is one that nothing disciplines, unless it is evidently
        wrong: a node with neither receiver nor network time is not kept waiting for them.
        """
        if self._clock is None or self._address.tls is None or self._clock.trusted():
            return ""
        return self._address.tls.clock_doubt(self._clock.utc_now_ns())

    def _serve(self, client: Client) -> None:
        give_up_s = time.monotonic() + CONNECT_TIMEOUT_S
        look_again_s = time.monotonic() + _LOOK_AT_FILES_S
        stay_until_s = time.monotonic() + self._stay_s
        while (sock := client.socket()) is not None:
            if self._stop.is_set():
                return
            now_s = time.monotonic()
            if not self._accepted and now_s > give_up_s:
                self._lose("does not answer as an MQTT broker: is it one, and of this port?")
                return
            if now_s > look_again_s:
                look_again_s = now_s + _LOOK_AT_FILES_S
                if self._files.renewed():
                    self._leave("certificates have changed: connecting anew with them")
                    return
            if now_s > stay_until_s and self._address != self._addresses[0]:
                stay_until_s = now_s + self._stay_s
                if _answers(self._addresses[0]):
                    # Should it answer and then not serve us, the next look is later.
                    self._stay_s = min(2 * self._stay_s, _LONGEST_STAY_S)
                    self._leave(f"the preferred broker {self._addresses[0]} answers again")
                    return
            # TLS may hold bytes that select does not see.
            held = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
            writers: list[Any] = [sock] if client.want_write() else []
            readable = self._wait([sock], 0.0 if held else _TICK_S, writers)
            code = client.loop_read() if held or readable else MQTTErrorCode.MQTT_ERR_SUCCESS
            if code == MQTTErrorCode.MQTT_ERR_PROTOCOL:
                self._lose("sent an answer that cannot be read", blames_message=True)
            if client.want_write():
                client.loop_write()
            client.loop_misc()
            if self._accepted and client.socket() is not None:
                self._call(self._handler.turn)
            if self._useless:
                return

    def _leave(self, why: str) -> None:
        self._leaving = True
        self._lose(why)

    def _wait(self, readers: list[Any], timeout_s: float, writers: list[Any] | None = None) -> bool:
        """Wait until a reader is ready, a writer is, or someone has rung; True for a reader."""
        ready, _, _ = select.select([self._ear, *readers], writers or [], [], timeout_s)
        if self._ear in ready:
            with contextlib.suppress(BlockingIOError):
                self._ear.recv(4096)
        return any(reader in ready for reader in readers)

    def _new_client(self) -> Client:
        client = new_client(
            self._address,
            self._files.read(self._address.tls),
            CONNECT_TIMEOUT_S,
            self._client_id,
            clean_start=self._options.clean_start,
        )
        client.max_inflight_messages_set(0)  # the handler bounds what is in flight
        if self._will is not None:
            will = self._will()
            client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = lambda _c, _u, mid, code, _p: self._call(
            self._handler.published, mid, code
        )
        client.on_message = lambda _c, _u, message: self._call(self._handler.received, message)
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._call(
            self._handler.subscribed, codes
        )
        return client

    def _connect(self, client: Client) -> None:
        host, port, keepalive_s = self._address.host, self._address.port, self._options.keepalive_s
        if self._address.protocol != "5":
            client.connect(host, port, keepalive_s)
            return
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = self._options.session_expiry_s
        client.connect(
            host,
            port,
            keepalive_s,
            clean_start=self._options.clean_start,
            properties=properties,
        )

    def _on_connect(
        self, client: Client, _data: object, _flags: object, code: ReasonCode, p: Properties | None
    ) -> None:
        if code.is_failure:
            let_in = f", and that the broker lets the client {self._client_id} in"
            self._lose(explain_refusal(code, let_in))
            return
        self._accepted = True
        if self._address == self._addresses[0]:
            self._preferred_loss = ""
        log.info("connected to %s as %s", self._address, self._client_id)
        if self._address.protocol != "5":
            log.info(
                "%s cannot say in MQTT %s what it does not let %s publish: see by `gunfire-node "
                "watch` that all arrives",
                self._address,
                self._address.protocol,
                self._client_id,
            )
        self._call(self._handler.connected, client, p)

    def _on_disconnect(
        self, _client: Client, _data: object, _flags: object, code: ReasonCode, _p: object
    ) -> None:
        if code.value == _TAKEN_OVER:
            self._taken_over = True
            self._lose(
                f"another client came as {self._client_id} and took our place: give each node a "
                "node.id of its own"
            )
        else:
            self._lose(
                explain_end(self._address, code, accepted=self._accepted),
                blames_message=code.value in _FAULTS_OF_A_MESSAGE and self._accepted,
            )

    def _told_loss(self) -> Loss:
        loss = self._loss or Loss(f"broker {self._address}: closed the connection")
        return replace(loss, taken_over=self._taken_over)

    def _lose(self, sentence: str, blames_message: bool = False) -> None:
        if self._loss is None:  # the first reason is the cause, those after it its effects
            self._loss = Loss(f"broker {self._address}: {sentence}", blames_message)

    def _call(self, method: Callable[..., None], *arguments: object) -> None:
        """Call the handler; what it raises is told, and ends nothing."""
        try:
            method(*arguments)
        except Exception as error:
            log.exception("fault in %s", getattr(method, "__qualname__", method))
            if method != self._handler.fault:
                self._call(self._handler.fault, error)


def backoff_s(attempt: int, longest_s: float) -> float:
    """Give the pause before another try: doubling from one second, jittered by half.

    The jitter spreads the nodes of a city that all lost the same broker.
    """
    longest = min(longest_s, FIRST_PAUSE_S * 2.0 ** min(max(attempt - 1, 0), 30))
    return longest * random.uniform(0.5, 1.0)


def _answers(address: BrokerAddress) -> bool:
    """Say whether anything listens there."""
    try:
        socket.create_connection((address.host, address.port), _PROBE_S).close()
    except OSError:
        return False
    return True


def _close(client: Client, *, politely: bool) -> None:
    sock = client.socket()
    if sock is None:
        return
    if politely:
        with (
            contextlib.suppress(OSError, ValueError),
            socket.socket(fileno=os.dup(sock.fileno())) as line,
        ):
            client.disconnect()
            if client.want_write():
                client.loop_write()
            _hear_out(line)
    sock.close()


def _hear_out(line: socket.socket) -> None:
    """Take what the broker still sends, and leave it: until it hangs up, but not for long.

    A line that is closed with words unread is reset, and with it goes what we said last: that
    messages have come, which the broker would then send again to who comes back by our name.
    """
    line.shutdown(socket.SHUT_WR)
    until_s = time.monotonic() + _HEAR_OUT_S
    while (left_s := until_s - time.monotonic()) > 0:
        line.settimeout(left_s)
        if not line.recv(_MUCH):
            return
