"""Every kind of mistake in a first-boot file: what is replaced by what, and what has to be said."""

from __future__ import annotations

import re
from typing import Final

from tests.unit.provisioning.cards import TOKEN, authority, right_text

PSK: Final = "0f" * 32


def without(line: str) -> tuple[str, str]:
    return f"{line}\n", ""


# What is replaced, by what, the beginning of the line that has to be named, and words of the mend.
MISTAKES: Final[dict[str, tuple[str, str, str, str]]] = {
    # What is no TOML.
    "a quote is missing": ('"riverside"', '"riverside', "site", "close the quotes"),
    "typographic quotes": ('"riverside"', "“riverside”", "site", "type plain ones"),
    "no quotes at all": ('"riverside"', "riverside", "site", "text goes in quotes"),
    "a colon for the sign =": ("channels = 5", "channels: 5", "channels", "a line is name = value"),
    "said twice": ("channels = 5", "channels = 5\nchannels = 4", "channels = 4", "take one of"),
    "a table twice": ("[board]\n", "[capture]\n", "[capture]\nenabled", "below its one [name]"),
    "a bracket is missing": ('["ntp.local"]', '["ntp.local"', "ntp", "close the ]"),
    "long quotes that never end": ('-----\n"""\n', "-----\n", "ca =", "close the quotes"),
    # Names.
    "unknown table": ("[receiver]", "[reciever]", "[reciever]", "did you mean receiver?"),
    "unknown key": ("wifi_ssid", "wifi_sid", "wifi_sid", "did you mean wifi_ssid?"),
    "unknown key of the daemon's": ("pps_channel", "pps_chanel", "pps", "mean pps_channel?"),
    # Values.
    "text for a number": ("channels = 5", 'channels = "5"', "channels", "be a valid integer"),
    "out of range": ("channels = 5", "channels = 50", "channels", "less than or equal to 8"),
    "number for text": ('id = "node-0001"', "id = 1", "id", "should be a valid string"),
    "a name with a slash": ('"node-0001"', '"a/0001"', "id", "must be letters, digits"),
    "kind of receiver": ('"pulse"', '"gps"', "kind", "'pulse', 'no-pulse' or 'none'"),
    "a device that is none": ('"pulse"', '"pulse"\ndevice = "gps"', 'device = "gps', "/dev/tty"),
    "passphrase for a key": (f'"{PSK}"', '"good fences"', "wifi_psk", "make it of the passphrase"),
    "name of the Wi-Fi too long": ('"yard"', f'"{"y" * 33}"', "wifi_ssid", "has 1 to 32"),
    "country in small letters": ('"MN"', '"mn"', "country", "two capital letters"),
    "address without its net": ("1.20/24", "1.20", "address", "such as 192.168.1.20/24"),
    "address of the net itself": ("1.20/24", "1.0/24", "address", "the net's own address"),
    "no address at all": ('gateway = "192.168.1.1"', 'gateway = "router"', "gateway", "no address"),
    "a server that is none": ('"ntp.local"', '"ntp local"', "ntp", "neither a host's name nor"),
    "a private key of SSH": (
        'country = "MN"',
        'country = "MN"\nssh_key = "-----BEGIN OPENSSH PRIVATE KEY-----"',
        "ssh_key",
        "give the .pub file",
    ),
    "enrolment without TLS": (
        'https://broker.local:8885"\ntoken',
        'http://broker.local:8885"\ntoken',
        'url = "http:',
        "must start with https://",
    ),
    "a token cut short": (f'"{TOKEN}"', f'"{TOKEN[:9]}"', "token", "copy it anew"),
    "no certificate": (authority(), "abc\n", "ca =", "from -----BEGIN to -----END"),
    "certificate cut short": ("-----END CERTIFICATE-----\n", "", "ca =", "is cut short"),
    "certificate of no CA": (authority(), authority(ca=False), "ca =", "but no CA's"),
    "another file for root": ('"_type":"root"', '"_type":"x"', "root", "the whole root.json"),
    "a root that was changed": ('"version":1', '"version":2', "root", "the whole root.json"),
    # What does not go together.
    "no name": (*without('id = "node-0001"'), "[node]", 'write id = "node-0001" below [node]'),
    "no site": (*without('site = "riverside"'), "[node]", 'write site = "riverside" below [node]'),
    "no broker": (*without('url = "mqtts://broker.local:8883"'), "[mqtt]", "write url ="),
    "broker without TLS": ("mqtts://", "mqtt://", 'url = "mqtt:', "write mqtts://"),
    "too few channels": ("channels = 5", "channels = 4", "pps_channel", "they count from 0"),
    "too many channels": ("channels = 5", "channels = 6", "channels", "write channels = 5"),
    "an unknown array": ('"tetrahedron_200mm"', '"pyramid"', "array", "choose one of"),
    "Wi-Fi without a key": (*without(f'wifi_psk = "{PSK}"'), "wifi_ssid", "or wifi_open = true"),
    "key without Wi-Fi": (*without('wifi_ssid = "yard"'), "wifi_psk", "write wifi_ssid too"),
    "Wi-Fi without a country": (*without('country = "MN"'), "wifi_ssid", "two letters"),
    "gateway outside": ('gateway = "192.168.1.1"', 'gateway = "10.0.0.1"', "gateway", "mend one"),
    "gateway alone": (*without('address = "192.168.1.20/24"'), "gateway", "write address too"),
    "token without a place": (
        *without('url = "https://broker.local:8885"'),
        "token",
        "write the url",
    ),
    "gpsd without a receiver": (
        "pps_channel = 4\n\n[board]\nenabled = true\n\n[mqtt]\n",
        'pps_channel = 4\ngpsd = "localhost:2947"\n\n[mqtt]\n',
        "gpsd",
        "below [receiver], or take gpsd out",
    ),
    "CA that has ended": (authority(), authority(ended_days=30), "ca =", "ended 30 days ago"),
}


def spoilt(mistake: str) -> tuple[str, int, str]:
    """Give the file with a mistake in it, the line that has to be named, and words of the mend."""
    before, after, at, mend = MISTAKES[mistake]
    text = right_text()
    if mistake == "gpsd without a receiver":
        text = text.replace('[receiver]\nkind = "pulse"\n', "")
    assert text.count(before) == 1, f"{before!r} is not there once"
    text = text.replace(before, after)
    place = re.search("^" + re.escape(at), text, re.M)
    assert place, f"no line begins with {at!r}"
    return text, text.count("\n", 0, place.start()) + 1, mend
