"""The signed form of a detection, written fast: the locator makes it for each that comes.

The same bytes as `node.messages.signing.canonical` (RFC 8785), in a third of its time, since the
locator has a few hundred microseconds a message. What is not plain (a key beyond ASCII, an
exponent) is left to the library; a test holds the two together.
"""

from __future__ import annotations

import json.encoder
from collections.abc import Callable, Mapping
from typing import Any, Final

import rfc8785

from node.messages.signing import canonical

_LARGEST: Final = 2**53 - 1
_NOT_SIGNED: Final = frozenset({"transport", "signature"})
# The standard library's own writer of strings, in C: the escapes of RFC 8785 §3.2.2.2.
_text: Final[Callable[[str], str]] = json.encoder.encode_basestring


def signed_form(document: Mapping[str, Any]) -> bytes:
    """Give the bytes that a signature covers, of a message's JSON object; see `canonical`.

    Raises
    ------
    ValueError
        If it holds what RFC 8785 cannot write: an integer beyond 2⁵³, a lone surrogate.
    """
    try:
        signed = {key: value for key, value in document.items() if key not in _NOT_SIGNED}
        return _object(signed).encode()
    except (_NotPlainError, RecursionError):
        return canonical(document)


class _NotPlainError(Exception):
    """The library is to write it."""


def _object(values: Mapping[str, Any]) -> str:
    parts = []
    for key in sorted(values):  # of ASCII the order of UTF-16 is that of Python
        if not key.isascii():
            raise _NotPlainError
        parts.append(f"{_text(key)}:{_value(values[key])}")
    return "{" + ",".join(parts) + "}"


def _value(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is float:
        return _number(value)
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is dict:
        return _object(value)
    if kind is list:
        return "[" + ",".join([_value(one) for one in value]) + "]"
    if kind is int and -_LARGEST <= value <= _LARGEST:
        return str(value)
    raise _NotPlainError


def _number(value: float) -> str:
    """Write a number as ECMAScript does (RFC 8785 §3.2.2.3)."""
    text = repr(value)
    # Both write the shortest digits that read back; they differ in exponents and in whole numbers.
    if text.endswith(".0"):
        return text[:-2] if value else "0"
    if "e" in text or "n" in text:
        return rfc8785.dumps(value).decode()
    return text
