"""The signed form of a message: what a node signs, what links the next one to it, and its proof.

Signed is the message's JSON object without what only sending adds (`transport`) and without the
signature itself, in the canonical form of RFC 8785: the order of keys and the spelling of numbers
do not matter, every value does. `prev_hash` of the next detection is the SHA-256 of these bytes.
The kind of message (`schema`) stands inside, so one kind can never pass for another.

Pure: the key itself is read by `node.identity`.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from node.messages.checkpoint import Checkpoint
from node.messages.detection import Detection
from node.messages.node import Key, Node

NO_HASH: Final = "0" * 64
"""`prev_hash` of the first of a chain, and `head` where there is none."""

NOT_SIGNED: Final = frozenset({"transport", "signature"})
"""Keys of a message that its signature does not cover."""

_SIGNATURE_BYTES: Final = 64

_S = TypeVar("_S", Detection, Checkpoint, Node)


def read_object(payload: bytes | str) -> dict[str, Any]:
    """Read a JSON object that every reader reads the same way.

    Raises
    ------
    ValueError
        If it is not UTF-8, not JSON (RFC 8259), not an object, or gives a key twice, of which
        readers take one or the other.
    """
    try:
        text = payload if isinstance(payload, str) else payload.decode("utf-8")
        document = json.loads(text, object_pairs_hook=unique_keys, parse_constant=no_constant)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("is not a JSON object")
    return document


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Take the keys of a JSON object, each of which is given once."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("gives a key twice")
    return document


def no_constant(name: str) -> float:
    """Refuse what Python reads and JSON does not have: NaN, Infinity, -Infinity."""
    raise ValueError(f"holds {name}, which is not JSON")


def canonical(document: Mapping[str, Any]) -> bytes:
    """Give the bytes that a signature covers, of a message's JSON object.

    Raises
    ------
    ValueError
        If it holds what RFC 8785 cannot write: an integer beyond 2⁵³, a lone surrogate.
    """
    try:
        return rfc8785.dumps({k: v for k, v in document.items() if k not in NOT_SIGNED})
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def digest(signed_form: bytes) -> str:
    """Give the SHA-256 of a signed form, lower-case hexadecimal."""
    return hashlib.sha256(signed_form).hexdigest()


def key_id(raw_public_key: bytes) -> str:
    """Give the short name of a public key: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(raw_public_key).hexdigest()[:16]


def signature_bytes(text: object) -> bytes:
    """Read a signature as it stands in a message.

    Raises
    ------
    ValueError
        If it is not 64 bytes in the one spelling that base64 has for them.
    """
    if not isinstance(text, str):
        raise ValueError("is not signed")
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError("its signature is not base64") from None
    # The last character has bits that decoding passes over: a change there must show too.
    if len(raw) != _SIGNATURE_BYTES or base64.b64encode(raw).decode("ascii") != text:
        raise ValueError("its signature is not 64 bytes of base64")
    return raw


def is_signed_by(public_key: Ed25519PublicKey, signature: bytes, signed_form: bytes) -> bool:
    """Whether a signature over these bytes is of this key."""
    try:
        public_key.verify(signature, signed_form)
    except InvalidSignature:
        return False
    return True


class Signer:
    """Signs in a node's name.

    Parameters
    ----------
    private_key
        The node's own; it is never shown.
    certificate
        The enrolment certificate over it, PEM; None before enrolment.
    """

    def __init__(self, private_key: Ed25519PrivateKey, certificate: str | None = None) -> None:
        self._private_key = private_key
        raw = private_key.public_key().public_bytes_raw()
        self.key = Key(
            algorithm="Ed25519",
            key_id=key_id(raw),
            public_key=base64.b64encode(raw).decode("ascii"),
            certificate=certificate,
        )

    def sign(self, message: _S) -> tuple[_S, str]:
        """Give a message with its signature, and the digest of its signed form."""
        form = canonical(message.model_dump(mode="json", by_alias=True))
        signature = base64.b64encode(self._private_key.sign(form)).decode("ascii")
        return message.model_copy(update={"signature": signature}), digest(form)

    def seal(self, detection: Detection, prev_hash: str | None) -> tuple[Detection, str]:
        """Link a numbered detection to the one before it and sign it; see `sign`.

        `prev_hash` is None for the first of a chain.
        """
        return self.sign(detection.model_copy(update={"prev_hash": prev_hash or NO_HASH}))
