"""A subscriber that the broker remembers, independent of the node's own code: paho alone.

It keeps every payload as it came, with the moment. Its session outlives its connection, so what
comes while the broker is away or it is cut off comes later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.faults.fleet import Fleet

REMEMBERED_S: Final = 86_400


@dataclass(frozen=True)
class Heard:
    """One message as it came, CLOCK_MONOTONIC in s."""

    topic: str
    payload: bytes
    at_s: float

    @property
    def kind(self) -> str:
        return self.topic.rpartition("/")[2]


class Auditor:
    """All detections, checkpoints and words of nodes at a broker; a context manager.

    Parameters
    ----------
    port
        Of the broker, on loopback.
    heard
        Called after each message, on paho's thread.
    user
        Name and password, where the broker asks.
    fleet
        Whose certificate to come with, where the broker asks.
    """

    def __init__(
        self,
        port: int,
        heard: Callable[[Heard], None],
        *,
        client_id: str = "auditor",
        user: str | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        self._port = port
        self._heard = heard
        self._subscribed = threading.Event()
        self._client = client = Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
        )
        client.username_pw_set(user, user)
        if fleet is not None:
            ours = fleet.auditor
            client.tls_set(str(fleet.ca_file), str(ours.certificate), str(ours.key))
        client.reconnect_delay_set(0.2, 0.5)
        client.on_connect = lambda *_: client.subscribe("gunfire/v1/#", qos=1)
        client.on_subscribe = lambda *_: self._subscribed.set()
        client.on_message = self._on_message

    def connect(self) -> None:
        """Connect, and go on connecting for ever."""
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = REMEMBERED_S
        self._client.connect(
            "127.0.0.1", self._port, keepalive=60, clean_start=False, properties=properties
        )
        self._client.loop_start()

    def leave(self) -> None:
        """Go away; the broker keeps what comes meanwhile."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        self.connect()
        assert self._subscribed.wait(15)
        return self

    def __exit__(self, *exc: object) -> None:
        self.leave()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._heard(Heard(message.topic, bytes(message.payload), time.monotonic()))
