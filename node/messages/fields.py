"""What the fields of every message are made of: identifiers, UTC, and numbers of fixed digits.

Numbers are rounded when a message is made, not when it is written, so that a message equals its
own text read back, and two runs give the same bytes.
"""

import base64
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from node.utc import parse_utc_ns

TOPIC_LEVEL: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_UUID: Final = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_BASE64: Final = r"^[A-Za-z0-9+/]*={0,2}$"
_UTC: Final = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{9}Z$"


def _rounded(digits: int) -> AfterValidator:
    # Adding 0.0 turns -0.0, which would be written as such, into 0.0.
    return AfterValidator(lambda value: round(value, digits) + 0.0)


def _above_zero(value: float) -> float:
    if value == 0:
        raise ValueError("rounds to zero")
    return value


def moment_ns(text: str) -> int:
    """Read a moment as messages give it, of the form `Utc`; else as `parse_utc_ns`, in a fifth."""
    try:
        # Many share their second. Numbers beyond ASCII and the years' end are not for here.
        if text.isascii() and text < "2262":
            return _second_ns(text[:19]) + int(text[20:29])
    except ValueError:
        pass
    return parse_utc_ns(text)


@lru_cache(maxsize=256)
def _second_ns(text: str) -> int:
    return parse_utc_ns(f"{text}Z")


def _real_moment(text: str) -> str:
    moment_ns(text)
    return text


def _real_base64(text: str) -> str:
    base64.b64decode(text, validate=True)
    return text


TopicLevel = Annotated[str, StringConstraints(pattern=TOPIC_LEVEL)]
Uuid = Annotated[str, StringConstraints(pattern=_UUID), Field(json_schema_extra={"format": "uuid"})]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
# The standard alphabet with its padding (RFC 4648 §4).
Base64 = Annotated[
    str,
    StringConstraints(pattern=_BASE64),
    AfterValidator(_real_base64),
    Field(json_schema_extra={"contentEncoding": "base64"}),
]
Utc = Annotated[
    str,
    StringConstraints(pattern=_UTC),
    AfterValidator(_real_moment),
    Field(json_schema_extra={"format": "date-time"}),
]

Seconds = Annotated[float, _rounded(9)]
PositiveSeconds = Annotated[float, _rounded(9), AfterValidator(_above_zero)]
Metres = Annotated[float, _rounded(3)]
Degrees = Annotated[float, _rounded(2)]
# A unit of the seventh decimal is a centimetre on the ground.
GeographicDegrees = Annotated[float, _rounded(7)]
# A hundredth of a degree is up to 1.1 km: a quarter of a town, not a lamp post.
CoarseDegrees = Annotated[float, _rounded(2)]
Decibels = Annotated[float, _rounded(2)]
Celsius = Annotated[float, _rounded(1)]
PerMinute = Annotated[float, _rounded(1)]
# Six decimals, so that rounding does not carry a score over a threshold except in one of a million.
Probability = Annotated[float, Field(ge=0, le=1), _rounded(6)]


_BOUNDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum"}


def _as_published(schema: dict[str, Any]) -> None:
    """Allow unknown keys, and spell the bounds of what may be null as JSON Schema does.

    Where a number is rounded, pydantic leaves them in its own words.
    """
    schema.pop("additionalProperties", None)
    for field in schema.get("properties", {}).values():
        for option in field.get("anyOf", ()):
            for word, keyword in _BOUNDS.items():
                if word in option:
                    option[keyword] = option.pop(word)


class Message(BaseModel):
    """A frozen part of a message; NaN and infinities are refused, when made unknown keys too.

    Reading passes unknown keys over (node/messages/wire.py) and the published schema allows them:
    a later version may add some.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra=_as_published,
    )
