"""`gunfire-node config`: the settings in force, their errors, their schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast, get_args

import click
from rich.console import Console
from rich.table import Table

from node.cli._shared import config_file
from node.messages import json_schema
from node.messages.schema import SchemaName
from node.settings import hide_password, load, settings_schema


@click.group("config")
def command() -> None:
    """Show, check or describe the settings.

    Example: gunfire-node config check --config gunfire-node.toml
    """


@command.command()
@config_file
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
def show(path: Path | None, as_json: bool) -> None:
    """Show the settings in force and where each came from.

    Example: gunfire-node config show --config gunfire-node.toml
    """
    loaded = load(path)
    rows = [
        {"name": name, "value": value, "from": loaded.origins.get(name, "default")}
        for name, value in _leaves(loaded.settings.model_dump(mode="json"))
    ]
    if as_json:
        click.echo(hide_password(json.dumps(rows, indent=2)))
        return
    table = Table("setting", "value", "from", box=None, header_style="bold")
    for row in rows:
        table.add_row(row["name"], hide_password(json.dumps(row["value"])), row["from"])
    Console().print(table)


@command.command()
@config_file
def check(path: Path | None) -> None:
    """Check the settings: exit 0, or a line for each error and exit 2.

    Example: gunfire-node config check --config gunfire-node.toml
    """
    loaded = load(path)
    click.echo(f"settings are valid ({len(loaded.origins)} set, the rest defaults)")


@command.command()
@click.argument("name", type=click.Choice(["settings", *get_args(SchemaName)]), default="settings")
def schema(name: str) -> None:
    """Print a JSON Schema (2020-12): of the settings, or of a message by its name.

    Example: gunfire-node config schema detection
    """
    described = settings_schema() if name == "settings" else json_schema(cast("SchemaName", name))
    click.echo(json.dumps(described, indent=2))


def _leaves(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            rows += _leaves(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", value))
    return rows
