"""Enrolment from end to end: the real server, the real node's part, a real Mosquitto."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
import logging
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deliver_node import append, offline, online, wait_until
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from node.capture import SimulatedSource
from node.daemon import Daemon
from node.deliver import BrokerAddress, MqttPublisher, Outbox, SessionOptions, session
from node.deliver.batch import check_broker
from node.demo import Street
from node.errors import BrokerError
from node.identity import load_identity
from node.messages import Checkpoint, Detection, Node, Status, with_transport
from node.messages.signing import Signer
from node.network import Subscription
from node.timing import FakeHostClock
from node.types import ClockQuality
from node.utc import parse_utc_ns
from provisioning import enrol
from provisioning.enrol import LATER, REFUSED
from provisioning.est import decode_certificates, encode_request, key_print, make_request, name
from provisioning.fleet.fleet import Fleet
from provisioning.fleet.server import MOST_FAILURES, THREADS, TIMEOUT_S
from provisioning.fleet.watch import Watch
from provisioning.memory import read_memory
from tests.hil.fleet_stage import NODE_ID, SITE, Box, SetClock, Stage, served
from tests.hil.process import GUNFIRE_NODE
from tests.hil.shipped_broker import ShippedBroker
from tests.hil.virtual_receiver import free_port
from tests.unit.signed_log import EXAMPLE as EXAMPLE_DETECTION
from tests.unit.signed_log import SignedNode, changed

LONG = dt.timedelta(days=400)
LATE = dt.timedelta(days=500)
"""In the last third of a certificate's life."""
WAIT_S = 10.0
HEARD_S = 12
EXAMPLE = (Path(__file__).parents[1] / "contract" / "status.json").read_text()

# paho and urllib3 leave the socket of a failed handshake to the garbage collector, which says so.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with served(tmp_path / "fleet") as running:
        yield running


@pytest.fixture
def broker(stage: Stage, tmp_path: Path) -> Iterator[ShippedBroker]:
    with broker_of(stage, tmp_path) as running:
        yield running


@contextmanager
def broker_of(stage: Stage, tmp_path: Path) -> Iterator[ShippedBroker]:
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
    try:
        yield running
    finally:
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


def with_list_of_today(stage: Stage) -> Stage:
    """Renew the list of a fleet that was made long ago: Mosquitto lets nobody in by an old one."""
    then, stage.clock.ahead = stage.clock.ahead, dt.timedelta()
    stage.fleet.write_revocations()
    stage.clock.ahead = then
    return stage


def lets_in(box: Box, broker: ShippedBroker) -> bool:
    try:
        check_broker(address(box, broker))
    except BrokerError:
        return False
    return True


def csr(key: Any, algorithm: Any = hashes.SHA256()) -> x509.CertificateSigningRequest:  # noqa: B008
    builder = x509.CertificateSigningRequestBuilder().subject_name(name("x", "y"))
    return builder.sign(key, algorithm)


def get(stage: Stage, path: str, method: str = "GET", **options: Any) -> Any:
    """Ask as it stands: urllib3's request would make the path a tidy one."""
    with urllib3.HTTPSConnectionPool(
        "localhost", stage.port, ca_certs=str(stage.fleet.folder / "ca.crt"), retries=False
    ) as pool:
        return pool.urlopen(method, path, redirect=False, assert_same_host=False, **options)


def post(stage: Stage, operation: str, body: bytes, token: str | None) -> Any:
    headers = {"Content-Type": "application/pkcs10"}
    if token is not None:
        headers |= urllib3.make_headers(basic_auth=f"{NODE_ID}:{token}")
    return get(stage, f"/.well-known/est/{operation}", "POST", body=body, headers=headers)


def fleet_command(stage: Stage, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            Path(sys.executable).with_name("gunfire-fleet"),
            "--fleet",
            stage.fleet.folder,
            *map(str, words),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def node_command(*words: object) -> subprocess.CompletedProcess[str]:
    command = [*GUNFIRE_NODE, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def status(boot_id: str, state: str) -> bytes:
    said = json.loads(EXAMPLE) | {"boot_id": boot_id, "state": state, "reasons": []}
    return json.dumps(said | {"node_id": NODE_ID, "site": SITE}).encode()


@contextmanager
def connected(box: Box, broker: ShippedBroker) -> Iterator[Client]:
    client = Client(
        CallbackAPIVersion.VERSION2, client_id=NODE_ID, protocol=MQTTProtocolVersion.MQTTv5
    )
    places = box.places
    client.tls_set(str(places.authority_file), str(places.mqtt_certificate), str(places.mqtt_key))
    client.connect("localhost", broker.port)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def hearing(box: Box, frames: Any) -> Iterator[None]:
    by_ntp = ClockQuality("ntp", sigma_s=1e-3, bound_s=3e-3)  # else no moment is believed
    clock = FakeHostClock(time.time_ns() - time.monotonic_ns(), by_ntp)
    daemon = Daemon(box.settings, SimulatedSource(frames, 48_000, paced=True), clock)
    node = threading.Thread(target=daemon.run)
    node.start()
    try:
        yield
    finally:
        node.join(60)
        assert not node.is_alive()


class PowerCut(BaseException):
    """The power is gone: nothing in between may take it for a fault to go on from."""


class Cuts:
    """Cuts the power at a rename, link or removal of a box; of a number, before it or after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._left: int | None = None
        self._folder = folder
        for owner, word in ((Path, "replace"), (os, "link"), (Path, "unlink")):
            monkeypatch.setattr(owner, word, self._cut(getattr(owner, word)))

    def at(self, number: int, box: Box) -> bool:
        """Run enrolment, and cut it off there; say whether it came so far."""
        self._folder, self._left = box.folder, number
        try:
            box.enrol()
        except PowerCut:
            return True
        finally:
            self._left = None
        return False

    def _cut(self, do: Callable[..., Any]) -> Callable[..., Any]:
        def cut(first: Any, *rest: Any, **options: Any) -> Any:
            if self._left is None or not Path(first).is_relative_to(self._folder):
                return do(first, *rest, **options)
            if self._left == 0:
                raise PowerCut
            done = do(first, *rest, **options)
            if self._left == 1:
                raise PowerCut
            self._left -= 2
            return done

        return cut


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


def test_a_node_that_hears_before_it_is_enrolled_is_online_and_verified_without_a_restart(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite(), broker=f"mqtts://localhost:{broker.port}")
    folder = stage.fleet.folder
    stage.fleet.issue("auditor")
    auditor = BrokerAddress.from_url(
        box.broker,
        ca_file=folder / "ca.crt",
        cert_file=folder / "auditor.crt",
        key_file=folder / "auditor.key",
    )
    frames = Street.load().node.frames()[: HEARD_S * 48_000]
    kinds = ("detection", "node", "checkpoint")
    with Subscription(auditor, kinds=kinds, client_id="auditor") as words:
        got: list[Any] = []
        listener = threading.Thread(target=lambda: got.extend(words))
        listener.start()
        with hearing(box, frames):
            assert wait_until(box.places.signing_key.exists)
            time.sleep(HEARD_S / 3)  # it hears, and keeps what it cannot send
            assert box.enrol() == 0
        # Its last word vouches for all.
        assert wait_until(lambda: isinstance(got[-1].message, Checkpoint))
        words.close()
        listener.join()
    births = [word.message for word in got if isinstance(word.message, Node)]
    assert births[-1].key.certificate == box.places.signing_certificate.read_text()
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(word.payload + b"\n" for word in got))
    judge = (
        "verify",
        log,
        "--ca",
        folder / "ca.crt",
        "--crl",
        folder / "crl.pem",
        "--first-seq",
        1,
    )
    done = node_command(*judge)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "holds: every message is signed" in done.stdout

    # What was signed before its key was stolen stands.
    heard = sorted(
        (word.message for word in got if isinstance(word.message, Detection)),
        key=lambda detection: detection.seq,
    )
    stolen = parse_utc_ns(heard[-1].onset_utc) // 10**9
    stage.fleet.revoke(NODE_ID, "stolen", dt.datetime.fromtimestamp(stolen, dt.UTC))
    done = node_command(*judge)
    assert done.returncode == 1
    assert f"EXPIRED: {log}" in done.stdout
    assert f"seq {heard[-1].seq}:" in done.stdout
    assert "seq 1:" not in done.stdout


# Whether a node is verified, asked beside the broker.


@contextmanager
def verifying(
    stage: Stage, broker: ShippedBroker, *options: object
) -> Iterator[subprocess.Popen[str]]:
    """Run `gunfire-fleet verify`; whoever enters waits for its end by `communicate`."""
    url = f"mqtts://localhost:{broker.port}"
    words = ["--fleet", stage.fleet.folder, "verify", NODE_ID, "--broker", url, *options]
    with subprocess.Popen(
        [Path(sys.executable).with_name("gunfire-fleet"), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.terminate()


def line_with(running: subprocess.Popen[str], words: str) -> str:
    assert running.stdout is not None
    for line in running.stdout:
        if words in line:
            return line
    assert running.stderr is not None
    pytest.fail(f"ended without {words!r}: {running.stderr.read()}")


def test_a_node_is_verified_by_one_command_that_may_begin_before_it_is_switched_on(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite(), broker=f"mqtts://localhost:{broker.port}")
    frames = Street.load().node.frames()[: 2 * HEARD_S * 48_000]
    with verifying(stage, broker, "--settle", 1) as running:
        line_with(running, ", and not enrolled")
        assert box.enrol() == 0
        assert f"{NODE_ID} of {SITE}, key_id " in line_with(running, "enrolled:")
        assert "switched on" in line_with(running, "waits for the node at the broker")
        with hearing(box, frames):
            line_with(running, "heard:")
            out, err = running.communicate(timeout=60)
    assert running.returncode == 0, out + err
    assert f"VERIFIED: {NODE_ID} is enrolled" in out
    assert stage.fleet.inventory.read().members["verifier"].role == "reader"


def test_two_do_not_verify_at_once_and_what_is_missing_is_told_when_time_is_up(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    with verifying(stage, broker, "--timeout", 20) as first:
        line_with(first, "waits for the node at the broker")
        with verifying(stage, broker, "--timeout", 1) as second:
            line_with(second, "waits until somebody else has verified a node")
            broken = online_status(state="degraded", reasons=["no time yet"])
            say(box, broker, ("status", broken))
            line_with(first, "degraded so far: no time yet")
            out, err = first.communicate(timeout=60)
            late, _ = second.communicate(timeout=60)
    assert first.returncode == 1, out + err
    assert f"NOT VERIFIED: {NODE_ID}: after 1 s it still waits for " in late
    assert f"NOT VERIFIED: {NODE_ID}: after 20 s it still waits for its birth certificate" in out


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("revoked", "revoked, and not enrolled"),
        ("run out", "run out, and not enrolled"),
        ("refused", ", and not enrolled; refused last: its token is wrong"),
        ("refused before", ", and not enrolled\n"),
        ("invited again", "invited on "),
        ("expired, invited again", "invited on "),
        ("revoked, invited again", "invited on "),
        ("invited again in vain", "waits for the node at the broker"),
        ("nobody", "node-0001: is no node of this fleet"),
    ],
)
def test_a_node_that_is_not_enrolled_is_not_verified(
    state: str, words: str, stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    ago = -dt.timedelta(days=20)
    if "invited again" in state or state == "revoked":
        assert stage.node(tmp_path / "box", invited(stage, ago)).enrol() == 0
    if state.startswith("revoked"):
        stage.fleet.revoke(NODE_ID, "stolen")
    if state.startswith("expired"):
        with stage.fleet.inventory.change() as inventory:
            for issued in inventory.members[NODE_ID].certificates:
                issued.not_after_utc = issued.not_before_utc
    elif state == "refused before":
        invited(stage, ago)
        stage.clock.ahead = ago
        stage.fleet.refuse(NODE_ID, "127.0.0.1", "its token is wrong")
        stage.clock.ahead = dt.timedelta()
    if state in ("run out", "invited again in vain"):
        invited(stage, ago + dt.timedelta(days=1), days=1)
    elif state not in ("nobody", "revoked"):
        stage.invite()
    if state == "refused":
        stage.fleet.refuse(NODE_ID, "127.0.0.1", "its token is wrong")
    with verifying(stage, broker, "--timeout", 2) as running:
        out, err = running.communicate(timeout=60)
    assert words in out + err
    assert running.returncode == (2 if state == "nobody" else 1)


def invited(stage: Stage, ago: dt.timedelta, **options: Any) -> Any:
    """Invite a node as of then."""
    now, stage.clock.ahead = stage.clock.ahead, ago
    try:
        return stage.invite(**{"days": 30, **options})
    finally:
        stage.clock.ahead = now


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        ({}, "VERIFIED: node-0001 is enrolled, online"),
        ({"grade": "not_gunfire"}, "ALTERED: "),
        ("signed by another", "ALTERED: "),
        ({"signature": None}, "UNSIGNED: "),
    ],
)
def test_a_node_whose_words_do_not_hold_is_not_verified(
    spoilt: Any, words: str, stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    node = signing_node(box)
    detection = node.detection()
    if spoilt == "signed by another":
        node.signer = Signer(Ed25519PrivateKey.generate())
        detection = node.detection()
        node = signing_node(box, node)
    elif spoilt:
        detection = changed(detection, **spoilt)
    with verifying(stage, broker) as running:
        line_with(running, "waits for the node at the broker")
        say(box, broker, ("status", online_status(node)), ("node", node.birth()), detection)
        out, err = running.communicate(timeout=60)
    assert words in out, out + err
    assert (f"NOT VERIFIED: {NODE_ID}: what it sent does not hold" in out) == bool(spoilt)
    assert running.returncode == bool(spoilt)


def test_what_does_not_say_when_does_not_count_and_what_is_wrong_is_told_with_the_verdict(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    node, old = signing_node(box), signing_node(box)
    old.begin_ns, old.seq = old.begin_ns - 3600 * 10**9, 100
    free = EXAMPLE_DETECTION.clock.model_copy(update={"source": "free"})
    bare = signing_node(box)
    bare.signer = Signer(node.key)
    with verifying(stage, broker, "--timeout", 30) as running:
        line_with(running, "waits for the node at the broker")
        broken = online_status(node, "degraded", ["the thermometer is silent"])
        # Its birth from before the certificate had come does not count.
        say(box, broker, ("status", broken), ("node", bare.birth()), node.detection(clock=free))
        line_with(running, "by a clock that nobody has set")
        say(box, broker, old.detection())
        assert "heard something that is -3" in line_with(running, "from this machine's clock")
        line_with(running, "waits for its birth certificate")
        say(box, broker, ("node", node.birth()))
        line_with(running, "waits for a detection with its time")
        say(box, broker, node.detection())
        line_with(running, "waits for what it says is wrong (above) to go away")
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, out + err
    verdict = f"VERIFIED: {NODE_ID} is enrolled, degraded, and signs what it hears, and says: "
    assert f"{verdict}the thermometer is silent\n" in out


def test_a_box_that_was_replaced_is_not_taken_for_the_one_that_replaces_it(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    old = stage.node(tmp_path / "old", invited(stage, -dt.timedelta(days=20)))
    assert old.enrol() == 0
    new = stage.node(tmp_path / "new", stage.invite())
    with verifying(stage, broker, "--timeout", 60) as running:
        line_with(running, ", and not enrolled")
        assert new.enrol() == 0
        line_with(running, "waits for the node at the broker")
        for number, box in enumerate((old, new)):
            node = signing_node(box)
            node.boot_id, node.seq = str(uuid.uuid4()), 10 * number
            node.origin = dataclasses.replace(node.origin, boot_id=node.boot_id)
            say(box, broker, ("status", online_status(node)), ("node", node.birth()))
            say(box, broker, node.detection())
            if box is old:
                line_with(running, "another box says that it is node-0001, with the key ")
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, out + err
    assert f"VERIFIED: {NODE_ID}" in out


def test_a_node_that_is_revoked_meanwhile_is_not_verified(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    node = signing_node(box)
    with verifying(stage, broker) as running:
        line_with(running, "waits for the node at the broker")
        stage.fleet.revoke(NODE_ID, "stolen")  # its connection still stands
        say(box, broker, ("status", online_status(node)), ("node", node.birth()))
        say(box, broker, node.detection())
        out, err = running.communicate(timeout=60)
    assert running.returncode == 1, out + err
    assert f"NOT VERIFIED: {NODE_ID}" in out


def test_a_broker_that_goes_away_is_told_and_nothing_is_judged(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    assert stage.node(tmp_path / "box", stage.invite()).enrol() == 0
    with verifying(stage, broker, "--timeout", 15) as running:
        line_with(running, "waits for the node at the broker")
        broker.end()
        line_with(running, f"waits for broker mqtts://localhost:{broker.port}")
        out, err = running.communicate(timeout=60)
    assert running.returncode == 2, out + err
    assert f"broker mqtts://localhost:{broker.port}" in err


def test_the_verifiers_own_key_is_made_anew_where_it_is_lost(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    assert stage.node(tmp_path / "box", stage.invite()).enrol() == 0
    stage.fleet.issue("verifier")
    (stage.fleet.folder / "verifier.key").unlink()
    with verifying(stage, broker, "--timeout", 2) as running:
        out, err = running.communicate(timeout=60)
    assert running.returncode == 1, out + err
    assert "it still waits for the node at the broker" in out


def signing_node(box: Box, like: SignedNode | None = None) -> SignedNode:
    """Give what a box would say, signed by its own key; of the same run as another."""
    places = box.places
    identity = load_identity(places.signing_key, places.signing_certificate, NODE_ID, SITE)
    begin = dt.datetime.now(dt.UTC).replace(microsecond=0)
    if like is not None:
        begin = dt.datetime.fromtimestamp(like.begin_ns / 10**9, dt.UTC)
    node = SignedNode(NODE_ID, begin, identity.private_key, SITE)
    node.signer = Signer(identity.private_key, identity.certificate)
    return node


def online_status(
    node: SignedNode | None = None, state: str = "online", reasons: list[str] | None = None
) -> bytes:
    said = json.loads(status(node.boot_id if node else str(uuid.uuid4()), state))
    return json.dumps(said | {"reasons": reasons or []}).encode()


def say(box: Box, broker: ShippedBroker, *words: tuple[str, bytes] | bytes) -> None:
    """Publish as a box: detections as they are, others with their kind."""
    with connected(box, broker) as client:
        for word in words:
            kind, said = word if isinstance(word, tuple) else ("detection", word)
            topic = f"gunfire/v1/{SITE}/{NODE_ID}/{kind}"
            client.publish(topic, said, qos=1).wait_for_publish(WAIT_S)


# What goes wrong with a token, and how it is told.


def test_asked_again_after_a_lost_answer_the_fleet_gives_the_same_certificates(
    stage: Stage, tmp_path: Path
) -> None:
    invitation = stage.invite()
    box = stage.node(tmp_path / "box", invitation)
    assert box.enrol() == 0
    files = (box.places.mqtt_certificate, box.places.signing_certificate)
    first = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    box.put(invitation)
    box.clock = SetClock(LONG)  # even after its end: it was used in time
    assert box.enrol() == 0
    assert [file.read_bytes() for file in files] == first
    assert len(stage.fleet.inventory.read().members[NODE_ID].certificates) == 2


def test_a_token_serves_one_box_and_the_second_is_refused_and_told(
    stage: Stage, tmp_path: Path
) -> None:
    invitation = stage.invite()
    assert stage.node(tmp_path / "box", invitation).enrol() == 0
    thief = stage.node(tmp_path / "thief", invitation)
    assert thief.enrol() == REFUSED
    assert thief.told["verdict"] == "fail"
    assert "was used before, with another key" in thief.told["figure"]
    assert "gunfire-fleet revoke node-0001" in thief.told["advice"]
    assert not thief.places.mqtt_certificate.exists()
    member = stage.fleet.inventory.read().members[NODE_ID]
    assert (member.refused, member.refusals[0].who) == (1, "127.0.0.1")
    assert "was used before, with another key" in member.refusals[0].why


def test_a_token_that_ran_out_is_refused_and_told(stage: Stage, tmp_path: Path) -> None:
    box = stage.node(tmp_path / "box", stage.invite(days=1))
    stage.clock.ahead = dt.timedelta(days=2)
    assert box.enrol() == REFUSED
    assert "ran out on" in box.told["figure"]
    assert stage.fleet.inventory.read().members[NODE_ID].state(stage.clock.moment()) == "run out"


def test_a_wrong_token_is_refused_and_after_a_few_is_not_even_looked_at(
    stage: Stage, tmp_path: Path
) -> None:
    invitation = stage.invite()
    wrong = invitation.model_copy(update={"token": "x" * 32})
    for _ in range(MOST_FAILURES):
        box = stage.node(tmp_path / "box", wrong)
        assert box.enrol() == REFUSED
        assert "the token is not one that this name was invited with" in box.told["figure"]
    assert stage.node(tmp_path / "box", wrong).enrol() == LATER
    assert stage.node(tmp_path / "box", stage.invite("node-0002")).enrol() == 0


def test_a_server_of_another_authority_is_told_no_token(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with served(tmp_path / "elsewhere") as stranger:
        invitation = stage.invite().model_copy(update={"enrolment_url": stranger.url})
        box = stage.node(tmp_path / "box", invitation)
        assert box.enrol() == LATER
        assert box.told["verdict"] == "fail"
        assert "its certificate is not accepted" in box.told["figure"]
        assert "somebody may be in between" in box.told["advice"]
        assert stranger.fleet.inventory.read().strangers_refused == 0


def test_a_server_that_is_not_there_is_a_warning_and_another_try(
    stage: Stage, tmp_path: Path
) -> None:
    gone = stage.invite().model_copy(update={"enrolment_url": f"https://localhost:{free_port()}"})
    box = stage.node(tmp_path / "box", gone)
    assert box.enrol() == LATER
    assert box.told["verdict"] == "warn"
    assert "cannot be reached" in box.told["figure"]
    box.put(stage.invite())
    assert box.enrol() == 0


def test_no_token_gets_into_a_log_a_report_or_the_inventory(
    stage: Stage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    invitation = stage.invite()
    boxes = [stage.node(tmp_path / name, invitation) for name in ("box", "thief")]
    assert [box.enrol() for box in boxes] == [0, REFUSED]
    assert invitation.token
    encoded = base64.b64encode(f"{NODE_ID}:{invitation.token}".encode()).decode()
    for secret in (invitation.token, encoded):
        assert secret not in caplog.text
        for folder in (stage.fleet.folder, boxes[0].folder):
            for file in folder.rglob("*"):
                assert not file.is_file() or secret.encode() not in file.read_bytes(), file


# The clock.


def test_with_a_clock_at_2023_a_node_waits_says_so_and_enrols_once_it_is_set(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol, "CLOCK_S", 0.01)
    clock = SetClock(dt.datetime(2023, 1, 1, tzinfo=dt.UTC) - dt.datetime.now(dt.UTC), False)
    box = stage.node(tmp_path / "box", stage.invite(), clock=clock)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(box.enrol()))
    thread.start()
    assert wait_until(lambda: (box.places.reports / "enrolment.json").exists())
    assert box.told["verdict"] == "warn"
    assert box.told["figure"].startswith("waits for the clock: it says 2023-01-01")
    assert "GPS or NTP" in box.told["advice"]
    assert not stage.fleet.inventory.read().members[NODE_ID].certificates
    clock.ahead = dt.timedelta()
    assert wait_until(lambda: "which nothing sets yet" in box.told["figure"])
    clock.trusted = True
    thread.join(WAIT_S)
    assert codes == [0]


def test_a_clock_that_nothing_disciplines_is_taken_after_a_while_unless_it_is_evidently_wrong(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol, "CLOCK_S", 0.01)
    monkeypatch.setattr(enrol, "PATIENCE_S", 0.1)
    box = stage.node(tmp_path / "box", stage.invite(), clock=SetClock(trusted=False))
    assert box.enrol() == 0


# The end of a certificate.


def test_a_revoked_node_is_kept_out_of_the_broker_refused_and_told(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    check_broker(address(box, broker))
    stage.fleet.revoke(NODE_ID, "stolen")
    broker.reload()
    assert wait_until(lambda: not lets_in(box, broker))
    assert box.enrol() == REFUSED
    assert box.told["figure"].startswith("revoked by the fleet on ")
    box.clock = SetClock(LATE)
    stage.clock.ahead = LATE
    (stage.fleet.folder / "crl.pem").unlink()  # and where the list cannot be had
    assert box.enrol() == REFUSED
    assert "the fleet refuses: node-0001 was revoked on" in box.told["figure"]
    member = stage.fleet.inventory.read().members[NODE_ID]
    assert member.refused == 1
    again = stage.invite()
    box.put(again)
    assert box.enrol() == REFUSED
    assert "was revoked" in box.told["figure"]


def test_a_certificate_that_ran_out_is_told_and_a_new_token_mends_it(
    stage: Stage, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    stage.clock.ahead = dt.timedelta(days=731)
    assert box.enrol() == REFUSED
    assert "the certificates ran out on" in box.told["figure"]
    assert "invited again" in box.told["advice"]
    assert stage.fleet.inventory.read().members[NODE_ID].state(stage.clock.moment()) == "expired"
    box.put(stage.invite())
    key = load_identity(box.places.signing_key, None, NODE_ID, SITE).private_key
    assert box.enrol() == 0
    assert key_print(certificate(box.places.signing_certificate)) == key_print(key)


def test_in_the_last_third_of_its_life_a_certificate_is_renewed_with_a_new_key_while_it_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_LOOK_AT_FILES_S", 0.1)
    with (
        served(tmp_path / "fleet", SetClock(-dt.timedelta(days=490))) as stage,
        broker_of(with_list_of_today(stage), tmp_path) as broker,
    ):
        _renewed_while_it_sends(stage, broker, tmp_path)


def _renewed_while_it_sends(stage: Stage, broker: ShippedBroker, tmp_path: Path) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    before = certificate(box.places.mqtt_certificate)
    signing = certificate(box.places.signing_certificate)
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as outbox:
        sender = MqttPublisher(
            outbox,
            address(box, broker),
            NODE_ID,
            SessionOptions(keepalive_s=5, reconnect_max_s=1),
            detection_topic=f"gunfire/v1/{SITE}/{NODE_ID}/detection",
            status_topic=f"gunfire/v1/{SITE}/{NODE_ID}/status",
            offline=offline,
            stamp=with_transport,
            utc_now_ns=time.time_ns,
        )
        sender.set_status(online())
        sender.start()
        try:
            assert wait_until(lambda: sender.delivery().connected)
            stage.clock.ahead = -dt.timedelta(days=10)
            assert box.enrol() == 0
            assert certificate(box.places.mqtt_certificate) == before  # not yet
            stage.clock.ahead = dt.timedelta()
            assert box.enrol() == 0
            after = certificate(box.places.mqtt_certificate)
            assert key_print(after) != key_print(before)
            renewed = certificate(box.places.signing_certificate)
            assert key_print(renewed) == key_print(signing)
            assert renewed.not_valid_after_utc > signing.not_valid_after_utc
            log = tmp_path / "broker" / "mosquitto.log"
            assert wait_until(lambda: log.read_text().count(f"as {NODE_ID} ") >= 2)
            assert wait_until(lambda: sender.delivery().connected)
            append(outbox, 1)
            assert wait_until(lambda: outbox.depth == 0)
        finally:
            sender.close()
    assert not list(box.folder.rglob("*.next"))


def test_two_boxes_with_one_nodes_keys_are_told_by_the_watch_and_renewed_no_more(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    said: list[str] = []
    watch = Watch(stage.fleet, said.append)
    stage.fleet.issue("fleet")
    folder = stage.fleet.folder
    words = Subscription(
        BrokerAddress.from_url(
            f"mqtts://localhost:{broker.port}",
            ca_file=folder / "ca.crt",
            cert_file=folder / "fleet.crt",
            key_file=folder / "fleet.key",
        ),
        kinds=("status",),
        client_id="fleet",
    )
    boots = [str(uuid.uuid4()) for _ in range(3)]

    def say(boot_id: str, state: str = "online") -> None:
        payload = status(boot_id, state)
        with connected(box, broker) as client:
            sent = client.publish(f"gunfire/v1/{SITE}/{NODE_ID}/status", payload, qos=1)
            sent.wait_for_publish(WAIT_S)
        word = words.next(WAIT_S)
        assert word is not None
        assert isinstance(word.message, Status)
        watch.take(word.message)

    with words:
        say(boots[0])
        say(boots[0], "offline")
        assert stage.fleet.inventory.read().members[NODE_ID].offline_utc
        say(boots[1])  # started anew: no news
        say(boots[0], "offline")  # the last will of the run before
        assert [line.partition(" went")[0] for line in said] == [NODE_ID, f"{NODE_ID} is back"]
        say(boots[2])
        say(boots[1])
        say(boots[2])
    assert len(said) == 3
    assert f"{NODE_ID} is there twice" in said[2]
    member = stage.fleet.inventory.read().members[NODE_ID]
    assert member.state(stage.clock.moment()) == "cloned"
    stage.clock.ahead = dt.timedelta(days=490)
    assert box.enrol() == REFUSED
    assert "was seen twice at the broker" in box.told["figure"]
    stage.fleet.forgive(NODE_ID)
    assert box.enrol() == 0


# A cut of power.


@pytest.mark.parametrize("days", [0, 490], ids=["enrolment", "renewal"])
def test_cut_off_at_any_write_it_is_gone_on_from_and_no_certificate_too_many_is_issued(
    stage: Stage, tmp_path: Path, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut before and after each rename, link and removal, each time of another node."""
    cuts = Cuts(monkeypatch, tmp_path)
    was_cut, number = True, 0
    while was_cut:
        node_id = f"node-{number}"
        stage.clock.ahead = dt.timedelta()
        box = stage.node(tmp_path / node_id, stage.invite(node_id))
        if days:
            assert box.enrol() == 0
            stage.clock.ahead = dt.timedelta(days=days)
        was_cut = cuts.at(number, box)
        assert box.enrol() == 0, (number, box.told)
        assert_whole(box, node_id)
        member = stage.fleet.inventory.read().members[node_id]
        assert (len(member.certificates), member.refused) == (4 if days else 2, 0), number
        number += 1
    assert number > 12


def assert_whole(box: Box, node_id: str) -> None:
    places = box.places
    signing = load_identity(places.signing_key, places.signing_certificate, node_id, SITE)
    assert signing.certificate
    mqtt = serialization.load_pem_private_key(places.mqtt_key.read_bytes(), None)
    assert key_print(certificate(places.mqtt_certificate)) == key_print(mqtt)
    assert not list(box.folder.rglob("*.next"))
    enrolment = read_memory(places).enrolment
    assert enrolment is not None
    assert enrolment.token is None
    for file in (places.mqtt_key, places.signing_key):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


# By hand.


def test_where_the_fleet_cannot_be_reached_request_and_answer_are_carried(
    stage: Stage, broker: ShippedBroker, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite(by_hand=True))
    assert box.enrol() == 0
    assert box.told["verdict"] == "warn"
    assert "gunfire-node-request.json to the fleet" in box.told["advice"]
    request = box.places.request_file
    lies = request.stat().st_mtime_ns
    assert box.enrol() == 0
    assert request.stat().st_mtime_ns == lies  # the card is not written at each boot
    text = request.read_text()
    done = fleet_command(stage, "sign", request, "--yes")
    assert done.returncode == 0, done.stderr
    assert box.enrol() == 0
    assert not request.exists()
    assert box.told["verdict"] == "pass"
    check_broker(address(box, broker))

    # Carried by somebody else, or signed elsewhere.
    other = stage.node(tmp_path / "other", stage.invite("node-0002", by_hand=True))
    box.places.response_file.replace(other.places.response_file)
    assert other.enrol() == REFUSED
    assert "holds no mqtt certificate over this node's key" in other.told["figure"]
    other.places.response_file.unlink()
    assert other.enrol() == 0
    with served(tmp_path / "elsewhere") as stranger:
        stranger.invite("node-0002", by_hand=True)
        assert fleet_command(stranger, "sign", other.places.request_file, "--yes").returncode == 0
        assert other.enrol() == REFUSED
        assert "that the fleet's CA has not issued" in other.told["figure"]

    # A name that nobody invited; and a second box under one that was.
    request.write_text(text.replace(NODE_ID, "node-0009"))
    done = fleet_command(stage, "sign", request, "--yes")
    assert done.returncode == 2
    assert "node-0009 was not invited" in done.stderr
    second = stage.node(tmp_path / "second", stage.invite("node-0003", by_hand=True))
    second.put(second.invitation.model_copy(update={"node_id": NODE_ID}))
    assert second.enrol() == 0
    done = fleet_command(stage, "sign", second.places.request_file, "--yes")
    assert done.returncode == 2
    assert "was used before, with another key" in done.stderr


# What strangers send.


def test_what_is_no_request_is_refused_in_words_and_nothing_of_it_is_kept(
    stage: Stage,
) -> None:
    invitation = stage.invite()
    other = ec.generate_private_key(ec.SECP256R1())
    good = make_request(other, NODE_ID, SITE)
    der = bytearray(good.public_bytes(serialization.Encoding.DER))
    der[-4] ^= 1  # of the signature
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 - what is to be refused
    requests = {
        b"": (400, "is no certificate request"),
        b"\xff" * 64: (400, "is no certificate request"),
        base64.b64encode(b"junk" * 100): (400, "is no certificate request"),
        base64.b64encode(bytes(der)): (400, "not signed by the key"),
        encode_request(csr(weak)): (400, "over a key of another kind"),
        encode_request(csr(ec.generate_private_key(ec.SECP384R1()))): (400, "connects with EC P"),
        encode_request(csr(Ed25519PrivateKey.generate(), None)): (400, "connects with EC P-256"),
        b"A" * (2**14 + 1): (413, "16384 bytes at most"),
    }
    for body, (code, words) in requests.items():
        answer = post(stage, "mqtt/simpleenroll", body, invitation.token)
        assert (answer.status, words in answer.data.decode()) == (code, True), answer.data
    answer = post(stage, "signing/simpleenroll", encode_request(good), invitation.token)
    assert (answer.status, b"a node signs with Ed25519" in answer.data) == (400, True)
    assert post(stage, "mqtt/simplereenroll", encode_request(good), None).status == 401
    assert post(stage, "mqtt/simpleenroll", encode_request(good), None).status == 401
    assert post(stage, "mqtt/other", encode_request(good), None).status == 405
    assert not stage.fleet.inventory.read().members[NODE_ID].certificates


def test_the_name_in_a_certificate_is_the_tokens_whatever_the_request_says(stage: Stage) -> None:
    invitation = stage.invite()
    request = make_request(ec.generate_private_key(ec.SECP256R1()), "operator", "elsewhere")
    answer = post(stage, "mqtt/simpleenroll", encode_request(request), invitation.token)
    (issued,) = decode_certificates(answer.data)
    assert issued.subject.rfc4514_string() == f"CN={NODE_ID},O={SITE}"


def test_of_the_releases_nothing_beside_them_is_given(stage: Stage) -> None:
    folder = stage.fleet.folder
    (folder / "releases" / "metadata").mkdir()
    (folder / "releases" / "metadata" / "1.root.json").write_text("{}")
    (folder / "releases" / "out").symlink_to(folder)
    (folder / "releases" / ".hidden").write_text("x")
    assert get(stage, "/releases/metadata/1.root.json").data == b"{}"
    assert get(stage, "/crl.pem").data == (folder / "crl.pem").read_bytes()
    for path in (
        "/releases/../ca.key",
        "/releases/%2e%2e/ca.key",
        "/releases/..%2fca.key",
        "/releases/metadata/../../ca.key",
        "/releases//etc/passwd",
        "/releases/out/ca.key",
        "/releases/.hidden",
        "/releases/metadata",
        "/releases/metadata/%00",
        "/releases/",
        "/ca.key",
        "/inventory.json",
        "/",
    ):
        answer = get(stage, path)
        assert (answer.status, b"PRIVATE KEY" in answer.data) == (404, False), path


def test_clients_who_say_nothing_keep_nobody_out(stage: Stage, tmp_path: Path) -> None:
    silent = [socket.create_connection(("127.0.0.1", stage.port)) for _ in range(3 * THREADS)]
    try:
        began_s = time.monotonic()
        assert stage.node(tmp_path / "box", stage.invite()).enrol() == 0
        assert time.monotonic() - began_s < TIMEOUT_S / 2
    finally:
        for connection in silent:
            connection.close()


def test_silent_clients_who_use_up_the_descriptors_are_closed_and_nobody_is_kept_out_after(
    tmp_path: Path,
) -> None:
    Fleet.make(tmp_path / "fleet", ["localhost"], SITE, "fleet CA")
    port = free_port()
    words = (
        "--fleet",
        str(tmp_path / "fleet"),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    )
    program = str(Path(sys.executable).with_name("gunfire-fleet"))
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", program, *words], stderr=log
        ) as server,
    ):
        ca = str(tmp_path / "fleet" / "ca.crt")

        def answers() -> bool:
            with urllib3.HTTPSConnectionPool(
                "localhost", port, ca_certs=ca, retries=False, timeout=5
            ) as pool:
                try:
                    return bool(pool.request("GET", "/crl.pem").status == 200)
                except urllib3.exceptions.HTTPError:
                    return False

        silent: list[socket.socket] = []
        try:
            assert wait_until(answers)
            silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(100)]
            assert wait_until(answers)
        finally:
            for connection in silent:
                connection.close()
            server.terminate()
    assert (tmp_path / "log").stat().st_size < 10_000


def test_what_comes_in_pieces_and_who_is_refused_again_and_again_is_not_looked_at(
    stage: Stage, tmp_path: Path
) -> None:
    headers = {"Transfer-Encoding": "chunked", "Content-Length": "5"}
    answer = get(
        stage, "/.well-known/est/mqtt/simpleenroll", "POST", body=b"zz\r\nhello", headers=headers
    )
    assert answer.status == 411
    stage.fleet.issue("operator")
    folder = stage.fleet.folder
    body = encode_request(make_request(ec.generate_private_key(ec.SECP256R1()), "x", "y"))
    with urllib3.HTTPSConnectionPool(
        "localhost",
        stage.port,
        ca_certs=str(folder / "ca.crt"),
        cert_file=str(folder / "operator.crt"),
        key_file=str(folder / "operator.key"),
        retries=False,
    ) as pool:
        told = [
            pool.request(
                "POST",
                "/.well-known/est/mqtt/simplereenroll",
                body=body,
                headers={"Content-Type": "application/pkcs10"},
            ).status
            for _ in range(MOST_FAILURES + 1)
        ]
    assert told == [403] * MOST_FAILURES + [429]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_client_of_est_that_is_not_ours_gets_a_certificate(stage: Stage, tmp_path: Path) -> None:
    invitation = stage.invite()
    url, ca = f"https://localhost:{stage.port}/.well-known/est", stage.fleet.folder / "ca.crt"
    script = f"""
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout k.pem \\
          -subj /CN=x -outform DER | openssl base64 > r.b64
        curl -sS --fail --cacert {ca} {url}/cacerts | openssl base64 -d |
          openssl pkcs7 -inform DER -print_certs -out ca.pem
        curl -sS --fail --cacert ca.pem -u {NODE_ID}:{invitation.token} \\
          -H 'Content-Type: application/pkcs10' --data-binary @r.b64 {url}/mqtt/simpleenroll |
          openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out c.pem
        openssl verify -x509_strict -purpose sslclient -CAfile ca.pem c.pem
        curl -sS --fail --cacert ca.pem --cert c.pem --key k.pem \\
          -H 'Content-Type: application/pkcs10' --data-binary @r.b64 {url}/mqtt/simplereenroll |
          openssl base64 -d | openssl pkcs7 -inform DER -print_certs | cmp - c.pem
    """
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "c.pem: OK"), done.stderr
