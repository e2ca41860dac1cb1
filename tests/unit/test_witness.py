"""When a node vouches for its chain, when it says what it is, and that both are signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.deliver import Chain, Gap, Link
from node.identity import Identity
from node.messages import (
    Array,
    Microphone,
    Origin,
    Position,
    Privacy,
    parse_checkpoint,
    parse_detection,
    parse_node,
)
from node.messages.signing import NO_HASH, canonical, is_signed_by, read_object, signature_bytes
from node.types import ModelIdentity
from node.witness import CHECKPOINT_DETECTIONS, CHECKPOINT_S, MOVED_S, Witness

ORIGIN = Origin("city", "roof-1", "02f7915f-7823-5c85-b668-a97df03fe3d8", "0.1.0")
MODEL = ModelIdentity("test", "1", "0" * 64, 0.7, 0.4)
KEY = Ed25519PrivateKey.generate()
UTC_NS = 1_800_000_000 * 10**9
HEAD = "ab" * 32
DROPPED = Gap(1, 5, 5, "dropped")


@pytest.fixture
def witness() -> Witness:
    array = Array(
        name="mono",
        channels=1,
        sample_rate_hz=48_000,
        microphones=(Microphone(x_m=0, y_m=0, z_m=0),),
    )
    privacy = Privacy(snippets=False, snippet_seconds=0, publish_rejected=True)
    return Witness(Identity(KEY), array, privacy)


def told(witness: Witness, chain: Chain, now_s: float, *, at_once: bool = False) -> bool:
    payload = witness.checkpoint(ORIGIN, chain, utc_ns=UTC_NS, now_s=now_s, at_once=at_once)
    assert payload is None or is_ours(payload)
    return payload is not None


def is_ours(payload: bytes) -> bool:
    document = read_object(payload)
    return is_signed_by(
        KEY.public_key(), signature_bytes(document["signature"]), canonical(document)
    )


def test_a_checkpoint_says_number_digest_and_gaps_and_is_signed(witness: Witness) -> None:
    payload = witness.checkpoint(ORIGIN, Chain(9, HEAD, (DROPPED,)), utc_ns=UTC_NS, now_s=0)
    assert payload is not None
    assert is_ours(payload)
    said = parse_checkpoint(payload)
    assert (said.seq, said.head) == (9, HEAD)
    assert [(g.from_seq, g.to_seq, g.count, g.reason) for g in said.gaps] == [(1, 5, 5, "dropped")]


def test_a_chain_whose_head_was_lost_says_so_with_zeros(witness: Witness) -> None:
    payload = witness.checkpoint(ORIGIN, Chain(9, None, ()), utc_ns=UTC_NS, now_s=0)
    assert payload is not None
    assert parse_checkpoint(payload).head == NO_HASH


def test_nothing_is_vouched_for_before_there_is_anything(witness: Witness) -> None:
    assert not told(witness, Chain(0, None, ()), 0, at_once=True)


def test_a_checkpoint_comes_each_hundred_detections_and_after_ten_minutes_with_news(
    witness: Witness,
) -> None:
    assert told(witness, Chain(1, HEAD, ()), 0)
    assert not told(witness, Chain(CHECKPOINT_DETECTIONS, HEAD, ()), 1)
    assert told(witness, Chain(1 + CHECKPOINT_DETECTIONS, HEAD, ()), 2)
    assert not told(witness, Chain(1 + CHECKPOINT_DETECTIONS, HEAD, ()), 2 + 10 * CHECKPOINT_S)
    assert told(witness, Chain(2 + CHECKPOINT_DETECTIONS, HEAD, ()), 2 + 10 * CHECKPOINT_S)


def test_a_new_gap_is_told_at_once_and_one_that_grows_with_the_rest(witness: Witness) -> None:
    assert told(witness, Chain(10, HEAD, ()), 0)
    assert told(witness, Chain(11, HEAD, (DROPPED,)), 1)
    grown = replace(DROPPED, to_seq=6, count=6)
    assert not told(witness, Chain(12, HEAD, (grown,)), 2)
    assert told(witness, Chain(12, HEAD, (grown, Gap(9, 9, 1, "dropped"))), 3)


def test_all_is_told_again_after_a_connection_and_only_news_at_the_end(witness: Witness) -> None:
    chain = Chain(10, HEAD, ())
    assert told(witness, chain, 0)
    assert not told(witness, chain, 1, at_once=True)
    witness.forget()
    assert told(witness, chain, 2)
    assert told(witness, Chain(11, HEAD, ()), 3, at_once=True)


def test_the_birth_message_comes_once_and_again_when_the_node_stands_elsewhere(
    witness: Witness,
) -> None:
    def born(origin: Origin, now_s: float) -> bool:
        payload = witness.birth(origin, MODEL, utc_ns=UTC_NS, now_s=now_s)
        assert payload is None or is_ours(payload)
        return payload is not None

    here = Position(lat_deg=40.0, lon_deg=-80.0, alt_m=200.0, sigma_m=3.0)
    near = here.model_copy(update={"lat_deg": 40.0000001})
    assert born(ORIGIN, 0)
    assert not born(ORIGIN, 1)
    assert born(replace(ORIGIN, position=here), 2)  # the receiver has found it
    assert not born(replace(ORIGIN, position=near), 3)  # its average moves all the time
    assert born(replace(ORIGIN, position=near), 3 + MOVED_S)
    assert not born(replace(ORIGIN, position=near), 4 + MOVED_S)


def test_the_birth_message_carries_the_public_key_alone(witness: Witness) -> None:
    payload = witness.birth(ORIGIN, MODEL, utc_ns=UTC_NS, now_s=0)
    assert payload is not None
    said = parse_node(payload)
    assert said.key is not None
    assert said.key.certificate is None
    assert KEY.private_bytes_raw().hex() not in payload.hex()


def test_what_is_rendered_has_number_link_and_signature(witness: Witness) -> None:
    example = parse_detection(
        (Path(__file__).parent.parent / "contract" / "detection.json").read_bytes()
    )
    first = witness.render(example, Link(1, None))
    second = witness.render(example, Link(2, first.digest))
    assert is_ours(first.payload)
    assert is_ours(second.payload)
    assert parse_detection(first.payload).prev_hash == NO_HASH
    said = parse_detection(second.payload)
    assert (said.seq, said.prev_hash) == (2, first.digest)


def test_once_the_node_is_enrolled_its_birth_is_told_again_with_the_certificate(
    witness: Witness,
) -> None:
    def born() -> bytes | None:
        return witness.birth(ORIGIN, MODEL, utc_ns=UTC_NS, now_s=0)

    first = born()
    assert first is not None
    assert parse_node(first).key.certificate is None
    witness.certify(Identity(KEY, "-----BEGIN CERTIFICATE-----"))
    again = born()
    assert again is not None
    assert is_ours(again)
    assert parse_node(again).key.certificate == "-----BEGIN CERTIFICATE-----"
    assert born() is None
