"""The lines of Python on the page of messages verify a log that a node signed, as they stand."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from node.messages import parse_detection, to_json
from node.messages.signing import Signer
from tests.docs import EXAMPLES, LOOK_UP


@pytest.fixture
def log(tmp_path: Path) -> list[Any]:
    """Five signed and linked detections; the certificate lies where the page looks for it."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node-0001")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2046, 1, 1, tzinfo=UTC))
        .sign(key, None)
    )
    (tmp_path / "node-0001.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    signer, head, log = Signer(key), None, []
    frozen = parse_detection((EXAMPLES / "detection.json").read_text("utf-8"))
    for seq in range(1, 6):
        sealed, head = signer.seal(frozen.model_copy(update={"seq": seq}), head)
        log.append(json.loads(to_json(sealed)))
    return log


def verify(folder: Path, log: list[Any]) -> subprocess.CompletedProcess[str]:
    page = (LOOK_UP / "messages.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    lines = "".join(json.dumps(message) + "\n" for message in log)
    (folder / "detections.jsonl").write_text(lines, "utf-8")
    return subprocess.run(
        # -W ignore: the page leaves its files to the interpreter to close.
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_log_in_any_order_with_repeats_holds(tmp_path: Path, log: list[Any]) -> None:
    done = verify(tmp_path, [log[2], log[0], log[4], log[1], log[3], log[1]])
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"5 [0-9a-f]{64}\n", done.stdout)


def test_what_only_sending_adds_is_not_signed(tmp_path: Path, log: list[Any]) -> None:
    log[1]["transport"] = {"published_utc": "2026-09-21T14:13:21.000000001Z", "delayed": True}
    assert verify(tmp_path, log).returncode == 0


def test_one_value_changed_is_found(tmp_path: Path, log: list[Any]) -> None:
    log[3]["round_count_is_minimum"] = True
    assert "InvalidSignature" in verify(tmp_path, log).stderr


def test_one_taken_out_is_told(tmp_path: Path, log: list[Any]) -> None:
    del log[2]
    assert "missing: 3 to 3\n" in verify(tmp_path, log).stdout


def test_one_of_another_history_of_the_same_node_is_found(tmp_path: Path, log: list[Any]) -> None:
    log[2] = log[4] | {"seq": 3}
    assert "InvalidSignature" in verify(tmp_path, log).stderr
