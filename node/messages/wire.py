"""Messages ↔ bytes: compact JSON in UTF-8, keys in the order of the model, no NaN."""

import json
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from node.messages.checkpoint import Checkpoint
from node.messages.detection import Detection, Transport
from node.messages.fields import Message
from node.messages.health import Health
from node.messages.incident import Incident
from node.messages.node import Node
from node.messages.snippet import SnippetMessage
from node.messages.status import Status
from node.utc import utc_text

LONGEST_MESSAGE: Final = 2**20
"""No message is longer, in bytes: a snippet, the longest, has some 200 kB."""

_M = TypeVar("_M", bound=Message)

_ONLY_SENDING_AND_SIGNING_ADD = frozenset({"transport", "prev_hash", "signature"})


def to_json(message: Message) -> bytes:
    """Write a message as compact JSON; equal messages give equal bytes."""
    return _dump(message.model_dump(mode="json", by_alias=True))


def replay_json(detection: Detection) -> bytes:
    """Write a detection without what only sending and signing can add, as a replay prints it."""
    return _dump(
        detection.model_dump(mode="json", by_alias=True, exclude=set(_ONLY_SENDING_AND_SIGNING_ADD))
    )


def with_transport(payload: bytes, published_utc_ns: int, delayed: bool) -> bytes:
    """Put into a detection's JSON when it is handed to the broker, and whether it had to wait.

    Nothing else changes, in particular nothing that a signature covers.

    Raises
    ------
    ValueError
        If it is not a JSON object, such as one that a disk has spoilt.
    """
    try:
        document = json.loads(payload)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not JSON that can be read: {error}") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    transport = Transport(published_utc=utc_text(published_utc_ns), delayed=delayed)
    document["transport"] = transport.model_dump(mode="json")
    return _dump(document)


def parse_detection(payload: bytes | str) -> Detection:
    """Read a detection; keys that a later version has added are passed over.

    Raises
    ------
    ValueError
        If it is not JSON or not a detection; the first line says which field and why.
    """
    return _parse(Detection, payload)


def parse_status(payload: bytes | str) -> Status:
    """Read a status; raises as `parse_detection` does."""
    return _parse(Status, payload)


def parse_health(payload: bytes | str) -> Health:
    """Read a health message; raises as `parse_detection` does."""
    return _parse(Health, payload)


def parse_node(payload: bytes | str) -> Node:
    """Read a node's birth certificate; raises as `parse_detection` does."""
    return _parse(Node, payload)


def parse_checkpoint(payload: bytes | str) -> Checkpoint:
    """Read a checkpoint; raises as `parse_detection` does."""
    return _parse(Checkpoint, payload)


def parse_snippet(payload: bytes | str) -> SnippetMessage:
    """Read a snippet; raises as `parse_detection` does."""
    return _parse(SnippetMessage, payload)


def parse_incident(payload: bytes | str) -> Incident:
    """Read an incident; raises as `parse_detection` does."""
    return _parse(Incident, payload)


def _parse(model: type[_M], payload: bytes | str) -> _M:
    try:
        return model.model_validate_json(payload, strict=True, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        name = model.__name__.removesuffix("Message").lower()
        raise ValueError(f"not a {name}: {where}: {first['msg']}") from error


def _dump(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
