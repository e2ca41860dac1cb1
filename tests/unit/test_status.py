"""What the node that runs here says of itself: its file as it is read, and how that looks."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from node.cli import cli
from node.cli.status import screen
from node.errors import StatusError
from node.keeper import MOST_STALL_S
from node.status import FRESH_S, LocalStatus, duration
from tests.hil.process import GUNFIRE_NODE

NOBODY = 2**22 + 1  # beyond the kernel's largest process number


def record(name: str, verdict: str = "pass", figure: str = "well", advice: str = "") -> Any:
    return {"name": name, "verdict": verdict, "figure": figure, "advice": advice}


SHOT = {
    "onset_utc": "2026-07-04T22:13:05.204120833Z",
    "grade": "probable_gunfire",
    "label": "gunfire",
    "round_count": 3,
    "scores": {"gunfire": 0.79, "fireworks": 0.1, "backfire": 0.0, "other": 0.11},
    "direction": {"azimuth_deg": 39.5, "elevation_deg": None, "sigma_deg": 0.3},
    "snr_db": 31.0,
}
MISS = {"utc": "2026-07-04T22:13:07.100000000Z", "kind": "quiet", "sentence": "2 dB too quiet"}


def written(folder: Path, **changes: Any) -> Path:
    facts = {
        "written_monotonic_s": time.monotonic(),
        "pid": os.getpid(),
        "hears": True,
        "condition": "ok",
        "light": {"code": "well", "long": 0, "short": 0, "meaning": "hears; all is well"},
        "checks": [record("sound card"), record("broker")],
        "site": "test",
        "node_id": "roof-1",
        "firmware": "0.1.0",
        "uptime_s": 90.0,
        "utc": "2026-07-04T22:13:09.000000000Z",
        "clock": {"source": "pps", "sigma_s": 1.2e-7},
        "detections": [],
        "near_misses": [],
        **changes,
    }
    file = folder / "status.json"
    file.write_text(json.dumps(facts))
    return file


def looks(file: Path, *, why: bool = False, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(screen(LocalStatus.read(file), why))
    return console.export_text()


@pytest.mark.parametrize(
    ("changes", "headline", "well"),
    [
        ({}, "HEARS, all is well", True),
        ({"condition": "degraded"}, "HEARS, but something is wrong", True),
        ({"condition": "failed"}, "FAILED", False),
        ({"hears": False}, "DOES NOT HEAR", False),
        ({"pid": NOBODY}, "HANGS OR ENDED", False),
        ({"written_monotonic_s": time.monotonic() - 3 * FRESH_S - 60}, "HANGS OR ENDED", False),
        ({"written_monotonic_s": time.monotonic() + 1e6}, "HANGS OR ENDED", False),
    ],
)
def test_only_a_node_that_still_writes_hears_and_has_no_failure_is_well(
    tmp_path: Path, changes: dict[str, Any], headline: str, well: bool
) -> None:
    status = LocalStatus.read(written(tmp_path, **changes))
    assert status.headline.startswith(headline)
    assert status.well is well


@pytest.mark.parametrize(
    ("age_s", "changes", "headline", "code"),
    [
        (FRESH_S - 5, {}, "HEARS, all is well", 0),
        (25, {}, "KEEPS ITS WORD BACK: its last is 25 s old", 0),
        (25, {"condition": "failed"}, "KEEPS ITS WORD BACK", 1),
        (25, {"hears": False}, "KEEPS ITS WORD BACK", 1),
        (25, {"pid": NOBODY}, "HANGS OR ENDED", 1),
        (FRESH_S + MOST_STALL_S - 5, {}, "KEEPS ITS WORD BACK", 0),
        (FRESH_S + MOST_STALL_S + 1, {}, "HANGS OR ENDED", 1),
    ],
)
def test_a_node_that_waits_for_its_disk_is_not_told_to_hang(
    tmp_path: Path, age_s: float, changes: dict[str, Any], headline: str, code: int
) -> None:
    file = written(tmp_path, written_monotonic_s=time.monotonic() - age_s, **changes)
    config = tmp_path / "node.toml"
    config.write_text(f'[health]\nstatus_file = "{file}"\n')
    shown = CliRunner().invoke(cli, ["status", "--config", str(config)], env={"COLUMNS": "200"})
    assert f"roof-1 at test: {headline}" in shown.stdout
    assert ("a slow disk may be why" in shown.stdout) == headline.startswith("KEEPS")
    assert shown.exit_code == code


def test_what_may_be_wrong_and_is_not_known_is_not_shown_in_green(tmp_path: Path) -> None:
    console = Console(force_terminal=True, color_system="standard", file=io.StringIO())
    with console.capture() as shown:
        file = written(tmp_path, written_monotonic_s=time.monotonic() - 25)
        console.print(screen(LocalStatus.read(file), why=False))
    assert "\x1b[33mKEEPS ITS WORD BACK" in shown.get()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"written_monotonic_s": null}', "\xff"]
)
def test_a_file_that_is_no_status_is_named_and_what_to_do_with_it(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "status.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(StatusError, match=r"status\.json: is not a node's status; remove it"):
        LocalStatus.read(file)


def test_no_file_and_no_setting_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StatusError, match="no node runs here"):
        LocalStatus.read(tmp_path / "status.json")
    with pytest.raises(StatusError, match=r"health\.status_file is not set"):
        LocalStatus.read(None)
    with pytest.raises(StatusError, match=r"cannot be read: Is a directory; set health\.status"):
        LocalStatus.read(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-3.0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.0, "59 min 59 s"),
        (3600.0, "1 h 0 min"),
        (86_399.0, "23 h 59 min"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_a_length_of_time_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_the_screen_says_each_check_and_what_to_do_where_it_is_not_well(tmp_path: Path) -> None:
    name = "broker mqtt://[fe80::1]:1883"
    checks = [record("sound card"), record(name, "warn", "not reached for 30 s", "see it")]
    light = {"code": "no_broker", "long": 1, "short": 1, "meaning": "no broker"}
    told = looks(written(tmp_path, condition="degraded", checks=checks, light=light))
    assert "roof-1 at test: HEARS, but something is wrong" in told
    assert "up 1 min 30 s, 2026-07-04T22:13:09Z by pps ± 1.2e-07 s" in told
    assert "1 long, 1 short: no broker" in told
    assert f"{name} not reached for 30 s" in told
    assert "→ see it" in told
    assert "nothing heard yet" in told


def test_what_was_heard_last_is_said_and_what_nearly_fired_only_if_asked(tmp_path: Path) -> None:
    file = written(tmp_path, detections=[SHOT], near_misses=[MISS])
    told = looks(file)
    assert "2026-07-04T22:13:05.204Z  probable gunfire" in told
    assert "gunfire 0.79, 3 rounds, from 40°" in told
    assert MISS["sentence"] not in told
    assert f"2026-07-04T22:13:07.100Z  {MISS['sentence']}" in looks(file, why=True)
    assert "nothing nearly fired" in looks(written(tmp_path), why=True)


def test_of_an_array_a_detection_without_a_direction_says_so(tmp_path: Path) -> None:
    shots = [SHOT | {"direction": None}]
    assert "3 rounds\n" in re.sub(" +\n", "\n", looks(written(tmp_path, detections=shots)))
    checks = [record("channel order")]
    assert "3 rounds, no direction" in looks(written(tmp_path, detections=shots, checks=checks))


@pytest.mark.parametrize(
    ("changes", "code"),
    [({}, 0), ({"condition": "degraded"}, 0), ({"condition": "failed"}, 1), ({"pid": NOBODY}, 1)],
)
def test_programs_read_the_file_as_it_is_and_the_verdict_by_the_exit_code(
    tmp_path: Path, changes: dict[str, Any], code: int
) -> None:
    file = written(tmp_path, **changes)
    config = tmp_path / "node.toml"
    config.write_text(f'[health]\nstatus_file = "{file}"\n')
    done = CliRunner().invoke(cli, ["status", "--json", "--config", str(config)])
    assert done.exit_code == code
    assert json.loads(done.stdout) == json.loads(file.read_text())
    shown = CliRunner().invoke(cli, ["status", "--config", str(config)])
    assert shown.exit_code == code
    assert "roof-1 at test" in shown.stdout


@pytest.mark.parametrize(
    "changes",
    [
        *({name: None} for name in ("light", "checks", "utc", "uptime_s", "clock", "detections")),
        *({"written_monotonic_s": value} for value in (math.nan, math.inf, 10**400)),
        {"pid": "1\0"},
        {"uptime_s": math.inf},
        {"checks": [{"name": "broker"}]},
        {"checks": [record("broker", "odd")]},
    ],
)
def test_a_status_of_another_version_or_a_spoilt_one_is_told_in_a_line(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(StatusError):
        looks(written(tmp_path, **changes))


def test_a_phone_held_upright_shows_names_above_figures(tmp_path: Path) -> None:
    name = "second opinion time.example.org"
    checks = [record("clock"), record(name, "warn", "no answer in 9 s", "check the name")]
    told = looks(written(tmp_path, checks=checks), width=40).splitlines()
    at = next(i for i, line in enumerate(told) if name in line)
    assert told[at - 2].rstrip() == "pass clock"
    assert [line.strip() for line in told[at + 1 : at + 3]] == [
        "no answer in 9 s",
        "→ check the name",
    ]


def test_a_terminal_that_knows_few_characters_shows_the_others_as_question_marks(
    tmp_path: Path,
) -> None:
    config = tmp_path / "node.toml"
    file = written(tmp_path, checks=[record("broker", "warn", "away", "see to it")])
    config.write_text(f'[health]\nstatus_file = "{file}"\n')
    done = subprocess.run(
        [*GUNFIRE_NODE, "status", "--config", str(config)],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "? see to it" in done.stdout


def test_programs_read_every_character_whatever_the_terminal_knows(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    file = written(tmp_path, checks=[record("temperature", "warn", "81 °C → \U0001f525")])
    file.write_text(json.dumps(json.loads(file.read_text()), ensure_ascii=False), "utf-8")
    config.write_text(f'[health]\nstatus_file = "{file}"\n')
    done = subprocess.run(
        [*GUNFIRE_NODE, "status", "--json", "--config", str(config)],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(file.read_text("utf-8"))
    assert len(done.stdout.splitlines()) == 1


def test_nothing_that_is_found_steers_the_terminal(tmp_path: Path) -> None:
    checks = [record("broker \x1b[2J", "warn", "\x1b[2Jgone", "see \x9b2J")]
    assert looks(written(tmp_path, checks=checks)).replace("\n", "").isprintable()


@pytest.mark.parametrize("as_json", [True, False])
def test_whoever_watches_by_a_pipe_outlives_a_node_that_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    file = written(tmp_path)
    config = tmp_path / "node.toml"
    config.write_text(f'[health]\nstatus_file = "{file}"\n')
    moments: Iterator[Callable[[], object]] = iter(
        [file.unlink, lambda: written(tmp_path, uptime_s=1.0)]
    )

    def sleep(_seconds: float) -> None:
        moment = next(moments, None)
        if moment is None:
            raise KeyboardInterrupt
        moment()

    monkeypatch.setattr("node.cli.status.time.sleep", sleep)
    monkeypatch.setenv("COLUMNS", "300")
    more = ["--json"] if as_json else []
    done = CliRunner().invoke(cli, ["status", *more, "--watch", "--config", str(config)])
    assert done.exit_code == 0
    if not as_json:
        looks = re.findall(r"^(roof-1 at test|up [^,]*|.*no node runs here)", done.stdout, re.M)
        assert looks == [
            "roof-1 at test", "up 1 min 30 s", f"{file}: no node runs here",
            "roof-1 at test", "up 1 s",
        ]  # fmt: skip
        return
    assert [json.loads(line)["uptime_s"] for line in done.stdout.splitlines()] == [90.0, 1.0]
