"""One command sets up broker and authority on a Debian; a node enrols there, and is revoked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from deliver_node import wait_until

from node.deliver import BrokerAddress
from node.deliver.batch import check_broker
from node.errors import BrokerError
from provisioning.enrol import REFUSED
from provisioning.invitation import Invitation
from tests.hil.container import CHECKOUT, NODE, ROOT, Container, missing, own_network
from tests.hil.fleet_stage import NODE_ID, Box, SetClock

SET_UP = ("/src/provisioning/broker/set-up", "--wheels", "/wheels")
NAMED = ("--name", "broker.local", "--name", "192.0.2.7", "--site", "riverside")
FLEET = "/usr/local/bin/gunfire-fleet"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(missing() is not None, reason=f"needs {missing()}"),
    pytest.mark.skipif(
        not (ROOT / "usr/sbin/mosquitto").exists(), reason="needs a Debian with Mosquitto to boot"
    ),
    # paho and urllib3 leave the socket of a failed handshake to the garbage collector.
    pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket"),
]


@pytest.fixture(scope="module")
def machine() -> Iterator[Container]:
    """Boot a Debian whose loopback is ours, with this checkout in /src."""
    container = Container("broker")
    source = container.place / "src"
    source.mkdir()
    for part in (
        "node", "models", "systemd", "provisioning", "pyproject.toml", "README.md", "LICENSE",
    ):  # fmt: skip
        subprocess.run(["cp", "-a", "--parents", part, source], cwd=CHECKOUT, check=True)
    container.binds.append(f"{source}:/src")
    with ExitStack() as opened:
        opened.callback(container.discard)
        opened.enter_context(own_network())
        opened.enter_context(container)
        container.systemctl("stop", NODE)
        yield container


def test_from_one_command_to_an_enrolled_node_and_its_end(
    machine: Container, tmp_path: Path
) -> None:
    refused = machine.run(*SET_UP, check=False)
    assert (refused.returncode, "say how nodes call this machine" in refused.stderr) == (2, True)

    first = machine.run(*SET_UP, *NAMED, timeout_s=500).stdout
    assert "set-up: READY: broker.local lets in who has a certificate" in first
    assert first.rstrip().endswith("next: sudo gunfire-fleet invite node-0001")
    again = machine.run(*SET_UP, *NAMED).stdout
    assert "up to date; nothing was changed" in again
    assert "READY" in again

    machine.run(FLEET, "invite", NODE_ID, "-o", "/root/invitation.json")
    said = json.loads(machine.path("/root/invitation.json").read_text())
    assert (said["broker"], said["site"]) == ("mqtts://broker.local:8883", "riverside")
    here = Invitation.model_validate(said | {"enrolment_url": "https://localhost:8885"})
    box = Box(tmp_path, SetClock(), here)
    assert box.enrol() == 0, box.told
    places = box.places

    def let_in() -> bool:
        try:
            check_broker(
                BrokerAddress.from_url(
                    "mqtts://localhost:8883",
                    ca_file=places.authority_file,
                    cert_file=places.mqtt_certificate,
                    key_file=places.mqtt_key,
                )
            )
        except BrokerError:
            return False
        return True

    assert let_in()
    machine.systemctl("start", "gunfire-fleet-renew.service")
    assert let_in()
    assert f"{NODE_ID}" in machine.run(FLEET, "list").stdout
    machine.run(FLEET, "revoke", NODE_ID)
    assert wait_until(lambda: not let_in())
    assert box.enrol() == REFUSED
    assert "revoked by the fleet" in box.told["figure"]

    # Whoever works as root beside the services leaves nothing that they cannot read.
    machine.run("systemctl", "restart", "gunfire-fleet.service")
    assert Box(tmp_path / "other", SetClock(), _invited(machine, "node-0002")).enrol() == 0


def test_what_serves_strangers_may_do_little(machine: Container) -> None:
    machine.until("gunfire-fleet.service", "active")
    machine.until("gunfire-fleet-watch.service", "active")
    line = machine.run("systemd-analyze", "security", "--no-pager", "gunfire-fleet.service").stdout
    level = float(line.rpartition("gunfire-fleet.service: ")[2].split()[0])
    assert level <= 1.5


def test_it_is_taken_away_again_but_for_the_fleets_own_folder(machine: Container) -> None:
    said = machine.run(*SET_UP[:1], "--uninstall").stdout
    assert "kept /var/lib/gunfire-fleet" in said
    assert not machine.path("/opt/gunfire-fleet").exists()
    assert machine.path("/var/lib/gunfire-fleet/ca.key").exists()
    assert not machine.path("/etc/mosquitto/conf.d/gunfire.conf").exists()
    machine.run(*SET_UP[:1], "--uninstall", "--purge")
    assert not machine.path("/var/lib/gunfire-fleet").exists()


def _invited(machine: Container, node_id: str) -> Invitation:
    machine.run(FLEET, "invite", node_id, "-o", "/root/invitation.json")
    said = json.loads(machine.path("/root/invitation.json").read_text())
    return Invitation.model_validate(said | {"enrolment_url": "https://localhost:8885"})
