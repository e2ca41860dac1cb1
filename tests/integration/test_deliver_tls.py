"""mqtts:// against a real Mosquitto: who is trusted, and what is said where nobody is."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from deliver_node import NODE_ID, append, id_of, offline, wait_until
from hil.fleet_ca import Files, FleetCa
from hil.virtual_receiver import free_port

from node.deliver import BrokerAddress, MqttPublisher, Outbox, SessionOptions
from node.deliver.batch import check_broker
from node.errors import BrokerError
from node.messages import Detection, node_topic, with_transport
from node.network import PrivateBroker, Subscription

# paho leaves the socket of a failed handshake to the garbage collector, which says so.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")


class City(NamedTuple):
    url: str
    plain_url: str
    ca_file: Path
    node: Files


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    folder = tmp_path_factory.mktemp("certificates")
    ca = FleetCa(folder)
    server = ca.issue("server", addresses=["127.0.0.1"])
    acl = folder / "acl"
    acl.write_text("pattern read gunfire/#\npattern write gunfire/v1/+/%u/#\n")
    port = free_port()
    extra = f"""
per_listener_settings false
acl_file {acl}
listener {port} 127.0.0.1
cafile {ca.certificate_file}
certfile {server.certificate}
keyfile {server.key}
require_certificate true
use_identity_as_username true
allow_anonymous false
"""
    with PrivateBroker(extra=extra) as broker:
        yield City(f"mqtts://127.0.0.1:{port}", broker.url, ca.certificate_file, ca.issue(NODE_ID))


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


def address(city: City, ca_file: Path | None = None, ours: Files | None = None) -> BrokerAddress:
    certificate, key = ours or city.node
    return BrokerAddress.from_url(
        city.url, ca_file=ca_file or city.ca_file, cert_file=certificate, key_file=key
    )


def test_a_node_with_its_certificate_publishes_under_its_own_name(
    city: City, outbox: Outbox
) -> None:
    with Subscription(address(city)) as words:
        sender = publisher(outbox, address(city))
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


def test_a_node_may_not_publish_under_anothers_name(city: City, outbox: Outbox) -> None:
    sender = publisher(outbox, address(city), node_id="node-2")
    sender.start()
    append(outbox, 1)
    assert wait_until(lambda: "Not authorized" in " ".join(sender.delivery().reasons))
    sender.close(drain_s=0)
    assert outbox.depth == 1


def test_a_broker_of_a_strangers_ca_is_not_trusted(
    city: City, outbox: Outbox, tmp_path: Path
) -> None:
    stranger = FleetCa(tmp_path / "stranger")
    sender = publisher(outbox, address(city, stranger.certificate_file))
    sender.start()
    assert wait_until(lambda: "certificate is not accepted" in " ".join(sender.delivery().reasons))
    assert "check mqtt.ca_file" in " ".join(sender.delivery().reasons)
    sender.close(drain_s=0)


def test_where_the_broker_does_not_accept_our_certificate_that_is_told(
    city: City, outbox: Outbox, tmp_path: Path
) -> None:
    # In TLS 1.3 the handshake is over by then, so it looks like any other broken connection.
    foreign = FleetCa(tmp_path / "foreign").issue(NODE_ID)
    none = BrokerAddress.from_url(city.url, ca_file=city.ca_file)
    for ours, told in (
        (address(city, ours=foreign), f"mqtt.cert_file {foreign.certificate}"),
        (none, "set mqtt.cert_file and mqtt.key_file"),
    ):
        sender = publisher(outbox, ours)
        sender.start()
        assert wait_until(lambda told=told, by=sender: told in " ".join(by.delivery().reasons))
        assert not sender.delivery().connected
        sender.close(drain_s=0)
        with pytest.raises(BrokerError, match=re.escape(told)):
            check_broker(ours)


def test_tls_to_a_port_that_speaks_none_is_told(city: City, outbox: Outbox) -> None:
    plain = BrokerAddress.from_url(city.plain_url.replace("mqtt:", "mqtts:"), ca_file=city.ca_file)
    sender = publisher(outbox, plain)
    sender.start()
    assert wait_until(lambda: not any("not connected yet" in r for r in sender.delivery().reasons))
    assert "mqtts:// " in " ".join(sender.delivery().reasons)
    sender.close(drain_s=0)
