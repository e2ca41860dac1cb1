"""The fleet's authority: whom it invites, what it issues, what its inventory keeps; its command."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from node.errors import GunfireNodeError, ProvisioningError
from node.messages import Status, parse_status
from node.messages.trust import Trust
from provisioning.est import (
    CarriedRequest,
    Kind,
    decode_certificates,
    decode_request,
    key_print,
    make_request,
    pem,
)
from provisioning.fleet import files
from provisioning.fleet.authority import private_pem
from provisioning.fleet.cli import _address, cli, main
from provisioning.fleet.files import locked
from provisioning.fleet.fleet import RESERVED, Fleet, RefusedError
from provisioning.fleet.inventory import MOST_REFUSALS, Member
from provisioning.fleet.nats import users
from provisioning.fleet.server import (
    FAILURES_S,
    MOST_ADDRESSES,
    MOST_FAILURES,
    MOST_FAILURES_OF_ADDRESS,
    Failures,
)
from provisioning.fleet.watch import Watch
from provisioning.invitation import Invitation
from provisioning.update.repository import Repository

SITE = "riverside"
NOW = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
EXAMPLE = (Path(__file__).parents[2] / "contract" / "status.json").read_bytes()
SYSTEMD = Path(__file__).parents[3] / "systemd" / "fleet"
OTHER_BOOT = "11111111-2222-4333-8444-555555555555"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> dt.datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock) -> Fleet:
    return Fleet.make(tmp_path / "fleet", ["broker.local", "192.0.2.7"], SITE, "fleet CA", clock)


def enrol(fleet: Fleet, node_id: str, invitation: Invitation | None = None) -> list[str]:
    """Have a node enrol with new keys; gives the prints of both."""
    invitation = invitation or fleet.invite(node_id, None, 14, by_hand=False)
    assert invitation.token
    keys = {
        "mqtt": ec.generate_private_key(ec.SECP256R1()),
        "signing": Ed25519PrivateKey.generate(),
    }
    for kind, key in keys.items():
        fleet.enrol(node_id, invitation.token, kind, make_request(key, node_id, SITE), "test")
    return [key_print(key) for key in keys.values()]


def state(fleet: Fleet, name: str) -> str:
    return fleet.inventory.read().members[name].state(fleet.clock())


def test_what_is_secret_is_for_its_owner_alone(fleet: Fleet) -> None:
    fleet.issue("operator")
    assert stat.S_IMODE(fleet.folder.stat().st_mode) == 0o700
    for name in ("ca.key", "broker.key", "operator.key", ".lock"):
        assert stat.S_IMODE((fleet.folder / name).stat().st_mode) == 0o600, name


def test_a_fleets_folder_is_never_made_over(fleet: Fleet) -> None:
    before = (fleet.folder / "ca.key").read_bytes()
    with pytest.raises(ProvisioningError, match="is a fleet's folder already, and is left alone"):
        Fleet.make(fleet.folder, ["broker.local"], SITE, "another", fleet.clock)
    assert (fleet.folder / "ca.key").read_bytes() == before


def test_the_name_of_the_fleets_own_key_is_nobodys(fleet: Fleet) -> None:
    before = [(fleet.folder / name).read_bytes() for name in ("ca.key", "ca.crt")]
    with pytest.raises(ProvisioningError, match="the fleet's own key"):
        fleet.issue("ca")
    with pytest.raises(ProvisioningError, match="the fleet's own key"):
        fleet.invite("ca", None, 14, by_hand=False)
    assert [(fleet.folder / name).read_bytes() for name in ("ca.key", "ca.crt")] == before


def test_a_new_names_certificate_replaces_no_file_that_is_somebody_elses(fleet: Fleet) -> None:
    file = fleet.folder / "map.key"
    file.write_text("mine")
    with pytest.raises(ProvisioningError, match="nobody of the fleet's"):
        fleet.issue("map")
    assert file.read_text() == "mine"
    file.unlink()
    before = fleet.inventory.path.read_bytes()
    fleet.issue("map")
    fleet.inventory.path.write_bytes(before)  # a cut before the inventory was written
    fleet.issue("map")


def test_a_key_that_a_cut_left_without_its_certificate_is_issued_anew(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: Path, data: bytes, mode: int) -> None:
        if path.name == "broker.crt":
            raise ProvisioningError("No space left on device")
        files.write(path, data, mode)

    with monkeypatch.context() as disk:
        disk.setattr("provisioning.fleet.fleet.write", cut)
        with pytest.raises(ProvisioningError, match="No space"):
            fleet.issue("broker")
    assert fleet.renew_brokers() == ["broker"]
    assert fleet.renew_brokers() == []
    request = make_request(ec.generate_private_key(ec.SECP256R1()), "x", "y")
    fleet.issue("broker", request=request)
    assert fleet.renew_brokers() == []  # its key is with who asked


@pytest.mark.parametrize("file", ["ca.key", "ca.crt", "inventory.json", "broker.key", "crl.pem"])
def test_a_fleet_whose_making_was_cut_off_is_gone_on_with(
    file: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(path: Path, data: bytes, mode: int) -> None:
        if path.name == file:
            raise ProvisioningError("cut")
        files.write(path, data, mode)

    folder = tmp_path / "fleet"
    with monkeypatch.context() as disk:
        for module in ("fleet", "authority", "inventory"):
            disk.setattr(f"provisioning.fleet.{module}.write", cut)
        with pytest.raises(ProvisioningError, match="cut"):
            Fleet.make(folder, ["broker.local"], SITE, "fleet CA", clock)
    key = (folder / "ca.key").read_bytes() if file != "ca.key" else None
    fleet = Fleet.make(folder, ["broker.local"], SITE, "fleet CA", clock)
    assert key in (None, (folder / "ca.key").read_bytes())
    assert fleet.renew_brokers() == []
    assert state(fleet, "broker") == "enrolled"


def test_an_address_of_ipv6_stands_in_brackets_and_a_refusal_leaves_no_folder(
    tmp_path: Path,
) -> None:
    fleet = Fleet.make(tmp_path / "fleet", ["2001:db8::1"], SITE, "fleet CA")
    assert fleet.settings.broker == "mqtts://[2001:db8::1]:8883"
    with pytest.raises(ProvisioningError):
        Fleet.make(tmp_path / "other", ["-"], SITE, "fleet CA")
    assert not (tmp_path / "other").exists()


def test_an_invitation_that_cannot_be_written_ends_none(fleet: Fleet) -> None:
    first = fleet.invite("node-0001", None, 14, by_hand=False)
    run = fleet_command(fleet.folder)
    assert run("invite", "node-0001", "-o", "/nowhere/file").exit_code
    enrol(fleet, "node-0001", first)


def test_what_is_carried_is_signed_whole_or_not_at_all(fleet: Fleet) -> None:
    fleet.invite("node-0001", None, 14, by_hand=True)
    p256 = make_request(ec.generate_private_key(ec.SECP256R1()), "x", "y")
    ed25519 = make_request(Ed25519PrivateKey.generate(), "x", "y")
    requests: list[dict[Kind, str]] = [
        {},
        {"mqtt": pem(p256)},
        {"mqtt": pem(p256), "signing": pem(p256)},
    ]
    for asked in requests:
        with pytest.raises(RefusedError):
            fleet.sign(CarriedRequest(node_id="node-0001", site=SITE, requests=asked), "test")
        assert not fleet.inventory.read().members["node-0001"].certificates
    whole = CarriedRequest(
        node_id="node-0001", site=SITE, requests={"mqtt": pem(p256), "signing": pem(ed25519)}
    )
    assert len(fleet.sign(whole, "test").certificates) == 2


def test_ctrl_c_and_a_fault_of_the_disk_are_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for fault, code in ((click.Abort(), 130), (OSError(28, "No space left"), 2)):

        def fail(*_: object, fault: Exception = fault, **__: object) -> None:
            raise fault

        monkeypatch.setattr("provisioning.fleet.cli.cli", fail)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == code
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "told"),
    [("active", "restart"), ("activating", "restart"), ("failed", ""), ("inactive", "")],
)
def test_a_revocation_gets_to_a_broker_that_is_just_starting(
    before: str, told: str, fleet: Fleet, tmp_path: Path
) -> None:
    script = (SYSTEMD / "gunfire-fleet-to-broker").read_text()
    script = script.replace(" -g mosquitto", "").replace("/run/systemd/system", "/tmp")  # noqa: S108
    broker, calls = tmp_path / "broker", tmp_path / "calls"
    broker.mkdir()
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "systemctl"
    stub.write_text(f'#!/bin/sh\n[ $1 != show ] || echo {before}\necho "$1" >>{calls}\n')
    stub.chmod(0o755)

    def run() -> str:
        calls.write_text("")
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-c", script, "sh", fleet.folder, broker],
            env={"PATH": path}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stderr

    run()
    fleet.issue("operator")
    fleet.revoke("operator", "stolen")
    run()
    assert ("restart" in calls.read_text()) is bool(told)
    certificate = (broker / "broker.crt").read_bytes()
    key = ec.generate_private_key(ec.SECP256R1())
    (fleet.folder / "broker.key").write_bytes(private_pem(key))
    assert "broker.key is not of broker.crt" in run()
    assert fleet.renew_brokers() == ["broker"]
    assert run() == ""
    assert (broker / "broker.crt").read_bytes() != certificate


@pytest.mark.parametrize("name", RESERVED)
def test_no_node_gets_a_name_that_the_broker_knows_otherwise(name: str, fleet: Fleet) -> None:
    with pytest.raises(ProvisioningError, match="a node of it would open the broker"):
        fleet.invite(name, None, 14, by_hand=False)


def test_a_name_is_a_nodes_or_a_readers_and_a_node_keeps_to_its_site(fleet: Fleet) -> None:
    fleet.issue("log-keeper")
    with pytest.raises(ProvisioningError, match="one who reads"):
        fleet.invite("log-keeper", None, 14, by_hand=False)
    enrol(fleet, "node-0001")
    with pytest.raises(ProvisioningError, match="gunfire-fleet invite enrols it"):
        fleet.issue("node-0001")
    with pytest.raises(ProvisioningError, match="belongs to the site riverside"):
        fleet.invite("node-0001", "elsewhere", 14, by_hand=False)


def test_an_invitation_holds_the_token_and_the_inventory_its_hash_alone(fleet: Fleet) -> None:
    invitation = fleet.invite("node-0001", None, 14, by_hand=False)
    assert invitation.token
    assert invitation.token not in fleet.inventory.path.read_text()
    assert invitation.expires_utc == "2026-12-15T12:00:00Z"
    assert (invitation.broker, invitation.enrolment_url) == (
        "mqtts://broker.local:8883",
        "https://broker.local:8885",
    )
    assert (invitation.update_url, invitation.update_root) == (None, None)
    repository = Repository(fleet.folder, lambda _: pytest.fail("no passphrase is asked for"))
    repository.make()
    repository.renew()  # a second root
    newest = fleet.invite("node-0001", None, 14, by_hand=False)
    assert newest.update_root == repository.root.decode()
    assert newest.update_url == "https://broker.local:8885/releases"


def test_the_second_invitation_ends_the_first(fleet: Fleet) -> None:
    first = fleet.invite("node-0001", None, 14, by_hand=False)
    enrol(fleet, "node-0001")
    with pytest.raises(RefusedError, match="not one that this name was invited with"):
        enrol(fleet, "node-0001", first)


def test_a_nodes_certificates_are_what_a_verifier_trusts_from_the_day_of_the_invitation(
    fleet: Fleet, clock: Clock
) -> None:
    invitation = fleet.invite("node-0001", None, 14, by_hand=False)
    clock.now += 3 * DAY
    enrol(fleet, "node-0001", invitation)
    trust = Trust.of_authority(
        (fleet.folder / "ca.crt").read_bytes(), (fleet.folder / "crl.pem").read_bytes()
    )
    member = fleet.inventory.read().members["node-0001"]
    mqtt, signing = member.certificates
    assert "not over an Ed25519 key" in trust.offer(fleet.certificate_of(mqtt))
    assert trust.offer(fleet.certificate_of(signing)) == ""
    (key,) = trust.keys(SITE, "node-0001")
    assert key.key_id == signing.key_id
    assert key.spans[0][0] == round(NOW.timestamp()) * 10**9


def test_a_key_of_another_node_is_a_copied_card(fleet: Fleet) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for node_id in ("node-0001", "node-0002"):
        token = fleet.invite(node_id, None, 14, by_hand=False).token
        assert token
        request = make_request(key, node_id, SITE)
        if node_id == "node-0001":
            fleet.enrol(node_id, token, "mqtt", request, "test")
            continue
        with pytest.raises(RefusedError, match="this mqtt key is node-0001's: a card that was cop"):
            fleet.enrol(node_id, token, "mqtt", request, "test")


def test_of_a_replaced_box_the_old_keys_are_revoked_and_the_new_ones_stay(
    fleet: Fleet, clock: Clock
) -> None:
    old = enrol(fleet, "node-0001")
    clock.now += DAY
    new = enrol(fleet, "node-0001")
    clock.now += DAY
    since = NOW + dt.timedelta(hours=30)
    found = fleet.revoke("node-0001", "replaced", since, old=True)
    assert [issued.key_sha256 for issued in found] == old
    assert state(fleet, "node-0001") == "enrolled"
    written = (fleet.folder / "crl.pem").read_bytes()
    crl = x509.load_pem_x509_crl(written)
    listed = {f"{entry.serial_number:x}": entry for entry in crl}
    in_words = written.decode().partition("-----BEGIN")[0].splitlines()
    assert in_words == sorted(f"revoked {serial}" for serial in listed)
    assert set(listed) == {issued.serial for issued in found}
    for entry in listed.values():
        lost = entry.extensions.get_extension_for_class(x509.InvalidityDate).value
        assert lost.invalidity_date_utc == since
        assert entry.revocation_date_utc == clock.now
    with pytest.raises(ProvisioningError, match="has no certificate that is not revoked already"):
        fleet.revoke("node-0001", "replaced", old=True)
    assert [issued.key_sha256 for issued in fleet.revoke("node-0001", "ended")] == new
    assert state(fleet, "node-0001") == "revoked"


def test_a_date_that_was_forgotten_is_given_to_what_is_revoked_already(fleet: Fleet) -> None:
    enrol(fleet, "node-0001")
    fleet.revoke("node-0001", "stolen")
    fleet.revoke("node-0001", "stolen", NOW - DAY)
    crl = x509.load_pem_x509_crl((fleet.folder / "crl.pem").read_bytes())
    assert len(crl) == 2
    for entry in crl:
        entry.extensions.get_extension_for_class(x509.InvalidityDate)


def test_what_ends_soon_is_renewed_and_nothing_else(fleet: Fleet, clock: Clock) -> None:
    before = (fleet.folder / "broker.crt").read_bytes()
    assert fleet.renew_brokers() == []
    clock.now += 490 * DAY
    assert fleet.renew_brokers() == ["broker"]
    after = x509.load_pem_x509_certificate((fleet.folder / "broker.crt").read_bytes())
    assert after.public_bytes(serialization.Encoding.PEM) != before
    names = after.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["broker.local"]
    fleet.write_revocations()
    crl = x509.load_pem_x509_crl((fleet.folder / "crl.pem").read_bytes())
    assert crl.next_update_utc == clock.now + 30 * DAY
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value
    assert number.crl_number == 2


def test_a_renewal_cannot_be_asked_for_again_and_again(fleet: Fleet, clock: Clock) -> None:
    enrol(fleet, "node-0001")
    shown = fleet.certificate_of(fleet.inventory.read().members["node-0001"].certificates[0])
    clock.now += 500 * DAY
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    first = fleet.renew(shown, "mqtt", make_request(key, "x", "y"), "test")
    assert fleet.renew(shown, "mqtt", make_request(key, "x", "y"), "test") == first
    with pytest.raises(RefusedError, match="has been renewed already, over another key"):
        fleet.renew(shown, "mqtt", make_request(other, "x", "y"), "test")
    with pytest.raises(RefusedError, match="no signing key that node-0001 was enrolled with"):
        fleet.renew(shown, "signing", make_request(Ed25519PrivateKey.generate(), "x", "y"), "test")


def test_a_readers_certificate_renews_nothing(fleet: Fleet) -> None:
    operator = x509.load_pem_x509_certificate(fleet.issue("operator").read_bytes())
    request = make_request(ec.generate_private_key(ec.SECP256R1()), "x", "y")
    with pytest.raises(RefusedError, match="no node's of this fleet"):
        fleet.renew(operator, "mqtt", request, "test")


# The inventory.


def test_a_broken_inventory_is_named_and_left_as_it_is(fleet: Fleet) -> None:
    file = fleet.inventory.path
    for broken in ("{", '{"schema": "gunfire.inventory/2"}', file.read_text().replace("2026", "x")):
        file.write_text(broken)
        with pytest.raises(ProvisioningError, match=r"inventory\.json: is not as it was written"):
            fleet.invite("node-0001", None, 14, by_hand=False)
        with pytest.raises(ProvisioningError, match="inventory"):
            Fleet.load(fleet.folder)
        assert file.read_text() == broken


def test_what_fails_half_way_changes_nothing(fleet: Fleet) -> None:
    before = fleet.inventory.path.read_bytes()

    def fail() -> None:
        with fleet.inventory.change() as inventory:
            inventory.crl_number = 99
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert fleet.inventory.path.read_bytes() == before


def test_many_at_once_lose_nothing(fleet: Fleet) -> None:
    threads = [threading.Thread(target=enrol, args=(fleet, f"node-{i}")) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    members = fleet.inventory.read().members
    assert sum(len(members[f"node-{i}"].certificates) for i in range(12)) == 24


def test_refusals_are_counted_and_the_last_are_kept(fleet: Fleet) -> None:
    fleet.invite("node-0001", None, 14, by_hand=False)
    request = make_request(ec.generate_private_key(ec.SECP256R1()), "x", "y")
    for name in ("node-0001", "nobody\x1b[2J" * 50):
        for number in range(MOST_REFUSALS + 5):
            with pytest.raises(RefusedError):
                fleet.enrol(name, "wrong", "mqtt", request, f"192.0.2.{number}")
    inventory = fleet.inventory.read()
    member = inventory.members["node-0001"]
    assert (member.refused, len(member.refusals)) == (MOST_REFUSALS + 5, MOST_REFUSALS)
    assert (inventory.strangers_refused, len(inventory.strangers)) == (
        MOST_REFUSALS + 5,
        MOST_REFUSALS,
    )
    assert max(len(stranger.who) for stranger in inventory.strangers) < 300


def test_a_file_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    files.write(file, b"old", files.PUBLIC)

    def cut(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", cut)
    with pytest.raises(ProvisioningError, match="cannot be written: No space left"):
        files.write(file, b"new", files.PUBLIC)
    assert file.read_bytes() == b"old"


def test_what_was_issued_just_before_a_power_cut_is_revoked_with_the_rest(fleet: Fleet) -> None:
    invitation = fleet.invite("node-0001", None, 14, by_hand=False)
    before = fleet.inventory.path.read_bytes()
    enrol(fleet, "node-0001", invitation)
    fleet.inventory.path.write_bytes(before)
    enrol(fleet, "node-0002")
    enrol(fleet, "node-0001", invitation)
    assert len(list((fleet.folder / "issued").glob("*.crt"))) == 7
    assert len(fleet.revoke("node-0001", "stolen")) == 4
    crl = x509.load_pem_x509_crl((fleet.folder / "crl.pem").read_bytes())
    assert len(crl) == 4
    assert state(fleet, "node-0002") == "enrolled"


# Who watches.


def status(boot_id: str | None = None, state: str = "online") -> Status:
    said = json.loads(EXAMPLE) | {"state": state, "reasons": ["a reason"]}
    if boot_id is not None:
        said["boot_id"] = boot_id
    return parse_status(json.dumps(said).encode())


@pytest.mark.parametrize(
    ("turns", "told"),
    [
        ([status(), status(OTHER_BOOT)], []),
        ([status(), status(OTHER_BOOT), status()], ["is there twice"]),
        ([status(), status(OTHER_BOOT), status(state="offline")], []),
        ([status(state="offline"), status(state="offline")], ["went offline: a reason"]),
        ([status(state="offline"), status(OTHER_BOOT)], ["went offline: a reason", "is back"]),
    ],
)
def test_turns_are_told_and_a_start_anew_is_not(
    turns: list[Status], told: list[str], fleet: Fleet
) -> None:
    enrol(fleet, "node-0001")
    said: list[str] = []
    watch = Watch(fleet, said.append)
    for one in turns:
        watch.take(one)
    assert len(said) == len(told)
    for sentence, words in zip(said, told, strict=True):
        assert words in sentence


def test_of_a_name_that_nobody_invited_nothing_is_kept(fleet: Fleet) -> None:
    before = fleet.inventory.path.read_bytes()
    Watch(fleet, pytest.fail).take(status())
    assert fleet.inventory.path.read_bytes() == before


# A cluster's list of users.


def test_who_was_revoked_is_not_on_the_list_of_users(fleet: Fleet, clock: Clock) -> None:
    for name in ("operator", "auditor"):
        fleet.issue(name)
    for node_id in ("node-0001", "node-0002"):
        enrol(fleet, node_id)
    fleet.invite("node-0003", None, 14, by_hand=False)
    fleet.revoke("node-0002", "stolen")
    text = users(fleet.inventory.read(), clock.now)
    named = [line.partition(" CN=")[0] for line in text.splitlines() if '"user"' in line]
    assert len(named) == 3
    for name in ("operator", "auditor", "node-0001"):
        assert f'"CN={name},O={SITE}"' in text


# Whoever guesses.


def test_who_guesses_waits_and_others_do_not() -> None:
    now = [0.0]
    failures = Failures(lambda: now[0])
    for _ in range(MOST_FAILURES):
        assert failures.wait_s("192.0.2.1", "node-1") == 0
        failures.note("192.0.2.1", "node-1")
    assert failures.wait_s("192.0.2.1", "node-1") == FAILURES_S
    assert failures.wait_s("192.0.2.1", "node-2") == 0
    assert failures.wait_s("192.0.2.2", "node-1") == 0
    now[0] = FAILURES_S + 1
    assert failures.wait_s("192.0.2.1", "node-1") == 0
    for number in range(MOST_FAILURES_OF_ADDRESS):
        failures.note("192.0.2.3", f"node-{number}")
    assert failures.wait_s("192.0.2.3", "another") > 0
    for number in range(MOST_ADDRESSES):
        failures.note(f"address-{number}", "node")
    assert len(failures._seen) <= MOST_ADDRESSES


# Requests.


@given(st.binary(max_size=200))
def test_whatever_is_sent_is_a_request_or_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="is no certificate request"):
        decode_request(data)


GOOD = [
    make_request(key, "node-0001", SITE).public_bytes(serialization.Encoding.DER)
    for key in (ec.generate_private_key(ec.SECP256R1()), Ed25519PrivateKey.generate())
]


@settings(max_examples=400)
@given(
    good=st.sampled_from(GOOD),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.none() | st.integers(0, 400),
)
def test_a_request_that_was_changed_on_its_way_is_none_or_none_of_that_key(
    good: bytes, changes: list[tuple[int, int]], cut: int | None
) -> None:
    der = bytearray(good)
    for at, value in changes:
        der[at % len(der)] = value
    assume(bytes(der[:cut]) != good)
    for decode, data in (
        (decode_request, base64.b64encode(der[:cut])),
        (decode_certificates, base64.b64encode(der[:cut])),
    ):
        with pytest.raises(ValueError, match=r"is no cert|is not signed|holds no cert"):
            decode(data)


# The command.


def fleet_command(folder: Path) -> Callable[..., Result]:
    def run(*words: str) -> Result:
        return CliRunner().invoke(cli, ["--fleet", str(folder), *words])

    return run


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        inner = (*path, name)
        found += commands(command, inner) if isinstance(command, click.Group) else [inner]
    return found


@pytest.mark.parametrize("words", commands(cli), ids=" ".join)
def test_every_command_says_what_it_does_and_most_give_an_example(words: tuple[str, ...]) -> None:
    said = CliRunner().invoke(cli, [*words, "--help"])
    assert said.exit_code == 0
    if words[0] != "release":
        assert "Example: gunfire-fleet" in said.output


def test_from_nothing_to_a_list_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = fleet_command(tmp_path / "fleet")
    assert isinstance(run("list").exception, ProvisioningError)
    assert run("init", "--name", "broker.local", "--site", SITE).exit_code == 0
    assert run("invite", "node-0001").exit_code == 0
    file = tmp_path / "node-0001.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    invitation = Invitation.read(file)
    assert run("issue", "operator").exit_code == 0
    listed = json.loads(run("list", "--json").output)["members"]
    assert [(name, member["state"]) for name, member in listed.items()] == [
        ("broker", "enrolled"),
        ("node-0001", "invited"),
        ("operator", "enrolled"),
    ]
    fleet = Fleet.load(tmp_path / "fleet")
    enrol(fleet, "node-0001", invitation)
    again = run("invite", "node-0001", "-o", "again.json")
    assert "the certificates it has stay good" in again.output
    assert "enrolled" in run("list").output
    revoked = run("revoke", "node-0001", "--since", "2026-11-28T12:00:00Z")
    assert revoked.output.count("revoked: node-0001") == 2
    assert run("renew").output.endswith("crl.pem: good for 30 days\n")
    assert isinstance(run("revoke", "nobody").exception, ProvisioningError)
    assert run("forgive", "node-0001").exit_code == 0


def test_whoever_is_to_read_may_keep_the_key_to_themselves(tmp_path: Path) -> None:
    run = fleet_command(tmp_path / "fleet")
    run("init", "--name", "broker.local", "--site", SITE)
    request = tmp_path / "operator.csr"
    for key, taken in (
        (ec.generate_private_key(ec.SECP256R1()), True),
        (rsa.generate_private_key(65537, 3072), True),
        (rsa.generate_private_key(65537, 2048), False),
    ):
        request.write_text(pem(make_request(key, "x", "y")))
        done = run("issue", "operator", "--request", str(request))
        assert (done.exit_code == 0) is taken, done.output
        assert taken or "RSA of 3072 bits" in str(done.exception)
    assert not (tmp_path / "fleet" / "operator.key").exists()
    request.write_text("junk")
    assert isinstance(
        run("issue", "operator", "--request", str(request)).exception, GunfireNodeError
    )


def test_a_lock_that_leads_elsewhere_is_not_followed(fleet: Fleet, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in (".lock", ".verify.lock"):
        lock = fleet.folder / name
        lock.unlink(missing_ok=True)
        lock.symlink_to(victim)
        with pytest.raises(ProvisioningError, match=r"cannot be opened"), locked(lock):
            pass
    with pytest.raises(ProvisioningError, match=r"\.lock: cannot be opened"):
        fleet.invite("node-0001", None, 1, by_hand=True)


def test_the_name_of_who_verifies_is_no_nodes(fleet: Fleet) -> None:
    with fleet.inventory.change() as inventory:
        inventory.members["verifier"] = Member(role="node", site=SITE)
    with pytest.raises(ProvisioningError, match=r"verifier: is the name of a node here"):
        _address(fleet, "verifier", None)
