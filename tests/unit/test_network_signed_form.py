"""The fast writer of the signed form writes what the library writes, byte for byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.messages.signing import canonical
from node.network.signed_form import signed_form

CONTRACT = Path(__file__).parents[1] / "contract"
VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=50)
@given(document=st.dictionaries(st.text(), VALUES))
def test_it_is_the_librarys(document: dict[str, Any]) -> None:
    for escaped in (False, True):
        payload = json.dumps(document, ensure_ascii=escaped).encode()
        assert signed_form(payload) == canonical(document)


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_written_as_the_library_does(number: float) -> None:
    document = {"n": number, "unlike": [number, {"n": number}], "signature": number}
    assert signed_form(json.dumps(document).encode()) == canonical(document)


@pytest.mark.parametrize("name", ["detection", "node", "checkpoint"])
def test_the_frozen_examples_are_written_alike(name: str) -> None:
    payload = (CONTRACT / f"{name}.json").read_bytes()
    assert signed_form(payload) == canonical(json.loads(payload))


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (
            ' { "b" : 1.0, "a" : [ 1e-6, 1E-7, -0.0, -0, 1e22 ] } ',
            '{"a":[0.000001,1e-7,0,0,1e+22],"b":1}',
        ),
        ('{"a":"\\u00001e-7\\u0000"}', '{"a":"\\u00001e-7\\u0000"}'),
        ('{"a":"1e-7","b":1e-7,"é":"ü\x7f"}', '{"a":"1e-7","b":1e-7,"é":"ü\x7f"}'),
        ('{"\ue000":1,"\U0001f600":2}', '{"\U0001f600":2,"\ue000":1}'),
        ('{"transport":{"signature":1},"a":{"transport":1e-9}}', '{"a":{"transport":1e-9}}'),
    ],
)
def test_it_is_as_rfc_8785_has_it(text: str, form: str) -> None:
    assert signed_form(text.encode()) == form.encode() == canonical(json.loads(text))


@pytest.mark.parametrize("text", ['{"a":1e999}', '{"a":9007199254740993}', '{"a":"\\ud800"}'])
def test_what_has_no_signed_form_is_refused_alike(text: str) -> None:
    for write in (lambda: canonical(json.loads(text)), lambda: signed_form(text.encode())):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever sentence the library has
            write()


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b'{"a":1,"a":1}', "gives a key twice"),
        (b'{"a":{"b":{"c":1},"b":{"c":2}}}', "gives a key twice"),
        (b'{"a":NaN}', "holds NaN"),
        (b'{"a":"\x00"}', "control character"),
        (b'{"a":"\xff"}', "codec"),
        (b'\xef\xbb\xbf{"a":1}', "BOM"),
        (b"[1]", "is not a JSON object"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_what_readers_may_read_otherwise_is_refused(payload: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        signed_form(payload)
