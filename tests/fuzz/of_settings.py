"""Settings: the text of the file, variables of the environment above it; addresses of brokers."""

from __future__ import annotations

import json
import math
import tomllib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

import jsonschema

from node.deliver.address import BrokerAddress
from node.errors import BrokerError, SettingsError
from node.settings import ENVIRONMENT_PREFIX, load, settings_schema
from tests.fuzz import mutate
from tests.fuzz.engine import Target, WrongError
from tests.fuzz.of_recordings import toml_value

_CUT: Final = b"\n#--- environment ---\n"
"""Between the file and a line for each variable. The line is a comment in TOML."""

_FILES: Final[list[dict[str, Any]]] = [
    {
        "node": {
            "id": "roof-1",
            "site": "riverside",
            "position": {"lat_deg": 40.44, "lon_deg": -79.99, "alt_m": 231.4, "sigma_m": 0.8},
            "height_m": 6.0,
            "building_height_m": 20.0,
        },
        "capture": {
            "device": "UMA-8",
            "sample_rate_hz": 48000,
            "channels": 8,
            "bits": 24,
            "block_frames": 4096,
            "silence_s": 2.0,
            "array": "square_65mm",
            "heading_deg": 12.5,
            "pitch_deg": 0.0,
            "roll_deg": 0.0,
            "silent_channels": [6, 7],
            "order_fixed": False,
        },
        "detect": {"threshold_db": 10.5, "gap_s": 0.5, "burst_s": 1.5, "air_temperature_c": 15.0},
        "classify": {"model": "/opt/model.tflite", "publish_rejected": True},
        "timing": {
            "ntp_servers": ["0.pool.ntp.org"],
            "ntp_interval_s": 256,
            "chrony": True,
            "gpsd": "localhost:2947",
            "pps_channel": 4,
        },
        "outbox": {"path": "/var/lib/outbox.sqlite3", "max_bytes": 67108864},
        "mqtt": {
            "url": "mqtts://user:secret@broker.local:8883",
            "keepalive_s": 30,
            "ca_file": "/etc/ca.pem",
            "cert_file": "/etc/cert.pem",
            "key_file": "/etc/key.pem",
            "reconnect_max_s": 60.0,
        },
    },
    {"capture": {"channels": 1}, "mqtt": {"url": "mqtt://localhost"}},
    {},
]
_RECIPIENT: Final = "age1kwzkhy083ggdu0cq770yqkugy6n7tc3w0rqqzq2vhevnwcmneywqxx65a0"
_NEAR: Final[list[dict[str, Any]]] = [
    {"capture": {"channels": 2}, "timing": {"pps_channel": 1}},
    {"capture": {"channels": 3, "silent_channels": [1, 2]}, "timing": {"pps_channel": 2}},
    {"capture": {"channels": 2, "silent_channels": [0]}, "timing": {"pps_channel": 1}},
    {"mqtt": {"url": "mqtt://h", "ca_file": "/etc/ca.pem"}},
    {"mqtt": {"url": "mqtt://h:0"}, "node": {"id": "a/b"}},
    {"timing": {"gpsd": "h:1"}, "outbox": {"path": "/var/o"}},
    {"node": {"site": "a"}, "snippets": {"enabled": True}},
    {"snippets": {"enabled": True, "recipient": _RECIPIENT, "before_s": 1.0, "after_s": 1.0}},
    {"snippets": {"recipient": "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQ", "before_s": 1.5}},
    {"mqtt": {"urls": ["mqtt://a", "mqtt://b:1"], "protocol": "3.1.1", "expiry_s": 60}},
    {"mqtt": {"urls": ["mqtt://a", "mqtt://a"], "protocol": "5", "expiry_s": 60}},
    {"mqtt": {"urls": ["mqtt://a"], "url": "mqtt://a"}},
]
"""Where one step more or less is what a check is for; not all are accepted."""
_VARIABLES: Final = (
    *(
        "NODE__SITE=yard",
        "CAPTURE__CHANNELS=6",
        "CAPTURE__SILENT_CHANNELS=[5]",
        "TIMING__CHRONY=false",
    ),
    *("MQTT__URL=mqtt://u:secret@[::1]:1883", "OUTBOX__PATH=/tmp/o", "NODE__POSITION__LAT_DEG=1.5"),
    *("NODE={id = 'a'}", "DETECT__GAP_S=0.25", "MQTT__KEEPALIVE_S=60"),
)


def _join(table: Any, variables: list[str]) -> bytes:
    lines: list[str] = []
    if not isinstance(table, dict):
        lines.append(f"all = {toml_value(table)}")
    else:
        for name, section in table.items():
            if isinstance(section, dict):
                lines.append(f"[{_key(name)}]")
                lines += [f"{_key(k)} = {toml_value(v)}" for k, v in section.items()]
            else:
                lines.insert(0, f"{_key(name)} = {toml_value(section)}")
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    names = "\n".join(ENVIRONMENT_PREFIX + variable for variable in variables)
    return text + _CUT + names.encode("utf-8", "surrogatepass")


def _key(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else json.dumps(name)


def _corpus() -> list[bytes]:
    return [
        _join(file, list(_VARIABLES[:some])) for file, some in zip(_FILES, (2, 0, 4), strict=True)
    ]


def _make(rng: Random, corpus: list[bytes]) -> bytes:
    pick = rng.random()
    file = json.loads(json.dumps(rng.choice(_FILES if rng.random() < 0.6 else _NEAR)))
    if isinstance(file.get("timing"), dict) and rng.random() < 0.5:
        # Whole files seldom pass; of parts, more of what is wrong is seen for itself.
        file = {name: file[name] for name in rng.sample(sorted(file), 2)}
    variables = rng.sample(_VARIABLES, rng.choice((0, 0, 0, 1, 2)))
    if rng.random() < 0.3:
        variables = [mutate.fields(rng, variable, "=") for variable in variables]
        if rng.random() < 0.1:
            variables.append(mutate.fields(rng, rng.choice(_VARIABLES), "__"))
    data = _join(mutate.tree(rng, file), variables)
    return data if pick < 0.85 else mutate.raw(rng, data, rng.choice(corpus))


@cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(settings_schema())


_validator()  # made before any bug is planted


def _check(data: bytes, folder: Path) -> bool:
    text, _, names = data.partition(_CUT)
    file = folder / "node.toml"
    file.write_bytes(text)
    lines = names.replace(b"\0", b"").decode("utf-8", "surrogateescape").split("\n")
    environment = {name: value for name, _, value in (line.partition("=") for line in lines)}
    try:
        loaded = load(file, environment)
    except SettingsError as error:
        if "//user:secret@" in str(error) or "//u:secret@" in str(error):
            raise WrongError("a password in an error") from error
        return False
    settings = loaded.settings.model_dump(mode="json", by_alias=True)
    problem = jsonschema.exceptions.best_match(_validator().iter_errors(settings))
    if problem is not None:
        raise WrongError(f"{problem.json_path} out of the schema: {problem.message[:60]}")
    _judge_numbers(settings)
    try:
        said = tomllib.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise WrongError("a file that is no TOML was taken") from error
    own = [name for name in environment if name.startswith(ENVIRONMENT_PREFIX)]
    if not own:
        _judge_kept(said, settings, "")
    channels = settings["capture"]["channels"]
    pulse, silent = settings["timing"]["pps_channel"], settings["capture"]["silent_channels"]
    if {pulse, *silent} - {None, *range(channels)} or not set(range(channels)) - {pulse, *silent}:
        raise WrongError("channels that the card does not have")
    return True


def _judge_numbers(part: Any) -> None:
    if isinstance(part, dict):
        for value in part.values():
            _judge_numbers(value)
    elif isinstance(part, float) and not math.isfinite(part):
        raise WrongError("a number that is none")


def _judge_kept(said: Any, kept: Any, name: str) -> None:
    """See that each setting that was given stands, as it was given."""
    if isinstance(said, dict):
        for key, value in said.items():
            if not isinstance(kept, dict) or key not in kept:
                raise WrongError(f"{name}.{key} was taken, and there is no such setting")
            _judge_kept(value, kept[key], f"{name}.{key}")
    elif isinstance(said, list) and isinstance(kept, list):
        if said != kept:
            raise WrongError(f"{name} is another than was given")
    elif isinstance(kept, str):  # paths lose what is double in them; days become texts
        if Path(str(said)) != Path(kept):
            raise WrongError(f"{name} is another than was given")
    elif isinstance(said, bool) is not isinstance(kept, bool) or said != kept:
        raise WrongError(f"{name} is another than was given")


_URLS: Final = [
    b"mqtt://broker.local",
    b"mqtt://user:pass%20word@broker.local:1883",
    b"mqtt://[2001:db8::1]:1884",
    b"mqtt://10.0.0.1:65535",
]


def _make_url(rng: Random, corpus: list[bytes]) -> bytes:
    text = rng.choice(corpus).decode()
    pick = rng.random()
    if pick < 0.5:
        text = mutate.fields(rng, text, rng.choice((":", "@", "/", ".")))
    data = text.encode("utf-8", "surrogatepass")
    return data if pick < 0.4 else mutate.raw(rng, data, rng.choice(corpus))


def _check_url(data: bytes, _folder: Path) -> bool:
    url = data.decode("utf-8", "replace")
    if url.lower().startswith("mqtts"):
        return False  # its certificates are a matter of files
    try:
        address = BrokerAddress.from_url(url)
    except BrokerError as error:
        if "word" in str(error):
            raise WrongError("a password in an error") from error
        return False
    if not 1 <= address.port <= 65535 or not address.host:
        raise WrongError("no address")
    if address.password and len(address.password) > 3 and address.password in str(address):
        raise WrongError("a password in an address")
    return True


TARGETS: Final = (
    Target("settings", 90_000, ("node.settings",), _corpus, _make, _check),
    Target(
        "broker_url", 60_000, ("node.deliver.address",), lambda: list(_URLS), _make_url, _check_url
    ),
)
