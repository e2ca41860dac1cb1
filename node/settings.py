"""The whole configuration: one TOML file and the environment, into frozen models.

Every field has a unit in its name, a range and a sentence; the same source makes the errors, the
JSON Schema (`gunfire-node config schema`) and the table in docs/look-up/settings.md. Unknown keys
are refused. Where a value came from is kept beside it for `gunfire-node config show`.
"""

from __future__ import annotations

import codecs
import difflib
import ipaddress
import json
import os
import re
import socket
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from node.errors import SettingsError

DEFAULT_FILE: Final = Path("/etc/gunfire-node/gunfire-node.toml")
ENVIRONMENT_PREFIX: Final = "GUNFIRE_NODE__"
MOST_SNIPPET_S: Final = 2.0
MOST_GIVEN: Final = 200  # characters of what was given that an error shows


def _topic_level(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(
            "must be letters, digits, '.', '_' or '-', since it is one level of an MQTT topic"
        )
    return name


def is_address(text: str) -> bool:
    """Say whether this is the address of a host; IPv6 may say of which link, after a %."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return re.fullmatch(r"[^%]*(%[\w.-]+)?", text, re.ASCII) is not None


def is_host(text: str) -> bool:
    """Say whether this may be the name or the address of a host."""
    label = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    # What ends in a number is no name, but an address that is wrong.
    name = re.fullmatch(rf"({label}\.)*(?![0-9]+\.?$){label}\.?", text)
    return is_address(text) or (len(text) <= 253 and name is not None)


def _broker_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # it says what stands there, which may be a password
        raise ValueError(
            "its host or port is not right: a port is a number from 1 to 65535, an address of IPv6 "
            "stands in [ ]; in a password write %23 for #, %2F for /, %40 for @"
        ) from None
    if parts.scheme not in ("mqtt", "mqtts"):
        raise ValueError("must start with mqtt:// or mqtts://, such as mqtt://broker.local:1883")
    if not parts.hostname:
        raise ValueError("names no host, such as mqtt://broker.local:1883")
    if port == 0:
        raise ValueError("port 0 is not a port")
    if not is_host(parts.hostname):
        raise ValueError(
            "its host is neither a name nor an address, such as mqtt://broker.local:1883"
        )
    if parts.path.strip("/") or parts.query or parts.fragment or re.search(r"[\0- \x7f]", url):
        raise ValueError("must end with host or host:port, such as mqtt://broker.local:1883")
    return url


def _broker_place(url: str) -> tuple[str | None, int]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or (8883 if parts.scheme == "mqtts" else 1883)


def _file_path(path: Path) -> Path:
    if not path.name or "\0" in str(path):
        raise ValueError("is not the name of a file")
    return path


def _host_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("must be host:port, such as localhost:2947")
    return address


def _age_recipient(key: str) -> str:
    if key.upper().startswith("AGE-SECRET-KEY-"):
        raise ValueError(
            "this is the private key: it must not be on a node. Take it out of here, and give the "
            "public key (age1…) that `age-keygen -y` prints of it"
        )
    from pyrage import RecipientError, x25519  # a node without snippets has no use for it

    try:
        x25519.Recipient.from_str(key)
    except RecipientError as error:
        raise ValueError(
            f"is no X25519 key of age ({error}): give the public key as `age-keygen` prints it, "
            "age1 and 58 letters and digits; keys of SSH or of age's plugins will not do"
        ) from None
    return key


HostPort = Annotated[str, AfterValidator(_host_port)]
TopicLevel = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_topic_level)]
FilePath = Annotated[Path, AfterValidator(_file_path)]
BrokerUrl = Annotated[str, AfterValidator(_broker_url)]
AgeRecipient = Annotated[str, AfterValidator(_age_recipient)]


class Section(BaseModel):
    """A table of settings: frozen, unknown keys refused, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PositionSettings(Section):
    """Where the node stands (WGS 84)."""

    lat_deg: float = Field(ge=-90, le=90, description="Latitude in degrees, north positive.")
    lon_deg: float = Field(ge=-180, le=180, description="Longitude in degrees, east positive.")
    alt_m: float = Field(ge=-500, le=9000, description="Height above the ellipsoid in metres.")
    sigma_m: float = Field(gt=0, le=10000, description="Standard error of the position in metres.")


class NodeSettings(Section):
    """Who this node is."""

    id: TopicLevel = Field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()) or "node",
        description="Name of this node, unique at its broker; the host's name unless set.",
    )
    site: TopicLevel = Field(
        default="unset", description="Name of the site; the second level of every topic."
    )
    position: PositionSettings | None = Field(
        default=None,
        description="Surveyed position; absent means the receiver's, averaged, or not known.",
    )
    height_m: float = Field(
        default=6.0, ge=0, le=500, description="Height of the array above the street, in metres."
    )
    building_height_m: float = Field(
        default=20.0,
        ge=0,
        le=500,
        description="Height of the buildings round about, in metres: from up to there people "
        "shoot; what goes off higher is airborne.",
    )


class CaptureSettings(Section):
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
    heading_deg: float = Field(
        default=0.0,
        ge=-360,
        le=360,
        description="Where the array's y axis points, in degrees clockwise from true north.",
    )
    pitch_deg: float = Field(
        default=0.0,
        ge=-180,
        le=180,
        description="By how much the array's y axis points above the horizon, in degrees.",
    )
    roll_deg: float = Field(
        default=0.0,
        ge=-180,
        le=180,
        description="By how much the array's x axis dips below the horizon, in degrees.",
    )
    silent_channels: tuple[Annotated[int, Field(ge=0, le=7)], ...] = Field(
        default=(),
        max_length=7,
        description="Channels of the card, from 0, that are silent by design (a board's unused "
        "inputs): they prove the order of the others.",
    )
    order_fixed: bool = Field(
        default=False,
        description="Whether this card can never rotate its channels: then their order needs no "
        "proof.",
    )

    def microphones(self, pps_channel: int | None) -> tuple[int, ...]:
        """Give the channels that are microphones, in the array's order."""
        others = {*self.silent_channels, pps_channel}
        return tuple(channel for channel in range(self.channels) if channel not in others)


class DetectSettings(Section):
    """When a sound is an impulse, and which impulses are one event."""

    threshold_db: float = Field(
        default=10.5,
        ge=3,
        le=60,
        description="Rise over the adaptive floor, in decibels, that makes an impulse.",
    )
    contrast_db: float = Field(
        default=10.0,
        ge=3,
        le=60,
        description="Rise over the 50 ms before, in decibels, that makes an impulse; it tells "
        "a bang from a swell, and a shot from the echoes of the one before.",
    )
    gap_s: float = Field(
        default=0.5,
        ge=0.05,
        le=5,
        description="Quiet, in seconds, that ends an event.",
    )
    burst_s: float = Field(
        default=1.5,
        ge=0,
        le=5,
        description="Quiet, in seconds, after which the same burst may still go on: the event "
        "before is told again with all its rounds. 0 never does so.",
    )
    air_temperature_c: float = Field(
        default=15.0,
        ge=-50,
        le=60,
        description="Usual temperature of the air, in degrees Celsius: the speed of sound, and so "
        "the elevation, rests on it.",
    )
    event_s: float = Field(
        default=4.0,
        ge=0.5,
        le=30,
        description="Longest event in seconds; a longer burst goes on as the next event.",
    )


class ClassifySettings(Section):
    """Which model judges."""

    model: FilePath | None = Field(
        default=None, description="Model file (.tflite with its .json); the shipped one if absent."
    )
    publish_rejected: bool = Field(
        default=True, description="Publish detections that are not gunfire too, for audits."
    )


class TimingSettings(Section):
    """What disciplines the clock."""

    ntp_servers: tuple[str, ...] = Field(
        default=(),
        max_length=8,
        description="NTP servers asked for a second opinion on the host's clock; none by default.",
    )
    ntp_interval_s: float = Field(
        default=256, ge=16, le=86400, description="Seconds between second opinions."
    )
    chrony: bool = Field(
        default=True,
        description="Ask chrony (`chronyc tracking`) how it disciplines the host's clock; the "
        "kernel is asked where it is silent.",
    )
    gpsd: HostPort | None = Field(
        default=None,
        description="gpsd as host:port, such as localhost:2947; absent means no receiver.",
    )
    pps_channel: int | None = Field(
        default=None,
        ge=0,
        le=7,
        description="Channel of the card, from 0, that carries the receiver's pulse; absent "
        "means none.",
    )


class OutboxSettings(Section):
    """Where detections wait until the broker has acknowledged them."""

    path: FilePath = Field(
        default=Path("/var/lib/gunfire-node/outbox.sqlite3"), description="SQLite file."
    )
    max_bytes: int = Field(
        default=64 * 2**20, ge=2**20, le=2**36, description="Largest size in bytes."
    )
    max_age_days: float = Field(
        default=30,
        ge=1,
        le=3650,
        description="Days that a detection may wait, counted while the clock can be trusted; "
        "older ones are dropped, counted and told as a gap.",
    )


class IntegritySettings(Section):
    """By which key detections are signed."""

    key_file: FilePath = Field(
        default=Path("/var/lib/gunfire-node/node.key"),
        description="Signing key of this node (Ed25519, PKCS#8 PEM, mode 0600); made if absent. "
        "It never leaves the node. A systemd credential may stand here.",
    )
    certificate_file: FilePath | None = Field(
        default=None,
        description="The fleet CA's certificate over that key (X.509 PEM; CN is node.id, O is "
        "node.site), sent in the birth message; absent before enrolment.",
    )


class SnippetSettings(Section):
    """Encrypted sound round a shot, for the owner alone; off unless switched on."""

    enabled: bool = Field(
        default=False,
        description="Whether to publish, encrypted, the sound round each shot; the node then says "
        "so in its birth message.",
    )
    recipient: AgeRecipient | None = Field(
        default=None,
        description="The owner's public key (age1…), as `age-keygen` prints it: only its private "
        "half, which never comes to the node, opens a snippet.",
    )
    before_s: float = Field(
        default=0.25, ge=0, le=1, description="Seconds of sound before the first round."
    )
    after_s: float = Field(
        default=1.0,
        ge=0.1,
        le=2,
        description="Seconds of sound after the first round; with before_s at most 2 s.",
    )
    grades: tuple[Literal["gunfire", "probable_gunfire"], ...] = Field(
        default=("gunfire", "probable_gunfire"),
        min_length=1,
        max_length=2,
        description="Grades that get a snippet; what is not gunfire never does.",
    )
    max_per_hour: int = Field(
        default=20, ge=1, le=600, description="Most snippets in an hour; further ones are not made."
    )
    max_bytes: int = Field(
        default=180 * 2**10,
        ge=4096,
        le=190_000,
        description="Largest snippet in bytes, encrypted; a larger one is not sent. Its message is "
        "a third longer, and the broker that we ship takes 256 KiB.",
    )

    max_waiting_bytes: int = Field(
        default=16 * 2**20,
        ge=2**20,
        le=2**36,
        description="Most bytes of snippets that wait on disk for the broker, beside the outbox; "
        "the oldest is dropped first, and all are where a detection needs the room.",
    )

    @model_validator(mode="after")
    def _short_and_for_somebody(self) -> Self:
        if self.enabled and self.recipient is None:
            raise ValueError(
                "snippets.enabled = true needs snippets.recipient: make a key with `age-keygen -o "
                "owner.key` on another machine, and give the public key that it prints (age1…)"
            )
        if self.before_s + self.after_s > MOST_SNIPPET_S:
            raise ValueError(
                f"snippets.before_s + snippets.after_s = {self.before_s + self.after_s:g}; a "
                f"snippet is {MOST_SNIPPET_S:g} s at most"
            )
        return self


class MqttSettings(Section):
    """Which broker, and how."""

    url: BrokerUrl = Field(
        default="mqtt://localhost:1883",
        description="Broker: mqtt://host:port, or mqtts:// for TLS; a user name and password may "
        "stand before the host.",
    )
    urls: tuple[BrokerUrl, ...] = Field(
        default=(),
        max_length=8,
        description="Several brokers in order of preference, in place of `url`: the next is used "
        "while the ones before it cannot be reached.",
    )
    protocol: Literal["5", "3.1.1"] = Field(
        default="5",
        description="Version of MQTT. 3.1.1 only for a broker that speaks nothing newer: it may "
        "acknowledge what it does not let this node publish, and cannot say so.",
    )
    expiry_s: int | None = Field(
        default=None,
        ge=60,
        le=2**32 - 2,
        description="How long the broker may keep a detection for a subscriber who is away, in "
        "seconds; for ever if absent. MQTT 5 only.",
    )
    keepalive_s: int = Field(default=30, ge=5, le=1200, description="MQTT keep-alive in seconds.")
    ca_file: FilePath | None = Field(
        default=None, description="CA certificates for mqtts://; the system's if absent."
    )
    cert_file: FilePath | None = Field(default=None, description="Client certificate for mqtts://.")
    key_file: FilePath | None = Field(
        default=None,
        description="Client key for mqtts://, readable by its owner alone (mode 600), or one of "
        "systemd's credentials.",
    )
    reconnect_max_s: float = Field(
        default=60, ge=1, le=3600, description="Longest pause between tries, in seconds."
    )

    @property
    def brokers(self) -> tuple[str, ...]:
        """URLs of the brokers in order of preference."""
        return self.urls or (self.url,)

    @model_validator(mode="after")
    def _brokers_are_named_once(self) -> Self:
        if self.urls and "url" in self.model_fields_set:
            raise ValueError("mqtt.url and mqtt.urls are both set; put every broker into mqtt.urls")
        if len({_broker_place(url) for url in self.urls}) < len(self.urls):
            raise ValueError("mqtt.urls names a broker twice")
        return self

    @model_validator(mode="after")
    def _certificates_are_used(self) -> Self:
        files = self.ca_file or self.cert_file or self.key_file
        if files and not any(urlsplit(url).scheme == "mqtts" for url in self.brokers):
            raise ValueError("certificates are given, but mqtt:// is without TLS; write mqtts://")
        if self.expiry_s is not None and self.protocol != "5":
            raise ValueError('mqtt.expiry_s needs mqtt.protocol = "5"; leave it out for 3.1.1')
        return self


# Where these are used, the kernel lets a pin be taken away from them without a word: the node would
# go deaf, or lose its receiver. A pulse's pin (4) it keeps, so that the board tells of it.
_TAKEN_PINS: Final = {
    **dict.fromkeys((2, 3), "I2C, by which a sound hat is set up"),
    **dict.fromkeys((14, 15), "the receiver's serial line"),
    **dict.fromkeys((18, 19, 20, 21), "the sound (I2S) of a sound hat"),
}


class BoardSettings(Section):
    """Light, button, tamper switch and thermometer."""

    enabled: bool = Field(
        default=False,
        description="Whether a light and a button are fitted; without, no pin is touched.",
    )
    led_pin: int = Field(
        default=17, ge=0, le=27, description="GPIO number of the light (pin 11 of the header)."
    )
    led_active_high: bool = Field(
        default=True,
        description="Whether the light is on when its pin is high: wired from the pin to ground.",
    )
    button_pin: int = Field(
        default=27,
        ge=0,
        le=27,
        description="GPIO number of the button (pin 13 of the header), which connects it to "
        "ground.",
    )
    tamper_pin: int | None = Field(
        default=None,
        ge=0,
        le=27,
        description="GPIO number of a switch to ground that is shut while the lid is; absent "
        "means none.",
    )
    hold_s: float = Field(
        default=3.0,
        ge=1,
        le=20,
        description="Seconds that the button is held to begin or end maintenance.",
    )
    maintenance_s: float = Field(
        default=600.0,
        ge=10,
        le=86400,
        description="Seconds after which maintenance ends by itself. The node hears and publishes "
        "all the while.",
    )
    thermometer: bool = Field(
        default=False,
        description="Whether a DS18B20 is fitted in the enclosure. Its pin is the kernel's: "
        "dtoverlay=w1-gpio,gpiopin=23 in config.txt; the overlay's own default, 4, has the pulse.",
    )
    thermometer_id: Annotated[str, Field(pattern="^28-[0-9a-f]{12}$")] | None = Field(
        default=None,
        description="Its name on the 1-wire bus (28-…) where there are several; the first if "
        "absent.",
    )
    hot_c: float = Field(
        default=70.0,
        ge=0,
        le=125,
        description="Temperature of the enclosure, in degrees Celsius, from which on it is too "
        "hot.",
    )
    cold_c: float = Field(
        default=-25.0,
        ge=-55,
        le=50,
        description="Temperature of the enclosure, in degrees Celsius, below which it is too cold.",
    )

    @model_validator(mode="after")
    def _pins_are_free(self) -> Self:
        names: dict[int, str] = {}
        for name in ("led_pin", "button_pin", "tamper_pin"):
            pin = getattr(self, name)
            if pin is None:
                continue
            if pin in _TAKEN_PINS:
                raise ValueError(
                    f"board.{name} = {pin}, but GPIO {pin} is for {_TAKEN_PINS[pin]}; take another"
                )
            if pin in names:
                raise ValueError(f"board.{names[pin]} and board.{name} are both {pin}")
            names[pin] = name
        if self.cold_c >= self.hot_c:
            raise ValueError(
                f"board.cold_c = {self.cold_c:g} is not below board.hot_c = {self.hot_c:g}"
            )
        return self


class HealthSettings(Section):
    """Where the node says how it is, beside its messages."""

    status_file: FilePath | None = Field(
        default=Path("/run/gunfire-node/status.json"),
        description="Written each second for `gunfire-node status`, in a folder that is in memory; "
        "not written where that folder is not there.",
    )
    setup_folder: FilePath | None = Field(
        default=Path("/run/gunfire-node-setup"),
        description="Where enrolment and update, which run beside the node on the image, leave "
        "what they have to say, for status, health, light and `check`; nothing is read where it "
        "is not there.",
    )
    metrics: HostPort | None = Field(
        default=None,
        description="Where Prometheus may read metrics, as host:port, such as 127.0.0.1:9110; "
        "absent means nowhere. Nothing is asked of who reads: keep it off open networks. The "
        "unit forbids listening until a drop-in says SocketBindAllow=tcp:9110.",
    )


class Settings(Section):
    """The settings of a node."""

    node: NodeSettings = Field(default_factory=NodeSettings)
    capture: CaptureSettings = Field(default_factory=CaptureSettings)
    timing: TimingSettings = Field(default_factory=TimingSettings)
    detect: DetectSettings = Field(default_factory=DetectSettings)
    classify: ClassifySettings = Field(default_factory=ClassifySettings)
    outbox: OutboxSettings = Field(default_factory=OutboxSettings)
    integrity: IntegritySettings = Field(default_factory=IntegritySettings)
    mqtt: MqttSettings = Field(default_factory=MqttSettings)
    snippets: SnippetSettings = Field(default_factory=SnippetSettings)
    board: BoardSettings = Field(default_factory=BoardSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)

    @model_validator(mode="after")
    def _outbox_has_a_file_of_its_own(self) -> Self:
        """Refuse a file of another use: what is no outbox is set aside, the signing key too."""
        others = {
            "integrity.key_file": self.integrity.key_file,
            "integrity.certificate_file": self.integrity.certificate_file,
            "mqtt.ca_file": self.mqtt.ca_file,
            "mqtt.cert_file": self.mqtt.cert_file,
            "mqtt.key_file": self.mqtt.key_file,
            "classify.model": self.classify.model,
        }
        outbox = os.path.realpath(self.outbox.path)
        for name, path in others.items():
            if path is not None and os.path.realpath(path) == outbox:
                raise ValueError(f"outbox.path and {name} are one file; give each its own")
        return self

    @model_validator(mode="after")
    def _channels_are_there(self) -> Self:
        capture, pulse = self.capture, self.timing.pps_channel
        named = {
            "timing.pps_channel": () if pulse is None else (pulse,),
            "capture.silent_channels": capture.silent_channels,
        }
        for name, channels in named.items():
            if any(channel >= capture.channels for channel in channels):
                raise ValueError(
                    f"{name} names channel {max(channels)}, but capture.channels = "
                    f"{capture.channels}; they count from 0"
                )
        if pulse in capture.silent_channels:
            raise ValueError(
                f"timing.pps_channel = {pulse} is among capture.silent_channels too; a channel "
                "that carries the pulse is not silent"
            )
        if not capture.microphones(pulse):
            raise ValueError(
                f"capture.channels = {capture.channels}, of which timing.pps_channel and "
                "capture.silent_channels leave none for a microphone"
            )
        return self


SettingsModel = TypeVar("SettingsModel", bound=Settings)


@dataclass(frozen=True)
class Loaded:
    """Settings in force, and for each that was set (as `section.name`) the place that set it."""

    settings: Settings
    origins: Mapping[str, str]


def load(path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Loaded:
    """Read the settings: the file, and above it the environment.

    Parameters
    ----------
    path
        TOML file; without one, `DEFAULT_FILE` if it exists, else defaults alone.
    environment
        `GUNFIRE_NODE__SECTION__NAME=value`, the value as TOML would have it, or a bare string.

    Raises
    ------
    SettingsError
        A line for each wrong setting: where it was set, its name, what was given, what is allowed.
    """
    if path is None and DEFAULT_FILE.exists():
        path = DEFAULT_FILE
    try:
        return _load(path, environment)
    except RecursionError:  # dotted keys nest without end
        raise SettingsError(f"{path or ENVIRONMENT_PREFIX}: is nested too deep") from None


def load_board(path: Path | None = None) -> BoardSettings:
    """Read the pins alone, out of a file that may be wrong elsewhere, to tell of it by the light.

    Where even that cannot be read there is no light.
    """
    try:
        data = (path or DEFAULT_FILE).read_bytes()
    except OSError:
        return BoardSettings()
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16" if utf_16 else "utf-8-sig", errors="replace")
    for part in (text, "\n".join(_lines_of_board(text))):
        try:
            return BoardSettings.model_validate(tomllib.loads(part).get("board", {}))
        except (ValueError, RecursionError):
            continue
    return BoardSettings()


def _lines_of_board(text: str) -> Iterator[str]:
    """Give the lines that say of the board, out of a text that is no TOML."""
    inside: bool | None = None  # not in a table yet
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            inside = re.match(r"""\s*\[\s*["']?board["']?\s*\]""", line) is not None
        if inside or (inside is None and re.match(r"\s*board\s*[.=]", line)):
            yield line


def _load(path: Path | None, environment: Mapping[str, str]) -> Loaded:
    values: dict[str, Any] = {} if path is None else _read(path)
    origins = {name: str(path) for name in _names(values)}
    for variable, text in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT_PREFIX):
            keys = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            value = _value(text)
            _put(values, keys, value, variable)
            name = ".".join(keys)
            inside = _names(value, f"{name}.") if isinstance(value, dict) else (name,)
            origins |= dict.fromkeys(inside, variable)
    settings = validated(Settings, values, origins, str(path or "settings"))
    return Loaded(settings, origins)


def validated(
    model: type[SettingsModel], values: Mapping[str, Any], origins: Mapping[str, str], where: str
) -> SettingsModel:
    """Make settings of what was read.

    Parameters
    ----------
    model
        `Settings`, or what adds sections of its own to them.
    values
        As a TOML file gives them.
    origins
        For each value (as `section.name`) the place that set it.
    where
        What to name where no single value is to blame.

    Raises
    ------
    SettingsError
        A line for each that is wrong.
    """
    try:
        # JSON mode is strict about types (no "4" for 4, no true for 1) yet takes lists and paths.
        return model.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        told = _sentences(error, origins, where, model)
        raise SettingsError(hide_password("\n".join(told))) from None
    except ValueError as error:  # TOML's hexadecimal numbers have no end
        raise SettingsError(f"{where}: a number is too long: {error}") from None


def settings_schema() -> dict[str, Any]:
    """Give the JSON Schema (2020-12) of the settings."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return {**dialect, "title": "gunfire-node settings", **Settings.model_json_schema()}


def _read(path: Path) -> dict[str, Any]:
    try:
        # Editors on Windows put a mark before the first line.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        advice = "name the file of the settings by --config"
        if isinstance(error, PermissionError):
            # Not everybody: mqtt.url may hold a password.
            advice = (
                "let the user that the node runs as read it, and nobody else: `sudo chgrp "
                f"gunfire-node {path} && sudo chmod 640 {path}`"
            )
        raise SettingsError(f"{path}: cannot be read: {error.strerror}; {advice}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text; write it anew as TOML") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}") from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _put(values: dict[str, Any], keys: list[str], value: Any, variable: str) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise SettingsError(
                hide_password(f"{variable}: {key} is a single setting, not a section")
            )
    values[keys[-1]] = value


def _names(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _sentences(
    error: ValidationError, origins: Mapping[str, str], where: str, model: type[BaseModel]
) -> Iterator[str]:
    for problem in error.errors():
        location = problem["loc"]
        origin = _origin_of(".".join(map(str, location)), origins, where)
        name = ".".join(map(_shown, location))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "json_invalid":  # what nests deeper than JSON may
            yield f"{where}: is nested too deep"
        elif not name or (problem["type"] == "value_error" and isinstance(problem["input"], dict)):
            # Settings do not go together; the message names them.
            yield f"{_origins_in(message, origins, origin)}: {message}"
        elif problem["type"] == "extra_forbidden":
            yield f"{origin}: {name}: no such setting{_nearest(location, model)}"
        elif problem["type"] == "missing":
            yield f"{origin}: {name}: is missing; give it, or leave its whole section out"
        elif problem["type"] == "model_type":  # what was given may be a secret
            yield (
                f"{origin}: {name}: is a section; write [{name}] in single brackets on a line of "
                "its own, and its settings below it"
            )
        else:
            given = _given(location, problem["input"], model)
            yield f"{origin}: {name} = {given}: {message[0].lower()}{message[1:]}"


def _shown(part: int | str) -> str:
    """Give a part of a name so that it stays on its line."""
    text = str(part)
    return text if text and text.isprintable() else json.dumps(text)


def _origins_in(message: str, origins: Mapping[str, str], where: str) -> str:
    """Give every place that set what a message names."""
    # A section's name may be a word of any sentence.
    named = (name for name in origins if "." in name and name in message)
    places = {origins[name]: None for name in named}
    return " and ".join(places) or where


def _origin_of(name: str, origins: Mapping[str, str], where: str) -> str:
    # What is wrong may be one of a list, whose name has a line; its own has none.
    while name.rpartition(".")[2].isdecimal():
        name = name.rpartition(".")[0]
    if name in origins:
        return origins[name]
    within = [origin for set_name, origin in origins.items() if set_name.startswith(f"{name}.")]
    if within:
        return within[0]
    section = name.rpartition(".")[0]
    beside = [origin for set_name, origin in origins.items() if set_name.startswith(f"{section}.")]
    return beside[0] if section and beside else where


def hide_password(text: str) -> str:
    """Put stars for user and password in a URL, and for a private key, so that it may be shown."""
    text = re.sub(r"(?i)AGE-SECRET-KEY-[^\s\"]*", "***", text)
    return re.sub(r'//(?:[^"\\\n]|\\.)*@', "//***@", text)  # a password may hold / and @ too


def _without_password(given: str) -> str:
    """Hide what may be one where the URL round it is not written right."""
    given = re.sub(r'"(?![a-z]*://)(?:[^"\\]|\\.)*@', '"***@', given)
    return re.sub(r'(//[^"/:@[]*:)(?!\d*[/"])(?:[^"\\@]|\\.)*"', r'\1***"', given)


def _given(location: tuple[int | str, ...], value: Any, model: type[BaseModel]) -> str:
    """Give a value as it may be shown: shortened, and a secret (`repr=False`) not at all."""
    section = _section_of(location, model)
    field = None if section is None else section.model_fields.get(str(location[-1]))
    if (field is not None and not field.repr) or isinstance(value, dict):
        return "***"
    if "PRIVATE KEY" in str(value):
        return "***"
    given = _without_password(json.dumps(value, default=str))
    return given if len(given) <= MOST_GIVEN else f"{given[: MOST_GIVEN // 2]}…"


def _section_of(location: tuple[int | str, ...], model: type[BaseModel]) -> type[BaseModel] | None:
    """Give the model that the last key of a location belongs to; None within a list."""
    section = model
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        choices = [annotation, *getattr(annotation, "__args__", ())]
        models = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return None
        section = models[0]
    return section


def _nearest(location: tuple[int | str, ...], model: type[BaseModel]) -> str:
    section = _section_of(location, model) or model
    near = difflib.get_close_matches(str(location[-1]), section.model_fields, n=1)
    return (
        f"; did you mean {near[0]}?" if near else f"; there are {', '.join(section.model_fields)}"
    )
