"""The broker as provisioning/broker/ sets it up: who gets in, who may say and read what.

A real Mosquitto runs on the very files that are shipped; only folders and ports are others.
"""

import contextlib
import datetime as dt
import queue
import signal
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hil.fleet_ca import DAY, Files, FleetCa
from hil.shipped_broker import WAIT_S, ShippedBroker
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from node.deliver import BrokerAddress
from node.deliver.batch import check_broker
from node.errors import BrokerError

SILENCE_S = 1.0
KINDS = ("detection", "status", "health", "node", "checkpoint", "snippet")

pytestmark = [
    # paho leaves the socket of a failed handshake to the garbage collector, which says so.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket"),
]


def shipped_broker(folder: Path, ca: FleetCa) -> ShippedBroker:
    own = ca.issue("broker", addresses=["127.0.0.1"])
    return ShippedBroker(
        folder,
        ca=ca.certificate_file,
        crl=ca.crl_file,
        certificate=own.certificate,
        key=own.key,
    )


class Party:
    """A client of MQTT 5 that says whether it was let in, and to publish; and keeps what comes."""

    def __init__(
        self, broker: ShippedBroker, ca: FleetCa, files: Files, name: str, *,
        keep_s: int = 0, websockets: bool = False,
    ) -> None:  # fmt: skip
        self.received: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._client = client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=MQTTProtocolVersion.MQTTv5,
            transport="websockets" if websockets else "tcp",
        )
        client.on_connect = lambda _c, _u, _f, code, _p: self._answers.put(str(code))
        client.on_publish = lambda _c, _u, _m, code, _p: self._answers.put(str(code))
        client.on_subscribe = lambda _c, _u, _m, codes, _p: self._answers.put(str(codes[0]))
        client.on_message = lambda _c, _u, m: self.received.put((m.topic, bytes(m.payload)))
        client.tls_set(str(ca.certificate_file), str(files.certificate), str(files.key))
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = keep_s
        port = broker.websockets_port if websockets else broker.port
        client.connect("127.0.0.1", port, clean_start=keep_s == 0, properties=properties)
        client.loop_start()
        assert self._answer() == "Success"

    def subscribe(self, topic: str) -> str:
        self._client.subscribe(topic, qos=1)
        return self._answer()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> str:
        self._client.publish(topic, payload, qos=1, retain=retain)
        return self._answer()

    def hears(self, seconds: float = WAIT_S) -> tuple[str, bytes] | None:
        with contextlib.suppress(queue.Empty):
            return self.received.get(timeout=seconds)
        return None

    def _answer(self) -> str:
        return self._answers.get(timeout=WAIT_S)

    def __enter__(self) -> "Party":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> FleetCa:
    return FleetCa(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="module")
def people(ca: FleetCa) -> dict[str, Files]:
    names = ("node-a", "node-b", "operator", "map", "auditor", "evidence", "stolen")
    return {name: ca.issue(name) for name in names}


@pytest.fixture(scope="module")
def broker(
    tmp_path_factory: pytest.TempPathFactory, ca: FleetCa, people: dict[str, Files]
) -> Iterator[ShippedBroker]:
    ca.revoke(people["stolen"].certificate)
    running = shipped_broker(tmp_path_factory.mktemp("broker"), ca)
    running.start()
    yield running
    running.end()


def address(broker: ShippedBroker, ca: FleetCa, files: Files | None) -> BrokerAddress:
    return BrokerAddress.from_url(
        f"mqtts://127.0.0.1:{broker.port}",
        ca_file=ca.certificate_file,
        cert_file=None if files is None else files.certificate,
        key_file=None if files is None else files.key,
    )


def test_a_node_of_the_fleet_is_let_in(
    broker: ShippedBroker, ca: FleetCa, people: dict[str, Files]
) -> None:
    check_broker(address(broker, ca, people["node-a"]))


def test_a_client_without_a_certificate_is_refused(broker: ShippedBroker, ca: FleetCa) -> None:
    with pytest.raises(BrokerError):
        check_broker(address(broker, ca, None))


def test_a_client_of_another_ca_is_refused(
    broker: ShippedBroker, ca: FleetCa, tmp_path: Path
) -> None:
    stranger = FleetCa(tmp_path / "stranger", name="fleet CA").issue("node-a")
    with pytest.raises(BrokerError):
        check_broker(address(broker, ca, stranger))


def test_an_expired_client_is_refused(broker: ShippedBroker, ca: FleetCa) -> None:
    now = dt.datetime.now(dt.UTC)
    old = ca.issue("node-a", file_name="old", not_before=now - 9 * DAY, not_after=now - DAY)
    with pytest.raises(BrokerError):
        check_broker(address(broker, ca, old))


def test_a_client_that_is_not_yet_valid_is_refused(broker: ShippedBroker, ca: FleetCa) -> None:
    early = ca.issue("node-a", file_name="early", not_before=dt.datetime.now(dt.UTC) + DAY)
    with pytest.raises(BrokerError):
        check_broker(address(broker, ca, early))


def test_a_revoked_client_is_refused(
    broker: ShippedBroker, ca: FleetCa, people: dict[str, Files]
) -> None:
    with pytest.raises(BrokerError):
        check_broker(address(broker, ca, people["stolen"]))


def test_a_client_that_is_revoked_while_the_broker_runs_is_refused_after_a_reload(
    broker: ShippedBroker, ca: FleetCa
) -> None:
    lost = ca.issue("node-lost")
    check_broker(address(broker, ca, lost))
    ca.revoke(lost.certificate)
    broker.reload()
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s:
        try:
            check_broker(address(broker, ca, lost))
        except BrokerError:
            return
    pytest.fail("it is let in all the same")


def test_a_server_of_another_ca_is_not_spoken_to(
    broker: ShippedBroker, people: dict[str, Files], tmp_path: Path
) -> None:
    other = FleetCa(tmp_path / "other")
    with pytest.raises(BrokerError, match="certificate is not accepted"):
        check_broker(address(broker, other, people["node-a"]))


def test_a_client_that_speaks_no_newer_tls_than_1_1_is_refused(
    broker: ShippedBroker, ca: FleetCa, people: dict[str, Files]
) -> None:
    context = ssl.create_default_context(cafile=str(ca.certificate_file))
    context.load_cert_chain(people["node-a"].certificate, people["node-a"].key)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # that such versions are out of date
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", broker.port), timeout=WAIT_S) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_publishes_its_own_words_and_no_others(
    kind: str, broker: ShippedBroker, ca: FleetCa, people: dict[str, Files]
) -> None:
    with Party(broker, ca, people["node-a"], "node-a") as node:
        assert node.publish(f"gunfire/v1/site/node-b/{kind}", b"forged") == "Not authorized"
        said = node.publish(f"gunfire/v1/site/node-a/{kind}", b"mine")
        assert said in ("Success", "No matching subscribers")
        assert node.publish("gunfire/v1/site/incident", b"forged") == "Not authorized"
        assert node.publish(f"gunfire/v1/site/node-a/{kind}/more", b"x") == "Not authorized"
        assert node.publish("gunfire/v1/site/node-a/command", b"x") == "Not authorized"


@pytest.mark.parametrize(
    ("who", "reads"),
    [
        ("node-b", {"status"}),
        ("operator", {"detection", "status", "health", "node", "checkpoint"}),
        ("map", {"detection", "status", "health", "node"}),
        ("auditor", {"detection", "status", "node", "checkpoint"}),
        ("evidence", {"status", "snippet"}),
    ],
)
def test_each_reads_what_it_may_and_no_more(
    who: str, reads: set[str], broker: ShippedBroker, ca: FleetCa, people: dict[str, Files]
) -> None:
    with (
        Party(broker, ca, people["node-a"], "node-a") as node,
        Party(broker, ca, people[who], f"{who}-reads") as party,
    ):
        party.subscribe("gunfire/v1/#")
        for kind in KINDS:
            party.subscribe(f"gunfire/v1/+/+/{kind}")
            node.publish(f"gunfire/v1/site/node-a/{kind}", f"{who} {kind}".encode())
        heard = set()
        while (word := party.hears(SILENCE_S)) is not None:
            topic, payload = word
            if payload.startswith(who.encode()):
                heard.add(topic.rpartition("/")[2])
        assert heard == reads


def test_nobody_can_take_anothers_place_or_what_waits_for_it_by_its_client_id(
    broker: ShippedBroker, ca: FleetCa, people: dict[str, Files]
) -> None:
    with Party(broker, ca, people["auditor"], "auditor", keep_s=3600) as auditor:
        auditor.subscribe("gunfire/v1/+/+/detection")
    with Party(broker, ca, people["node-a"], "node-a") as node:
        node.publish("gunfire/v1/site/node-a/detection", b"waits for the auditor")
    with (
        Party(broker, ca, people["operator"], "operator") as operator,
        Party(broker, ca, people["node-b"], "auditor"),
        Party(broker, ca, people["node-a"], "operator") as node,
    ):
        operator.subscribe("gunfire/v1/+/+/health")
        node.publish("gunfire/v1/site/node-a/health", b"still here")
        assert operator.hears() == ("gunfire/v1/site/node-a/health", b"still here")
    with Party(broker, ca, people["auditor"], "auditor", keep_s=3600) as auditor:
        assert auditor.hears() == (
            "gunfire/v1/site/node-a/detection", b"waits for the auditor",
        )  # fmt: skip


def test_incidents_are_the_operators_to_publish(
    broker: ShippedBroker, ca: FleetCa, people: dict[str, Files]
) -> None:
    with (
        Party(broker, ca, people["operator"], "operator-writes") as operator,
        Party(broker, ca, people["auditor"], "auditor-reads") as auditor,
    ):
        auditor.subscribe("gunfire/v1/+/incident")
        assert auditor.publish("gunfire/v1/site/incident", b"forged") == "Not authorized"
        assert operator.publish("gunfire/v1/site/incident", b"true") == "Success"
        assert auditor.hears() == ("gunfire/v1/site/incident", b"true")


def test_a_browsers_websocket_hears_detections_with_a_certificate_and_not_without(
    broker: ShippedBroker, ca: FleetCa, people: dict[str, Files]
) -> None:
    with (
        Party(broker, ca, people["map"], "map", websockets=True) as browser,
        Party(broker, ca, people["node-a"], "node-a") as node,
    ):
        browser.subscribe("gunfire/v1/+/+/detection")
        node.publish("gunfire/v1/site/node-a/detection", b"heard")
        assert browser.hears() == ("gunfire/v1/site/node-a/detection", b"heard")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        ask_for_a_websocket(broker, ca)


def ask_for_a_websocket(broker: ShippedBroker, ca: FleetCa) -> bytes:
    """Ask without a certificate; TLS 1.3 tells of a refusal at the first read only."""
    context = ssl.create_default_context(cafile=str(ca.certificate_file))
    where = ("127.0.0.1", broker.websockets_port)
    with (
        socket.create_connection(where, timeout=WAIT_S) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as stream,
    ):
        stream.sendall(b"GET /mqtt HTTP/1.1\r\n\r\n")
        return stream.recv(1)


def test_what_was_acknowledged_outlives_the_brokers_violent_death(
    tmp_path: Path, ca: FleetCa, people: dict[str, Files]
) -> None:
    own = shipped_broker(tmp_path, ca)
    own.start()
    try:
        with Party(own, ca, people["auditor"], "log", keep_s=3600) as auditor:
            auditor.subscribe("gunfire/v1/+/+/detection")
        with Party(own, ca, people["node-a"], "node-a") as node:
            for number in range(200):
                said = node.publish("gunfire/v1/site/node-a/detection", str(number).encode())
                assert said == "Success"
            # A node keeps what was acknowledged for two seconds more; so much later it is on disk.
            kept = tmp_path / "kept" / "mosquitto.db"
            until_s = time.monotonic() + WAIT_S
            while time.monotonic() < until_s and b"199" not in kept.read_bytes():
                time.sleep(0.05)
        own.end(signal.SIGKILL)
        own.start()
        with Party(own, ca, people["auditor"], "log", keep_s=3600) as auditor:
            heard = [auditor.hears() for _ in range(200)]
        assert [payload for _, payload in filter(None, heard)] == [
            str(number).encode() for number in range(200)
        ]
    finally:
        own.end()
