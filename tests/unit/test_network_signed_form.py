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
    assert signed_form(document) == canonical(document)


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_is_written_as_the_library_does(number: float) -> None:
    assert signed_form({"n": number}) == canonical({"n": number})


@pytest.mark.parametrize("name", ["detection", "node", "checkpoint"])
def test_the_frozen_examples_are_written_alike(name: str) -> None:
    document = json.loads((CONTRACT / f"{name}.json").read_bytes())
    assert signed_form(document) == canonical(document)


@pytest.mark.parametrize("text", ['{"a":1e999}', '{"a":9007199254740993}', '{"a":"\\ud800"}'])
def test_what_has_no_signed_form_is_refused_alike(text: str) -> None:
    for write in (canonical, signed_form):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever sentence the library has
            write(json.loads(text))


def test_what_nests_without_end_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        signed_form({"a": deep})
