"""The one file that a technician writes: `gunfire-node.toml` on the card's FAT partition.

Read by the laptop, which checks it before it writes a card, and by the node at each boot; both say
the same of it. The daemon's own tables are checked by its own models (node/settings.py), of which
`CardSettings` is an extension; what else a node needs before it has a network stands in four more.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from node.errors import ProvisioningError, SettingsError
from node.settings import Settings, is_address, validated
from provisioning import words

NAME: Final = "gunfire-node.toml"
LARGEST_BYTES: Final = 64 * 1024
LOCAL_GPSD: Final = "localhost:2947"

CA_FILE: Final = "/etc/gunfire-node/ca.crt"
FILLED: Final = {
    "mqtt": {
        "ca_file": CA_FILE,
        "cert_file": "/etc/gunfire-node/mqtt.crt",
        "key_file": "/var/lib/gunfire-node/mqtt.key",
    },
    "integrity": {"certificate_file": "/etc/gunfire-node/signing.crt"},
}
"""What the daemon's settings hold where [enrolment] is there, unless the file says otherwise."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NetworkSettings(_Table):
    """How the node gets on the network. Ethernet by DHCP unless something is said."""

    wifi_ssid: Annotated[str, AfterValidator(words.ssid)] | None = Field(
        default=None, description="Name of the Wi-Fi; absent means no Wi-Fi."
    )
    wifi_psk: Annotated[str, AfterValidator(words.psk)] | None = Field(
        default=None,
        repr=False,
        description="Its key, 64 hexadecimal digits: `gunfire-card new` makes it of a passphrase.",
    )
    wifi_open: bool = Field(
        default=False, description="Whether it is meant that this Wi-Fi has no key."
    )
    country: Annotated[str, AfterValidator(words.country)] | None = Field(
        default=None,
        description="Where the node stands, two letters (MN, DE, US): which channels a Wi-Fi may "
        "use is the country's law. Needed with Wi-Fi.",
    )
    address: Annotated[str, AfterValidator(words.address_of_net)] | None = Field(
        default=None,
        description="Fixed address with its net, such as 192.168.1.20/24, of the Wi-Fi if there is "
        "one, else of Ethernet; absent means DHCP.",
    )
    gateway: Annotated[str, AfterValidator(words.ip_address)] | None = Field(
        default=None, description="Router of that net; absent means none."
    )
    dns: tuple[Annotated[str, AfterValidator(words.ip_address)], ...] = Field(
        default=(), max_length=4, description="Name servers; beside those that DHCP names."
    )
    ntp: tuple[Annotated[str, AfterValidator(words.host_name)], ...] = Field(
        default=(), max_length=8, description="NTP servers that chrony asks; best four, or none."
    )
    ssh_key: Annotated[str, AfterValidator(words.ssh_key)] | None = Field(
        default=None,
        repr=False,  # the private one may stand there by mistake
        description="Public key that root may log in with; absent means that nobody may, and no "
        "port is open.",
    )


class ReceiverSettings(_Table):
    """What tells the time."""

    kind: Literal["pulse", "no-pulse", "none"] = Field(
        default="none",
        description="A GPS receiver on the header with its pulse (`pulse`), one by USB "
        "(`no-pulse`), or none.",
    )
    device: Annotated[str, AfterValidator(words.device)] | None = Field(
        default=None,
        description="Its serial line; absent means /dev/gunfire-gps with a pulse, /dev/ttyACM0 "
        "without.",
    )


class EnrolmentSettings(_Table):
    """How the node gets its certificates."""

    url: Annotated[str, AfterValidator(words.https_url)] | None = Field(
        default=None,
        repr=False,  # the token may stand there by mistake
        description="The fleet's enrolment, https://; absent where requests are carried by hand.",
    )
    token: Annotated[str, AfterValidator(words.token)] | None = Field(
        default=None,
        repr=False,
        description="One-time token for this node; taken out of the file once it is used.",
    )
    ca: Annotated[str, AfterValidator(words.authority)] = Field(
        repr=False,  # a private key may stand there by mistake
        description="The fleet's CA certificate, PEM.",
    )
    moved: bool = Field(
        default=False,
        description="Whether this card moves to another board on purpose: it is refused there "
        "otherwise, as a copy. Counts once for each change of the file.",
    )


class UpdateSettings(_Table):
    """Where the node gets releases."""

    url: Annotated[str, AfterValidator(words.https_url)] = Field(
        description="Folder of the owner's releases, https://."
    )
    root: Annotated[str, AfterValidator(words.tuf_root)] = Field(
        description="The TUF root (JSON) that they are trusted by."
    )


class CardSettings(Settings):
    """All that may stand in the file: the daemon's settings and four tables more."""

    network: NetworkSettings = Field(default_factory=NetworkSettings)
    receiver: ReceiverSettings = Field(default_factory=ReceiverSettings)
    enrolment: EnrolmentSettings | None = None
    update: UpdateSettings | None = None


@dataclass(frozen=True)
class FirstBootFile:
    """A file that is right.

    Attributes
    ----------
    settings
        All of it, with what was filled in.
    node_values
        The daemon's tables, as its own file is to hold them.
    sha256
        Of the file as it lies on the card.
    text
        The file, with one kind of line end.
    """

    settings: CardSettings
    node_values: Mapping[str, Any]
    sha256: str
    text: str

    @property
    def hosts(self) -> tuple[str, ...]:
        """Give the hosts that the node has to find."""
        return _hosts(self.settings)


def load(path: Path, now_ns: int) -> FirstBootFile:
    """Read a file from where it lies.

    Parameters
    ----------
    path
        The file.
    now_ns
        UTC, ns since 1970: a CA's certificate that has ended by then is refused. A clock without
        a battery lags, and never leads: what it calls ended has ended.

    Raises
    ------
    ProvisioningError
        A line for each thing that is wrong: which line of the file, what, and the mend.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise ProvisioningError(f"{path}: is not there; {_elsewhere(path)}") from None
    except OSError as error:
        raise ProvisioningError(
            f"{path}: cannot be read: {error.strerror}; copy the file onto the card anew"
        ) from None
    return parse(data, str(path), now_ns)


def parse(data: bytes, name: str, now_ns: int) -> FirstBootFile:
    """Check what a file holds; `name` is what errors call it. See `load`."""
    try:
        return _parsed(data, name, now_ns)
    except RecursionError:
        raise ProvisioningError(f"{name}: is nested too deep; type it anew") from None


def _parsed(data: bytes, name: str, now_ns: int) -> FirstBootFile:
    text = _decoded(data, name)
    values = _toml(text, name)
    lines = key_lines(text)

    def where(key: str) -> str:
        while key and key not in lines:
            key = key.rpartition(".")[0]
        return f"{name}, line {lines[key]}" if key else name

    told = list(_before(values))
    if not told:
        _fill(values)
    settings = None
    origins = {key: f"{name}, line {line}" for key, line in lines.items()}
    try:
        settings = validated(CardSettings, values, origins, name)
        told += _together(settings, values, now_ns)
    except SettingsError as error:
        wrong = str(error).splitlines()
    else:
        wrong = []
    wrong += [f"{where(key)}: {what}" for key, what in told]
    if settings is None or wrong:
        raise ProvisioningError("\n".join(sorted(wrong, key=_line_of)))
    own = {table: values[table] for table in Settings.model_fields if table in values}
    return FirstBootFile(settings, own, hashlib.sha256(data).hexdigest(), text)


def _line_of(sentence: str) -> int:
    at = re.search(r", line (\d+)", sentence)
    return int(at[1]) if at else 0


def key_lines(text: str) -> dict[str, int]:
    """Give the line, from 1, of each table and key of a TOML text that is right."""
    found: dict[str, int] = {}
    for first, _, statement, prefix in statements(text):
        if statement is None:
            continue
        for key in _keys(statement, prefix):
            found.setdefault(key, first)
    return found


_PIECE: Final = re.compile(
    r"""(?P<long>\"{3}|'{3})|"(?:[^"\\]|\\.)*"|'[^']*'|\#.*|(?P<open>[\[{])|(?P<shut>[]}])"""
)
_LONG_ENDS: Final = {
    '"""': re.compile(r'(?:[^"\\]|\\.|"(?!""))*"{3,5}'),
    "'''": re.compile(r"(?:[^']|'(?!''))*'{3,5}"),
}


def _open_after(line: str, long: str, depth: int) -> tuple[str, int]:
    """Give what is open after a line: the long quotes, and how many brackets; see the line before.

    To have each line read once: whether all is right tomllib says.
    """
    at = 0
    while True:
        if long:
            end = _LONG_ENDS[long].match(line, at)
            if end is None:
                return long, depth
            at, long = end.end(), ""
        piece = _PIECE.search(line, at)
        if piece is None:
            return "", depth
        at, long = piece.end(), piece["long"] or ""
        depth += (piece["open"] is not None) - (piece["shut"] is not None)


def statements(text: str) -> Iterator[tuple[int, int, dict[str, Any] | None, str]]:
    """Take a TOML text apart: first and last line of each statement, its values, and its table.

    What does not end, as quotes that are never closed, or is wrong comes last, without values, and
    with all that follows it.
    """
    table = ""
    lines = text.split("\n")
    first, long, depth = 1, "", 0
    for number, line in enumerate(lines, 1):
        long, depth = _open_after(line, long, depth)
        if long or depth > 0:
            continue
        held = "\n".join(lines[first - 1 : number]) + "\n"
        try:
            values = tomllib.loads(held)
        except (ValueError, RecursionError):
            break
        if values:
            if held.lstrip().startswith("["):
                table = ""
                yield first, number, values, ""
                table = _only_path(values)
            else:
                yield first, number, values, table
        first = number + 1
    if any(line.strip() for line in lines[first - 1 :]):
        yield first, len(lines), None, table


def _only_path(values: Any) -> str:
    path = []
    while isinstance(values, dict) and values:
        key, values = next(iter(values.items()))
        path.append(key)
        if isinstance(values, list):
            values = values[-1]
    return ".".join(path)


def _keys(values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        name = f"{prefix}.{key}" if prefix else key
        yield name
        if isinstance(value, dict):
            yield from _keys(value, name)


def _decoded(data: bytes, name: str) -> str:
    again = "have it made anew: gunfire-card new"
    if len(data) > LARGEST_BYTES:
        raise ProvisioningError(
            f"{name}: is larger than {LARGEST_BYTES // 1024} KiB and cannot be the file; {again}"
        )
    if data and not data[:64].strip(b"\0"):
        raise ProvisioningError(
            f"{name}, line 1: begins with zeros, as a cut of power while it is written leaves it; "
            f"{again}"
        )
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:64]:
        raise ProvisioningError(
            f"{name}, line 1: the file is UTF-16, which Notepad calls Unicode; save it again with "
            "the encoding UTF-8"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProvisioningError(
            f"{name}, line {line}: a character there is not UTF-8 (Notepad's ANSI?); save the file "
            "again with the encoding UTF-8, or type that line anew"
        ) from None
    text = text.replace("\r\n", "\n")
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.split("\n")):
        raise ProvisioningError(f"{name}: says nothing; {again}")
    return text


_SYNTAX: Final = (
    ("Unterminated string", "close the quotes"),
    ("Cannot overwrite a value", "this is said twice; take one of the two out"),
    ("twice", "put all of a table below its one [name]"),
    ("Cannot mutate", "put all of a table below its one [name]"),
    ("Invalid value", 'text goes in quotes, such as "riverside"; a number or true goes without'),
    ("Unclosed array", "close the ]"),
    ("Expected", "a line is name = value, or [table], or begins with #"),
    ("Invalid statement", "a line is name = value, or [table], or begins with #"),
    (r"Illegal character '\n'", "close the quotes"),
    ("Illegal character", "type that line anew"),
    ("Unescaped", "write \\\\ for each \\"),
)


def _toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:
        what = str(error)
    at = re.search(r" \(at line (\d+), column \d+\)$", what)
    number = int(at[1]) if at else 0
    if what.startswith(("Unterminated", "Unclosed")):  # where it begins, not where the file ends
        number = next((first for first, _, values, _ in statements(text) if values is None), number)
    line = text.split("\n")[number - 1] if number else ""
    step = next((mend for sign, mend in _SYNTAX if sign in what), "type that line anew")
    if re.search("[“”„‘’«»]", line):
        step = 'those quotes are typographic; type plain ones (")'
    elif re.search(r"=\s*[-+]?(\d+,\d|0\d)", line):
        step = "a number has a point, and no 0 before it, such as 47.85 or 5"
    what = re.sub(r" \(at .*?\)$", "", what)
    raise ProvisioningError(
        f"{name}, line {number or 1}: is not TOML: {what[0].lower()}{what[1:]}; {step}"
    )


def _elsewhere(path: Path) -> str:
    beside = path.with_name(path.name + ".txt")
    if beside.exists():
        return f"but {beside.name} is, since Windows hides such an ending: take .txt off its name"
    return "copy it onto the card's first partition; gunfire-card new makes it"


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = values.get(name)
    return table if isinstance(table, dict) else {}


def _before(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Tell what the daemon's models could not, or in words that nobody here would understand."""
    if "enrolment" not in values:
        return
    mqtt = _table(values, "mqtt")
    urls = mqtt.get("urls")
    key = "mqtt.urls" if urls else "mqtt.url"
    brokers = [mqtt["url"]] if "url" in mqtt else []
    for url in [*brokers, *(urls if isinstance(urls, list) else [])]:
        if isinstance(url, str) and url.lower().startswith("mqtt://"):
            yield (
                key,
                "the broker is mqtt://, without TLS, yet [enrolment] is for certificates; write "
                "mqtts://, and its port, often 8883",
            )


def _fill(values: dict[str, Any]) -> None:
    """Put in what follows from what is said, in place."""
    if "enrolment" in values and any(key in _table(values, "mqtt") for key in ("url", "urls")):
        for table, files in FILLED.items():
            if isinstance(values.setdefault(table, {}), dict):
                values[table] = {**files, **values[table]}
    receiver = _table(values, "receiver")
    if receiver.get("kind") in ("pulse", "no-pulse") and isinstance(
        values.setdefault("timing", {}), dict
    ):
        values["timing"].setdefault("gpsd", LOCAL_GPSD)


def _together(
    settings: CardSettings, values: Mapping[str, Any], now_ns: int
) -> Iterator[tuple[str, str]]:
    """Tell what is right by itself, but not beside the rest."""
    if "id" not in _table(values, "node"):
        yield "node.id", 'node.id: is missing; write id = "node-0001" below [node], its own name'
    if settings.node.site == "unset":
        yield "node.site", 'node.site: is missing; write site = "riverside" below [node]'
    mqtt = _table(values, "mqtt")
    if "url" not in mqtt and "urls" not in mqtt:
        yield (
            "mqtt.url",
            'mqtt.url: is missing; write url = "mqtts://broker.local:8883" below [mqtt]',
        )
    yield from _array(settings)
    yield from _receiver(settings)
    yield from _pins(settings)
    yield from _wifi(settings.network)
    yield from _address(settings)
    enrolment = settings.enrolment
    if enrolment is None:
        return
    if enrolment.token is not None and enrolment.url is None:
        yield (
            "enrolment.token",
            "enrolment.token: there is no enrolment.url to use it at; write the url, or take the "
            "token out where requests are carried by hand",
        )
    ends_ns = words.authority_ends_ns(enrolment.ca)
    if ends_ns < now_ns:
        days = (now_ns - ends_ns) // (86_400 * 10**9)
        yield (
            "enrolment.ca",
            f"enrolment.ca: the CA's certificate ended {days} days ago; put in the ca.crt that the "
            "fleet uses now",
        )


def _array(settings: CardSettings) -> Iterator[tuple[str, str]]:
    from node.capture import built_in_arrays  # numpy, for which a known file's boot has no use

    capture = settings.capture
    known = built_in_arrays()
    if capture.array.endswith(".toml"):
        return
    if capture.array not in known:
        yield (
            "capture.array",
            f"capture.array = {json.dumps(capture.array)}: is no array; choose one of "
            f"{', '.join(known)}, or name a .toml file",
        )
        return
    microphones = len(capture.microphones(settings.timing.pps_channel))
    if capture.array != "mono" and microphones != len(known[capture.array]):
        others = capture.channels - microphones
        yield (
            "capture.channels",
            f"capture.channels = {capture.channels}: {microphones} microphones, but "
            f"{capture.array} has {len(known[capture.array])}; write channels = "
            f"{len(known[capture.array]) + others}, or another array",
        )


def _receiver(settings: CardSettings) -> Iterator[tuple[str, str]]:
    receiver, gpsd = settings.receiver, settings.timing.gpsd
    here = gpsd is not None and gpsd.rpartition(":")[0] in ("localhost", "127.0.0.1", "[::1]")
    if receiver.kind == "none" and here:
        yield (
            "timing.gpsd",
            f'timing.gpsd = "{gpsd}": there is no receiver for it; write kind = "pulse" or '
            '"no-pulse" below [receiver], or take gpsd out',
        )
    if receiver.kind == "none" and receiver.device is not None:
        yield (
            "receiver.device",
            'receiver.device: receiver.kind is "none"; write kind = "pulse" or "no-pulse"',
        )


def _pins(settings: CardSettings) -> Iterator[tuple[str, str]]:
    board = settings.board
    taken = {}
    if settings.receiver.kind == "pulse":
        taken[4] = "the receiver's pulse"
    if board.thermometer:
        taken[23] = "the thermometer"
    for name in ("led_pin", "button_pin", "tamper_pin"):
        pin = getattr(board, name)
        if board.enabled and pin in taken:
            yield (
                f"board.{name}",
                f"board.{name} = {pin}: GPIO {pin} is for {taken[pin]}; take another",
            )


def _wifi(network: NetworkSettings) -> Iterator[tuple[str, str]]:
    if network.wifi_ssid is None:
        for name in ("wifi_psk", "wifi_open"):
            if getattr(network, name):
                yield f"network.{name}", f"network.{name}: of which Wi-Fi? write wifi_ssid too"
        return
    if network.wifi_psk is None and not network.wifi_open:
        yield (
            "network.wifi_ssid",
            f'network.wifi_ssid = "{network.wifi_ssid}": has no key; write wifi_psk, or wifi_open '
            "= true if it has none",
        )
    if network.wifi_psk is not None and network.wifi_open:
        yield "network.wifi_open", "network.wifi_open: yet there is a wifi_psk; take one out"
    if network.country is None:
        yield (
            "network.wifi_ssid",
            'network.country: is missing; write the country\'s two letters, such as country = "MN"',
        )


def _address(settings: CardSettings) -> Iterator[tuple[str, str]]:
    network = settings.network
    if network.address is None:
        if network.gateway is not None:
            yield (
                "network.gateway",
                "network.gateway: there is no address; write address too, or take gateway out",
            )
        return
    interface = ipaddress.ip_interface(network.address)
    net = interface.network
    gateway = None if network.gateway is None else ipaddress.ip_address(network.gateway)
    if gateway is not None:
        of_the_link = gateway.version == 6 and gateway.is_link_local
        if gateway not in net and not of_the_link:
            yield (
                "network.gateway",
                f'network.gateway = "{gateway}": lies outside {net}, the net of network.address; '
                "mend one of the two",
            )
        elif gateway == interface.ip:
            yield (
                "network.gateway",
                f"network.gateway = \"{gateway}\": is the node's own address; write the router's",
            )
        elif words.is_of_the_net(ipaddress.ip_interface(f"{gateway}/{net.prefixlen}")):
            yield (
                "network.gateway",
                f"network.gateway = \"{gateway}\": is the net's own address; write the router's",
            )
    hosts = _hosts(settings)
    unknown = next(filter(_needs_dns, hosts), None)
    if unknown is not None and not network.dns:
        yield (
            "network.address",
            f"network.dns: is missing, and {unknown} is found by it; with a fixed address write "
            'dns = ["192.168.1.1"] too, or the host\'s address in place of its name',
        )
    addresses = [ipaddress.ip_address(host) for host in (*network.dns, *hosts) if is_address(host)]
    for address in addresses:
        near = address in net or address.is_loopback or address.is_link_local
        if gateway is None and address.version == net.version and not near:
            yield (
                "network.address",
                f"network.gateway: is missing, and {address} lies outside {net}, the net of "
                "network.address; write the router's address as gateway",
            )
            break


def _hosts(settings: CardSettings) -> tuple[str, ...]:
    urls = [*settings.mqtt.brokers]
    if settings.enrolment and settings.enrolment.url:
        urls.append(settings.enrolment.url)
    if settings.update:
        urls.append(settings.update.url)
    named = [urlsplit(url).hostname or "" for url in urls]
    named += [host.lower() for host in settings.network.ntp]
    return tuple(dict.fromkeys(host.rstrip(".") for host in named))


def _needs_dns(host: str) -> bool:
    return not (is_address(host) or host.endswith(".local") or host == "localhost")
