"""The settings of `gunfire-node locate`: those of the subscriber's side, beside a node's own.

One TOML file. Of the tables that a node's file has, [mqtt] bears on it: broker and certificates.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field

from node.network.policy import LocateSettings
from node.network.toml_lines import read_toml
from node.network.weather import WeatherReport
from node.settings import Section, Settings, load, validated

DEFAULT_AHEAD_S: Final = 5.0


class InputSettings(Section):
    """Which messages count: `[inputs]`."""

    unsigned: bool = Field(
        default=False,
        description="Whether unsigned detections at a broker count too: whoever may publish there "
        "can then move an incident. For trials.",
    )
    ca_file: Path | None = Field(
        default=None, description="Certificate of the fleet's CA (PEM), whose nodes count."
    )
    crl_file: Path | None = Field(
        default=None,
        description="Its revocation list (PEM); read again when it changes, as ca_file is.",
    )
    nodes_file: Path | None = Field(
        default=None, description="A list of nodes (NODES.toml): which count, and where they stand."
    )
    oldest_s: float = Field(
        default=600.0,
        ge=10,
        le=86_400,
        description="A detection that comes so long after its onset is told, and not located live, "
        "seconds.",
    )
    ahead_s: float = Field(
        default=DEFAULT_AHEAD_S,
        ge=0,
        le=3600,
        description="A detection whose onset lies so far in the future is refused, seconds.",
    )
    worst_clock_s: float = Field(
        default=0.5,
        gt=0,
        le=60,
        description="A detection is refused whose clock has a standard error above this, seconds: "
        "sound goes 170 m in the default's.",
    )
    per_node_s: float = Field(
        default=5.0,
        gt=0,
        le=10_000,
        description="So many detections of a node are taken each second in the long run.",
    )
    per_node_at_once: int = Field(
        default=100,
        ge=1,
        le=100_000,
        description="So many of a node may come at once before that holds.",
    )


class WeatherSettings(WeatherReport):
    """The weather, as far as it is known: `[weather]`. Without any, what is usual is assumed."""

    file: Path | None = Field(
        default=None,
        description="A file (TOML or JSON) of the three figures in their stead, read again when it "
        "changes.",
    )
    topic: bool = Field(
        default=False,
        description="Whether to have it from gunfire/v1/<site>/weather, retained JSON of the three "
        "figures.",
    )


class LocatorSettings(Settings):
    """What `gunfire-node locate --config` reads."""

    locate: LocateSettings = Field(default_factory=LocateSettings)
    inputs: InputSettings = Field(default_factory=InputSettings)
    weather: WeatherSettings = Field(default_factory=WeatherSettings)


@dataclass(frozen=True)
class Loaded:
    """Settings, and where each that was set was set."""

    settings: LocatorSettings
    origins: Mapping[str, str]


def load_locator(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Loaded:
    """Read the settings from a file; without one, of a node's own the broker alone.

    Raises
    ------
    SettingsError
        A line for each wrong setting: file, line, name, what was given, what is allowed.
    """
    if path is None:
        own = load(None, environment)
        return Loaded(LocatorSettings(mqtt=own.settings.mqtt), own.origins)
    values, lines = read_toml(path, "settings of `gunfire-node locate`")
    settings = validated(LocatorSettings, values, lines, str(path))
    return Loaded(settings, lines)
