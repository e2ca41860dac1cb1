"""The node under a service manager: the real daemon, a virtual card, the words of sd_notify(3)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from node.network import PrivateBroker
from tests.hil.process import GUNFIRE_NODE
from tests.hil.service_manager import ServiceManager
from tests.hil.virtual_card import VirtualCard, missing_tools

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_tools() is not None, reason=f"needs {missing_tools()}"),
]

STARTED_S = 40.0  # also where other tests run beside


@pytest.fixture
def card(tmp_path: Path, wavclock_plugin: Path) -> VirtualCard:
    rng = np.random.default_rng(1)
    frames = (rng.normal(0, 1e-3, (48_000 * 20, 2)) * 2**31).astype(np.int32)
    return VirtualCard(tmp_path / "card", wavclock_plugin, frames, 48_000, name="microphones_1")


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    with PrivateBroker(tmp_path / "broker") as broker:
        config = tmp_path / "node.toml"
        config.write_text(
            '[node]\nid = "roof-1"\nsite = "test"\n'
            '[capture]\ndevice = "microphones"\nchannels = 2\n'
            f'[outbox]\npath = "{tmp_path}/outbox.sqlite3"\n'
            f'[integrity]\nkey_file = "{tmp_path}/node.key"\n'
            f'[mqtt]\nurl = "{broker.url}"\n'
            f'[health]\nstatus_file = "{tmp_path}/status.json"\n'
        )
        yield config


@contextmanager
def started(
    config: Path, environment: dict[str, str], *more: str
) -> Iterator[subprocess.Popen[bytes]]:
    with (
        config.with_suffix(".log").open("wb") as log,
        subprocess.Popen(
            [*GUNFIRE_NODE, "run", "--config", config, *more], env=environment, stderr=log
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(180)
def test_a_missing_card_is_waited_for_and_taken_under_whatever_number_it_comes(
    tmp_path: Path, card: VirtualCard, config: Path
) -> None:
    with_card = card.configuration.read_text()
    card.configuration.write_text("</usr/share/alsa/alsa.conf>\n")
    with (
        ServiceManager(tmp_path) as manager,
        started(config, card.environment | manager.environment) as node,
    ):
        manager.wait_for("STATUS=does not hear yet; sound card: ", STARTED_S)
        for _ in range(3):
            manager.wait_for("EXTEND_TIMEOUT_USEC=", 10)
        said = json.loads((tmp_path / "status.json").read_text())
        assert said["light"]["code"] == "sound_card"
        assert said["condition"] == "failed"
        assert "READY=1" not in manager.heard

        new = card.configuration.with_suffix(".new")
        new.write_text(with_card.replace("microphones_1", "microphones_3"))
        new.replace(card.configuration)  # at once: the node looks at any moment
        manager.wait_for("READY=1", STARTED_S)
        for _ in range(3):
            manager.wait_for("WATCHDOG=1", 10)
        said = json.loads((tmp_path / "status.json").read_text())
        assert said["device"] == "microphones_3"
        assert "sound_card" not in {check["light"]["code"] for check in said["checks"]}

        card.unplug()
        assert node.wait(20) == 2
        assert manager.heard.count("READY=1") == 1
    # It takes two seconds to know that the card is gone; till then PortAudio says so, as fast as
    # the machine can (35 MB a second on one, 70 on another). Unhushed, it would go on to the end.
    assert config.with_suffix(".log").stat().st_size < 256 * 2**20, "PortAudio floods the log"


@pytest.mark.timeout(120)
def test_a_hung_node_feeds_no_watchdog(tmp_path: Path, card: VirtualCard, config: Path) -> None:
    with (
        ServiceManager(tmp_path) as manager,
        started(config, card.environment | manager.environment) as node,
    ):
        manager.wait_for("WATCHDOG=1", STARTED_S)
        os.kill(node.pid, signal.SIGSTOP)
        list(manager.words())
        assert list(manager.words(4)) == []
        os.kill(node.pid, signal.SIGCONT)
        manager.wait_for("WATCHDOG=1", 10)
        node.terminate()
        assert node.wait(20) == 0
        assert "STOPPING=1" in list(manager.words())


@pytest.mark.timeout(120)
def test_wrong_settings_are_shown_for_a_while_and_end_with_2(
    tmp_path: Path, card: VirtualCard, config: Path
) -> None:
    config.write_text(
        config.read_text() + '[board]\nenabled = true\n[node.position]\nlat = "north"\n'
    )
    environment = card.environment | {"GPIOZERO_PIN_FACTORY": "mock"}
    with (
        ServiceManager(tmp_path) as manager,
        started(config, environment | manager.environment) as node,
    ):
        manager.wait_for("STATUS=", STARTED_S)
        manager.wait_for("EXTEND_TIMEOUT_USEC=", 10)
        assert node.poll() is None
        node.terminate()
        assert node.wait(20) == 2
        assert "node.position" in manager.heard[0]
