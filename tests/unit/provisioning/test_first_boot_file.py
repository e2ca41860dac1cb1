"""A mistake in the first-boot file: laptop and node name line and mend alike."""

from __future__ import annotations

import itertools
import re
import ssl
import time
import tomllib
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from node.board.light import Code
from node.errors import ProvisioningError
from node.settings import Settings
from node.timing.host import utc_now_ns
from provisioning import first_boot
from provisioning.card.cli import cli
from provisioning.first_boot_file import FILLED, LARGEST_BYTES, load, parse, statements
from provisioning.memory import without_token
from provisioning.places import Places
from tests.unit.provisioning.cards import (
    BOARD,
    NOW_NS,
    SSH_KEY,
    TOKEN,
    authority,
    node,
    private_key,
    right_text,
)
from tests.unit.provisioning.mistakes import MISTAKES, PSK, spoilt


def by_laptop(file: Path) -> list[str]:
    done = CliRunner().invoke(cli, ["check", str(file)], standalone_mode=False)
    assert isinstance(done.exception, ProvisioningError), done.output
    return [line.replace(str(file), file.name) for line in str(done.exception).splitlines()]


def by_node(places: Places) -> list[str]:
    fault = first_boot.apply(places, utc_now_ns, BOARD)
    assert fault is not None
    assert (fault.code, fault.starts) == ("SETTINGS", False)
    words = places.error_file.read_bytes().decode("utf-8-sig")
    assert words.replace("\r\n", "").count("\n") == 0, "Notepad shows no such line end"
    assert f"{Code.SETTINGS.long} long, {Code.SETTINGS.short} short" in words
    assert not places.settings_file.exists()
    assert [line for line in words.split("\r\n") if line in fault.sentences] == [*fault.sentences]
    return [*fault.sentences]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_laptop_and_node_name_the_line_of_a_mistake_and_the_mend(
    mistake: str, tmp_path: Path
) -> None:
    text, line, mend = spoilt(mistake)
    places = node(tmp_path, text)
    told = by_laptop(places.card_file)
    assert by_node(places) == told
    assert len(told) == 1, told
    assert f"gunfire-node.toml, line {line}: " in told[0] or (
        f"gunfire-node.toml, line {line} and " in told[0]
    )
    assert mend in told[0]
    assert TOKEN not in told[0]
    assert PSK not in told[0]
    assert private_key().split("\n")[1][:20] not in told[0]


WHOLES: Final[dict[str, tuple[bytes | None, str]]] = {
    "not there": (None, "gunfire-card new makes it"),
    "empty": (b"", "says nothing; have it made anew"),
    "comments alone": (b"# [node]\r\n", "says nothing; have it made anew"),
    "too large": (b"#" * (LARGEST_BYTES + 1), "is larger than 64 KiB"),
    "UTF-16": (right_text().encode("utf-16"), "save it again with the encoding UTF-8"),
    "UTF-16 without a mark": (right_text().encode("utf-16-le"), "with the encoding UTF-8"),
    "Latin-1": (
        right_text().replace("riverside", "Flüsse").encode("latin-1"),
        "line 4: a character there is not UTF-8",
    ),
    "nested without end": (b"x = " + b"[" * 5000, "gunfire-node.toml"),
    "nested by dots": (b"a" + b".a" * 3000 + b" = 1", "is nested too deep"),
    "nested deeper than JSON": (b"a" + b".a" * 400 + b" = 1", "is nested too deep"),
    "zeros": (bytes(512), "begins with zeros"),
    "a table without a name": (right_text().encode() + b'[""]\n', '"": no such setting'),
}


@pytest.mark.parametrize("what", WHOLES)
def test_a_file_that_is_wrong_as_a_whole_is_refused_by_both(what: str, tmp_path: Path) -> None:
    data, mend = WHOLES[what]
    places = node(tmp_path, data)
    told = by_laptop(places.card_file)
    assert by_node(places) == told
    assert len(told) == 1
    assert mend in told[0]


def test_a_file_whose_ending_windows_hides_is_found(tmp_path: Path) -> None:
    places = node(tmp_path)
    places.card_file.with_name("gunfire-node.toml.txt").write_text("")
    assert "take .txt off its name" in by_node(places)[0]


def test_several_mistakes_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = right_text()
    for mistake in ("out of range", "kind of receiver", "a token cut short", "broker without TLS"):
        before, after, *_ = MISTAKES[mistake]
        text = text.replace(before, after)
    told = by_laptop(node(tmp_path, text).card_file)
    lines = [int(re.findall(r"line (\d+)", sentence)[0]) for sentence in told]
    assert lines == [8, 18, 21, 34]


def test_what_does_not_go_together_is_told_at_once_too(tmp_path: Path) -> None:
    text = right_text()
    for mistake in ("no name", "no site", "an unknown array", "gateway outside"):
        before, after, *_ = MISTAKES[mistake]
        text = text.replace(before, after)
    assert len(by_laptop(node(tmp_path, text).card_file)) == 4


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_file_that_notepad_saved_as_utf_8_is_right(mark: bytes, end: str) -> None:
    file = parse(mark + right_text().replace("\n", end).encode(), "x", NOW_NS)
    assert file.settings.node.id == "node-0001"
    assert file.settings.enrolment is not None
    assert file.settings.enrolment.ca == authority()


@pytest.mark.parametrize(
    "text",
    [
        f'enrolment = "{TOKEN}"\n',
        f'network = [{{wifi_psk = "{PSK}"}}]\n',
        f'mqtt = "{TOKEN}"\n',
        f'[network]\nssh_key = """\n{private_key()}"""\n',
        f'[network]\nwifi_ssid = """\n{private_key()}"""\n',
        f'[enrolment.ca]\ntoken = "{TOKEN}"\n',
        f'[enrolment]\nca = "{private_key().split(chr(10))[1]}"\n',
    ],
    ids=itertools.count(),  # a new key each time makes names that two workers do not agree on
)
def test_a_secret_in_a_wrong_place_is_not_shown(text: str) -> None:
    told = told_of(text.encode())
    assert told
    for secret in (TOKEN, PSK, private_key().split("\n")[1][:20]):
        assert secret not in told


@pytest.mark.parametrize(
    "pem",
    [authority().replace("\n", "\n  "), "  " + authority(), authority().replace("\n", " ") + "\n"],
)
def test_a_ca_s_certificate_is_written_as_openssl_takes_it(pem: str) -> None:
    file = parse(right_text().replace(authority(), pem).encode(), "x", NOW_NS)
    assert file.settings.enrolment is not None
    assert ssl.create_default_context(cadata=file.settings.enrolment.ca).cert_store_stats()[
        "x509_ca"
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('192.168.1.20/24"\ngateway = "192.168.1.1', 'fd00::20/64"\ngateway = "fe80::1'),
        ('gateway = "192.168.1.1"\n', ""),
        ('"192.168.1.1"]', '"192.168.1.1", "fe80::1%wlan0"]'),
        ("1.20/24", "1.20/31"),
        ("mqtts://broker.local", "mqtts://u:p%40@[fe80::1]"),
        ("enabled = true", "enabled = true\ntamper_pin = 23"),
        ("enabled = true", "led_pin = 4"),
        ('country = "MN"', f'country = "MN"\nssh_key = "{SSH_KEY}"'),
    ],
)
def test_what_is_right_beside_the_rest_is_taken(before: str, after: str) -> None:
    text = right_text()
    assert before in text
    text = text.replace(before, after)
    if "/31" in after:
        text = text.replace('gateway = "192.168.1.1"', 'gateway = "192.168.1.21"')
    assert told_of(text.encode()) == ""


def test_what_follows_from_what_is_said_is_filled_in() -> None:
    file = parse(right_text().encode(), "x", NOW_NS)
    assert file.settings.timing.gpsd == "localhost:2947"
    assert {table: dict(file.node_values[table]) for table in ("integrity", "timing")} == {
        "integrity": FILLED["integrity"],
        "timing": {"gpsd": "localhost:2947", "pps_channel": 4},
    }
    assert file.node_values["mqtt"] == {**FILLED["mqtt"], "url": "mqtts://broker.local:8883"}
    assert set(file.node_values) <= set(Settings.model_fields)


def test_what_the_file_says_itself_is_not_filled_over() -> None:
    text = right_text().replace("[mqtt]", '[mqtt]\nkey_file = "/run/credentials/mqtt.key"')
    text = text.replace("pps_channel = 4", 'pps_channel = 4\ngpsd = "10.0.0.2:2947"')
    file = parse(text.encode(), "x", NOW_NS)
    assert file.node_values["mqtt"]["key_file"] == "/run/credentials/mqtt.key"
    assert file.settings.timing.gpsd == "10.0.0.2:2947"


def test_a_file_that_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match="cannot be read"):
        load(tmp_path, NOW_NS)


_PIECES: Final = st.sampled_from(
    [
        *(b'"', b"'", b'"""', b"[", b"]", b"{", b"}", b"=", b"#", b"\n", b"\r", b"\0", b"\xff"),
        *(b"nan", b"1e999", b"9" * 5000, b"true", b"1979-05-27", b"\\n"),
        *(b"[[node]]", b"[enrolment.x]", b"mqtt = 1"),
    ]
)
_EDITS: Final = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.one_of(st.just(b""), _PIECES)),
    min_size=1,
    max_size=4,
)


def told_of(data: bytes) -> str:
    try:
        parse(data, "gunfire-node.toml", NOW_NS)
    except ProvisioningError as error:
        return str(error)
    return ""


@given(_EDITS)
@settings(max_examples=300)
def test_whatever_stands_in_a_file_is_taken_or_refused_in_words_without_a_secret(
    edits: list[tuple[float, int, bytes]],
) -> None:
    data = bytearray(right_text().encode())
    for place, length, piece in edits:
        at = int(place * len(data))
        data[at : at + length] = piece
    told = told_of(bytes(data))
    assert all(line.startswith("gunfire-node.toml") for line in told.splitlines())
    assert TOKEN not in told
    assert PSK not in told
    without = without_token(bytes(data))
    assert without_token(without) == without


def test_a_long_file_is_read_in_no_time() -> None:
    text = right_text() + "x = '''\n" + '"x, [1],"\n' * 4000 + "'''\n"
    begun_s = time.monotonic()
    with pytest.raises(ProvisioningError, match="no such setting"):
        parse(text.encode(), "x", NOW_NS)
    assert time.monotonic() - begun_s < 10


@pytest.mark.parametrize("opening", ['x = """\n', "x = [\n", "x = 1 1\n"])
def test_what_is_never_closed_is_found_in_no_time(opening: str) -> None:
    text = opening + ("{},\n" if "[" in opening else "},\n") * 9000
    begun_s = time.monotonic()
    assert "line 1: is not TOML" in told_of(text.encode())
    assert without_token(text.encode()) == text.encode()
    assert time.monotonic() - begun_s < 2


@pytest.mark.parametrize(
    "value",
    [
        '"""a\n]""""',
        "'''\n\"\"\"\n''''",
        '[ # ]\n"]", \']\', "\\"]",\n{a = [1]},\n]',
        '"""\\\n  a \\"""\n"""',
        '""',
        "[\n[\n],\n]",
    ],
)
def test_a_statement_goes_on_until_all_in_it_is_closed(value: str) -> None:
    text = f"[t]\na = {value}\nb = 1\n"
    assert set(tomllib.loads(text)["t"]) == {"a", "b"}
    first, last = 2, 2 + value.count("\n")
    assert [place[:2] for place in statements(text)] == [
        (1, 1),
        (first, last),
        (last + 1, last + 1),
    ]
