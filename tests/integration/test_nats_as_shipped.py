"""The shipped cluster: three real nats-servers with the shipped files, mutual TLS and users."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deliver_node import (
    DETECTION_TOPIC,
    NODE_ID,
    SITE,
    append,
    id_of,
    make_detection,
    offline,
    online,
    wait_until,
)
from hil.fleet_ca import Files, FleetCa
from hil.virtual_receiver import free_port
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from node.deliver import (
    BrokerAddress,
    MqttPublisher,
    Outbox,
    SessionOptions,
    check_broker,
    publish_batch,
)
from node.errors import BrokerError
from node.messages import Detection, node_topic, to_json, with_transport
from node.network import Subscription
from provisioning.fleet.files import text_of
from provisioning.fleet.inventory import Inventory, Issued, Member
from provisioning.fleet.nats import users

NATS = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
SHIPPED = Path(__file__).parents[2] / "provisioning" / "broker"
PEOPLE = (NODE_ID, "operator", "auditor", "evidence", "stranger")

pytestmark = [
    pytest.mark.skipif(NATS is None, reason="nats-server is not installed: apt-get install it"),
    # paho leaves the socket of a failed handshake to the garbage collector, which says so.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket"),
]


class Cluster:
    """Three nats-servers on the shipped files, in folders of their own, on free ports."""

    def __init__(self, folder: Path, ca: FleetCa) -> None:
        self.ca = ca
        self.people = {name: ca.issue(name, organization=SITE) for name in PEOPLE}
        self.own = ca.issue("broker", addresses=["localhost", "127.0.0.1"], peer=True)
        self.routes = [free_port() for _ in range(3)]
        self.ports = [free_port() for _ in range(3)]
        self._users = users(_inventory(), datetime.now(UTC))
        self._folders = []
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * 3
        for number, (route, port) in enumerate(zip(self.routes, self.ports, strict=True), 1):
            text = (SHIPPED / "nats-server.conf").read_text("utf-8")
            for shipped, here in {
                "server_name: broker-1": f"server_name: broker-{number}",
                "/etc/gunfire-nats/ca.crt": str(ca.certificate_file),
                "/etc/gunfire-nats/broker.crt": str(self.own.certificate),
                "/etc/gunfire-nats/broker.key": str(self.own.key),
                "/var/lib/nats": str(folder / f"{number}" / "kept"),
                "127.0.0.1:4222": f"127.0.0.1:{free_port()}",
                "0.0.0.0:6222": f"127.0.0.1:{route}",
                "0.0.0.0:8883": f"127.0.0.1:{port}",
                **{
                    f"broker-{other}.local:6222": f"localhost:{there}"
                    for other, there in enumerate(self.routes, 1)
                },
            }.items():
                assert shipped in text, shipped
                text = text.replace(shipped, here)
            own_folder = folder / f"{number}"
            (own_folder / "gunfire-nats").mkdir(parents=True)
            (own_folder / "nats-server.conf").write_text(text, "utf-8")
            self._folders.append(own_folder)
        self.let_in(self._users)

    def let_in(self, users: str) -> None:
        """Write the list of users anew, and have every server read it."""
        for folder, process in zip(self._folders, self._processes, strict=True):
            (folder / "gunfire-nats" / "users.conf").write_text(users, "utf-8")
            if process is not None:
                process.send_signal(signal.SIGHUP)

    @contextmanager
    def shut_out(self, name: str) -> Iterator[None]:
        """Take a name off the list for a while."""
        self.let_in(self._users.replace(f"CN={name},", "CN=nobody,"))
        try:
            yield
        finally:
            self.let_in(self._users)

    def start(self, *numbers: int) -> None:
        for number in numbers or range(3):
            folder = self._folders[number]
            self._processes[number] = subprocess.Popen(
                [NATS or "", "-c", str(folder / "nats-server.conf"), "-l", str(folder / "log")],
            )
        # Until JetStream has its leader, MQTT's clients are sent away.
        for number in numbers or range(3):
            assert wait_until(lambda number=number: self.serves(number), 60), self.log(number)

    def kill(self, number: int) -> None:
        process = self._processes[number]
        if process is not None:
            process.kill()
            process.wait()
            self._processes[number] = None

    def end(self) -> None:
        for number in range(3):
            self.kill(number)

    def log(self, number: int) -> str:
        return (self._folders[number] / "log").read_text("utf-8")

    def address(self, number: int, files: Files | None) -> BrokerAddress:
        return BrokerAddress.from_url(
            f"mqtts://localhost:{self.ports[number]}",
            ca_file=self.ca.certificate_file,
            cert_file=None if files is None else files.certificate,
            key_file=None if files is None else files.key,
            protocol="3.1.1",
        )

    def serves(self, number: int) -> bool:
        try:
            check_broker(self.address(number, self.people["auditor"]))
        except BrokerError:
            return False
        return True


def _inventory() -> Inventory:
    """Give a fleet of which all but the stranger are, as `gunfire-fleet` remembers it."""
    now = datetime.now(UTC)

    def issued(kind: str) -> Issued:
        return Issued(
            kind=kind,
            serial="1",
            key_sha256="",
            issued_utc=text_of(now),
            not_before_utc=text_of(now),
            not_after_utc=text_of(now + timedelta(days=1)),
        )

    members = {
        name: Member(role="reader", site=SITE, certificates=[issued("reader")])
        for name in ("operator", "auditor", "evidence")
    }
    both = [issued("mqtt"), issued("signing")]
    members[NODE_ID] = Member(role="node", site=SITE, certificates=both)
    members["invited-only"] = Member(role="node", site=SITE)
    return Inventory(members=members)


@contextmanager
def client(cluster: Cluster, who: str, client_id: str) -> Iterator[Client]:
    """Connect somebody to the first server by paho alone."""
    files = cluster.people[who]
    made = Client(
        CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv311
    )
    made.tls_set(str(cluster.ca.certificate_file), str(files.certificate), str(files.key))
    made.connect("localhost", cluster.ports[0])
    made.loop_start()
    assert wait_until(made.is_connected)
    try:
        yield made
    finally:
        made.disconnect()
        made.loop_stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    running = Cluster(folder, FleetCa(folder / "fleet"))
    try:
        running.start()
        yield running
    finally:
        running.end()


def heard(words: Subscription, count: int, seconds: float = 30.0) -> set[str]:
    """Take so many detections; give their names."""
    names = set()
    while len(names) < count and (word := words.next(seconds)) is not None:
        assert isinstance(word.message, Detection)
        names.add(word.message.event_id)
    return names


def test_what_a_node_publishes_at_one_server_is_read_at_another(cluster: Cluster) -> None:
    reader = cluster.address(1, cluster.people["operator"])
    with Subscription(reader, kinds=("detection",)) as words:
        writer = cluster.address(0, cluster.people[NODE_ID])
        publish_batch(writer, [(DETECTION_TOPIC, to_json(make_detection(1)))])
        assert heard(words, 1) == {id_of(1)}


def test_a_node_cannot_speak_for_another(cluster: Cluster) -> None:
    # 3.1.1 has no word for no: it is acknowledged, and dropped.
    others = make_detection(2).model_copy(update={"node_id": "node-2"})
    reader = cluster.address(0, cluster.people["operator"])
    with Subscription(reader, kinds=("detection",)) as words:
        publish_batch(
            cluster.address(0, cluster.people[NODE_ID]),
            [
                (node_topic(SITE, "node-2", "detection"), to_json(others)),
                (DETECTION_TOPIC, to_json(make_detection(3))),
            ],
        )
        assert heard(words, 1) == {id_of(3)}


@pytest.mark.parametrize(
    ("who", "topic", "code"),
    [
        (NODE_ID, "gunfire/v1/+/+/detection", 0x80),
        (NODE_ID, "#", 0x80),
        ("auditor", "gunfire/v1/+/+/snippet", 0x80),
        ("auditor", "gunfire/v1/+/+/detection", 1),
        ("evidence", "gunfire/v1/+/+/snippet", 1),
        ("operator", "$MQTT/msgs/#", 0x80),
    ],
)
def test_a_subscription_where_one_may_not_read_is_refused(
    cluster: Cluster, who: str, topic: str, code: int
) -> None:
    answers: list[int] = []
    with client(cluster, who, f"{who}-asks") as asking:
        asking.on_subscribe = lambda _c, _u, _m, codes, _p: answers.append(codes[0].value)
        asking.subscribe(topic, qos=1)
        assert wait_until(lambda: answers)
    assert answers == [code]


def test_whoever_is_not_known_is_not_let_in(cluster: Cluster, tmp_path: Path) -> None:
    now, day = datetime.now(UTC), timedelta(days=1)
    expired = cluster.ca.issue(
        NODE_ID, file_name="expired", organization=SITE,
        not_before=now - 2 * day, not_after=now - day,
    )  # fmt: skip
    foreign = FleetCa(tmp_path / "other").issue(NODE_ID, organization=SITE)
    for files in (None, cluster.people["stranger"], expired, foreign):
        with pytest.raises(BrokerError):
            check_broker(cluster.address(0, files))


def test_a_node_that_was_taken_off_the_list_is_out_at_once(cluster: Cluster) -> None:
    files = cluster.people[NODE_ID]
    ended: list[object] = []
    with client(cluster, NODE_ID, "stolen") as stolen:
        stolen.on_disconnect = lambda *_: ended.append(True)
        with cluster.shut_out(NODE_ID):
            assert wait_until(lambda: ended)
            stolen.loop_stop()
            with pytest.raises(BrokerError):
                check_broker(cluster.address(0, files))
    assert wait_until(lambda: cluster.serves(0))
    check_broker(cluster.address(0, files))


@pytest.mark.parametrize("who", [NODE_ID, "broker"])
def test_none_but_a_server_gets_in_among_the_servers(
    cluster: Cluster, tmp_path: Path, who: str
) -> None:
    files = cluster.people.get(who) or cluster.own
    configuration = tmp_path / "rogue.conf"
    configuration.write_text(
        f'server_name: rogue\nlisten: "127.0.0.1:{free_port()}"\n'
        f'cluster {{ name: gunfire, listen: "127.0.0.1:{free_port()}"\n'
        f' routes: ["nats://localhost:{cluster.routes[0]}"]\n'
        f' tls {{ ca_file: "{cluster.ca.certificate_file}", cert_file: "{files.certificate}"\n'
        f'  key_file: "{files.key}" }} }}\n'
    )
    log = tmp_path / "rogue.log"
    rogue = subprocess.Popen([NATS or "", "-c", str(configuration), "-l", str(log), "-D"])
    try:
        assert wait_until(lambda: log.exists() and "Route connect msg sent" in log.read_text())
        joined = wait_until(lambda: "Router Ping Timer" in log.read_text(), 5)
    finally:
        rogue.kill()
        rogue.wait()
    assert joined == (who == "broker")
    assert ("Authorization Violation" in log.read_text()) == (who != "broker")


def test_with_any_one_server_killed_nothing_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    keep = Subscription(
        cluster.address(2, cluster.people["operator"]), kinds=("detection",), client_id="log",
        session_expiry_s=3600,
    )  # fmt: skip
    files = cluster.people[NODE_ID]
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as outbox, keep as words:
        sender = MqttPublisher(
            outbox,
            [cluster.address(number, files) for number in range(2)],
            NODE_ID,
            SessionOptions(keepalive_s=5, reconnect_max_s=1),
            detection_topic=DETECTION_TOPIC,
            status_topic=node_topic(SITE, NODE_ID, "status"),
            offline=offline,
            stamp=with_transport,
            utc_now_ns=time.time_ns,
        )
        sender.set_status(online())
        sender.start()
        for number in range(100, 150):
            append(outbox, number)
        assert wait_until(lambda: sender.delivery().acknowledged >= 20, 30)
        cluster.kill(0)
        for number in range(150, 200):
            append(outbox, number)
        names = heard(words, 100)
        assert wait_until(lambda: outbox.depth == 0, 60), sender.delivery()
        sender.close()
        cluster.start(0)
    assert names == {id_of(number) for number in range(100, 200)}
