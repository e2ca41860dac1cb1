"""The signed form of a detection, written fast: the locator makes it for each that comes.

The same bytes as `node.messages.signing.canonical` (RFC 8785), in a third of its time, since the
locator has a few hundred microseconds a message. While it is read, keys are sorted and numbers are
made such that pydantic's writer, fast but none of RFC 8785, writes them as is asked. What is not
plain (an escape, an integer beyond 2⁵³, any fault) is left to the library; a test holds the two
together.
"""

from __future__ import annotations

import json
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

import rfc8785
from pydantic_core import to_json

from node.messages.signing import NOT_SIGNED, canonical, no_constant, read_object, unique_keys

_LARGEST: Final = 2**53 - 1
# Round a number that is spelled already. No other string has one: JSON wants it escaped, and what
# holds an escape is not read here.
_MARK: Final = "\0"
_OPEN, _CLOSE = b'"\\u0000', b'\\u0000"'


def signed_form(payload: bytes) -> bytes:
    """Give the bytes that a signature covers, of a message as it came.

    Raises
    ------
    ValueError
        As `read_object` and `canonical` do.
    """
    try:
        text = payload.decode()
        # Up to there the order of UTF-16, in which keys stand, is that of Python.
        if "\\" not in text and (text.isascii() or max(text) < "\ud800"):
            document = _READER.decode(text)
            if isinstance(document, dict):
                for key in NOT_SIGNED:
                    document.pop(key, None)
                return to_json(document).replace(_OPEN, b"").replace(_CLOSE, b"")
    except (ValueError, RecursionError):
        pass
    return canonical(read_object(payload))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    pairs.sort(key=itemgetter(0))
    return unique_keys(pairs)


def _integer(text: str) -> int:
    value = int(text)
    if not -_LARGEST <= value <= _LARGEST:
        raise ValueError("is an integer beyond 2⁵³")
    return value


@lru_cache(maxsize=256)
def _number(text: str) -> float | int | str:
    """Give what is written as ECMAScript does (RFC 8785 §3.2.2.3)."""
    value = float(text)
    if value.is_integer() and -_LARGEST <= value <= _LARGEST:
        return int(value)
    # All write the shortest digits that read back; they differ in exponents and in whole numbers.
    written = repr(value)
    if "e" in written or "n" in written or value.is_integer():
        return f"{_MARK}{rfc8785.dumps(value).decode()}{_MARK}"
    return value


_READER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_number, parse_int=_integer, parse_constant=no_constant
)
