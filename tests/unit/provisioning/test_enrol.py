"""The node's part of enrolment: what it makes of files, tokens and answers that are wrong."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from provisioning import enrol
from provisioning.enrol import REFUSED, command
from provisioning.memory import read_memory
from provisioning.places import Places
from tests.hil.fleet_stage import NODE_ID, SITE, Stage, served

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with served(tmp_path / "fleet") as running:
        yield running


def test_an_old_token_on_the_card_keeps_no_certificate_from_being_renewed(
    stage: Stage, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    assert box.enrol() == 0
    box.put(stage.invite().model_copy(update={"token": "x" * 32}))
    stage.clock.ahead = dt.timedelta(days=500)
    assert box.enrol() == REFUSED
    assert "the token is not one that this name was invited with" in box.told["figure"]
    assert len(stage.fleet.inventory.read().members[NODE_ID].certificates) == 4


def test_an_answer_for_another_name_on_the_card_keeps_no_token_from_being_used(
    stage: Stage, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    box.places.response_file.write_text("of another node")
    assert box.enrol() == 0


def test_without_token_and_certificates_it_says_what_is_missing(
    stage: Stage, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite().model_copy(update={"token": None}))
    assert box.enrol() == REFUSED
    assert box.told["figure"] == "not enrolled (mqtt, signing missing), and there is no token"
    assert "gunfire-fleet invite" in box.told["advice"]


def test_keys_that_cannot_be_used_are_told_and_left_alone(stage: Stage, tmp_path: Path) -> None:
    box = stage.node(tmp_path / "box", stage.invite())
    theirs = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    for file, content, words in (
        (box.places.mqtt_key, b"junk", "is not an unencrypted private key"),
        (box.places.mqtt_key, theirs, "is a key of another kind than EC P-256"),
        (box.places.signing_key, b"junk", "is not an unencrypted private key"),
    ):
        file.write_bytes(content)
        file.chmod(0o600)
        assert box.enrol() == REFUSED
        told = box.told
        assert words in f"{told['figure']}: {told['advice']}"
        assert file.read_bytes() == content
        file.unlink()
    assert not stage.fleet.inventory.read().members[NODE_ID].certificates


def test_a_certificate_that_was_damaged_is_asked_for_again(stage: Stage, tmp_path: Path) -> None:
    invitation = stage.invite()
    box = stage.node(tmp_path / "box", invitation)
    assert box.enrol() == 0
    whole = box.places.signing_certificate.read_bytes()
    box.places.signing_certificate.write_bytes(b"\0" * len(whole))
    assert box.enrol() == REFUSED
    assert "signing missing" in box.told["figure"]
    box.put(invitation)
    assert box.enrol() == 0
    assert box.places.signing_certificate.read_bytes() == whole


def test_carried_certificates_that_end_soon_are_asked_for_again(
    stage: Stage, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite(by_hand=True))
    assert box.enrol() == 0

    def carried() -> None:
        request = enrol.CarriedRequest.read(box.places.request_file)
        box.places.response_file.write_text(stage.fleet.sign(request, "test").text())

    carried()
    assert box.enrol() == 0
    assert not box.places.request_file.exists()
    stage.clock.ahead = dt.timedelta(days=500)
    assert box.enrol() == 0
    assert (box.told["verdict"], "end on" in box.told["figure"]) == ("warn", True)
    stage.invite(by_hand=True)
    carried()
    assert box.enrol() == 0
    assert box.told["verdict"] == "pass"
    assert len(stage.fleet.inventory.read().members[NODE_ID].certificates) == 4


def test_where_there_is_no_fat_partition_the_request_lies_with_what_is_remembered(
    stage: Stage, tmp_path: Path
) -> None:
    box = stage.node(tmp_path / "box", stage.invite(by_hand=True))
    box.places.boot.rmdir()
    assert box.enrol() == 0
    request = box.places.memory / "gunfire-node-request.json"
    assert json.loads(request.read_text())["node_id"] == NODE_ID
    assert str(request) in box.told["advice"]


def test_an_invitation_is_for_the_node_that_it_names(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = Places(tmp_path / "box")
    monkeypatch.setattr(enrol, "Places", lambda: places)
    places.settings_file.parent.mkdir(parents=True)
    places.settings_file.write_text(f'[node]\nid = "{NODE_ID}"\nsite = "{SITE}"\n')
    for node_id, words in (
        ("node-0002", "this node is riverside/node-0001"),
        (NODE_ID, "must say where certificates and key are to be put"),
    ):
        file = tmp_path / f"{node_id}.json"
        file.write_text(stage.invite(node_id).text())
        done = CliRunner().invoke(command, ["--invitation", str(file)])
        assert done.exit_code == REFUSED
        told = json.loads((places.reports / "enrolment.json").read_text())
        assert words in f"{told['figure']}: {told['advice']}"
    assert read_memory(places).enrolment is not None


def test_a_node_that_nobody_invited_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrol, "Places", lambda: Places(tmp_path))
    assert CliRunner().invoke(command, []).exit_code == 0
    assert not list(tmp_path.iterdir())
