"""`make docs`: the pages of docs/look-up that are made from the code; a test holds them current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from node.messages.asyncapi import asyncapi
from node.messages.schema import MODELS, write_schemas
from node.network.locate_settings import LocatorSettings
from node.settings import PositionSettings, Settings
from provisioning.first_boot_file import (
    EnrolmentSettings,
    NetworkSettings,
    ReceiverSettings,
    UpdateSettings,
)
from tests.evidence import ROOT, page

LOOK_UP = ROOT / "docs" / "look-up"
EXAMPLES = ROOT / "tests" / "contract"


def settings_page() -> str:
    """Make the table of every setting from the models."""
    parts = [
        "# Settings\n",
        "One TOML file, by default `/etc/gunfire-node/gunfire-node.toml`; above it the environment "
        "(`GUNFIRE_NODE__CAPTURE__DEVICE=...`). `gunfire-node config show` says what is in force "
        "and where it came from. This page is made by `make docs`; do not edit it.\n",
    ]
    for name, field in Settings.model_fields.items():
        parts += _table(name, field.default_factory)  # type: ignore[arg-type]
    parts.append(
        "## Settings of `gunfire-node locate`\n\n"
        "A TOML file of its own, given with `--config`: the tables below, and of those above "
        "`[mqtt]`, broker and certificates. What the command line says counts above it. See "
        "[locate shots](../do/locate-shots.md).\n"
    )
    for name, field in LocatorSettings.model_fields.items():
        if name not in Settings.model_fields:
            parts += _table(name, field.default_factory)  # type: ignore[arg-type]
    return "\n".join(parts)


def first_boot_page() -> str:
    """Make the tables of what a card's file may hold beside the settings."""
    parts = [
        "# The first-boot file\n",
        "`gunfire-node.toml` on the card's first partition, for a node that is flashed with the "
        "image: [flash a node](../do/flash-a-node.md). It holds every table of "
        "[settings](settings.md), and those below, of what a node needs before it has a network. "
        "`node.id`, `node.site` and the broker have to be said; unknown names are refused. "
        "`gunfire-card check FILE` reads it as the node will: each mistake with its line and the "
        "mend.\n",
        "Where `[enrolment]` is there, the node's certificates lie where enrolment puts them, and "
        "no `mqtt.ca_file`, `mqtt.cert_file`, `mqtt.key_file` or `integrity.certificate_file` is "
        "needed; with a receiver, no `timing.gpsd`. With a fixed `address`, `gateway` and `dns` "
        "are wanted unless every host that is named is in its net or ends in `.local`. A file that "
        "`capture.array` or `classify.model` names must be on the node, which alone can tell. This "
        "page is made by `make docs`; do not edit it.\n",
    ]
    tables: dict[str, type[BaseModel]] = {
        "network": NetworkSettings,
        "receiver": ReceiverSettings,
        "enrolment": EnrolmentSettings,
        "update": UpdateSettings,
    }
    for name, model in tables.items():
        parts += _table(name, model)
    return "\n".join(parts)


def _table(name: str, model: type[BaseModel]) -> list[str]:
    rows = ["| setting | default | allowed | what |", "|---|---|---|---|"]
    for key, rules in model.model_json_schema()["properties"].items():
        default = _default(name, key, rules)
        said = rules["description"].replace("<", r"\<")  # or a page drops it as a tag
        rows.append(f"| `{key}` | {default} | {_allowed(rules)} | {said} |")
    return [f"## [{name}]\n", "\n".join(rows) + "\n"]


def _default(section: str, key: str, rules: dict[str, Any]) -> str:
    if (section, key) == ("node", "id"):
        return "the host's name"
    return f"`{json.dumps(rules['default'])}`" if rules.get("default") is not None else "–"


def _allowed(rules: dict[str, Any]) -> str:
    if "enum" in rules:
        return ", ".join(map(str, rules["enum"]))
    if "minimum" in rules and "maximum" in rules:
        return f"{rules['minimum']:g} to {rules['maximum']:g}"
    if "exclusiveMinimum" in rules and "maximum" in rules:
        return f"above {rules['exclusiveMinimum']:g} to {rules['maximum']:g}"
    choices = [rule for rule in rules.get("anyOf", ()) if rule.get("type") != "null"]
    if choices and "minimum" in choices[0]:
        return _allowed(choices[0])
    if any("$ref" in choice for choice in choices):
        return "a section with " + ", ".join(f"`{name}`" for name in PositionSettings.model_fields)
    return {"string": "text", "array": "a list", "boolean": "true or false"}[
        rules.get("type") or choices[0]["type"]
    ]


def asyncapi_document() -> str:
    """Make the AsyncAPI document, with the frozen examples of the contract."""
    examples = {name: json.loads((EXAMPLES / f"{name}.json").read_text("utf-8")) for name in MODELS}
    return json.dumps(asyncapi(examples), indent=2, ensure_ascii=False) + "\n"


def write_all() -> list[Path]:
    """Write every page that is made from the code."""
    settings = LOOK_UP / "settings.md"
    settings.write_text(settings_page(), "utf-8")
    first_boot = LOOK_UP / "first-boot.md"
    first_boot.write_text(first_boot_page(), "utf-8")
    evidence = LOOK_UP / "evidence.md"
    evidence.write_text(page(), "utf-8")
    document = LOOK_UP / "asyncapi.json"
    document.write_text(asyncapi_document(), "utf-8")
    return [settings, first_boot, evidence, document, *write_schemas(LOOK_UP)]


if __name__ == "__main__":
    for path in write_all():
        print(path.relative_to(ROOT))
