"""mqtts:// against a real Mosquitto: who is trusted, and what is said where nobody is."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from deliver_node import NODE_ID, append, id_of, offline, wait_until

from node.deliver import BrokerAddress, MqttPublisher, Outbox, SessionOptions
from node.messages import Detection, node_topic, with_transport
from node.network import PrivateBroker, Subscription

pytestmark = [
    pytest.mark.skipif(
        shutil.which("openssl") is None, reason="openssl is not installed; it makes certificates"
    ),
    # paho leaves the socket of a failed handshake to the garbage collector, which says so.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket"),
]


class Tls(NamedTuple):
    url: str
    plain_url: str
    folder: Path


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_ca(folder: Path, name: str) -> None:
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"),
        *("-days", "2", "-subj", f"/CN={name}"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )


def make_certificate(folder: Path, ca: str, name: str, extension: str) -> None:
    extensions = folder / f"{name}.ext"
    extensions.write_text(extension)
    openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *(
            "-keyout",
            folder / f"{name}.key",
            "-out",
            folder / f"{name}.csr",
            "-subj",
            f"/CN={name}",
        ),
    )
    openssl(
        *("x509", "-req", "-in", folder / f"{name}.csr", "-out", folder / f"{name}.crt"),
        *("-CA", folder / f"{ca}.crt", "-CAkey", folder / f"{ca}.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", extensions),
    )


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    folder = tmp_path_factory.mktemp("certificates")
    make_ca(folder, "city-ca")
    make_ca(folder, "stranger-ca")
    make_certificate(folder, "city-ca", "server", "subjectAltName=IP:127.0.0.1")
    make_certificate(folder, "city-ca", NODE_ID, "extendedKeyUsage=clientAuth")
    acl = folder / "acl"
    acl.write_text("pattern read gunfire/#\npattern write gunfire/v1/+/%u/#\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    extra = f"""
acl_file {acl}
listener {port} 127.0.0.1
cafile {folder}/city-ca.crt
certfile {folder}/server.crt
keyfile {folder}/server.key
require_certificate true
use_identity_as_username true
allow_anonymous false
"""
    with PrivateBroker(extra=f"per_listener_settings false\n{extra}") as broker:
        yield Tls(f"mqtts://127.0.0.1:{port}", broker.url, folder)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as opened:
        yield opened


def publisher(outbox: Outbox, address: BrokerAddress, node_id: str = NODE_ID) -> MqttPublisher:
    return MqttPublisher(
        outbox,
        address,
        node_id,
        SessionOptions(keepalive_s=5, reconnect_max_s=1),
        detection_topic=node_topic("test-site", node_id, "detection"),
        status_topic=node_topic("test-site", node_id, "status"),
        offline=offline,
        stamp=with_transport,
        utc_now_ns=time.time_ns,
    )


def address(tls: Tls, ca: str = "city-ca", certificate: str | None = NODE_ID) -> BrokerAddress:
    return BrokerAddress.from_url(
        tls.url,
        ca_file=tls.folder / f"{ca}.crt",
        cert_file=None if certificate is None else tls.folder / f"{certificate}.crt",
        key_file=None if certificate is None else tls.folder / f"{certificate}.key",
    )


def test_a_node_with_its_certificate_publishes_under_its_own_name(tls: Tls, outbox: Outbox) -> None:
    with Subscription(address(tls)) as words:
        sender = publisher(outbox, address(tls))
        sender.start()
        for number in range(40):  # more than one TLS record at a time
            append(outbox, number)
        arrived = []
        for word in words.within(15):
            if isinstance(word.message, Detection):
                arrived.append(word.message.event_id)
            if len(arrived) == 40:
                break
        assert sorted(arrived) == sorted(id_of(number) for number in range(40))
        sender.close()


def test_a_node_may_not_publish_under_anothers_name(tls: Tls, outbox: Outbox) -> None:
    sender = publisher(outbox, address(tls), node_id="node-2")
    sender.start()
    append(outbox, 1)
    assert wait_until(lambda: "Not authorized" in " ".join(sender.delivery().reasons))
    sender.close(drain_s=0)
    assert outbox.depth == 1


def test_a_broker_of_a_strangers_ca_is_not_trusted(tls: Tls, outbox: Outbox) -> None:
    sender = publisher(outbox, address(tls, ca="stranger-ca"))
    sender.start()
    assert wait_until(lambda: "certificate is not accepted" in " ".join(sender.delivery().reasons))
    assert "check mqtt.ca_file" in " ".join(sender.delivery().reasons)
    sender.close(drain_s=0)


def test_without_a_client_certificate_the_broker_lets_nobody_in_and_that_is_told(
    tls: Tls, outbox: Outbox
) -> None:
    sender = publisher(outbox, address(tls, certificate=None))
    sender.start()
    assert wait_until(lambda: not any("not connected yet" in r for r in sender.delivery().reasons))
    assert not sender.delivery().connected
    assert sender.delivery().reasons
    sender.close(drain_s=0)


def test_tls_to_a_port_that_speaks_none_is_told(tls: Tls, outbox: Outbox) -> None:
    plain = BrokerAddress.from_url(
        tls.plain_url.replace("mqtt:", "mqtts:"), ca_file=tls.folder / "city-ca.crt"
    )
    sender = publisher(outbox, plain)
    sender.start()
    assert wait_until(lambda: not any("not connected yet" in r for r in sender.delivery().reasons))
    assert "mqtts:// " in " ".join(sender.delivery().reasons)
    sender.close(drain_s=0)
