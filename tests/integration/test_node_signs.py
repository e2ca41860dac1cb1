"""From the daemon over a real broker to a log, and from the log to the verdict of `verify`."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.capture import SimulatedSource
from node.daemon import Daemon
from node.deliver import BrokerAddress
from node.demo import Street
from node.errors import IdentityError
from node.identity import load_identity
from node.messages import Checkpoint, Detection, Node, Status
from node.network import PrivateBroker, Subscription
from node.settings import Settings
from tests.hil.fleet_ca import FleetCa
from tests.hil.process import GUNFIRE_NODE

KINDS = ("detection", "node", "checkpoint", "status")
HEARD_S = 12
POSITION = {"lat_deg": 40.4406248, "lon_deg": -79.9958864, "alt_m": 231.0, "sigma_m": 0.8}


def settings(folder: Path, url: str, **integrity: Any) -> Settings:
    return Settings.model_validate(
        {
            "node": {"id": "roof-1", "site": "city", "position": POSITION},
            "capture": {"channels": 4, "array": "tetrahedron_200mm", "order_fixed": True},
            "timing": {"chrony": False},
            "outbox": {"path": folder / "outbox.sqlite3"},
            "integrity": {"key_file": folder / "node.key", **integrity},
            "mqtt": {"url": url},
        }
    )


@pytest.fixture(scope="module")
def street() -> Street:
    return Street.load()


def heard(words: Subscription, seconds: float) -> list[tuple[Any, bytes]]:
    return [(word.message, word.payload) for word in words.within(seconds)]


def live(folder: Path, street: Street, broker: PrivateBroker, **integrity: Any) -> list[Any]:
    """Let a node hear the beginning of the street, and give what a subscriber got."""
    source = SimulatedSource(street.node.frames()[: HEARD_S * 48_000], 48_000, paced=True)
    words = Subscription(BrokerAddress.from_url(broker.url), kinds=KINDS)
    with words:
        got: list[Any] = []
        listener = threading.Thread(target=lambda: got.extend(heard(words, 30)))
        listener.start()
        Daemon(settings(folder, broker.url, **integrity), source).run()
        words.close()
        listener.join()
    return got


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, street: Street) -> tuple[Path, list[Any]]:
    """Two lives of one certified node, as a subscriber keeps them."""
    folder = tmp_path_factory.mktemp("node")
    ca = FleetCa(folder / "ca")
    key = load_identity(folder / "node.key", None, "roof-1", "city").private_key
    issued = ca.issue("roof-1", organization="city", key=key).certificate
    with PrivateBroker(folder / "broker") as broker:
        got = [
            *live(folder, street, broker, certificate_file=issued),
            *live(folder, street, broker, certificate_file=issued),
        ]
    signed = [payload for message, payload in got if not isinstance(message, Status)]
    (folder / "log.jsonl").write_bytes(b"".join(payload + b"\n" for payload in signed))
    return folder, got


def verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GUNFIRE_NODE, "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_lives_of_a_node_are_one_chain_that_verify_accepts(
    log: tuple[Path, list[Any]],
) -> None:
    folder, got = log
    done = verify(folder / "log.jsonl", "--ca", folder / "ca/ca.crt", "--first-seq", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    seqs = [message.seq for message, _ in got if isinstance(message, Detection)]
    assert f"city/roof-1: {len(seqs)} messages, seq 1 to {len(seqs)}, key " in done.stdout
    assert "holds: every message is signed, unaltered and in its place" in done.stdout
    assert "would not show" not in done.stdout  # the last checkpoint vouches for the last message
    assert len({message.boot_id for message, _ in got}) == 2


def test_one_figure_changed_by_hand_is_named_with_file_and_line(
    log: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    folder, _ = log
    lines = (folder / "log.jsonl").read_text().splitlines()
    where = next(i for i, line in enumerate(lines) if '"seq":3,' in line)
    document = json.loads(lines[where])
    document["grade"] = "gunfire" if document["grade"] != "gunfire" else "not_gunfire"
    lines[where] = json.dumps(document)
    altered = tmp_path / "altered.jsonl"
    altered.write_text("\n".join(lines))
    done = verify(altered, "--ca", folder / "ca/ca.crt")
    assert done.returncode == 1
    assert f"ALTERED: {altered}:{where + 1}: city/roof-1 seq 3: was altered" in done.stdout
    told = json.loads(verify(altered, "--ca", folder / "ca/ca.crt", "--json").stdout)
    assert (told["holds"], told["found"], told["findings"][0]["kind"]) == (False, 1, "altered")


def test_the_same_log_is_foreign_to_another_ca(log: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, _ = log
    FleetCa(tmp_path)
    done = verify(folder / "log.jsonl", "--ca", tmp_path / "ca.crt")
    assert done.returncode == 1
    assert "FOREIGN" in done.stdout


def test_the_birth_message_says_what_the_node_is_and_the_status_where_it_roughly_stands(
    log: tuple[Path, list[Any]],
) -> None:
    _, got = log
    births = [message for message, _ in got if isinstance(message, Node)]
    statuses = [(message, payload) for message, payload in got if isinstance(message, Status)]
    checkpoints = [message for message, _ in got if isinstance(message, Checkpoint)]
    assert births[0].position is not None
    assert births[0].position.lat_deg == POSITION["lat_deg"]
    assert births[0].array.name == "tetrahedron_200mm"
    assert births[0].array.channels == 4
    assert births[0].key is not None
    assert births[0].key.certificate is not None
    assert (births[0].privacy.snippets, births[0].privacy.snippet_seconds) == (False, 0)
    assert checkpoints[-1].key_id == births[0].key.key_id
    for status, payload in statuses:
        assert status.area is not None
        assert (status.area.lat_deg, status.area.lon_deg) == (40.44, -80.0)
        assert b"40.4406" not in payload


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["log.jsonl"], 2, "give the fleet's CA with --ca, or one node's public key"),
        (["log.jsonl", "--ca", "ca.crt", "--key", "k"], 2, "give the fleet's CA with --ca, or"),
        (["log.jsonl", "--key", "k", "--crl", "c"], 2, "--crl and --certificates go with --ca"),
        (["none.jsonl", "--ca", "ca.crt"], 2, "none.jsonl: is not there: give a file"),
        ([".", "--ca", "ca.crt"], 2, "is not a regular file"),
        (["log.jsonl", "--ca", "none"], 2, "none: cannot be read: No such file"),
        (["log.jsonl", "--ca", "log.jsonl"], 2, "log.jsonl: holds no certificate"),
        (["log.jsonl", "--ca", "ca.crt", "--crl", "ca.crt"], 2, "ca.crt: is not a revocation"),
        (["log.jsonl", "--ca", "ca.crt", "--certificates", "log.jsonl"], 2, "holds no certificate"),
        (["log.jsonl", "--key", "ca.crt"], 2, "ca.crt: is not a public key"),
        (["empty.jsonl", "--ca", "ca.crt"], 2, "nothing to judge: the log holds no signed"),
    ],
)
def test_what_cannot_be_judged_is_said_in_a_sentence(
    log: tuple[Path, list[Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    why: str,
) -> None:
    folder, _ = log
    (tmp_path / "log.jsonl").write_bytes((folder / "log.jsonl").read_bytes())
    (tmp_path / "ca.crt").write_bytes((folder / "ca/ca.crt").read_bytes())
    (tmp_path / "empty.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    done = verify(*arguments)
    assert done.returncode == code
    assert why in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_node_whose_key_cannot_be_used_does_not_start(tmp_path: Path, street: Street) -> None:
    (tmp_path / "node.key").write_bytes(b"")
    source = SimulatedSource(street.node.frames(), 48_000, paced=False)
    with pytest.raises(IdentityError, match="has mode"):
        Daemon(settings(tmp_path, "mqtt://127.0.0.1:1"), source).run()
    assert not (tmp_path / "outbox.sqlite3").exists()


def test_a_certificate_near_its_end_is_a_reason_in_the_status(
    tmp_path: Path, street: Street
) -> None:
    ca = FleetCa(tmp_path / "ca")
    key = Ed25519PrivateKey.generate()
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=9, hours=1)
    issued = ca.issue("roof-1", organization="city", key=key, not_after=soon)
    with PrivateBroker(tmp_path / "broker") as broker:
        got = live(
            tmp_path, street, broker, key_file=issued.key, certificate_file=issued.certificate
        )
    reasons = [
        reason for message, _ in got if isinstance(message, Status) for reason in message.reasons
    ]
    # Where nothing disciplines this machine's clock, no date is judged by it.
    free = all(m.clock is None or m.clock.source == "free" for m, _ in got if isinstance(m, Status))
    assert free or any("certificate_file expires in 9 days" in reason for reason in reasons)
