"""The stage of a fault: a real Mosquitto, a bad network, lives of a node, and an auditor.

The node reaches the broker through the proxy, the auditor directly. Broker, outbox and key stay
the same from life to life, so that the numbers and links go on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from node.network import PrivateBroker
from node.settings import (
    CaptureSettings,
    IntegritySettings,
    MqttSettings,
    NodeSettings,
    OutboxSettings,
    Settings,
    TimingSettings,
)
from node.types import NS_PER_S
from tests.faults.auditor import Auditor
from tests.faults.book import Book
from tests.faults.firing_range import RATE_HZ
from tests.faults.fleet import Fleet
from tests.faults.life import Plan
from tests.faults.nursery import Life, Nursery
from tests.hil.network_proxy import NetworkProxy

SPEED: Final = 30.0
SITE, NODE_ID = "faults", "node-1"
KEEPALIVE_S: Final = 5
SETTLE_S: Final = 60.0
_APART_NS: Final = 60 * NS_PER_S
_BACK_NS: Final = 48 * 3600 * NS_PER_S


class Stage:
    """A context manager.

    Parameters
    ----------
    folder
        Where everything lies.
    broker_extra
        Further lines for mosquitto.conf.
    environment
        For the lives, beside our own.
    outbox_folder
        Where the outbox lies, if elsewhere.
    user
        The auditor's name and password, where the broker asks.
    node_login
        The node's, as `name:password`.
    fleet
        Whose broker it is, as shipped: node and auditor come over TLS, with their certificates.
    speed
        Seconds of sound in a second.
    """

    def __init__(
        self,
        folder: Path,
        *,
        broker_extra: str = "",
        environment: Mapping[str, str] | None = None,
        outbox_folder: Path | None = None,
        user: str | None = None,
        node_login: str = "",
        fleet: Fleet | None = None,
        speed: float = SPEED,
    ) -> None:
        self.folder = folder
        self._speed = speed
        self.book = Book()
        self.lives: list[Life] = []
        self.outbox_file = (outbox_folder or folder) / "outbox.sqlite3"
        self.broker_folder = folder / "broker"
        self._fleet = fleet
        extra = broker_extra if fleet is None else fleet.configuration
        self.broker = PrivateBroker(self.broker_folder, extra)
        self._environment = environment
        self._user = user
        self._login = f"{node_login}@" if node_login else ""
        self._stack = ExitStack()
        self._utc_ns = time.time_ns() - _BACK_NS
        self._began_s = time.monotonic()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self.broker)
            port = self.broker.port if self._fleet is None else self._fleet.port
            self.proxy = stack.enter_context(NetworkProxy(port))
            self.auditor = stack.enter_context(
                Auditor(port, self.book.take, user=self._user, fleet=self._fleet)
            )
            self._nursery = stack.enter_context(Nursery(self.folder / "lives", self._environment))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def settings(self) -> Settings:
        """Give the node's settings: as shipped, but for what makes a fault pass quickly."""
        tls = {} if self._fleet is None else self._fleet.files()
        return Settings(
            node=NodeSettings(id=NODE_ID, site=SITE),
            capture=CaptureSettings(channels=1, sample_rate_hz=RATE_HZ),
            timing=TimingSettings(chrony=False),
            outbox=OutboxSettings(path=self.outbox_file),
            integrity=IntegritySettings(key_file=self.folder / "node.key"),
            mqtt=MqttSettings(
                url=f"{'mqtts' if tls else 'mqtt'}://{self._login}127.0.0.1:{self.proxy.port}",
                keepalive_s=KEEPALIVE_S,
                reconnect_max_s=1,
                **tls,
            ),
        )

    def live(self, *, silent: bool = False) -> Life:
        """Begin a life; its UTC lies after all that lives before it have heard."""
        now_s = time.monotonic()
        self._utc_ns += round((now_s - self._began_s) * self._speed * NS_PER_S) + _APART_NS
        self._began_s = now_s
        plan = Plan(
            settings=self.settings().model_dump_json(),
            shift_ns=self._utc_ns - time.time_ns(),
            speed=self._speed,
            silent=silent,
        )
        life = self._nursery.begin(plan, self.book.stir)
        self.lives.append(life)
        return life

    def wait_until_heard(self, life: Life, count: int = 1, seconds: float = 30.0) -> None:
        """Wait until a life has made so many messages durable, and one has come."""
        came = self.book.wait(
            lambda: (
                len(life.durable_s) >= count and self.book.copies.keys() & life.durable_s.keys()
            ),
            seconds,
        )
        assert came, f"nothing came of a life: {life.log.read_text()[-2000:]}"

    def catch_up(self, seconds: float = SETTLE_S) -> bool:
        """Wait until all that is durable by now has come; say whether it has."""
        durable = {key for life in self.lives for key in list(life.durable_s)}
        return self.book.wait(lambda: not durable - self.book.copies.keys(), seconds)

    def settle(self, seconds: float = SETTLE_S) -> bool:
        """Have what the dead left behind sent by lives that hear nothing; say whether all came."""
        if not self.book.missing(self.lives):
            return True
        life = self.live(silent=True)
        came = self.catch_up(seconds)
        life.end()
        return came
