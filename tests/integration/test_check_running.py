"""`gunfire-node check` beside a node that runs: asks it, and neither stops it nor throws it out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from node.network import PrivateBroker
from tests.hil.virtual_card import VirtualCard, missing_tools
from tests.units.good_node import MICROPHONES, RATE, bang
from tests.units.guided import Answer, answered
from tests.units.surroundings import PPM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(missing_tools() is not None, reason=f"needs {missing_tools()}"),
]
BEARING_DEG = 70.0
CTRL_C = "\x03"
# A shell that runs the tests in its background has its children deaf to Ctrl-C.
ANSWERS = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
PROGRAM = ["-c", f"{ANSWERS}; from node.cli import main; main()"]


def program(*arguments: object) -> list[str]:
    return [sys.executable, *PROGRAM, *map(str, arguments)]


def sound(seconds: int, channels: int) -> np.ndarray:
    """Give noise as a 24-bit converter has it."""
    noise = np.random.default_rng(3).normal(0, 1e-3, (seconds * RATE, channels))
    return (np.round(noise * 2**23).astype(np.int32)) << 8


@pytest.fixture
def running(
    tmp_path: Path, wavclock_plugin: Path
) -> Iterator[tuple[Path, VirtualCard, subprocess.Popen]]:
    heard = sound(90, MICROPHONES)
    for at in range(2, 88, 3):
        bang(heard, at, BEARING_DEG)
    card = VirtualCard(tmp_path / "card", wavclock_plugin, heard, RATE, ppm=PPM)
    config = tmp_path / "node.toml"
    with PrivateBroker(tmp_path / "broker") as broker:
        config.write_text(
            '[node]\nid = "roof-1"\nsite = "test"\n'
            '[capture]\ndevice = "microphones"\narray = "tetrahedron_200mm"\norder_fixed = true\n'
            f'[outbox]\npath = "{tmp_path}/outbox.sqlite3"\n'
            f'[integrity]\nkey_file = "{tmp_path}/node.key"\n'
            f'[mqtt]\nurl = "{broker.url}"\n'
            f'[health]\nstatus_file = "{tmp_path}/status.json"\n'
        )
        with (
            (tmp_path / "node.log").open("wb") as log,
            subprocess.Popen(
                program("run", "--config", config), env=card.environment, stderr=log
            ) as node,
        ):
            try:
                wait_until_it_hears(tmp_path / "status.json")
                yield config, card, node
            finally:
                node.kill()


def wait_until_it_hears(file: Path) -> None:
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        if file.exists():
            facts = json.loads(file.read_text())
            if facts["hears"] and facts["broker"]["connected"] and facts["uptime_s"] > 3:
                return
        time.sleep(0.2)
    raise TimeoutError("the node does not hear")


def test_a_running_node_is_asked_for_card_and_broker_and_hears_a_clap_undisturbed(
    running: tuple[Path, VirtualCard, subprocess.Popen],
) -> None:
    config, card, node = running
    done = subprocess.run(
        program("check", "--clap", "--json", "--config", config),
        env=card.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    report = json.loads(done.stdout)
    lines = {line["name"]: line for line in report["checks"]}
    assert report["running"]["pid"] == node.pid
    assert done.stderr.splitlines() == ["CLAP ONCE, some metres from the array"]
    assert lines["sound card"]["verdict"] == "pass"
    assert "microphones" in lines["sound card"]["figure"]
    assert lines["broker"]["figure"] == "connected"
    assert lines["channel order"]["verdict"] == "pass"
    assert lines["model"]["verdict"] == "pass"
    assert lines["clap"]["verdict"] == "pass"
    assert re.match(r"heard, \d+ dB over the background, from", lines["clap"]["figure"])
    azimuth_deg = float(lines["clap"]["figure"].partition("azimuth ")[2].split("°")[0])
    assert azimuth_deg == pytest.approx(BEARING_DEG, abs=5)
    assert done.returncode == 0, [line for line in lines.values() if line["verdict"] == "fail"]
    assert node.poll() is None
    log = config.with_name("node.log").read_text()
    assert log.count("connected to mqtt") == 1
    assert "another client" not in log

    guided = subprocess.run(
        program("check", "--mount", "--config", config),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert guided.returncode == 2
    assert "needs a terminal" in guided.stderr


def test_a_mounting_with_one_microphone_is_guided_at_a_terminal(
    tmp_path: Path, wavclock_plugin: Path
) -> None:
    """No taps and no claps: quiet, sky, broker, verdict."""
    card = VirtualCard(tmp_path / "card", wavclock_plugin, sound(40, 1), RATE, name="single")
    config = tmp_path / "node.toml"
    with PrivateBroker() as broker:
        config.write_text(
            '[capture]\ndevice = "single"\nchannels = 1\n'
            f'[outbox]\npath = "{tmp_path}/outbox.sqlite3"\n[mqtt]\nurl = "{broker.url}"\n'
            f'[health]\nstatus_file = "{tmp_path}/status.json"\n'
        )
        code, said = answered(
            program("check", "--mount", "--config", config),
            card.environment,
            [Answer("Quiet now"), Answer("The sky"), Answer("The broker")],
            tmp_path / "card" / "truth.json",
            deadline_s=60.0,
        )
    assert code == 0, said
    assert "1. Quiet now" in said
    assert "2. The sky" in said
    assert "3. The broker" in said
    assert "Rub capsule" not in said
    assert "microphones: 1 of 1 work" in said
    assert "READY" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("guided", [False, True])
def test_ctrl_c_ends_it_at_once_and_cleanly(
    tmp_path: Path, wavclock_plugin: Path, guided: bool
) -> None:
    card = VirtualCard(tmp_path / "card", wavclock_plugin, sound(30, 1), RATE, name="single")
    config = tmp_path / "node.toml"
    config.write_text(
        '[capture]\ndevice = "single"\nchannels = 1\n[timing]\nchrony = false\n'
        f'[outbox]\npath = "{tmp_path}/outbox.sqlite3"\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n'
        f'[health]\nstatus_file = "{tmp_path}/status.json"\n'
    )
    more = ["--mount"] if guided else []
    answers = [Answer("Quiet now"), Answer(" s ", CTRL_C, 2.0)]
    code, said = answered(
        program("check", *more, "--config", config),
        card.environment,
        answers if guided else answers[1:],
        tmp_path / "card" / "truth.json",
        deadline_s=30.0,
    )
    assert code == 130, said
    assert "stopped" in said
    assert "Traceback" not in said
