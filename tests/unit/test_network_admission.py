"""The gate before the locator: each kind of bad message is refused for what it is, and told."""

from __future__ import annotations

import datetime as dt
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from node.messages import parse_detection, to_json
from node.messages.detection import Clock, Local, Position
from node.network.admission import Admission, Admitted, Birth, Refusal
from node.network.keys import Keys
from node.network.locate_settings import InputSettings
from node.network.places import Places
from node.utc import utc_text
from tests.hil.fleet_ca import DAY, FleetCa
from tests.unit.signed_log import EXAMPLE, NS, SITE, SignedNode, changed

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def ca(tmp_path: Path) -> FleetCa:
    return FleetCa(tmp_path / "ca")


@pytest.fixture
def keys(ca: FleetCa) -> Keys:
    return Keys(ca.certificate_file, ca.crl_file)


@pytest.fixture
def node(ca: FleetCa) -> SignedNode:
    made = SignedNode("roof-1", NOW)
    made.certified(ca)
    return made


@pytest.fixture
def gate(keys: Keys, node: SignedNode) -> Admission:
    made = Admission(keys=keys)
    assert isinstance(made.birth(node.birth(), now(node)), Birth)
    return made


def now(node: SignedNode, later_s: float = 0) -> int:
    return node.begin_ns + (node.seq + 1) * NS + round(later_s * NS)


def heard(node: SignedNode, **changes: Any) -> bytes:
    """Give its next detection, of two rounds."""
    onset_ns = node.begin_ns + (node.seq + 1) * NS
    rounds = tuple(
        one.model_copy(update={"utc": utc_text(onset_ns + number * NS // 4)})
        for number, one in enumerate(EXAMPLE.rounds)
    )
    return node.detection(**{"rounds": rounds, "onset_utc": rounds[0].utc, **changes})


def judged(gate: Admission, node: SignedNode, payload: bytes, **options: Any) -> str:
    """Give the kind of a refusal, or "admitted"."""
    found = gate.detection(payload, options.pop("now_ns", now(node)), **options)
    return "admitted" if isinstance(found, Admitted) else found.kind


def test_what_the_node_signed_counts_once(gate: Admission, node: SignedNode) -> None:
    payload = heard(node)
    again = changed(payload, transport={"published_utc": "2026-01-01T00:00:00.000000000Z",
                                        "delayed": True})  # fmt: skip
    assert judged(gate, node, payload) == "admitted"
    assert [judged(gate, node, copy) for copy in (payload, again)] == ["repeated"] * 2
    assert gate.taken == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"grade": "not_gunfire"}, "forged"),
        ({"seq": 7}, "forged"),
        ({"a_key_of_later": 1}, "forged"),
        ({"signature": "x" * 88}, "forged"),
        ({"signature": None}, "unsigned"),
        ({"onset_utc": "2026-13-01T00:00:00.000000000Z"}, "unreadable"),
        ({"rounds": []}, "unreadable"),
        ({"node_id": "roof-2"}, "unknown"),
        ({"site": "elsewhere"}, "unknown"),
    ],
)
def test_what_was_changed_on_the_way_is_refused(
    gate: Admission, node: SignedNode, change: dict[str, Any], kind: str
) -> None:
    assert judged(gate, node, changed(heard(node), **change)) == kind
    assert gate.taken == 0


def test_an_altered_copy_that_comes_after_the_true_one_is_told_as_forged(
    gate: Admission, node: SignedNode
) -> None:
    payload = heard(node)
    assert judged(gate, node, payload) == "admitted"
    assert judged(gate, node, changed(payload, grade="not_gunfire")) == "forged"
    spaced = json.dumps(json.loads(payload), indent=1).encode()
    assert judged(gate, node, spaced) == "repeated"


def test_a_forged_message_does_not_use_up_the_name_of_the_true_one(
    gate: Admission, node: SignedNode
) -> None:
    payload = heard(node)
    thief = SignedNode("roof-1", NOW, Ed25519PrivateKey.generate())
    assert judged(gate, node, heard(thief)) == "forged"
    assert judged(gate, node, changed(payload, seq=99)) == "forged"
    assert judged(gate, node, payload) == "admitted"


def test_another_nodes_key_is_told_by_its_name(
    gate: Admission, node: SignedNode, ca: FleetCa
) -> None:
    other = SignedNode("roof-2", NOW)
    other.certified(ca)
    gate.birth(other.birth(), now(other))
    stolen = SignedNode("roof-1", NOW, other.key)
    found = gate.detection(heard(stolen), now(stolen))
    assert isinstance(found, Refusal)
    assert found.kind == "forged"
    assert "by the key of city/roof-2" in found.sentence


def test_a_node_without_a_certificate_is_told_why(keys: Keys, ca: FleetCa, tmp_path: Path) -> None:
    gate = Admission(keys=keys)
    stranger = SignedNode("roof-9", NOW)
    stranger.certified(FleetCa(tmp_path / "other"))
    assert isinstance(gate.birth(stranger.birth(), now(stranger)), Refusal)
    found = gate.detection(heard(stranger), now(stranger))
    assert isinstance(found, Refusal)
    assert (found.kind, found.who) == ("unknown", (SITE, "roof-9"))
    assert "not issued by this CA" in found.sentence


def test_times_that_cannot_be_are_refused_and_what_is_late_is_said_to_be(
    gate: Admission, node: SignedNode
) -> None:
    payload = heard(node)
    onset_ns = node.begin_ns + NS
    assert judged(gate, node, payload, now_ns=onset_ns - 6 * NS) == "future"
    assert judged(gate, node, payload, now_ns=onset_ns + 700 * NS) == "late"
    assert judged(gate, node, payload, now_ns=onset_ns + 500 * NS) == "admitted"


def test_rounds_out_of_order_or_days_apart_are_no_detection(
    gate: Admission, node: SignedNode
) -> None:
    payload = json.loads(heard(node))
    first, second = payload["rounds"]
    for rounds in ([second, first], [first, {**second, "utc": "2030-01-01T00:00:00.000000000Z"}]):
        bad = json.dumps({**payload, "rounds": rounds, "onset_utc": rounds[0]["utc"]}).encode()
        assert judged(gate, node, bad) == "unreadable"


@pytest.mark.parametrize(
    ("source", "sigma_s", "kind"),
    [("free", 1e9, "clock"), ("free", 1e-6, "clock"), ("ntp", 0.9, "clock"), ("ntp", 0.05, None)],
)
def test_a_clock_that_nobody_vouches_for_moves_nothing(
    gate: Admission, node: SignedNode, source: str, sigma_s: float, kind: str | None
) -> None:
    clock = {**EXAMPLE.clock.model_dump(), "source": source, "sigma_s": sigma_s}
    payload = heard(node, clock=Clock.model_validate(clock))
    assert judged(gate, node, payload) == (kind or "admitted")


def test_times_that_are_good_to_seconds_move_nothing() -> None:
    vague = tuple(one.model_copy(update={"sigma_s": 10.0}) for one in EXAMPLE.rounds)
    payload = to_json(EXAMPLE.model_copy(update={"rounds": vague}))
    said = Admission(InputSettings(unsigned=True), live=False).detection(payload, None)
    assert isinstance(said, Refusal)
    assert said.kind == "clock"
    assert "±10 s" in said.sentence


@pytest.mark.parametrize("key", ["x_m", "y_m", "z_m", "sigma_m"])
def test_a_place_beyond_any_survey_never_gets_to_the_search_among_nodes(
    gate: Admission, node: SignedNode, key: str
) -> None:
    local = Local(frame="city", **{"x_m": 0, "y_m": 0, "z_m": 0, "sigma_m": 1.0, key: 1e300})
    assert judged(gate, node, heard(node, local=local)) == "unreadable"
    node.origin = replace(node.origin, local=local)
    born = gate.birth(node.birth(), now(node))
    assert isinstance(born, Refusal)
    assert f"{key} = 1e+300" in born.sentence


def test_who_says_no_place_and_has_none_is_told_so_and_not_passed_over() -> None:
    gate = Admission(InputSettings(unsigned=True), live=False)
    lost = EXAMPLE.model_copy(update={"position": None, "local": None})
    said = gate.detection(to_json(lost), None)
    assert isinstance(said, Refusal)
    assert (said.kind, gate.taken) == ("unlisted", 0)
    assert "says not where it stands" in said.sentence
    assert isinstance(gate.detection(to_json(EXAMPLE), None), Admitted)


def test_nodes_of_one_site_in_two_frames_are_told_since_they_are_not_located_together() -> None:
    gate = Admission(InputSettings(unsigned=True), live=False)
    doubts = []
    for name, frame in (("a", "survey"), ("b", "survey"), ("c", "other"), ("d", None)):
        local = None if frame is None else Local(frame=frame, x_m=0, y_m=0, z_m=0, sigma_m=1.0)
        position = Position(lat_deg=1, lon_deg=2, alt_m=3, sigma_m=1) if local is None else None
        changes = {"node_id": name, "local": local, "position": position}
        said = gate.detection(to_json(EXAMPLE.model_copy(update=changes)), None)
        assert isinstance(said, Admitted)
        doubts.append(said.doubt)
    assert doubts[:2] == ["", ""]
    assert doubts[2].startswith("stands in the frame 'other', others of its site in the frame")
    assert doubts[3].startswith("stands on Earth (lat_deg …), others of its site in the frame")


def test_two_contents_of_one_revision_are_told_and_the_first_counts(
    gate: Admission, node: SignedNode
) -> None:
    first = heard(node)
    node.seq -= 1
    second = heard(node, grade="not_gunfire")
    assert judged(gate, node, first) == "admitted"
    assert judged(gate, node, second) == "contradictory"
    node.seq -= 1
    assert judged(gate, node, heard(node, revision=2, type="update")) == "admitted"
    node.seq -= 1
    assert judged(gate, node, heard(node, revision=1, type="update")) == "superseded"


def test_what_the_broker_kept_or_has_on_anothers_topic_does_not_count(
    gate: Admission, node: SignedNode
) -> None:
    payload = heard(node)
    theirs = f"gunfire/v1/{SITE}/roof-2/detection"
    own = f"gunfire/v1/{SITE}/roof-1/detection"
    assert judged(gate, node, payload, topic=theirs) == "misplaced"
    assert judged(gate, node, payload, topic=own, retained=True) == "retained"
    assert judged(gate, node, payload, topic=own) == "admitted"


def test_a_flood_of_one_node_is_bounded_and_takes_nothing_from_another(
    gate: Admission, node: SignedNode, ca: FleetCa
) -> None:
    other = SignedNode("roof-2", NOW)
    other.certified(ca)
    gate.birth(other.birth(), now(other))
    gate.settings = InputSettings(per_node_s=5, per_node_at_once=10)
    moment = now(node, 100)
    kinds = [judged(gate, node, heard(node), now_ns=moment) for _ in range(50)]
    assert kinds == ["admitted"] * 10 + ["flood"] * 40
    assert judged(gate, other, heard(other), now_ns=moment) == "admitted"
    assert judged(gate, node, heard(node), now_ns=moment + NS) == "admitted"


def test_what_is_longer_than_any_detection_is_not_even_read(
    gate: Admission, node: SignedNode
) -> None:
    huge = changed(heard(node), padding="x" * 70_000)
    assert judged(gate, node, huge) == "unreadable"


def test_a_node_that_was_revoked_does_not_count_from_the_new_list_on(
    gate: Admission, keys: Keys, node: SignedNode, ca: FleetCa
) -> None:
    assert judged(gate, node, heard(node)) == "admitted"
    assert not keys.renew()
    ca.revoke(ca.folder / "roof-1.crt", NOW - DAY)
    stamp = ca.crl_file.stat().st_mtime_ns
    os.utime(ca.crl_file, ns=(stamp, stamp + 1))
    assert keys.renew()
    assert judged(gate, node, heard(node)) == "expired"


def test_who_stole_a_revoked_key_cannot_date_back(
    gate: Admission, keys: Keys, node: SignedNode, ca: FleetCa
) -> None:
    # Revoked a second after the onset; it comes a minute later.
    ca.revoke(ca.folder / "roof-1.crt", dt.datetime.fromtimestamp(now(node) // NS + 1, dt.UTC))
    os.utime(ca.crl_file, ns=(1, 1))
    assert keys.renew()
    payload = heard(node)
    assert judged(gate, node, payload, now_ns=now(node, 60)) == "expired"
    on_files = Admission(keys=keys, live=False)
    assert judged(on_files, node, payload, now_ns=now(node, 60)) == "admitted"


def test_a_list_that_spoils_on_disk_leaves_the_one_before_it(
    gate: Admission, keys: Keys, node: SignedNode, ca: FleetCa
) -> None:
    ca.crl_file.write_text("half a li")
    assert not keys.renew()
    assert judged(gate, node, heard(node)) == "admitted"


def test_the_birth_says_where_a_node_stands_and_the_list_is_above_it(
    keys: Keys, node: SignedNode
) -> None:
    assert EXAMPLE.position is not None
    far = EXAMPLE.position.model_copy(update={"lat_deg": EXAMPLE.position.lat_deg + 0.01})
    node.origin = node.origin.__class__(
        **{**{f: getattr(node.origin, f) for f in node.origin.__slots__}, "position": far}
    )
    gate = Admission(keys=keys)
    found = gate.birth(node.birth(), now(node))
    assert isinstance(found, Birth)
    assert gate.place(SITE, "roof-1") == far
    found_one = gate.detection(heard(node), now(node))
    assert isinstance(found_one, Admitted)
    assert "1,113 m from where its birth message has it" in found_one.doubt
    listed = Admission(keys=keys, places=Places({(None, "roof-1"): EXAMPLE.position}))
    listed.birth(node.birth(), now(node))
    assert listed.place(SITE, "roof-1") == EXAMPLE.position
    found_one = listed.detection(heard(node), now(node))
    assert isinstance(found_one, Admitted)
    assert not found_one.doubt


def test_an_old_birth_played_again_moves_no_node(gate: Admission, node: SignedNode) -> None:
    old = node.birth()
    node.begin_ns += 60 * NS
    assert isinstance(gate.birth(node.birth(), now(node)), Birth)
    found = gate.birth(old, now(node))
    assert isinstance(found, Refusal)
    assert found.kind == "superseded"


@pytest.mark.parametrize("change", [{"firmware": "other"}, {"signature": None}])
def test_a_birth_that_the_node_did_not_sign_moves_no_node(
    gate: Admission, node: SignedNode, change: dict[str, Any]
) -> None:
    place = EXAMPLE.position.model_dump() if EXAMPLE.position else None
    found = gate.birth(changed(node.birth(), position=place, **change), now(node))
    assert isinstance(found, Refusal)
    assert gate.place(SITE, "roof-1") is None


def test_who_is_not_in_the_list_does_not_count(keys: Keys, node: SignedNode) -> None:
    assert isinstance(EXAMPLE.position, Position)
    gate = Admission(keys=keys, places=Places({(SITE, "roof-7"): EXAMPLE.position}))
    assert isinstance(gate.birth(node.birth(), now(node)), Refusal)
    assert judged(gate, node, heard(node)) == "unlisted"


def test_unsigned_ones_count_where_that_is_set_and_forged_ones_never(
    keys: Keys, node: SignedNode
) -> None:
    gate = Admission(InputSettings(unsigned=True), keys)
    gate.birth(node.birth(), now(node))
    payload = heard(node)
    assert judged(gate, node, changed(payload, seq=9)) == "forged"
    assert judged(gate, node, changed(payload, signature=None)) == "admitted"
    assert gate.unverified == 1


def test_one_key_for_all_counts_in_place_of_a_ca(tmp_path: Path, node: SignedNode) -> None:
    from cryptography.hazmat.primitives import serialization

    pem = tmp_path / "key.pem"
    pem.write_bytes(
        node.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    gate = Admission(keys=Keys(key=pem))
    assert judged(gate, node, heard(node)) == "admitted"
    assert judged(gate, node, heard(SignedNode("roof-2", NOW))) == "forged"


def test_strange_certificates_without_end_fill_no_memory(
    gate: Admission, keys: Keys, node: SignedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.network.keys.MOST_STRANGE", 5)
    other = FleetCa(tmp_path / "other")
    for number in range(12):
        stranger = SignedNode(f"ghost-{number}", NOW)
        stranger.certified(other)
        gate.birth(stranger.birth(), now(stranger))
    assert len(keys._strange) <= 5
    assert len(keys._trust._seen) <= 7
    assert judged(gate, node, heard(node)) == "admitted"


@settings(max_examples=150)
@given(data=st.data())
def test_no_bytes_make_the_gate_fall_over(data: st.DataObject) -> None:
    gate = Admission(InputSettings(unsigned=True))
    text = to_json(EXAMPLE)
    at = data.draw(st.integers(0, len(text) - 1))
    bad = text[:at] + data.draw(st.binary(max_size=20)) + text[at + data.draw(st.integers(0, 9)) :]
    found = gate.detection(bad, NS * 1_790_000_000, data.draw(st.none() | st.text(max_size=40)))
    if isinstance(found, Admitted):
        assert parse_detection(bad) == found.detection
