"""One command sets up broker and authority on a Debian; a node enrols there, and is revoked."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event

import paho.mqtt.client as mqtt
import pytest
from deliver_node import wait_until

from node.deliver import BrokerAddress
from node.deliver.batch import check_broker
from node.errors import BrokerError
from provisioning.enrol import REFUSED
from provisioning.invitation import Invitation
from provisioning.places import Places
from tests.hil.container import CHECKOUT, NODE, ROOT, Container, missing, own_network
from tests.hil.fleet_stage import NODE_ID, Box, SetClock

SET_UP = ("/src/provisioning/broker/set-up", "--wheels", "/wheels")
NAMED = ("--name", "broker.local", "--name", "192.0.2.7", "--site", "riverside")
INSTALL_PAGE = (CHECKOUT / "docs" / "do" / "install-a-node.md").read_text("utf-8")
TRACKING = "50505300,PPS,1,1795913042.1,0.0,0.0,0.0,0.0,0.0,0.0,1e-6,1e-6,16.0,Normal"
FLEET = "/usr/local/bin/gunfire-fleet"
TO_BROKER = "gunfire-fleet-broker.service"
TAKEN = "for the broker: crl.pem"

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
    container = Container("broker", (ROOT,))
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


class _Connection(mqtt.Client):
    """A client of that name: another one ends it, as does the broker."""

    def __init__(self, places: Places) -> None:
        super().__init__(mqtt.CallbackAPIVersion.VERSION2, client_id=NODE_ID)
        self.ended, self.let_in = Event(), Event()
        self.tls_set(str(places.authority_file), str(places.mqtt_certificate), str(places.mqtt_key))
        self.on_connect = lambda *_: self.let_in.set()
        self.on_disconnect = lambda *_: self.ended.set()


@contextmanager
def _connection(places: Places) -> Iterator[_Connection]:
    client = _Connection(places)
    client.connect("localhost", 8883)
    client.loop_start()
    try:
        assert client.let_in.wait(30)
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


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
    with _connection(places) as stays:
        before = machine.journal(TO_BROKER).count(TAKEN)
        machine.systemctl("start", "gunfire-fleet-renew.service")
        assert wait_until(lambda: machine.journal(TO_BROKER).count(TAKEN) > before)
        assert not stays.ended.wait(1), "a list that was renewed ends nobody's connection"
        machine.run(FLEET, "revoke", NODE_ID)
        assert stays.ended.wait(30), "whoever is connected already stays, though revoked"
    assert wait_until(lambda: not let_in())
    assert box.enrol() == REFUSED
    assert "revoked by the fleet" in box.told["figure"]

    # Whoever works as root beside the services leaves nothing that they cannot read.
    machine.run("systemctl", "restart", "gunfire-fleet.service")
    other = Box(tmp_path / "other", SetClock(), _invited(machine, "node-0002"))
    assert wait_until(lambda: other.enrol() == 0)  # it may not listen yet

    # Power was cut after the broker got a list, and before it began anew with it.
    # While one at work for an earlier list has not ended, a start is no new one, and its end writes
    # over what was emptied.
    machine.until(TO_BROKER, "inactive")
    with _connection(other.places) as stays:
        machine.path("/etc/mosquitto/gunfire/crl.begun").write_text("")
        machine.systemctl("start", TO_BROKER)
        assert stays.ended.wait(30)
        machine.systemctl("start", TO_BROKER)
    with _connection(other.places) as stays:
        machine.systemctl("start", TO_BROKER)
        assert not stays.ended.wait(1), "all connections are younger than the list"


def test_a_node_that_was_installed_by_hand_is_enrolled_by_one_command_and_in_its_sandbox(
    machine: Container,
) -> None:
    """As docs/do/install-a-node.md has it, with the fleet of the test before on this machine."""
    machine.run("/src/provisioning/install", "--wheels", "/wheels", "--no-start", timeout_s=500)
    settings = re.search(r"^\*\*C\*\*.*?```toml\n(.*?)```", INSTALL_PAGE, re.M | re.S)
    assert settings
    text = settings[1].replace("node-0001", "node-0003").replace("broker.local", "localhost")
    machine.write("/etc/gunfire-node/gunfire-node.toml", text)
    machine.run(FLEET, "invite", "node-0003", "-o", "/root/node-0003.json")
    invitation = machine.path("/root/node-0003.json")
    invitation.write_text(
        invitation.read_text().replace("https://broker.local", "https://localhost")
    )
    python = "/opt/gunfire-node/bin/python"
    node_key = "/var/lib/gunfire-node/node.key"
    assert not machine.path(node_key).exists()
    # The clock of a container is its host's, which nothing in it disciplines.
    machine.write("/usr/local/bin/chronyc", f"#!/bin/sh\necho '{TRACKING}'\n", 0o755)
    done = machine.run(
        "sh", "-c", f"PATH=/usr/local/bin:$PATH exec {python} -m provisioning.enrol "
        "--invitation /root/node-0003.json", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "enrolled as node-0003, until" in done.stderr
    for key in (node_key, "/var/lib/gunfire-node/mqtt.key"):
        said = machine.run("stat", "-c", "%U %a", key).stdout
        assert said == "gunfire-node 600\n"
    checked = machine.run("/usr/local/bin/gunfire-node", "config", "check").stdout
    assert "settings are valid" in checked
    script = (
        "from node.identity import load_identity; from pathlib import Path; "
        f"print(load_identity(Path('{node_key}'), Path('/etc/gunfire-node/signing.crt'), "
        "'node-0003', 'riverside').certificate[:27])"
    )
    said = machine.run("runuser", "-u", "gunfire-node", "--", python, "-c", script).stdout
    assert said == "-----BEGIN CERTIFICATE-----\n"

    # Once more from scratch, by the unit, which may touch little. The card is read-only, and is so
    # again once the token is out of its file.
    for file in ("mqtt.crt", "signing.crt"):
        machine.path(f"/etc/gunfire-node/{file}").unlink()
    machine.run("rm", "-r", "/var/lib/gunfire-node/mqtt.key", node_key, "/run/gunfire-node-setup")
    machine.run(FLEET, "invite", "node-0003", "-o", "/root/node-0003.json")
    token = json.loads(machine.path("/root/node-0003.json").read_text())["token"]
    memory = machine.path("/data/setup/first-boot.json")
    said = json.loads(memory.read_text())
    said["enrolment"]["token"] = token
    text = f'[enrolment]\n# a word of ours\ntoken = "{token}"\nmoved = false\n'
    said["sha256"] = hashlib.sha256(text.encode()).hexdigest()  # it is in force
    memory.write_text(json.dumps(said))
    machine.run("mkdir", "-p", "/boot/firmware")
    machine.run("mount", "-t", "tmpfs", "tmpfs", "/boot/firmware")
    card = machine.path("/boot/firmware/gunfire-node.toml")
    card.write_text(text)
    machine.run("mount", "-o", "remount,ro", "/boot/firmware")
    machine.drop_in(
        "gunfire-node-enrol.service",
        "chronyc",
        "[Service]\nEnvironment=PATH=/usr/local/bin:/usr/bin\n",
    )
    machine.systemctl("start", "gunfire-node-enrol.service")
    journal = machine.journal("gunfire-node-enrol.service")
    assert "enrolled as node-0003, until" in journal
    told = json.loads(machine.path("/run/gunfire-node-setup/enrolment.json").read_text())
    assert told["verdict"] == "pass"
    said = machine.run("stat", "-c", "%U %a", "/var/lib/gunfire-node/mqtt.key").stdout
    assert said == "gunfire-node 600\n"
    assert token not in memory.read_text() + journal
    assert card.read_text() == "[enrolment]\n# a word of ours\nmoved = false\n"
    options = machine.run("findmnt", "-n", "-o", "OPTIONS", "/boot/firmware").stdout
    assert options.startswith("ro,")


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
