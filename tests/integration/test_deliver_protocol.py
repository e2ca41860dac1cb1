"""MQTT 3.1.1 as well as 5, two nodes of one name, and messages that a node must not act on.

With a real Mosquitto, and a real nats-server where it is installed.
"""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from deliver_listener import Listener
from deliver_node import (
    DETECTION_TOPIC,
    NODE_ID,
    SITE,
    STATUS_TOPIC,
    append,
    id_of,
    make_detection,
    online,
    publisher,
    wait_until,
)
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from node.deliver import BrokerAddress, MqttPublisher, Outbox, publish_batch
from node.messages import Detection, node_topic, parse_detection, to_json
from node.network import PrivateBroker, Subscription

NATS = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
LOGGED = "log_type all\nlog_dest file {}"
BOTH = pytest.mark.parametrize("protocol", ["5", "3.1.1"])


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as opened:
        yield opened


def reasons(sender: MqttPublisher) -> str:
    return " | ".join(sender.delivery().reasons)


def ids(city: Listener) -> set[str]:
    return {parse_detection(payload).event_id for payload in city.on(DETECTION_TOPIC)}


def test_in_3_1_1_everything_arrives_and_the_last_will_is_said(
    outbox: Outbox, tmp_path: Path
) -> None:
    with PrivateBroker(tmp_path / "broker") as broker, Listener(broker.port) as city:
        sender = publisher(outbox, broker.url, protocol="3.1.1")
        sender.set_status(online())
        for number in range(50):
            append(outbox, number)
        sender.start()
        append(outbox, 50)
        assert city.wait(lambda: ids(city) == {id_of(n) for n in range(51)})
        assert wait_until(lambda: outbox.depth == 0 and not sender.delivery().reasons)
        broker.kill()
        append(outbox, 51)
        broker.start()
        with Listener(broker.port) as again:
            assert again.wait(lambda: id_of(51) in ids(again))
        assert b'"online"' in city.on(STATUS_TOPIC)[-1]
        sender.close()
    assert outbox.depth == 0


def test_in_3_1_1_a_wrong_password_is_told(outbox: Outbox) -> None:
    with PrivateBroker(extra="allow_anonymous false") as broker:
        sender = publisher(outbox, broker.url, protocol="3.1.1")
        sender.start()
        assert wait_until(lambda: "refused us (Not authorized)" in reasons(sender))
        sender.close(drain_s=0)


def test_in_3_1_1_a_message_over_the_brokers_limit_is_not_sent_for_ever(outbox: Outbox) -> None:
    # Mosquitto acknowledges it in 3.1.1 as if it had taken it; the version has no word for no.
    with (
        PrivateBroker(extra="message_size_limit 20000") as broker,
        Listener(broker.port) as city,
    ):
        birth = node_topic(SITE, NODE_ID, "node")
        sender = publisher(outbox, broker.url, protocol="3.1.1")
        sender.keep(birth, b"x" * 30_000)
        append(outbox, 1)
        sender.start()
        assert city.wait(lambda: ids(city) == {id_of(1)})
        assert city.on(birth) == []
        sender.close()


@BOTH
def test_two_nodes_of_one_name_are_told_so_and_do_not_storm_the_broker(
    outbox: Outbox, tmp_path: Path, protocol: str
) -> None:
    log = tmp_path / "mosquitto.log"
    with (
        PrivateBroker(extra=LOGGED.format(log)) as broker,
        Outbox(tmp_path / "other.sqlite3", 2**20) as other,
    ):
        senders = [
            publisher(box, broker.url, protocol=protocol, reconnect_max_s=60)
            for box in (outbox, other)
        ]
        for sender in senders:
            sender.start()

        def told(sender: MqttPublisher) -> bool:
            return f"called {NODE_ID}" in reasons(sender)

        assert wait_until(lambda: any(map(told, senders)), 40)
        # Told while one of them is connected, too: it is a matter of moments until it is cut off.
        assert wait_until(lambda: any(told(s) and s.delivery().connected for s in senders), 40)
        # Three connections that were cut short are the least after which it can be told.
        connections = log.read_text().count(f"as {NODE_ID} ")
        assert 3 <= connections <= 12, log.read_text()
        for sender in senders:
            sender.close(drain_s=0)


@BOTH
def test_nothing_that_is_sent_to_a_node_reaches_it_retained_or_not(
    outbox: Outbox, tmp_path: Path, protocol: str
) -> None:
    log = tmp_path / "mosquitto.log"
    made_up = [
        f"gunfire/v1/{SITE}/{NODE_ID}/{kind}"
        for kind in ("command", "set", "config", "record", "snippet/get", "status", "detection")
    ]
    with PrivateBroker(extra=LOGGED.format(log)) as broker, Listener(broker.port) as city:
        attacker = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        attacker.connect("127.0.0.1", broker.port)
        attacker.loop_start()
        order = b'{"command": "record", "snippets": true, "seconds": 3600}'
        for topic in made_up:
            attacker.publish(topic, order, qos=1, retain=True).wait_for_publish(10)
        received: list[MQTTMessage] = []
        sender = publisher(outbox, broker.url, protocol=protocol)
        sender.received = received.append  # type: ignore[method-assign]
        sender.set_status(online())
        sender.start()
        assert wait_until(lambda: sender.delivery().connected)
        for topic in made_up:
            attacker.publish(topic, order, qos=1).wait_for_publish(10)
        append(outbox, 1)
        assert city.wait(lambda: city.on(DETECTION_TOPIC)[-1:] not in ([], [order]))
        assert wait_until(lambda: outbox.depth == 0)
        sender.close()
        attacker.disconnect()
        attacker.loop_stop()
        assert received == []
        assert f"Sending PUBLISH to {NODE_ID}" not in log.read_text()
        assert f"Received SUBSCRIBE from {NODE_ID}" not in log.read_text()


def test_what_a_full_broker_refuses_stays_here_until_it_has_room(outbox: Outbox) -> None:
    # A stand-in for a broker over its quota, since Mosquitto never says so: an acknowledgement of
    # MQTT 5 with reason code 0x97, then ones of success.
    with quota_broker(refusals=2) as (port, counts):
        sender = publisher(outbox, f"mqtt://127.0.0.1:{port}")
        sender.start()
        assert wait_until(lambda: sender.delivery().connected)
        append(outbox, 1)
        assert wait_until(lambda: "Quota exceeded" in reasons(sender))
        assert outbox.depth == 1
        assert wait_until(lambda: outbox.depth == 0)
        assert sender.delivery().reasons == ()
        assert counts["publishes"] == 3
        sender.close(drain_s=0)


@pytest.mark.parametrize("word", [True, False])
def test_a_broker_that_answers_pings_and_no_message_is_left_for_another_try(
    outbox: Outbox, caplog: pytest.LogCaptureFixture, word: bool
) -> None:
    # NATS without a quorum of its storage is one; and one that says "no pings, please" may be dead.
    with quota_broker(mute_connections=1) as (port, counts):
        sender = publisher(outbox, f"mqtt://127.0.0.1:{port}", keepalive_s=2)
        if word:
            sender.set_status(online())
        else:
            append(outbox, 1)
        sender.start()
        assert wait_until(lambda: "does not acknowledge" in caplog.text)
        append(outbox, 2)
        assert wait_until(lambda: outbox.depth == 0, 20)
        assert counts["connections"] == 2
        assert caplog.text.count("does not acknowledge") == 1
        assert sender.delivery().reasons == ()
        sender.close(drain_s=0)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (0x9A, "set mqtt.url to a broker that has them"),
        (0x9B, "set mqtt.url to a broker that has them"),
        (0x9C, "served by another broker: set mqtt.url"),
        (0x9D, "served by another broker: set mqtt.url"),
    ],
)
def test_a_broker_that_cannot_serve_a_node_is_not_called_one_that_refuses_its_name(
    outbox: Outbox, code: int, advice: str
) -> None:
    with quota_broker(connack=code) as (port, _):
        sender = publisher(outbox, f"mqtt://127.0.0.1:{port}")
        sender.start()
        assert wait_until(lambda: advice in reasons(sender))
        sender.close(drain_s=0)


@contextmanager
def quota_broker(
    refusals: int = 0, mute_connections: int = 0, connack: int = 0
) -> Iterator[tuple[int, dict[str, int]]]:
    """Answer an MQTT 5 client: a CONNACK, PUBACKs of quota exceeded, then of success.

    On its first so many connections it answers no message at all.
    """
    counts = {"publishes": 0, "connections": 0}
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while counts["connections"] <= mute_connections:
            with suppress(ConnectionError):  # who leaves us may not have read all
                serve_one()

    def serve_one() -> None:
        connection, _ = server.accept()
        counts["connections"] += 1
        with connection, connection.makefile("rb") as stream:
            while header := stream.read(1):
                length = shift = 0
                while True:
                    byte = stream.read(1)[0]
                    length |= (byte & 0x7F) << shift
                    shift += 7
                    if byte < 0x80:
                        break
                body = stream.read(length)
                kind = header[0] >> 4
                if kind == 1:
                    connection.sendall(bytes([0x20, 3, 0, connack, 0]))
                elif counts["connections"] <= mute_connections and kind == 3:
                    pass
                elif kind == 3 and header[0] & 0x06:
                    topic = int.from_bytes(body[:2], "big")
                    mid = body[2 + topic : 4 + topic]
                    code = 0
                    if body[2 : 2 + topic] == DETECTION_TOPIC.encode():
                        counts["publishes"] += 1
                        code = 0x97 if counts["publishes"] <= refusals else 0
                    connection.sendall(bytes([0x40, 4]) + mid + bytes([code, 0]))
                elif kind == 12:
                    connection.sendall(bytes([0xD0, 0]))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1], counts
    finally:
        server.close()
        thread.join(5)


class Nats:
    """A nats-server of one's own that speaks MQTT 3.1.1 on loopback."""

    def __init__(self, folder: Path, accounts: str = "") -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as a,
            socket.create_server(("127.0.0.1", 0)) as b,
        ):
            self.port, client_port = a.getsockname()[1], b.getsockname()[1]
        configuration = folder / "nats.conf"
        configuration.write_text(
            f'server_name: one\nlisten: "127.0.0.1:{client_port}"\n'
            f'jetstream {{ store_dir: "{folder}/js" }}\n'
            f'mqtt {{ host: "127.0.0.1", port: {self.port} }}\n{accounts}\n'
        )
        self._log = folder / "nats.log"
        self._command = [NATS or "", "-c", str(configuration), "-l", str(self._log)]
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"mqtt://127.0.0.1:{self.port}"

    def __enter__(self) -> "Nats":
        self._process = subprocess.Popen(self._command)
        assert wait_until(self._listens), self._log.read_text()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@contextmanager
def subscribed_3_1_1(port: int, user: str | None = None) -> Iterator[list[bytes]]:
    heard: list[bytes] = []
    ready: list[object] = []
    client = Client(CallbackAPIVersion.VERSION2, client_id="city", clean_session=True)
    client.username_pw_set(user, user)
    client.on_connect = lambda *_: client.subscribe(DETECTION_TOPIC, qos=1)
    client.on_subscribe = lambda *_: ready.append(True)
    client.on_message = lambda _c, _u, message: heard.append(message.payload)
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert wait_until(lambda: ready)
    yield heard
    client.disconnect()
    client.loop_stop()


needs_nats = pytest.mark.skipif(
    NATS is None, reason="nats-server is not installed: apt-get install nats-server"
)


@needs_nats
def test_a_nats_server_killed_and_started_again_has_every_detection(
    outbox: Outbox, tmp_path: Path
) -> None:
    nats = Nats(tmp_path)
    sender = publisher(outbox, nats.url, protocol="3.1.1")
    sender.set_status(online())
    with nats:
        sender.start()
        with subscribed_3_1_1(nats.port) as heard:
            for number in range(30):
                append(outbox, number)
            assert wait_until(lambda: len(heard) >= 30)
        first = {parse_detection(payload).event_id for payload in heard}
    for number in range(30, 60):
        append(outbox, number)
    with nats, subscribed_3_1_1(nats.port) as heard:
        assert wait_until(
            lambda: (
                first | {parse_detection(p).event_id for p in heard}
                == {id_of(n) for n in range(60)}
            )
        )
        assert wait_until(lambda: outbox.depth == 0)
        sender.close()


@needs_nats
def test_a_subscription_and_a_batch_speak_3_1_1_too(tmp_path: Path) -> None:
    with Nats(tmp_path) as nats:
        address = BrokerAddress.from_url(nats.url, protocol="3.1.1")
        with Subscription(address, kinds=("detection",)) as words:
            publish_batch(address, [(DETECTION_TOPIC, to_json(make_detection(1)))])
            word = words.next(15)
        assert word is not None
        assert isinstance(word.message, Detection)
        assert word.message.event_id == id_of(1)


@needs_nats
def test_a_version_that_the_broker_does_not_speak_is_told(outbox: Outbox, tmp_path: Path) -> None:
    with Nats(tmp_path) as nats:
        sender = publisher(outbox, nats.url)
        sender.start()
        assert wait_until(lambda: "mqtt.protocol" in reasons(sender)), reasons(sender)
        sender.close(drain_s=0)
