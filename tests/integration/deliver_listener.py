"""A subscriber that keeps all it hears just as it came, for the delivery tests."""

import threading
from collections.abc import Callable
from typing import Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.subscribeoptions import SubscribeOptions


class Listener:
    """Everything on some topics at a broker on loopback; a context manager."""

    def __init__(self, port: int, topics: str = "#") -> None:
        self._news = threading.Condition()
        self._subscribed = False
        self.heard: list[MQTTMessage] = []
        self._port = port
        self._client = client = Client(
            CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5
        )
        options = SubscribeOptions(qos=1, retainAsPublished=True)
        client.on_connect = lambda *_: client.subscribe(topics, options=options)
        client.on_subscribe = lambda *_: self._note(None)
        client.on_message = lambda _c, _u, message: self._note(message)

    def on(self, topic: str) -> list[bytes]:
        """Give the payloads that came on a topic, in order."""
        return [bytes(message.payload) for message in self.heard if message.topic == topic]

    def wait(self, claim: Callable[[], object], seconds: float = 15.0) -> bool:
        """Wait until a claim holds, looked at after each message; say whether it came to."""
        with self._news:
            return bool(self._news.wait_for(claim, seconds))

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self.wait(lambda: self._subscribed)
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _note(self, message: MQTTMessage | None) -> None:
        with self._news:
            if message is None:
                self._subscribed = True
            else:
                self.heard.append(message)
            self._news.notify_all()
