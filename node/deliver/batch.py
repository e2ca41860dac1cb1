"""Publishes a batch of messages and returns when the broker has them all: for replays.

Beside the publisher, which serves a node for ever, this is a single errand: what goes wrong is
the caller's to hear of at once.
"""

import threading
from collections.abc import Iterable
from typing import Final, Self

from paho.mqtt.reasoncodes import ReasonCode

from node.deliver.address import BrokerAddress, explain, explain_end, explain_refusal, new_client
from node.errors import BrokerError

CONNECT_S: Final = 10
ANSWER_S: Final = 30.0
_KEEP_ALIVE_TIMEOUT: Final = 0x8D


def check_broker(address: BrokerAddress) -> None:
    """Connect and disconnect, so that a long errand need not end in finding no broker.

    Raises
    ------
    BrokerError
        The broker cannot be reached, does not answer within ten seconds, or refuses us.
    """
    with _Errand(address):
        pass


def publish_batch(address: BrokerAddress, messages: Iterable[tuple[str, bytes]]) -> int:
    """Publish (topic, payload) pairs with QoS 1, in order; give how many there were.

    Raises
    ------
    BrokerError
        The broker cannot be reached, does not answer, or refuses us or a message; nothing is
        published before it has let us in.
    """
    with _Errand(address) as errand:
        return errand.publish(messages)


class _Errand:
    """One connection, made on entering; paho's thread reports, the caller's waits."""

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._news = threading.Condition()
        self._accepted = False
        self._loss: str | None = None
        self._answers = 0
        self._refusals: list[str] = []
        context = None if address.tls is None else address.tls.context()
        self._client = client = new_client(address, context, CONNECT_S)
        client.on_connect = lambda _c, _u, _f, code, _p: self._on_connect(code)
        client.on_disconnect = lambda _c, _u, _f, code, _p: self._on_disconnect(code)
        client.on_publish = lambda _c, _u, _m, code, _p: self._on_publish(code)

    def publish(self, messages: Iterable[tuple[str, bytes]]) -> int:
        """Send all, and wait until each is answered."""
        count = 0
        try:
            for topic, payload in messages:
                self._client.publish(topic, payload, qos=1)
                count += 1
        except ValueError as error:
            raise self._error(f"a message cannot be published ({error})") from error
        with self._news:
            self._news.wait_for(lambda: self._loss or self._answers >= count, ANSWER_S)
            if self._refusals:
                raise self._error(
                    f"refused {len(self._refusals)} of {count} messages ({self._refusals[0]}): "
                    "check user, password and access list"
                )
            if self._answers < count:
                raise self._error(self._loss or f"did not acknowledge all within {ANSWER_S:g} s")
        return count

    def __enter__(self) -> Self:
        try:
            # paho waits for the handshake of TLS as long as the keep-alive.
            self._client.connect(self._address.host, self._address.port, keepalive=CONNECT_S)
        except (OSError, ValueError) as error:
            raise self._error(explain(error)) from error
        self._client.loop_start()
        with self._news:
            self._news.wait_for(lambda: self._loss or self._accepted, CONNECT_S)
            loss = None if self._accepted else self._loss or explain(TimeoutError())
        if loss is not None:
            self.__exit__()
            raise self._error(loss)
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _error(self, sentence: str) -> BrokerError:
        return BrokerError(f"broker {self._address}: {sentence}")

    # What follows is called on paho's thread.

    def _on_connect(self, code: ReasonCode) -> None:
        if code.is_failure:
            self._lose(explain_refusal(code))
            return
        with self._news:
            self._accepted = True
            self._news.notify_all()

    def _on_disconnect(self, code: ReasonCode) -> None:
        if code.value == _KEEP_ALIVE_TIMEOUT and not self._accepted:
            self._lose(explain(TimeoutError()))  # paho's own deadline, a moment before ours
        else:
            self._lose(explain_end(self._address, code, accepted=self._accepted))

    def _on_publish(self, code: ReasonCode) -> None:
        with self._news:
            self._answers += 1
            if code.is_failure:
                self._refusals.append(str(code))
            self._news.notify_all()

    def _lose(self, sentence: str) -> None:
        with self._news:
            self._loss = self._loss or sentence  # the first reason is the cause
            self._news.notify_all()
