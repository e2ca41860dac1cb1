"""docs/do/run-a-broker.md: its commands, as they stand, make a fleet that the broker goes by."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from provisioning.est import CarriedRequest, key_print
from provisioning.fleet.fleet import Fleet
from tests.hil.fleet_stage import NODE_ID, Box, SetClock

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "do" / "run-a-broker.md"

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="openssl is not installed; it checks certificates"
)


def run(script: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every block of shell on the page: the one that makes the fleet first."""
    folder = tmp_path_factory.mktemp("operator")
    issue, invite, show, revoke, cluster, make = re.findall(
        r"```sh\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL
    )
    run(make, folder)
    run(issue, folder)
    run(cluster, folder)
    assert "CN=operator,O=riverside" in (folder / "users.conf").read_text()
    run(invite, folder)
    _enrolled_by_hand(folder)
    assert re.search(r"node-0001 +riverside +enrolled", run(show, folder))
    run(revoke, folder)
    return folder / "fleet"


def _enrolled_by_hand(folder: Path) -> None:
    """Have a node ask, and carry request and answer."""
    invitation = Fleet.load(folder / "fleet").invite(NODE_ID, None, 1, by_hand=True)
    box = Box(folder / "box", SetClock(), invitation)
    assert box.enrol() == 0
    request, answer = box.places.request_file, box.places.response_file
    assert CarriedRequest.read(request).key_id
    run(f"gunfire-fleet sign --yes {request}", folder)
    assert answer.exists()
    assert box.enrol() == 0
    assert box.told["verdict"] == "pass"


def certificate(file: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(file.read_bytes())


@pytest.mark.parametrize(
    ("name", "purpose"),
    [
        ("broker", "sslserver"),
        ("operator", "sslclient"),
        ("broker-1", "sslserver"),
        ("broker-1", "sslclient"),
    ],
)
def test_each_certificate_is_one_of_the_ca_and_for_its_purpose(
    name: str, purpose: str, fleet: Path
) -> None:
    subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "ca.crt", "-purpose", purpose,
         f"{name}.crt"],
        cwd=fleet, check=True, capture_output=True,
    )  # fmt: skip
    (common_name,) = certificate(fleet / f"{name}.crt").subject.get_attributes_for_oid(
        x509.NameOID.COMMON_NAME
    )
    assert common_name.value == name


def test_the_stolen_node_is_on_the_list_with_both_keys_and_the_operator_is_not(
    fleet: Path,
) -> None:
    crl = x509.load_pem_x509_crl((fleet / "crl.pem").read_bytes())

    def listed(file: Path) -> bool:
        serial = certificate(file).serial_number
        return crl.get_revoked_certificate_by_serial_number(serial) is not None

    places = Box(fleet.parent / "box", SetClock(), None).places
    assert listed(places.mqtt_certificate)
    assert listed(places.signing_certificate)
    assert not listed(fleet / "operator.crt")
    subprocess.run(
        ["openssl", "crl", "-CAfile", "ca.crt", "-in", "crl.pem", "-noout"],
        cwd=fleet, check=True, capture_output=True,
    )  # fmt: skip


def test_a_node_that_signs_opens_no_broker_by_that(fleet: Path) -> None:
    places = Box(fleet.parent / "box", SetClock(), None).places
    mqtt, signing = places.mqtt_certificate, places.signing_certificate
    assert key_print(certificate(mqtt)) != key_print(certificate(signing))
    for file, code in ((mqtt, 0), (signing, 2)):
        done = subprocess.run(
            ["openssl", "verify", "-CAfile", "ca.crt", "-purpose", "sslclient", file],
            cwd=fleet, check=False, capture_output=True,
        )  # fmt: skip
        assert done.returncode == code
