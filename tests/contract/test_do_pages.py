"""What docs/do tells people to type, set and wire is there, and is what the code and units say.

Somebody on a ladder cannot ask: a wrong option or pin costs a second climb.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

from node.board.findings import CHECKS
from node.capture import built_in_arrays
from node.cli import cli
from node.messages.trust import Trust
from node.messages.verify import Report, Verifier
from node.settings import _TAKEN_PINS, BoardSettings, Settings
from provisioning.card.cli import cli as card_cli
from provisioning.first_boot_file import CardSettings
from provisioning.fleet.cli import cli as fleet_cli
from provisioning.places import Places
from tests.evidence import ROOT
from tests.hil.fleet_ca import FleetCa
from tests.unit.signed_log import NS, SignedNode

DO = ROOT / "docs" / "do"
PAGES = {page.name: page.read_text("utf-8") for page in sorted(DO.glob("*.md"))}
WIRE, INSTALL, MOUNT = (PAGES[f"{name}-a-node.md"] for name in ("wire", "install", "mount"))
WIRING = (DO / "wiring.svg").read_text("utf-8")
CONFIG_TXT = (ROOT / "systemd" / "boot" / "config.txt").read_text("utf-8")
SVG = "{http://www.w3.org/2000/svg}"

# The 40-pin header of every Raspberry Pi since the B+: GPIO numbers by pin; the rest is supply.
HEADER = {
    **{3: 2, 5: 3, 7: 4, 8: 14, 10: 15, 11: 17, 12: 18, 13: 27, 15: 22, 16: 23, 18: 24, 19: 10},
    **{21: 9, 22: 25, 23: 11, 24: 8, 26: 7, 27: 0, 28: 1, 29: 5, 31: 6, 32: 12, 33: 13, 35: 19},
    **{36: 16, 37: 26, 38: 20, 40: 21},
}
SUPPLY = {
    **dict.fromkeys((1, 17), "3V3"),
    **dict.fromkeys((2, 4), "5V"),
    **dict.fromkeys((6, 9, 14, 20, 25, 30, 34, 39), "GND"),
}


def code_of(text: str) -> Iterator[str]:
    """Give every line of shell and every span of code."""
    for language, block in re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, re.M | re.S):
        if language in ("", "sh"):
            yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"```.*?```", "", text, flags=re.S))


PROGRAMS: dict[str, click.Command] = {
    "gunfire-node": cli,
    "gunfire-card": card_cli,
    "gunfire-fleet": fleet_cli,
}


def commands_of(text: str, program: str = "gunfire-node") -> Iterator[list[str]]:
    """Give the words after each call of a program."""
    for code in code_of(text):
        code = re.sub(r"\s+#.*", "", code.strip())
        for part in re.split(r"[|;&>]+|\$\(", code):
            words = [word for word in part.split() if word not in ("$", "sudo")]
            if words and re.fullmatch(rf"(\S+/bin/)?{program}", words[0]) and len(words) > 1:
                yield words[1:]


COMMANDS = sorted({(page, *words) for page, text in PAGES.items() for words in commands_of(text)})
CALLS = sorted(
    {
        (page, program, *words)
        for page, text in PAGES.items()
        for program in PROGRAMS
        for words in commands_of(text, program)
    }
)


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_a_command_of_a_page_is_there_with_its_options(words: tuple[str, ...]) -> None:
    command = PROGRAMS[words[1]]
    rest = list(words[2:])
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        context = click.Context(command)
        found = command.get_command(context, rest[0])
        assert found is not None, f"{words[0]}: no such command: {rest[0]}"
        command, rest = found, rest[1:]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in options, f"{words[0]}: {word}"


def test_pages_do_call_the_command() -> None:
    called = {words[1] for words in COMMANDS}
    assert {"check", "status", "config", "watch", "replay", "verify"} <= called
    assert any(words[1:3] == ("check", "--mount") for words in COMMANDS)


@pytest.mark.parametrize(
    "option", sorted({o for t in PAGES.values() for o in re.findall(r"install (--[\w -]+)", t)})
)
def test_an_option_of_the_installer_is_in_its_help(option: str) -> None:
    usage = subprocess.run(
        [ROOT / "provisioning" / "install", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for word in re.findall(r"--[\w-]+", option):
        assert word in usage


def blocks() -> Iterator[tuple[str, str]]:
    for page, text in PAGES.items():
        for block in re.findall(r"^ *```toml\n(.*?)^ *```", text, re.M | re.S):
            yield page, block


@pytest.mark.parametrize(("page", "block"), list(blocks()))
def test_settings_of_a_page_exist(page: str, block: str) -> None:
    def each(given: dict[str, object], model: type[BaseModel], where: str) -> None:
        for name, value in given.items():
            assert name in model.model_fields, f"{page}: {where}{name}"
            annotation = model.model_fields[name].annotation
            for choice in (annotation, *getattr(annotation, "__args__", ())):
                is_section = isinstance(choice, type) and issubclass(choice, BaseModel)
                if isinstance(value, dict) and is_section:
                    each(value, choice, f"{where}{name}.")

    each(tomllib.loads(block), CardSettings if page == "flash-a-node.md" else Settings, "")


@pytest.mark.parametrize("which", ["A", "B", "C"])
def test_the_settings_of_a_reference_set_up_are_valid_as_they_stand(
    which: str, tmp_path: Path
) -> None:
    block = re.search(rf"^\*\*{which}\*\*.*?```toml\n(.*?)```", INSTALL, re.M | re.S)
    assert block
    file = tmp_path / "gunfire-node.toml"
    file.write_text(block[1], "utf-8")
    done = CliRunner().invoke(cli, ["config", "check", "--config", str(file)])
    assert done.exit_code == 0, done.output
    assert "settings are valid" in done.output
    settings = Settings.model_validate(tomllib.loads(block[1]))
    places = Places()
    assert settings.integrity.certificate_file == places.signing_certificate
    assert (settings.mqtt.ca_file, settings.mqtt.cert_file, settings.mqtt.key_file) == (
        places.authority_file,
        places.mqtt_certificate,
        places.mqtt_key,
    )
    microphones = settings.capture.microphones(settings.timing.pps_channel)
    assert len(microphones) == len(built_in_arrays()[settings.capture.array])
    assert settings.board.enabled


NAMED = re.compile(r"`([a-z]+)\.([a-z_]+)`")


def test_a_setting_that_is_named_in_a_page_exists() -> None:
    for page, text in PAGES.items():
        for section, name in NAMED.findall(text):
            field = Settings.model_fields.get(section)
            if field is None or not isinstance(field.annotation, type):
                continue  # a field of a message, a file
            known = field.annotation.model_fields
            assert name in known or section == "node", f"{page}: {section}.{name}"


def test_the_key_of_the_page_lies_where_the_service_keeps_its_own() -> None:
    unit = (ROOT / "systemd" / "gunfire-node.service").read_text("utf-8")
    assert "StateDirectory=gunfire-node\n" in unit
    assert "User=gunfire-node\n" in unit
    places = re.findall(r"key_file = \"(.*?)\"", INSTALL)
    assert set(places) == {"/var/lib/gunfire-node/mqtt.key"}


def test_a_line_of_check_that_a_page_looks_for_is_in_the_registry() -> None:
    for name in ("receiver", "pulse", "clock", "signing key", "outbox"):
        assert name in CHECKS
        assert any(f"`{name}`" in PAGES[page] for page in PAGES if page.endswith("a-node.md"))


def test_a_gpio_and_its_pin_are_one_wherever_they_are_named_together() -> None:
    told = [
        (page, int(gpio), int(pin))
        for page, text in PAGES.items()
        for gpio, pin in re.findall(r"GPIO (\d+) \(pin (\d+)\)", text)
    ]
    assert len(told) >= 8
    for page, gpio, pin in told:
        assert HEADER[pin] == gpio, f"{page}: GPIO {gpio} is not pin {pin}"
    for page, text in PAGES.items():
        for pin in re.findall(r"ground \(pin (\d+)\)", text):
            assert SUPPLY[int(pin)] == "GND", f"{page}: pin {pin} is no ground"
        for pin in re.findall(r"3V3 \(pin (\d+)\)", text):
            assert SUPPLY[int(pin)] == "3V3", f"{page}: pin {pin} is no 3V3"


TABLE = WIRE[WIRE.index("| part | from | to |") : WIRE.index("- *LED:*")]


def row_of(part: str) -> str:
    return next(line for line in TABLE.splitlines() if line.startswith(f"| {part}"))


def test_the_pins_of_the_page_are_those_of_settings_and_firmware() -> None:
    board = BoardSettings()
    assert f"GPIO {board.led_pin} " in row_of("light")
    assert f"GPIO {board.button_pin} " in row_of("button")
    pulse = re.search(r"pps-gpio,gpiopin=(\d+)", CONFIG_TXT)
    assert pulse
    assert f"GPIO {pulse[1]} " in row_of("receiver: pulse")
    tamper = re.search(r"GPIO (\d+)", row_of("switch on the lid"))
    thermometer = re.search(r"`dtoverlay=w1-gpio,gpiopin=(\d+)`", WIRE)
    assert tamper
    assert thermometer
    assert f"GPIO {thermometer[1]} " in row_of("thermometer")
    said = BoardSettings.model_fields["thermometer"].description
    assert f"gpiopin={thermometer[1]} " in str(said)
    pins = {board.led_pin, board.button_pin, int(pulse[1]), int(tamper[1]), int(thermometer[1])}
    assert len(pins) == 5
    assert not pins & set(_TAKEN_PINS)
    BoardSettings(enabled=True, tamper_pin=int(tamper[1]))


def test_the_page_on_the_light_wires_it_as_the_page_on_wiring_does() -> None:
    def rows(text: str) -> set[tuple[str, str]]:
        row = r"\| *(GPIO (?:17|27|22) \(pin \d+\)) \| *(ground \(pin \d+\))"
        return set(re.findall(row, text))

    assert len(rows(WIRE)) == 3
    assert rows(WIRE) == rows(PAGES["read-the-light.md"])


def test_the_drawing_names_every_pin_of_the_header_rightly() -> None:
    names = re.findall(r">(?:(\d+) · )?((?:GPIO \d+|GND|3V3|5V))(?: · (\d+))?</text>", WIRING)
    told = {int(before or after): name for before, name, after in names if before or after}
    assert told == {pin: f"GPIO {gpio}" for pin, gpio in HEADER.items()} | SUPPLY


def test_the_drawing_uses_the_pins_of_the_page_and_keeps_those_of_a_sound_hat_free() -> None:
    drawing = ET.fromstring(WIRING)  # noqa: S314 - our own file
    header = next(g for g in drawing.iter(f"{SVG}g") if g.get("id") == "header")
    kinds = [shape.get("class") for shape in header]
    assert len(kinds) == 40
    used = {pin for pin, kind in enumerate(kinds, 1) if kind == "used"}
    # Its supply is drawn, and in no row: some receivers take 3V3, some 5V.
    assert used == {int(pin) for pin in re.findall(r"\(pin (\d+)\)", TABLE)} | {4}
    free_for_hats = {pin for pin, gpio in HEADER.items() if gpio in (2, 3, 18, 19, 20, 21)}
    assert {pin for pin, kind in enumerate(kinds, 1) if kind == "keep"} == free_for_hats


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_the_divider_of_each_row_gives_the_level_that_the_row_says() -> None:
    ohms = {"kΩ": 1e3, "Ω": 1.0}
    rows = re.findall(
        r"^\| [^|]*?([+−]?\d+) dBu \| ([\d.]+) V \| ([\d.]+) (k?Ω) \| (−\d+) dBFS \|$", WIRE, re.M
    )
    assert len(rows) == 4
    for dbu, peak_v, r1, unit, dbfs in rows:
        full_v = math.sqrt(2e-3 * 600) * 10 ** (number(dbu) / 20)
        r1_ohm, r2_ohm = number(r1) * ohms[unit], 1e3
        level_dbfs = 20 * math.log10(3.3 * r2_ohm / (r1_ohm + r2_ohm) / full_v)
        assert full_v == pytest.approx(float(peak_v), rel=0.02)
        assert level_dbfs == pytest.approx(number(dbfs), abs=0.6)
        assert -20 <= level_dbfs <= -10
        assert f">{r1} {unit}<" in WIRING


def test_the_resistor_of_the_light_and_the_lengths_of_cable_are_as_computed() -> None:
    ohms = (3.3 - 2.0) / 4e-3
    assert ohms == pytest.approx(325)
    assert "= 325 Ω, so 330 Ω" in WIRE
    assert ">330 Ω<" in WIRING
    row = r"^\| (?:Pi|Zero)[^|]*\| ([\d.]+) A \| ([\d.]+) m \| ([\d.]+) m \|$"
    rows = re.findall(row, WIRE, re.M)
    assert len(rows) == 3
    for amperes, thin_m, thick_m in rows:
        for area_mm2, length_m in ((0.75, thin_m), (1.5, thick_m)):
            longest_m = (5.1 - 4.75) * area_mm2 / (2 * 0.0175 * float(amperes))
            assert float(length_m) == pytest.approx(longest_m, rel=0.02)


def test_the_drawing_numbers_the_microphones_as_the_built_in_arrays_do() -> None:
    drawing = (DO / "mounting.svg").read_text("utf-8")
    for name, title in (("tetrahedron_200mm", "Tetrahedron."), ("square_65mm", "Square.")):
        part = drawing[drawing.index(f"<!-- {title} -->") :].partition("y axis")[0]
        drawn = {
            int(k): (float(x), float(y))
            for x, y, k in re.findall(r'<text class="b m" x="(\d+)" y="(\d+)"[^>]*>(\d)<', part)
        }
        assert sorted(drawn) == [0, 1, 2, 3]
        places = built_in_arrays()[name][:, :2]
        middle = [sum(xy[i] for xy in drawn.values()) / 4 for i in (0, 1)]
        seen = [(drawn[k][0] - middle[0], middle[1] - drawn[k][1]) for k in range(4)]
        scale = max(map(math.hypot, *zip(*seen, strict=True))) / max(
            math.hypot(*xy) for xy in places.tolist()
        )
        for (x, y), place in zip(seen, places.tolist(), strict=True):
            assert math.dist((x / scale, y / scale), place) < 0.002


def links() -> Iterator[tuple[str, str]]:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" not in target:
                yield page, target


def anchors(text: str) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(("page", "target"), sorted(set(links())))
def test_a_link_of_a_page_leads_somewhere(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = DO / path if path else DO / page
    assert file.exists()
    if anchor:
        assert anchor in anchors(file.read_text("utf-8"))


def test_every_page_is_in_the_readmes_list() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [page for page in PAGES if f"(docs/do/{page})" not in readme] == []


def judged(ca: FleetCa, lines: list[bytes]) -> Report:
    verifier = Verifier(Trust.of_authority(ca.certificate_file.read_bytes(), None))
    for line in lines:
        verifier.gather(line)
    for i, line in enumerate(lines, 1):
        verifier.take(line, i)
    return verifier.report(1)


@pytest.mark.parametrize("moved", [True, False])
def test_a_new_key_goes_on_with_the_chain_that_moved_and_doubles_one_that_did_not(
    moved: bool, tmp_path: Path
) -> None:
    ca = FleetCa(tmp_path)
    old = SignedNode("node-0001", dt.datetime.now(dt.UTC), Ed25519PrivateKey.generate())
    new = SignedNode("node-0001", dt.datetime.now(dt.UTC), Ed25519PrivateKey.generate())
    for box in (old, new):
        box.certified(ca)
    new.begin_ns += 3600 * NS
    log = [old.birth(), *(old.detection() for _ in range(5)), old.checkpoint()]
    if moved:
        new.seq, new.head = old.seq, old.head
    log += [new.birth(), *(new.detection() for _ in range(5)), new.checkpoint()]
    kinds = {finding.kind for finding in judged(ca, log).findings}
    assert kinds == (set() if moved else {"doubled"})
