"""docs/do/verify-a-log.md does what it says: its commands are run as they stand."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from node.identity import load_identity
from node.messages.signing import Signer
from provisioning.fleet.fleet import Fleet
from provisioning.places import Places
from tests.hil.fleet_stage import Box, SetClock
from tests.unit.signed_log import SignedNode

ROOT = Path(__file__).parent.parent.parent
DO = ROOT / "docs" / "do"
NODE_ID, SITE = "node-0001", "riverside"


def blocks(page: str) -> list[str]:
    return re.findall(
        r"^ *```sh\n(.*?)^ *```", (DO / page).read_text("utf-8"), re.DOTALL | re.MULTILINE
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
    """Make the fleet's authority as the page on the broker has it made."""
    run(blocks("run-a-broker.md")[-1], tmp_path, when="2 days ago")
    return tmp_path / "fleet"


def enrolled(fleet: Path) -> Places:
    """Have a node enrolled by hand, two days ago."""
    long_ago = SetClock(-dt.timedelta(days=2))
    invitation = Fleet.load(fleet, long_ago.moment).invite(NODE_ID, SITE, 14, by_hand=True)
    box = Box(fleet / "box", long_ago, invitation)
    assert box.enrol() == 0
    run(f"gunfire-fleet --fleet . sign --yes {box.places.request_file}", fleet, when="2 days ago")
    assert box.enrol() == 0
    return box.places


def test_from_an_enrolled_node_to_the_verdict_before_and_after_a_theft(fleet: Path) -> None:
    show, judge, judge_by_key, revoke = blocks("verify-a-log.md")
    places = enrolled(fleet)
    key = load_identity(places.signing_key, None, NODE_ID, SITE).private_key

    begin = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    node = SignedNode(NODE_ID, begin, key, SITE)
    node.signer = Signer(key, places.signing_certificate.read_text())
    assert node.signer.key.key_id in run(show, fleet.parent)  # what is written on paper
    (fleet / "log.jsonl").write_bytes(b"\n".join(node.log(9)))
    assert "holds: every message is signed" in run(judge, fleet)

    (fleet / "node.key").write_bytes(places.signing_key.read_bytes())
    run("openssl pkey -in node.key -pubout -out node-0001.pub", fleet)
    assert "holds: every message is signed" in run(judge_by_key, fleet)

    stolen = dt.datetime.fromtimestamp(node.begin_ns // 10**9 + 6, dt.UTC)
    run(revoke.replace("2026-11-28T12:00:00Z", f"{stolen:%Y-%m-%dT%H:%M:%SZ}"), fleet.parent)
    found = json.loads(run(f"{judge.strip()} --json", fleet, code=1))["findings"]
    assert [(f["kind"], f["seq"]) for f in found] == [("expired", 6), ("expired", None)]
    assert "and so 3 more up to seq 9" in found[0]["sentence"]


def test_a_box_that_took_a_nodes_place_is_believed_and_the_old_one_until_it_ended(
    fleet: Path,
) -> None:
    """As docs/do/replace-a-node.md has it: the chain goes on under other keys."""
    (revoke,) = [block for block in blocks("replace-a-node.md") if "gunfire-fleet" in block]
    old = enrolled(fleet)
    hour = dt.timedelta(hours=1)
    fleets = Fleet.load(fleet, SetClock(-hour).moment)
    box = Box(fleet / "new", SetClock(), fleets.invite(NODE_ID, SITE, 14, by_hand=True))
    assert box.enrol() == 0
    run(f"gunfire-fleet --fleet . sign --yes {box.places.request_file}", fleet)
    assert box.enrol() == 0

    begin = dt.datetime.now(dt.UTC) - hour / 2
    keys = [
        load_identity(p.signing_key, None, NODE_ID, SITE).private_key for p in (old, box.places)
    ]
    node = SignedNode(NODE_ID, begin, keys[0], SITE)
    node.signer = Signer(keys[0], old.signing_certificate.read_text())
    first = list(node.log(5))
    node.signer = Signer(keys[1], box.places.signing_certificate.read_text())
    (fleet / "log.jsonl").write_bytes(b"\n".join([*first, *node.log(5)]))
    ended = dt.datetime.fromtimestamp(node.begin_ns // 10**9 + 7, dt.UTC)
    moment = f"{ended:%Y-%m-%dT%H:%M:%SZ}"
    run(re.sub(r"2026-11-28T12:00:00Z", moment, textwrap.dedent(revoke)), fleet.parent)
    judge = "gunfire-node verify log.jsonl --ca ca.crt --crl crl.pem --first-seq 1"
    assert "holds: every message is signed" in run(judge, fleet)
    assert "enrolled" in run("gunfire-fleet list", fleet.parent)


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
