"""Every kind of mistake in a first-boot file: what is replaced by what, and what has to be said."""

from __future__ import annotations

import re
from typing import Final

from tests.unit.provisioning.cards import SSH_KEY, TOKEN, authority, private_key, right_text

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
    "a comma in a number": ("channels = 5", "channels = 4,5", "channels", "a number has a point"),
    "a number with a 0 before it": ("channels = 5", "channels = 05", "channels", "no 0 before it"),
    # Names.
    "a table in double brackets": (
        "[enrolment]",
        "[[enrolment]]",
        "[[enrolment]]",
        "write [enrolment] in single brackets",
    ),
    "the network in double brackets": (
        "[network]",
        "[[network]]",
        "[[network]]",
        "write [network] in single brackets",
    ),
    "a name on two lines": ("[board]\n", '[board]\n"a\\nb" = 1\n', '"a', "no such setting"),
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
    "letters of no country": ('"MN"', '"EU"', "country", "is no country"),
    "letters that are not a country's own": ('"MN"', '"UK"', "country", "write GB"),
    "address with a mask": ("1.20/24", "1.20/255.255.255.0", "address", "such as 192.168.1.20/24"),
    "address with a mask of hosts": ("1.20/24", "1.20/0.0.0.255", "address", "its net as a number"),
    "address in a net of all": ("1.20/24", "1.20/0", "address", "its net as a number"),
    "address without its net": ("1.20/24", "1.20", "address", "such as 192.168.1.20/24"),
    "address of the net itself": ("1.20/24", "1.0/24", "address", "the net's own address"),
    "no address at all": ('gateway = "192.168.1.1"', 'gateway = "router"', "gateway", "no address"),
    "a server that is none": ('"ntp.local"', '"ntp local"', "ntp", "neither a host's name nor"),
    "a name server and more": (
        'dns = ["192.168.1.1"]',
        'dns = ["fe80::1%x\\nLLMNR=yes"]',
        "dns",
        "is no address",
    ),
    "a server that no address is": ('"ntp.local"', '"192.168.1.300"', "ntp", "neither a host's"),
    "a server and more": ('"ntp.local"', '"fe80::1%x\\nport 0"', "ntp", "neither a host's"),
    "a host without a label": ("mqtts://broker.local", "mqtts://b..local", "url", "neither a name"),
    "a password and a host that is none": (
        "mqtts://broker",
        f"mqtts://u:{TOKEN}@bro℀ker",
        "url",
        "its host or port is not right",
    ),
    "IPv6 without its brackets": (
        "mqtts://broker.local:8883",
        "mqtts://[::1:8883",
        "url",
        "an address of IPv6 stands in [ ]",
    ),
    "a key of SSH cut short": (
        'country = "MN"',
        f'country = "MN"\nssh_key = "{SSH_KEY[:40]}"',
        "ssh_key",
        "is not a whole key",
    ),
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
    "a token for a place": (
        'https://broker.local:8885"\ntoken',
        f'{TOKEN}"\ntoken',
        'url = "k',
        "must start with https://",
    ),
    "a private key for the CA's certificate": (
        authority(),
        private_key(),
        "ca =",
        "must not leave the fleet's machine",
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
    "gateway is the net": (
        'gateway = "192.168.1.1"',
        'gateway = "192.168.1.0"',
        "gateway",
        "the net's own address; write the router's",
    ),
    "gateway is for all": (
        'gateway = "192.168.1.1"',
        'gateway = "192.168.1.255"',
        "gateway",
        "the net's own address; write the router's",
    ),
    "a name server outside without a gateway": (
        'gateway = "192.168.1.1"\ndns = ["192.168.1.1"]',
        'dns = ["8.8.8.8"]',
        "address",
        "write the router's address as gateway",
    ),
    "a server outside without a gateway": (
        'gateway = "192.168.1.1"\ndns = ["192.168.1.1"]\nntp = ["ntp.local"]',
        'ntp = ["10.0.0.1"]',
        "address",
        "write the router's address as gateway",
    ),
    "a server's name without DNS": (
        'dns = ["192.168.1.1"]\nntp = ["ntp.local"]',
        'ntp = ["ntp.example.org"]',
        "address",
        "ntp.example.org is found by it",
    ),
    "enrolment by name without DNS": (
        'dns = ["192.168.1.1"]\nntp = ["ntp.local"]\n\n[enrolment]\nurl = "https://broker.local',
        '\n[enrolment]\nurl = "https://broker.example.org',
        "address",
        "broker.example.org is found by it",
    ),
    "the light on the pulse's pin": (
        "enabled = true",
        "enabled = true\nled_pin = 4",
        "led_pin",
        "for the receiver's pulse; take another",
    ),
    "the lid on the thermometer's pin": (
        "enabled = true",
        "enabled = true\nthermometer = true\ntamper_pin = 23",
        "tamper_pin",
        "for the thermometer; take another",
    ),
    "one of the brokers without TLS": (
        'url = "mqtts://broker.local:8883"',
        'urls = ["mqtts://a.local", "MQTT://b.local"]',
        "urls",
        "write mqtts://",
    ),
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
