"""Enrolment from end to end: the real server, the real node's part, a real Mosquitto."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from node.deliver import BrokerAddress
from node.deliver.batch import check_broker
from node.errors import BrokerError
from node.identity import load_identity
from tests.hil.fleet_stage import NODE_ID, SITE, Box, Stage, served
from tests.hil.shipped_broker import ShippedBroker

# paho and urllib3 leave the socket of a failed handshake to the garbage collector, which says so.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with served(tmp_path / "fleet") as running:
        yield running


@pytest.fixture
def broker(stage: Stage, tmp_path: Path) -> Iterator[ShippedBroker]:
    folder = stage.fleet.folder
    (tmp_path / "broker").mkdir()
    running = ShippedBroker(
        tmp_path / "broker",
        ca=folder / "ca.crt",
        crl=folder / "crl.pem",
        certificate=folder / "broker.crt",
        key=folder / "broker.key",
    )
    running.start()
    yield running
    running.end()


def address(box: Box, broker: ShippedBroker) -> BrokerAddress:
    places = box.places
    return BrokerAddress.from_url(
        f"mqtts://localhost:{broker.port}",
        ca_file=places.authority_file,
        cert_file=places.mqtt_certificate,
        key_file=places.mqtt_key,
    )


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


def test_by_its_token_a_node_gets_what_the_broker_and_a_verifier_go_by(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0, box.told
    assert box.told["verdict"] == "pass"
    check_broker(address(box, broker))
    places = box.places
    identity = load_identity(places.signing_key, places.signing_certificate, NODE_ID, SITE)
    assert identity.certificate
    assert box.enrol() == 0
    assert stage.fleet.inventory.read().members[NODE_ID].state(stage.clock.moment()) == "enrolled"


def test_the_key_that_signs_opens_no_broker(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    places = box.places
    with pytest.raises(BrokerError):
        check_broker(
            BrokerAddress.from_url(
                f"mqtts://localhost:{broker.port}",
                ca_file=places.authority_file,
                cert_file=places.signing_certificate,
                key_file=places.signing_key,
            )
        )
