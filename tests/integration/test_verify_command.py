"""`gunfire-node verify`: what it prints of logs in more files than one, and of what is no log."""

from __future__ import annotations

import bz2
import dataclasses
import datetime as dt
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from node.cli import main
from node.messages.verify import Verifier
from tests.hil.fleet_ca import FleetCa
from tests.unit.signed_log import SignedNode

Verify = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def node(tmp_path: Path) -> SignedNode:
    made = SignedNode("roof-1", dt.datetime.now(dt.UTC))
    made.certified(FleetCa(tmp_path))
    return made


@pytest.fixture
def verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Verify:
    monkeypatch.chdir(tmp_path)

    def verify(*arguments: object) -> tuple[int, list[str]]:
        command = ["gunfire-node", "verify", *map(str, arguments), "--ca", "ca.crt"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return int(str(left.value.code)), (said.out + said.err).splitlines()

    return verify


def test_two_messages_of_one_number_are_named_each_by_its_file_and_line(
    node: SignedNode, verify: Verify
) -> None:
    Path("one.jsonl").write_bytes(b"\n".join(node.log(5)))
    node.seq = 4
    Path("two.jsonl").write_bytes(node.birth() + b"\n" + node.detection(label="other"))
    code, said = verify("one.jsonl", "two.jsonl")
    assert code == 1
    assert said[1].startswith(
        "DOUBLED: two.jsonl:2: city/roof-1 seq 5: has the number of one.jsonl:6 and"
    )


def test_a_line_that_names_no_node_is_named_by_its_place_alone(
    node: SignedNode, verify: Verify
) -> None:
    Path("log.jsonl").write_bytes(b"\n".join([*node.log(2), b"rubbish"]))
    assert "UNREADABLE: log.jsonl:5: cannot be read: Expecting value" in verify("log.jsonl")[1][1]


def test_that_no_revocation_was_asked_for_is_said(node: SignedNode, verify: Verify) -> None:
    Path("log.jsonl").write_bytes(b"\n".join(node.log(2)))
    note = "note: no revocation list was given (--crl): a key counts here though it may be revoked"
    assert note in verify("log.jsonl")[1]
    code, said = verify("log.jsonl", "--crl", "crl.pem")
    assert (code, note in said) == (0, False)
    assert any("revocations are known up to" in line for line in said)


def test_a_fleet_of_invented_names_does_not_bury_what_was_found(
    node: SignedNode, verify: Verify
) -> None:
    other = SignedNode("invented", dt.datetime.now(dt.UTC), site="x")
    lines = list(node.log(2))
    for i in range(100):
        other.origin = dataclasses.replace(other.origin, site=f"site-{i}")
        lines.append(other.detection())
    Path("log.jsonl").write_bytes(b"\n".join(lines))
    code, said = verify("log.jsonl")
    assert code == 1
    assert said[0].startswith("city/roof-1: 2 messages")
    assert "and 80 more nodes, of which no key is known either" in said
    assert len(said) < 50


def test_what_was_asked_for_is_not_said_not_to_have_been(node: SignedNode, verify: Verify) -> None:
    lines = list(node.log(9))
    Path("log.jsonl").write_bytes(b"\n".join([lines[0], *lines[4:]]))
    assert any("was not looked for (--first-seq)" in line for line in verify("log.jsonl")[1])
    code, said = verify("log.jsonl", "--first-seq", 1)
    assert (code, said[1]) == (
        1,
        "MISSING: city/roof-1: seq 1 to 3 are missing at the beginning",
    )
    assert not any("was not looked for" in line for line in said)


def test_what_is_written_while_it_is_judged_is_left_for_the_next_time(
    node: SignedNode, verify: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Path("log.jsonl")
    log.write_bytes(b"".join(line + b"\n" for line in node.log(3)))
    gather = Verifier.gather

    def gather_and_write_on(self: Verifier, line: bytes) -> None:
        gather(self, line)
        if b"gunfire.checkpoint" in line:
            with log.open("ab") as file:
                file.write(SignedNode("roof-2", dt.datetime.now(dt.UTC)).detection() + b"\n")

    monkeypatch.setattr(Verifier, "gather", gather_and_write_on)
    code, said = verify("log.jsonl")
    assert (code, said[-1]) == (0, "holds: every message is signed, unaltered and in its place")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_packed_log_is_no_log_that_does_not_hold(
    node: SignedNode, verify: Verify, pack: Callable[[bytes], bytes]
) -> None:
    Path("log.1").write_bytes(pack(b"\n".join(node.log(9))))
    assert verify("log.1") == (2, ["gunfire-node: log.1: is compressed: unpack it first"])
