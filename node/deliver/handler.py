"""What a session is told, and whom it tells: the terms between it and those who build on it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker is to publish, retained, should we vanish."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Loss:
    """Why there is no connection.

    Attributes
    ----------
    sentence
        What happened, and what to do.
    blames_message
        Whether a message that we sent was to blame.
    taken_over
        Whether another client came by our name, or seems to: who is let in is cut off again.
    """

    sentence: str
    blames_message: bool = False
    taken_over: bool = False


class SessionHandler(Protocol):
    """What a user of the session does; every method is called on the session's thread."""

    def connected(self, client: Client, properties: Properties | None) -> None:
        """Begin: the broker has accepted us; `properties` are those of its CONNACK."""

    def disconnected(self, loss: Loss) -> None:
        """Note that the connection is gone or could not be made; another try follows."""

    def published(self, mid: int, code: ReasonCode) -> None:
        """Take the broker's answer to a message that we published."""

    def received(self, message: MQTTMessage) -> None:
        """Take a message that has come."""

    def subscribed(self, codes: list[ReasonCode]) -> None:
        """Take the broker's answer to a subscription."""

    def turn(self) -> None:
        """Do what there is to do: after anything has happened, and at least once a second."""

    def fault(self, error: Exception) -> None:
        """Tell that one of these methods raised: a defect of ours."""


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session is held.

    A publisher keeps the defaults: with `clean_start` and no expiry the broker remembers nothing
    of us between connections, which is right, since our outbox does. A subscriber that must miss
    nothing while it is away sets both otherwise.
    """

    keepalive_s: int = 30
    reconnect_max_s: float = 60.0
    clean_start: bool = True
    session_expiry_s: int = 0
    return_s: float = 300.0
    """How long to stay with another broker before the preferred one is looked for again."""


@dataclass(frozen=True, slots=True)
class Clock:
    """What a session knows of the time: UTC (ns), and whether something disciplines it."""

    utc_now_ns: Callable[[], int]
    trusted: Callable[[], bool] = lambda: False
