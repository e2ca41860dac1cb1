"""`gunfire-node locate` on files: what it reads, what it leaves out and says, how it ends."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from node.cli import cli
from node.errors import GunfireNodeError
from node.messages import parse_incident, replay_json
from node.network.admission import Admission
from node.network.locate_settings import InputSettings
from node.network.log_files import LogFiles
from node.network.medium import Weather
from tests.field.detections import SITE, Sender
from tests.hil.fleet_ca import FleetCa
from tests.hil.process import GUNFIRE_NODE
from tests.integration.test_locate import City, off_m
from tests.unit.locating import NotingLocator


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> FleetCa:
    return FleetCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def city(ca: FleetCa) -> City:
    return City(ca)


def run(*arguments: object, input: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["locate", *map(str, arguments)], input=input)


def noted(path: Path, **options: Any) -> tuple[NotingLocator, Admission, LogFiles]:
    locator = NotingLocator()
    admission = Admission(InputSettings(unsigned=True), live=False, **options)
    with LogFiles((path,)) as logs:
        for _ in logs.locate(locator, admission, Weather(), admission.places):
            pass
    return locator, admission, logs


def test_lines_of_every_kind_in_any_order_count_when_they_became_known(
    city: City, tmp_path: Path
) -> None:
    said = [city.senders["roof-1"].detection([float(at)], 1e-3) for at in range(5)]
    as_replayed = [replay_json(one) for one in said[:3]]
    topic, signed = city.sealed(said[3])
    lines = [
        f"{topic} ".encode() + signed,  # as mosquitto_sub -v prints it
        *reversed(as_replayed),
        b"",
        b'{"schema": "gunfire.status/1"}',
        b"{ torn",
        b'{"schema": "gunfire.detection/1", "site": 7}',
        b"x" * 2_000_000,
        replay_json(said[4]),
    ]
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(lines))
    locator, _, logs = noted(path)
    # roof-1's third was published just now, which is before a second after the onsets of others
    known = {one.event_id: moment for one, moment in zip(locator.pushed, range(9), strict=False)}
    assert [one.event_id for one in said[:3]] == sorted(
        (one.event_id for one in said[:3]), key=known.__getitem__
    )
    assert len(locator.pushed) == 5
    assert (logs.others, logs.unreadable) == (1, 3)
    assert locator.moments == sorted(locator.moments)
    assert locator.finished == 1


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (["none.jsonl"], "none.jsonl: is not there: give a file"),
        (["."], "is a folder: name the files in it"),
        (["wrong.jsonl"], "wrong.jsonl: holds no message of ours: give what gunfire-node replay"),
        (["log.jsonl", "wrong.jsonl"], "wrong.jsonl: holds no message of ours"),
        (["packed.gz"], "packed.gz: is compressed: unpack it first"),
        (["log.jsonl", "--nodes", "none.toml"], "none.toml: cannot be read: No such file"),
        (["log.jsonl", "--ca", "none.crt"], "none.crt: cannot be read: No such file"),
        (["log.jsonl", "--ca", "log.jsonl"], "log.jsonl: holds no certificate"),
        (["log.jsonl", "--weather", "log.jsonl"], "log.jsonl: says nothing of the weather"),
        (["log.jsonl", "--config", "log.jsonl"], "log.jsonl, line 1: is not TOML"),
        (["log.jsonl", "--map", "none/map.png"], "none: is not a folder to draw a map into"),
    ],
)
def test_what_cannot_be_read_ends_it_with_2_and_says_which_and_why(
    tmp_path: Path, city: City, monkeypatch: pytest.MonkeyPatch, files: list[str], what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.jsonl").write_bytes(b"\n[[node]]\nid = 3\n")
    Path("packed.gz").write_bytes(b"\x1f\x8b\x08rest")
    Path("log.jsonl").write_bytes(replay_json(city.shot(0)[0]) + b"\n")
    result = run(*files)
    assert isinstance(result.exception, GunfireNodeError)  # which `main` prints and ends with 2
    assert what in str(result.exception)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["log", "--broker", "mqtt://x"], "do not go together"),
        (["log", "--name", "x"], "do not go together"),
        (["--name", "", "--unsigned"], "--name is empty"),
        (["--every"], "go with a FILE"),
        (["--broker", "mqtt://x"], "whose detections are to count?"),
        (["log", "--crl", "x"], "go with --ca"),
        (["log", "--ca", "x", "--key", "x"], "not both"),
        (["--site", "a/b"], "is not a name"),
    ],
)
def test_options_that_do_not_go_together_are_told(words: list[str], what: str) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert what in result.output


def test_a_list_without_a_site_for_two_sites_is_told(city: City, tmp_path: Path) -> None:
    place = city.senders["roof-1"].place
    here = [Sender(name, place, site=name).detection([0.0], 1e-3) for name in ("east", "west")]
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(map(replay_json, here)))
    nodes = tmp_path / "NODES.toml"
    nodes.write_text('[[node]]\nid = "east"\nx_m = 0\ny_m = 0\nz_m = 0\n')
    result = run(path, "--nodes", nodes)
    assert "names no site, and detections are of east, west" in str(result.exception)
    assert run(path, "--nodes", nodes, "--site", "east").exit_code == 0


def test_with_a_ca_what_fails_is_left_out_and_named_with_its_line(
    city: City, ca: FleetCa, tmp_path: Path
) -> None:
    messages = [payload for _, payload in [*city.births(), *map(city.sealed, city.shot(0))]]
    forged = json.loads(messages[-1]) | {"seq": 99}
    messages += [json.dumps(forged).encode(), replay_json(city.shot(1)[0])]
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(messages))
    done = subprocess.run(
        [*GUNFIRE_NODE, "locate", path, "--ca", ca.certificate_file, "--jsonl"],
        capture_output=True,
        text=True,
        check=True,
    )
    told = done.stderr.splitlines()
    assert f"gunfire-node: {path}, line 13: forged: {SITE}/" in done.stderr
    assert f"gunfire-node: {path}, line 14: unsigned: {SITE}/" in done.stderr
    assert told[-1].endswith("from 6 detections of 6 nodes; left out: 1 forged, 1 unsigned")


def test_unsigned_ones_count_without_a_ca_and_a_line_says_so(city: City, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\n".join(map(replay_json, city.shot(0))))
    result = run(path, "--jsonl")
    assert result.exit_code == 0
    assert "6 detections are not signed" in result.stderr


def test_what_is_so_in_every_line_of_a_node_is_told_once(city: City, tmp_path: Path) -> None:
    path = tmp_path / "log"
    heard = [one for at in range(30) for one in city.shot(float(40 * at))[:2]]
    path.write_bytes(b"\n".join(map(replay_json, heard)))
    listed, unlisted = (one.node_id for one in heard[:2])
    nodes = tmp_path / "NODES.toml"
    place = "lat_deg = 40.5\nlon_deg = -80.0\nalt_m = 300\nsigma_m = 1"
    nodes.write_text(f'[[node]]\nid = "{listed}"\n{place}\n')
    told = run(path, "--nodes", nodes).stderr
    assert told.count(f"elsewhere: {SITE}/{listed}: says that it stands") == 1
    assert told.count(f"unlisted: {SITE}/{unlisted}: is not in the list") == 1
    assert "and more like these" not in told
    assert "left out: 30 unlisted" in told


def test_an_empty_log_is_no_incident_and_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\n\n")
    result = run(path)
    assert (result.exit_code, result.stdout) == (0, "no incident\n")


def test_shots_in_a_file_are_placed_and_drawn(city: City, tmp_path: Path) -> None:
    path = tmp_path / "log"
    heard = [*city.shot(0.0), *city.shot(1.0), *city.shot(40.0, (400.0, 100.0))]
    path.write_bytes(b"\n".join(map(replay_json, reversed(heard))))
    result = run(path, "--jsonl", "--map", tmp_path / "map.png")
    assert result.exit_code == 0, result.output
    first, second = map(parse_incident, result.stdout.splitlines())
    assert (first.round_count, second.round_count) == (2, 1)
    assert off_m(first) < 3
    assert off_m(second, (400.0, 100.0)) < 3
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    table = run(path)
    assert "2 rounds" in table.stdout
    every = run(path, "--every", "--jsonl").stdout.splitlines()
    assert len(every) > 2
    assert {parse_incident(line).incident_id for line in every} == {
        first.incident_id,
        second.incident_id,
    }
    piped = run("-", "--jsonl", input=path.read_bytes())
    assert piped.stdout == result.stdout


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules |= {'pyproj': None, 'matplotlib': None}; "
    program = f"{hidden}from node.cli import main; main()"
    done = subprocess.run(
        [GUNFIRE_NODE[0], "-c", program, "locate", tmp_path / "log"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("gunfire-node: locating needs pyproj")
    assert "pip install 'gunfire-node[network]'" in done.stderr
