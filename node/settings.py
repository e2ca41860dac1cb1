"""The whole configuration: one TOML file and the environment, into frozen models.

Every field has a unit in its name, a range and a sentence; the same source makes the errors, the
JSON Schema (`gunfire-node config schema`) and the table in docs/look-up/settings.md. Unknown keys
are refused. Where a value came from is kept beside it for `gunfire-node config show`.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from node.errors import SettingsError

DEFAULT_FILE: Final = Path("/etc/gunfire-node/gunfire-node.toml")
ENVIRONMENT_PREFIX: Final = "GUNFIRE_NODE__"


def _topic_level(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            "must be letters, digits, '.', '_' or '-', since it is one level of an MQTT topic"
        )
    return name


def _broker_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("mqtt", "mqtts"):
        raise ValueError("must start with mqtt:// or mqtts://, such as mqtt://broker.local:1883")
    if not parts.hostname:
        raise ValueError("names no host, such as mqtt://broker.local:1883")
    if parts.port == 0:
        raise ValueError("port 0 is not a port")
    return url


TopicLevel = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_topic_level)]
BrokerUrl = Annotated[str, AfterValidator(_broker_url)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PositionSettings(_Section):
    """Where the node stands (WGS 84)."""

    lat_deg: float = Field(ge=-90, le=90, description="Latitude in degrees, north positive.")
    lon_deg: float = Field(ge=-180, le=180, description="Longitude in degrees, east positive.")
    alt_m: float = Field(ge=-500, le=9000, description="Height above the ellipsoid in metres.")
    sigma_m: float = Field(gt=0, le=10000, description="Standard error of the position in metres.")


class NodeSettings(_Section):
    """Who this node is."""

    id: TopicLevel = Field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()) or "node",
        description="Name of this node, unique at its broker; the host's name unless set.",
    )
    site: TopicLevel = Field(
        default="unset", description="Name of the site; the second level of every topic."
    )
    position: PositionSettings | None = Field(
        default=None, description="Surveyed position; absent means not known."
    )


class CaptureSettings(_Section):
    """Where samples come from."""

    device: str = Field(
        default="default",
        min_length=1,
        description="Stable name of the sound device, or a part of it that fits one device only; "
        "never a number, since numbers move. `gunfire-node check` lists the names.",
    )
    sample_rate_hz: int = Field(
        default=48000, ge=16000, le=96000, description="Sample rate in hertz."
    )
    channels: int = Field(default=4, ge=1, le=8, description="Channels to record.")
    bits: Literal[16, 24, 32] = Field(default=32, description="Bits per sample asked of the card.")
    block_frames: int = Field(
        default=4096,
        ge=256,
        le=16384,
        description="Frames per block; the card's buffer is two blocks, so long blocks ride out "
        "load.",
    )
    silence_s: float = Field(
        default=2.0,
        ge=0.5,
        le=60,
        description="Seconds without a block after which the device counts as gone.",
    )
    array: str = Field(
        default="mono",
        description="Array geometry: a built-in name (mono, square_65mm, tetrahedron_200mm) or a "
        "TOML file.",
    )


class DetectSettings(_Section):
    """When a sound is an impulse, and which impulses are one event."""

    threshold_db: float = Field(
        default=12.0,
        ge=3,
        le=60,
        description="Rise over the adaptive floor, in decibels, that makes an impulse.",
    )
    gap_s: float = Field(
        default=0.5,
        ge=0.05,
        le=5,
        description="Quiet, in seconds, that ends an event.",
    )
    event_s: float = Field(
        default=4.0,
        ge=0.5,
        le=30,
        description="Longest event in seconds; a longer burst goes on as the next event.",
    )


class ClassifySettings(_Section):
    """Which model judges."""

    model: Path | None = Field(
        default=None, description="Model file (.tflite with its .json); the shipped one if absent."
    )
    publish_rejected: bool = Field(
        default=True, description="Publish detections that are not gunfire too, for audits."
    )


class TimingSettings(_Section):
    """What disciplines the clock."""

    ntp_servers: tuple[str, ...] = Field(
        default=(),
        max_length=8,
        description="NTP servers asked for a second opinion on the host's clock; none by default.",
    )
    ntp_interval_s: float = Field(
        default=256, ge=16, le=86400, description="Seconds between second opinions."
    )


class OutboxSettings(_Section):
    """Where detections wait until the broker has acknowledged them."""

    path: Path = Field(
        default=Path("/var/lib/gunfire-node/outbox.sqlite3"), description="SQLite file."
    )
    max_bytes: int = Field(
        default=64 * 2**20, ge=2**20, le=2**36, description="Largest size in bytes."
    )


class MqttSettings(_Section):
    """Which broker, and how."""

    url: BrokerUrl = Field(
        default="mqtt://localhost:1883",
        description="Broker: mqtt://host:port, or mqtts:// for TLS; a user name and password may "
        "stand before the host.",
    )
    keepalive_s: int = Field(default=30, ge=5, le=1200, description="MQTT keep-alive in seconds.")
    ca_file: Path | None = Field(
        default=None, description="CA certificates for mqtts://; the system's if absent."
    )
    cert_file: Path | None = Field(default=None, description="Client certificate for mqtts://.")
    key_file: Path | None = Field(default=None, description="Client key for mqtts://.")
    reconnect_max_s: float = Field(
        default=60, ge=1, le=3600, description="Longest pause between tries, in seconds."
    )


class Settings(BaseSettings):
    """The settings of a node."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        allow_inf_nan=False,
        title="gunfire-node settings",
    )

    node: NodeSettings = Field(default_factory=NodeSettings)
    capture: CaptureSettings = Field(default_factory=CaptureSettings)
    timing: TimingSettings = Field(default_factory=TimingSettings)
    detect: DetectSettings = Field(default_factory=DetectSettings)
    classify: ClassifySettings = Field(default_factory=ClassifySettings)
    outbox: OutboxSettings = Field(default_factory=OutboxSettings)
    mqtt: MqttSettings = Field(default_factory=MqttSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment stand above the file, and nothing else have a say."""
        return env_settings, init_settings
