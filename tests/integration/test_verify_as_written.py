"""docs/do/verify-a-log.md does what it says: its commands are run as they stand."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from node.identity import load_identity
from node.messages.signing import Signer
from tests.unit.signed_log import SignedNode

ROOT = Path(__file__).parent.parent.parent
DO = ROOT / "docs" / "do"
NODE_ID, SITE = "node-0001", "riverside"


def blocks(page: str) -> list[str]:
    return re.findall(
        r"^```sh\n(.*?)^```", (DO / page).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )


def run(script: str, folder: Path, *, code: int = 0, when: str = "now") -> str:
    done = subprocess.run(
        ["faketime", when, "bash", "-ec", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Make the fleet's CA as the page on the broker has it made."""
    (tmp_path / "provisioning").symlink_to(ROOT / "provisioning")
    run(blocks("run-a-broker.md")[0], tmp_path, when="2 days ago")
    return tmp_path / "fleet"


def test_from_a_nodes_request_to_the_verdict_before_and_after_a_theft(fleet: Path) -> None:
    ask, certify, judge, judge_by_key, revoke = blocks("verify-a-log.md")
    key = load_identity(fleet / "node.key", None, NODE_ID, SITE).private_key
    run(ask, fleet)
    said = run(certify, fleet, when="2 days ago")
    certificate = fleet / "node-0001-signing.crt"
    load_identity(fleet / "node.key", certificate, NODE_ID, SITE)

    begin = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    node = SignedNode(NODE_ID, begin, key, SITE)
    node.signer = Signer(key, certificate.read_text())
    assert node.signer.key.key_id in said  # what the page has compared
    (fleet / "log.jsonl").write_bytes(b"\n".join(node.log(9)))
    assert "holds: every message is signed" in run(judge, fleet)

    run("openssl pkey -in node.key -pubout -out node-0001.pub", fleet)
    assert "holds: every message is signed" in run(judge_by_key, fleet)

    stolen = dt.datetime.fromtimestamp(node.begin_ns // 10**9 + 6, dt.UTC)
    run(revoke.replace("20261128120000Z", f"{stolen:%Y%m%d%H%M%S}Z"), fleet)
    found = json.loads(run(f"{judge.strip()} --json", fleet, code=1))["findings"]
    assert [(f["kind"], f["seq"]) for f in found] == [("expired", 6), ("expired", None)]
    assert "and so 3 more up to seq 9" in found[0]["sentence"]


def test_whatever_name_a_request_bears_the_ca_gives_the_name_that_it_means(fleet: Path) -> None:
    ask, certify, *_ = blocks("verify-a-log.md")
    load_identity(fleet / "node.key", None, NODE_ID, SITE)
    run(ask.replace("CN=node-0001", "CN=operator"), fleet)
    run(certify, fleet, when="2 days ago")
    load_identity(fleet / "node.key", fleet / "node-0001-signing.crt", NODE_ID, SITE)


def test_a_node_of_which_the_log_holds_a_checkpoint_alone_is_noted(fleet: Path) -> None:
    lines = []
    for number in (1, 2):
        key = load_identity(fleet / f"{number}.key", None, f"node-{number}", SITE).private_key
        node = SignedNode(f"node-{number}", dt.datetime.now(dt.UTC), key, SITE)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (fleet / f"{number}.pub").write_bytes(public)
        lines += list(node.log(9))
    (fleet / "log.jsonl").write_bytes(b"\n".join([*lines[:9], lines[-1]]))
    said = run("gunfire-node verify log.jsonl --key 2.pub", fleet, code=1)
    assert f"{SITE}/node-2: no detection that is signed by a key that counts" in said
    assert f"note: {SITE}/node-2: a checkpoint vouches for all up to seq 9" in said
