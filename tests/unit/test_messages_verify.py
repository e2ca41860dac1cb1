"""What the verification of a log finds, and what it does not take for a fault."""

from __future__ import annotations

import base64
import datetime as dt
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from node.messages import Gap
from node.messages.signing import Signer, canonical
from node.messages.trust import Trust
from node.messages.verify import MOST_FINDINGS, Report, Verifier
from tests.hil.fleet_ca import DAY, FleetCa
from tests.unit.signed_log import NS, SITE, SignedNode, changed, number

CONTRACT = Path(__file__).parent.parent / "contract"
NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> FleetCa:
    return FleetCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def node(ca: FleetCa) -> SignedNode:
    made = SignedNode("roof-1", NOW)
    made.certified(ca)
    return made


def judged(
    ca: FleetCa, lines: Iterable[bytes], first_seq: int | None = None, crl: bytes | None = None
) -> Report:
    trust = Trust.of_authority(ca.certificate_file.read_bytes(), crl)
    return by(trust, lines, first_seq)


def by(trust: Trust, lines: Iterable[bytes], first_seq: int | None = None) -> Report:
    lines = list(lines)
    verifier = Verifier(trust)
    for line in lines:
        verifier.gather(line)
    for i, line in enumerate(lines, 1):
        verifier.take(line, i)
    return verifier.report(first_seq)


def told(report: Report) -> list[tuple[str, int, int | None]]:
    return [(f.kind, f.line, f.seq) for f in report.findings]


def without(lines: list[bytes], *seqs: int) -> list[bytes]:
    return [line for line in lines if number(line) not in seqs]


def line_of(lines: list[bytes], seq: int) -> int:
    return next(i for i, line in enumerate(lines, 1) if number(line) == seq)


def test_a_whole_log_of_several_nodes_holds_in_any_order_and_with_repeats(
    ca: FleetCa, node: SignedNode
) -> None:
    other = SignedNode("roof-2", NOW)
    other.certified(ca)
    lines = [*node.log(30), *other.log(20)]
    lines += lines[5:10]
    random.Random(1).shuffle(lines)
    report = judged(ca, lines, first_seq=1)
    assert report.findings == []
    assert report.holds
    one, two = report.chains["city/roof-1"], report.chains["city/roof-2"]
    assert (one.messages, one.first_seq, one.last_seq) == (30, 1, 30)
    assert (two.messages, two.repeats + one.repeats) == (20, 5)


def test_the_same_message_sent_twice_with_another_transport_is_a_repeat(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(3))
    again = changed(lines[2], transport={"published_utc": "…", "delayed": True})
    assert judged(ca, [*lines, again]).holds


def test_topics_before_the_payload_and_kinds_that_are_not_signed_are_taken(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = [
        b"gunfire/v1/city/roof-1/%s %s" % (json.loads(line)["schema"][8:-2].encode(), line)
        for line in node.log(3)
    ]
    status = (Path(__file__).parent.parent / "contract" / "status.json").read_bytes()
    report = judged(ca, [*lines, b"", b" \n", json.dumps(json.loads(status)).encode()])
    assert report.holds
    assert report.not_judged == 1


def test_what_other_programs_make_of_the_same_json_holds_too(ca: FleetCa, node: SignedNode) -> None:
    lines = list(node.log(3))
    escaped = [line.replace(b"/", b"\\/") for line in lines]
    spaced = [json.dumps(json.loads(line), sort_keys=True).encode() + b"\r\n" for line in lines]
    marked = [b"\xef\xbb\xbf" + lines[0], *lines[1:], b"\xef\xbb\xbf\n"]
    for log in (escaped, spaced, marked):
        assert judged(ca, log).holds


@pytest.mark.parametrize("kind", ["detection", "checkpoint"])
def test_a_number_in_another_spelling_is_the_same_number(
    ca: FleetCa, node: SignedNode, kind: str
) -> None:
    lines = list(node.log(9))
    for spelling in (b"9.0", b"9e0", b"90E-1"):
        spelt = [
            line.replace(b'"seq":9,', b'"seq":%s,' % spelling)
            if kind in json.loads(line)["schema"]
            else line
            for line in lines
        ]
        assert spelt != lines
        assert judged(ca, spelt).findings == []
        assert told(judged(ca, without(spelt, 8))) == [("missing", 0, 8)]


def test_what_a_topic_holds_cannot_steer_the_terminal_of_who_judges(
    ca: FleetCa, node: SignedNode
) -> None:
    report = judged(ca, [*node.log(2), b"gunfire/v1/\x1b[2K\x9b/detection " + node.detection()])
    assert [finding.kind for finding in report.findings] == ["foreign"]
    assert report.findings[0].sentence.isprintable()


def test_what_a_strangers_name_holds_cannot_steer_the_terminal_of_who_judges(
    ca: FleetCa, node: SignedNode
) -> None:
    stranger = SignedNode("roof-9", NOW)
    birth = changed(stranger.birth(), site="\x1b[2J\x9b" + "A" * 10_000)
    report = judged(ca, [*node.log(2), birth, stranger.detection()])
    assert [finding.kind for finding in report.findings] == ["unreadable", "foreign"]
    assert report.findings[1].sentence.isprintable()
    assert len(report.findings[1].sentence) < 500


def test_a_message_on_the_topic_of_another_node_is_foreign(ca: FleetCa, node: SignedNode) -> None:
    lines = list(node.log(3))
    lines[2] = b"gunfire/v1/city/roof-2/detection " + lines[2]
    assert told(judged(ca, lines)) == [("foreign", 3, 2)]


@pytest.mark.parametrize(
    "change",
    [
        {"grade": "not_gunfire"},
        {"round_count": 3},
        {"prev_hash": "0" * 64},
        {"onset_utc": "2026-09-21T14:13:20.123456788Z"},
        {"boot_id": "02f7915f-7823-5c85-b668-a97df03fe3d9"},
        {"more": 1},
        {"signature": "AAAA"},
        {"signature": 7},
    ],
)
def test_an_altered_message_is_named(ca: FleetCa, node: SignedNode, change: dict[str, Any]) -> None:
    lines = list(node.log(9))
    where = line_of(lines, 5)
    lines[where - 1] = changed(lines[where - 1], **change)
    assert told(judged(ca, lines)) == [("altered", where, 5)]


@pytest.mark.parametrize("kind", ["status", "health", "snippet", "incident", "node", "checkpoint"])
def test_a_detection_that_is_passed_off_as_another_kind_is_named(
    ca: FleetCa, node: SignedNode, kind: str
) -> None:
    lines = list(node.log(9))[:-1]
    for seq in (5, 9):
        where = line_of(lines, seq)
        spoilt = [*lines]
        spoilt[where - 1] = changed(lines[where - 1], schema=f"gunfire.{kind}/1")
        assert told(judged(ca, spoilt))[0][:2] == ("altered", where)


@pytest.mark.parametrize("kind", ["status", "health", "snippet"])
def test_a_kind_that_a_later_version_signs_is_read_still(
    ca: FleetCa, node: SignedNode, kind: str
) -> None:
    lines = list(node.log(3))
    said = json.loads((CONTRACT / f"{kind}.json").read_bytes())
    said |= {"site": SITE, "node_id": "roof-1"}
    signature = base64.b64encode(node.key.sign(canonical(said))).decode()
    report = judged(ca, [*lines, json.dumps(said | {"signature": signature}).encode()])
    assert (report.findings, report.not_judged) == ([], 1)


def test_an_altered_last_message_is_altered_not_a_cut_tail(ca: FleetCa, node: SignedNode) -> None:
    lines = list(node.log(9))
    where = line_of(lines, 9)
    lines[where - 1] = changed(lines[where - 1], label="other")
    assert told(judged(ca, lines)) == [("altered", where, 9)]


def test_a_missing_message_and_a_missing_range_are_named(ca: FleetCa, node: SignedNode) -> None:
    report = judged(ca, without(list(node.log(20)), 4, 9, 10, 11))
    assert told(report) == [("missing", 0, 4), ("missing", 0, 9)]
    assert "seq 9 to 11 are missing" in report.findings[1].sentence


def test_a_message_replaced_by_a_lie_of_its_number_is_the_lie_not_a_hole(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(5))
    where = line_of(lines, 3)
    forger = SignedNode("roof-1", NOW)
    forger.seq = 2
    lines[where - 1] = forger.detection()
    assert told(judged(ca, lines)) == [("altered", where, 3)]


def test_two_that_changed_places_are_named_both_and_called_so(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(9))
    one, other = line_of(lines, 4), line_of(lines, 7)
    lines[one - 1] = changed(lines[one - 1], seq=7)
    lines[other - 1] = changed(lines[other - 1], seq=4)
    report = judged(ca, lines)
    assert told(report) == [("reordered", one, 7), ("reordered", other, 4)]
    assert "was seq 4 when it was signed" in report.findings[0].sentence


def test_a_cut_tail_shows_against_the_newest_checkpoint_kept_elsewhere(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(20))
    checkpoint = lines.pop()
    cut = without(lines, 18, 19, 20)
    assert judged(ca, cut).holds  # nothing in it says that there was more
    report = judged(ca, [*cut, checkpoint])
    assert told(report) == [("truncated", 0, 18)]
    assert "vouches for all up to seq 20" in report.findings[0].sentence
    assert told(judged(ca, [lines[0], checkpoint], first_seq=1)) == [("truncated", 0, 1)]


def test_a_cut_head_shows_if_it_is_asked_for(ca: FleetCa, node: SignedNode) -> None:
    lines = without(list(node.log(9)), 1, 2)
    assert judged(ca, lines).holds
    assert told(judged(ca, lines, first_seq=1)) == [("missing", 0, 1)]


def test_what_the_node_itself_dropped_is_not_missing_but_one_more_is(
    ca: FleetCa, node: SignedNode
) -> None:
    gap = Gap(from_seq=4, to_seq=8, count=3, reason="dropped")
    lines = [*node.log(9), node.checkpoint((gap,))]
    assert judged(ca, without(lines, 4, 6, 8)).holds
    report = judged(ca, without(lines, 4, 5, 6, 8))
    assert told(report) == [("missing", 0, 4)]
    assert "4 of seq 4 to 8 are missing, and the node says that it dropped 3" in (
        report.findings[0].sentence
    )
    assert told(judged(ca, without(lines, 3, 4, 6, 8))) == [("missing", 0, 3)]


def test_a_gap_that_begins_before_the_log_excuses_no_more_than_its_count(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(20))
    gap = Gap(from_seq=3, to_seq=10, count=2, reason="dropped")
    lines[-1] = node.checkpoint((gap,))
    assert judged(ca, without(lines, *range(1, 6), 7, 8)).holds
    report = judged(ca, without(lines, *range(1, 6), 7, 8, 9))
    assert [(f.kind, f.seq) for f in report.findings] == [("missing", 6)]


def test_where_a_log_should_begin_a_gap_excuses_no_more_than_its_count_either(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(20))
    gap = Gap(from_seq=1, to_seq=10, count=3, reason="dropped")
    lines[-1] = node.checkpoint((gap,))
    assert judged(ca, without(lines, 1, 2, 3), first_seq=1).holds
    assert judged(ca, without(lines, *range(1, 8)), first_seq=8).holds
    cut = without(lines, *range(1, 11))
    assert judged(ca, cut).holds
    assert told(judged(ca, cut, first_seq=1)) == [("missing", 0, 1)]
    whole = node.checkpoint((gap.model_copy(update={"to_seq": 20}),))
    assert told(judged(ca, [lines[0], whole], first_seq=1)) == [("missing", 0, 1)]


def test_gaps_of_an_older_checkpoint_still_hold(ca: FleetCa, node: SignedNode) -> None:
    gap = Gap(from_seq=2, to_seq=3, count=2, reason="dropped")
    lines = [*[node.detection() for _ in range(5)], node.checkpoint((gap,)), node.birth()]
    lines += [node.detection(), node.checkpoint()]
    assert judged(ca, without(lines, 2, 3)).holds


@pytest.mark.parametrize("forger", ["unsigned", "other key", "other node"])
def test_a_gap_that_the_node_did_not_sign_excuses_nothing(
    ca: FleetCa, node: SignedNode, forger: str
) -> None:
    lines = without(list(node.log(9)), 5)
    gap = Gap(from_seq=5, to_seq=5, count=1, reason="dropped")
    liar = SignedNode("roof-1" if forger == "other key" else "roof-2", NOW)
    if forger == "other node":
        liar.certified(ca)
        lines.append(liar.birth())
    liar.seq, liar.head = node.seq, node.head
    checkpoint = liar.checkpoint((gap,))
    if forger == "unsigned":
        checkpoint = changed(checkpoint, signature=None, node_id="roof-1")
    elif forger == "other node":
        checkpoint = changed(checkpoint, node_id="roof-1")
    kinds = [kind for kind, _, _ in told(judged(ca, [*lines, checkpoint]))]
    assert kinds[-1] == "missing"
    assert kinds[0] in ("unsigned", "altered", "foreign")


def test_a_chain_begun_anew_is_excused_by_a_signed_loss_alone(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(5))
    node.head = None  # its outbox was lost
    lines.append(node.detection())
    assert told(judged(ca, lines)) == [("forked", line_of(lines, 6), 6)]
    lost = Gap(from_seq=3, to_seq=5, count=None, reason="lost")
    assert judged(ca, [*lines, node.checkpoint((lost,))]).holds


def test_two_messages_of_one_number_are_told_though_the_node_signed_both(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(5))
    node.seq = 4
    lines.append(node.detection(label="other"))
    report = judged(ca, lines)
    assert told(report) == [("doubled", len(lines), 5)]


def test_two_histories_of_one_node_are_told_where_they_part(ca: FleetCa, node: SignedNode) -> None:
    first = list(node.log(3))
    at_three = node.head
    second = [node.detection(), node.detection()]
    node.seq, node.head = 3, at_three
    other = [node.detection(label="other"), node.detection()]
    mixed = [*first, second[0], other[1]]
    assert told(judged(ca, mixed)) == [("forked", len(mixed), 5)]


def test_a_history_against_a_checkpoint_kept_elsewhere_is_told(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(3))
    node.seq, node.head = 2, json.loads(lines[3])["prev_hash"]
    lines[3] = node.detection(label="other")
    assert told(judged(ca, lines)) == [("forked", 4, 3)]


def test_a_key_that_the_ca_did_not_certify_is_foreign_whatever_the_log_says(
    ca: FleetCa, tmp_path: Path
) -> None:
    stranger = SignedNode("roof-9", NOW)
    assert {f.kind for f in judged(ca, stranger.log(3)).findings} == {"foreign"}
    stranger = SignedNode("roof-9", NOW)
    stranger.certified(FleetCa(tmp_path, name="fleet CA"))  # another of the same name
    report = judged(ca, stranger.log(3))
    assert {f.kind for f in report.findings} == {"foreign"}
    assert "not issued by this CA" in report.findings[0].sentence


def test_a_certified_node_cannot_speak_for_another_or_for_another_site(
    ca: FleetCa, node: SignedNode
) -> None:
    liar = SignedNode("roof-2", NOW)
    liar.certified(ca)
    lines = list(node.log(3))
    liar.node_id, liar.seq, liar.head = "roof-1", node.seq, node.head
    lines += [liar.birth(), liar.detection()]
    (found,) = judged(ca, lines).findings
    assert (found.kind, found.seq) == ("foreign", 4)
    assert "that of city/roof-2" in found.sentence
    moved = [liar.signer.sign(json_to(line, site="town"))[0] for line in [liar.detection()]]
    (found,) = judged(ca, [*lines[:-1], moved[0].model_dump_json(by_alias=True).encode()]).findings
    assert found.kind == "foreign"


def test_a_foreign_key_is_named_whoever_comes_first_in_the_log(ca: FleetCa) -> None:
    nodes = [SignedNode(name, NOW) for name in ("roof-1", "roof-2")]
    for node in nodes:
        node.certified(ca)
    logs = [list(node.log(5)) for node in nodes]
    for victim, thief in ((0, 1), (1, 0)):
        where = line_of(logs[victim], 3)
        forger = SignedNode(nodes[victim].node_id, NOW, nodes[thief].key)
        forger.seq = 2
        spoilt = [*logs[victim][: where - 1], forger.detection(), *logs[victim][where:]]
        for lines in ([*spoilt, *logs[thief]], [*logs[thief], *spoilt]):
            (found,) = judged(ca, lines).findings
            assert (found.kind, found.seq) == ("foreign", 3)


def json_to(line: bytes, **changes: Any) -> Any:
    from node.messages import parse_detection

    return parse_detection(changed(line, **changes))


def test_a_ca_certificate_that_is_none_is_refused(ca: FleetCa, node: SignedNode) -> None:
    pem = node.certified(ca).read_bytes()
    with pytest.raises(ValueError, match=r"is no CA's certificate: give the fleet CA's own"):
        Trust.of_authority(pem)
    with pytest.raises(ValueError, match="holds no certificate"):
        Trust.of_authority(b"rubbish")


def test_before_its_revocation_a_signature_stands_and_after_it_is_refused(
    tmp_path: Path,
) -> None:
    ca = FleetCa(tmp_path)
    node = SignedNode("roof-1", NOW)
    certificate = node.certified(ca)
    lines = list(node.log(9))
    ca.revoke(certificate, at=dt.datetime.fromtimestamp(node.begin_ns // NS + 6, dt.UTC))
    report = judged(ca, lines, crl=ca.crl_file.read_bytes())
    found = [f for f in report.findings if f.seq is not None]
    assert [(f.kind, f.seq) for f in found] == [("expired", 6)]
    assert "and so 3 more up to seq 9" in found[0].sentence
    assert judged(ca, lines).holds


def test_after_its_revocation_no_clock_and_no_kind_of_message_is_an_excuse(tmp_path: Path) -> None:
    ca = FleetCa(tmp_path)
    node = SignedNode("roof-1", NOW)
    certificate = node.certified(ca)
    clock = json_to(node.detection()).clock.model_copy(update={"source": "free"})
    node.seq, node.head = 0, None
    lines = [node.birth(), *(node.detection() for _ in range(3))]
    lines += [node.detection(clock=clock) for _ in range(3)]
    assert judged(ca, lines).holds
    ca.revoke(certificate, at=dt.datetime.fromtimestamp(node.begin_ns // NS + 5, dt.UTC))
    crl = ca.crl_file.read_bytes()
    report = judged(ca, lines, crl=crl)
    assert told(report) == [("expired", line_of(lines, 5), 5)]
    assert "and so 1 more up to seq 6" in report.findings[0].sentence
    node.begin_ns += 3600 * NS
    report = judged(ca, [*lines[:5], node.birth()], crl=crl)
    assert told(report) == [("expired", 6, None)]


def test_a_revocation_list_of_another_ca_is_refused(ca: FleetCa, tmp_path: Path) -> None:
    other = FleetCa(tmp_path, name="fleet CA")
    with pytest.raises(ValueError, match="is not a revocation list of this CA"):
        Trust.of_authority(ca.certificate_file.read_bytes(), other.crl_file.read_bytes())


def test_every_revocation_list_of_a_file_counts(tmp_path: Path) -> None:
    old, new = FleetCa(tmp_path / "old", name="old CA"), FleetCa(tmp_path / "new", name="new CA")
    node = SignedNode("roof-1", NOW)
    new.revoke(node.certified(new), at=NOW - DAY)
    authorities = old.certificate_file.read_bytes() + new.certificate_file.read_bytes()
    lists = old.crl_file.read_bytes() + new.crl_file.read_bytes()
    report = by(Trust.of_authority(authorities, lists), node.log(3))
    assert [finding.kind for finding in report.findings] == ["expired"] * 3
    with pytest.raises(ValueError, match="or holds one that is not"):
        Trust.of_authority(old.certificate_file.read_bytes(), lists)


def test_validity_is_judged_at_the_time_of_the_message_not_of_the_judge(ca: FleetCa) -> None:
    then = NOW - 900 * DAY
    node = SignedNode("roof-1", then)
    node.certified(ca, not_before=then - DAY, not_after=then + DAY)
    assert judged(ca, node.log(3)).holds
    late = SignedNode("roof-1", NOW)
    late.certified(ca, not_before=then - DAY, not_after=then + DAY)
    assert {f.kind for f in judged(ca, late.log(3)).findings} == {"expired"}


def test_a_certificate_renewed_over_the_same_key_serves_on(ca: FleetCa) -> None:
    node = SignedNode("roof-1", NOW)
    middle = NOW + dt.timedelta(seconds=5)
    node.certified(ca, not_before=NOW - DAY, not_after=middle)
    births = [node.birth()]
    node.certified(ca, not_before=middle, not_after=NOW + DAY)
    assert judged(ca, [*births, *node.log(20)]).holds


def test_a_certificate_renewed_without_the_sites_name_serves_on(ca: FleetCa) -> None:
    node = SignedNode("roof-1", NOW)
    middle = NOW + dt.timedelta(seconds=5)
    node.certified(ca, not_before=NOW - DAY, not_after=middle)
    births = [node.birth()]
    issued = ca.issue("roof-1", key=node.key, not_before=middle, not_after=NOW + DAY)
    node.signer = Signer(node.key, issued.certificate.read_text())
    report = judged(ca, [*births, *node.log(20)])
    assert report.findings == []
    assert [len(key.certificates) for key in report.chains["city/roof-1"].keys] == [2]


def test_what_was_heard_before_the_clock_was_set_is_judged_by_its_neighbours(
    ca: FleetCa,
) -> None:
    node = SignedNode("roof-1", NOW)
    node.certified(ca)
    lines = [node.birth()]
    clock = {"source": "free", "sigma_s": 1e6, "bound_s": None, "second_confirmed": False}
    free = json_to(node.detection(), clock={**clock, "holdover_s": 0.0}).clock
    node.seq, node.head = 0, None
    begin, node.begin_ns = node.begin_ns, 0  # 1970
    lines += [node.detection(clock=free) for _ in range(3)]
    node.begin_ns = begin
    lines += [node.detection() for _ in range(3)]
    assert judged(ca, lines, first_seq=1).findings == []


def test_one_public_key_verifies_one_node_without_a_ca(node: SignedNode) -> None:
    pem = node.key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert by(Trust.of_key(pem), node.log(5)).holds
    other = SignedNode("roof-2", NOW)
    report = by(Trust.of_key(pem), other.log(2))
    assert {f.kind for f in report.findings} == {"foreign"}
    for wrong in (b"rubbish", b""):
        with pytest.raises(ValueError, match="is not a public key"):
            Trust.of_key(wrong)


@pytest.mark.parametrize(
    "line",
    [
        b"rubbish",
        b'{"schema": "gunfire.detection/1"',
        b'{"schema": "gunfire.detection/9", "site": "city", "node_id": "roof-1"}',
        b'{"schema": "gunfire.detection/1", "schema": "gunfire.status/1"}',
        b'{"schema": "gunfire.detection/1", "site": "ci/ty", "node_id": "roof-1"}',
        b'{"schema": ["gunfire.detection/1"], "site": "city"}',
        b'{"schema": {}}',
        b"\xff\xfe",
        b'"' + b"x" * 2**21,
        b"[" * 100_000,
        b"null",
    ],
)
def test_a_line_that_says_nothing_is_told_never_passed_over(
    ca: FleetCa, node: SignedNode, line: bytes
) -> None:
    lines = [*node.log(3), line]
    assert told(judged(ca, lines)) == [("unreadable", len(lines), None)]


def test_a_message_without_a_signature_is_told(ca: FleetCa, node: SignedNode) -> None:
    lines = list(node.log(5))
    where = line_of(lines, 2)
    lines[where - 1] = changed(lines[where - 1], signature=None, prev_hash=None)
    assert told(judged(ca, lines)) == [("unsigned", where, 2)]


def test_a_log_without_any_signed_detection_proves_nothing(ca: FleetCa, node: SignedNode) -> None:
    report = judged(ca, [node.birth()])
    assert report.count == 0
    assert not report.holds


def test_findings_are_bounded_and_all_counted(ca: FleetCa) -> None:
    report = judged(ca, [b"rubbish"] * (MOST_FINDINGS + 500))
    assert (len(report.findings), report.count) == (MOST_FINDINGS, MOST_FINDINGS + 500)


def test_a_log_made_to_weary_the_verifier_is_judged_all_the_same(
    ca: FleetCa, node: SignedNode
) -> None:
    lines = list(node.log(2))
    count = 20_000
    for i in range(count):  # each an altered message of another invented node, or of ours
        name = "roof-1" if i % 2 else f"invented-{i}"
        lines.append(
            b'{"schema":"gunfire.detection/1","site":"city","node_id":"%s","seq":%d,'
            b'"signature":"%s"}' % (name.encode(), 3 + 2 * i, b"A" * 86 + b"==")
        )
    node.seq = 3 + 2 * count
    lines += [node.detection(), node.checkpoint()]
    report = judged(ca, lines)
    assert report.count > count
    assert len(report.chains) <= MOST_FINDINGS + 1


@pytest.mark.parametrize(
    ("extension", "content"),
    [("2.5.29.17", b"\x30\x04\xa3\x02\x30\x00"), ("2.5.29.15", b"\x04\x00")],
    ids=["a name of a kind that is not read", "no key usage"],
)
def test_a_certificate_that_cannot_be_read_does_not_stop_the_verdict(
    ca: FleetCa, node: SignedNode, extension: str, content: bytes
) -> None:
    lines, thief = list(node.log(3)), SignedNode("roof-1", NOW)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "roof-1")])
    spoilt = (
        x509.CertificateBuilder(issuer_name=subject, subject_name=subject, serial_number=1)
        .public_key(thief.key.public_key())
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(extension), content), critical=False
        )
        .sign(thief.key, None)
    )
    pem = spoilt.public_bytes(serialization.Encoding.PEM).decode("ascii")
    thief.signer = Signer(thief.key, pem)
    report = judged(ca, [*lines, thief.birth()])
    assert told(report) == [("foreign", len(lines) + 1, None)]
    assert "its certificate cannot be read" in report.findings[0].sentence


def test_a_certificate_over_a_key_of_tls_or_for_a_ca_does_not_sign(ca: FleetCa) -> None:
    trust = Trust.of_authority(ca.certificate_file.read_bytes())
    tls = x509.load_pem_x509_certificate(ca.issue("roof-1").certificate.read_bytes())
    assert trust.offer(tls) == "its certificate is not over an Ed25519 key"
    assert trust.keys(SITE, "roof-1") == []
    key = Ed25519PrivateKey.generate()
    good = x509.load_pem_x509_certificate(ca.issue("roof-1", key=key).certificate.read_bytes())
    assert trust.offer(good) == ""
    assert [k.public.public_bytes_raw() for k in trust.keys("any-site", "roof-1")] == [
        key.public_key().public_bytes_raw()
    ]
