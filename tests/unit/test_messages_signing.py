"""Signed forms: what a signature covers, what it does not, and that nothing else passes."""

import base64
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st

from node.messages import Detection, parse_checkpoint, parse_detection, parse_node, to_json
from node.messages.signing import (
    NO_HASH,
    Signer,
    canonical,
    digest,
    is_signed_by,
    key_id,
    read_object,
    signature_bytes,
)
from node.messages.wire import with_transport

CONTRACT = Path(__file__).parent.parent / "contract"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key()
SIGNER = Signer(PRIVATE)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
objects = st.dictionaries(st.text(), json_values, max_size=6)


def example() -> Detection:
    return parse_detection((CONTRACT / "detection.json").read_bytes())


def sealed() -> bytes:
    return to_json(SIGNER.seal(example(), None)[0])


def accepted(payload: bytes) -> bool:
    """Say whether a payload is signed by the node's key, as a verifier judges."""
    try:
        document = read_object(payload)
        return is_signed_by(PUBLIC, signature_bytes(document.get("signature")), canonical(document))
    except ValueError:
        return False


def shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(inner, rng)) for key, inner in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(inner, rng) for inner in value] if isinstance(value, list) else value


@given(objects, st.randoms(use_true_random=False))
def test_the_canonical_form_does_not_depend_on_the_order_of_keys(
    document: dict[str, Any], rng: random.Random
) -> None:
    assert canonical(shuffled(document, rng)) == canonical(document)


@given(objects)
def test_the_canonical_form_survives_being_written_and_read_back(document: dict[str, Any]) -> None:
    assert canonical(read_object(json.dumps(document))) == canonical(document)


@given(objects, objects)
def test_two_different_objects_never_share_a_canonical_form(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    covered = [
        {k: v for k, v in document.items() if k not in ("transport", "signature")}
        for document in (one, other)
    ]
    assume(covered[0] != covered[1])
    assert canonical(one) != canonical(other)


def test_the_canonical_form_is_that_of_the_rfcs_own_example() -> None:
    source = (
        r'{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],'
        r' "string": "\u20ac$\u000F\u000aA'
        r"'"
        r'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}'
    )
    assert (
        canonical(read_object(source))
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


def test_a_sealed_detection_is_accepted_and_says_what_links_the_next_one_to_it() -> None:
    message, its_digest = SIGNER.seal(example(), None)
    document = read_object(to_json(message))
    assert document["prev_hash"] == NO_HASH
    assert accepted(to_json(message))
    form = canonical(document)
    assert its_digest == digest(form) == hashlib.sha256(form).hexdigest()
    following, _ = SIGNER.seal(example(), its_digest)
    assert following.prev_hash == its_digest


@given(st.integers(0, len(sealed()) * 8 - 1))
def test_any_bit_changed_is_refused_unless_sending_may_change_it_or_it_says_the_same(
    bit: int,
) -> None:
    payload = bytearray(sealed())
    payload[bit // 8] ^= 1 << bit % 8
    try:
        changed = read_object(bytes(payload))
    except ValueError:
        changed = {}
    original = read_object(sealed())
    # What only sending knows is not covered; 1e-6 and 1E-6 are one number.
    assume({**changed, "transport": None} != {**original, "transport": None})
    assert not accepted(bytes(payload))


@given(st.integers(0, 2**62), st.booleans())
def test_what_only_sending_knows_may_change(utc_ns: int, delayed: bool) -> None:
    assert accepted(with_transport(sealed(), utc_ns, delayed))


def test_every_value_is_covered_one_by_one() -> None:
    document = read_object(sealed())
    for name in document:
        changed = {**document, name: "another"}
        assert accepted(json.dumps(changed).encode()) == (name == "transport"), name
        without = {key: value for key, value in document.items() if key != name}
        assert accepted(json.dumps(without).encode()) == (name == "transport"), name
    assert not accepted(json.dumps({**document, "more": None}).encode())


def test_another_key_and_a_kind_of_another_name_are_refused() -> None:
    document = read_object(sealed())
    other = Ed25519PrivateKey.generate().public_key()
    signature = signature_bytes(document["signature"])
    assert not is_signed_by(other, signature, canonical(document))
    document["schema"] = "gunfire.checkpoint/1"
    assert not accepted(json.dumps(document).encode())


@pytest.mark.parametrize("name", ["checkpoint", "node"])
def test_checkpoints_and_birth_messages_are_signed_the_same_way(name: str) -> None:
    parse = {"checkpoint": parse_checkpoint, "node": parse_node}[name]
    message, _ = SIGNER.sign(parse((CONTRACT / f"{name}.json").read_bytes()))
    assert accepted(to_json(message))


def test_a_signature_has_one_spelling() -> None:
    text = read_object(sealed())["signature"]
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = text[:-3] + last[last.index(text[-3]) + 1] + "=="
    assert base64.b64decode(twin) == base64.b64decode(text)
    for wrong in (twin, text + "\n", text[:-2], text.replace("=", "", 1), "", "AA==", 5, None):
        with pytest.raises(ValueError, match="sign"):
            signature_bytes(wrong)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ('{"seq": 1, "seq": 2}', "gives a key twice"),
        ('{"rounds": [{"utc": 1, "utc": 1}]}', "gives a key twice"),
        ('{"a": NaN}', "which is not JSON"),
        ('{"a": -Infinity}', "which is not JSON"),
        ("[1]", "is not a JSON object"),
        ("{", "Expecting property name"),
        (b"\xff{}", "codec can't decode"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_readers_would_read_differently_is_not_read(payload: bytes | str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_object(payload)


@pytest.mark.parametrize("value", [2**53, "\ud800"])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"exceeds safe integer|non-UTF-8"):
        canonical({"a": value})


def test_the_keys_name_is_of_its_public_half_and_the_private_one_is_not_shown() -> None:
    raw = PUBLIC.public_bytes_raw()
    assert SIGNER.key.key_id == key_id(raw) == hashlib.sha256(raw).hexdigest()[:16]
    assert base64.b64decode(SIGNER.key.public_key) == raw
    secret = base64.b64encode(PRIVATE.private_bytes_raw()).decode()
    assert secret not in repr(SIGNER) + repr(SIGNER.key) + str(vars(SIGNER))
