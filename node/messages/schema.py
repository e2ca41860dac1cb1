"""JSON Schema 2020-12 of the messages, from the models that make them.

`make docs` writes the copies that are checked in.
"""

import json
from pathlib import Path
from typing import Any, Final, Literal

from node.messages.checkpoint import Checkpoint
from node.messages.detection import Detection
from node.messages.fields import Message
from node.messages.health import Health
from node.messages.incident import Incident
from node.messages.node import Node
from node.messages.snippet import SnippetMessage
from node.messages.status import Status

SchemaName = Literal["detection", "status", "health", "node", "checkpoint", "snippet", "incident"]

MODELS: Final[dict[SchemaName, type[Message]]] = {
    "detection": Detection,
    "status": Status,
    "health": Health,
    "node": Node,
    "checkpoint": Checkpoint,
    "snippet": SnippetMessage,
    "incident": Incident,
}


def json_schema(name: SchemaName) -> dict[str, Any]:
    """Give the JSON Schema of a message by its name."""
    body = MODELS[name].model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:gunfire:{name}:1",
        **body,
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write every schema as `<name>.schema.json` into a folder and return the files."""
    written = []
    for name in MODELS:
        file = folder / f"{name}.schema.json"
        file.write_text(json.dumps(json_schema(name), indent=2, ensure_ascii=False) + "\n", "utf-8")
        written.append(file)
    return written
