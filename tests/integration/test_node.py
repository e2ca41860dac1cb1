"""The whole node: a sound card with a clock of its own, the daemon, a real Mosquitto, a subscriber.

Every part is real but the card, which is an ALSA plug-in (tests/hil/wavclock) that plays a
simulated street, loses frames, or vanishes on command.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from deliver_node import wait_until

from node.deliver import BrokerAddress
from node.messages import Detection, Status
from node.network import PrivateBroker, Subscription
from node.simulate.render import RenderedNode
from node.utc import parse_utc_ns
from tests.hil import shots
from tests.hil.shots import SHOT_EVERY_S, detections, onset_errors_ns
from tests.hil.virtual_card import Truth, VirtualCard, missing_tools

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing_tools() is not None, reason=f"needs {missing_tools()}"),
]


@dataclass(frozen=True)
class Stage:
    """A card that plays a street of shots, and a configuration to hear it with."""

    card: VirtualCard
    street: RenderedNode
    broker: PrivateBroker
    config: Path

    @property
    def log(self) -> Path:
        return self.config.with_suffix(".log")

    def onsets_utc_ns(self, truth: Truth) -> list[float]:
        return [truth.utc_ns(arrival.sample) for arrival in self.street.arrivals()]


@pytest.fixture(scope="module")
def street() -> RenderedNode:
    return shots.street(45.0)


@pytest.fixture
def stage(tmp_path: Path, wavclock_plugin: Path, street: RenderedNode) -> Iterator[Stage]:
    card = VirtualCard(tmp_path / "card", wavclock_plugin, street.frames(), 48_000, ppm=25.0)
    config = tmp_path / "node.toml"
    with PrivateBroker(tmp_path / "broker") as broker:
        config.write_text(
            f'[node]\nid = "roof-1"\nsite = "test"\n'
            f'[capture]\ndevice = "{card.name}"\narray = "tetrahedron_200mm"\n'
            f'[outbox]\npath = "{tmp_path}/outbox.sqlite3"\n'
            f'[integrity]\nkey_file = "{tmp_path}/node.key"\n'
            f'[mqtt]\nurl = "{broker.url}"\nreconnect_max_s = 2\n'
        )
        yield Stage(card, street, broker, config)


@contextmanager
def running_node(stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    # Ours may be ignored, where the tests run under nohup.
    default = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    program = [sys.executable, "-c", f"{default}; from node.cli import main; main()"]
    with (
        stage.log.open("wb") as log,
        subprocess.Popen(
            [*program, "run", "--config", stage.config], env=stage.card.environment, stderr=log
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def subscribed(stage: Stage, **options: object) -> Subscription:
    return Subscription(BrokerAddress.from_url(stage.broker.url), site="test", **options)  # type: ignore[arg-type]


def assert_on_time(stage: Stage, heard: list[Detection]) -> None:
    onsets = stage.onsets_utc_ns(stage.card.truth())
    shots.assert_on_time(heard, onset_errors_ns(heard, onsets))


def last_status(words: Subscription, seconds: float) -> Status:
    statuses = [w.message for w in words.within(seconds) if isinstance(w.message, Status)]
    return statuses[-1]


@pytest.mark.timeout(180)
def test_shots_arrive_with_right_times_whatever_the_card_loses(stage: Stage) -> None:
    with subscribed(stage, kinds=["detection"]) as words, running_node(stage) as node:
        heard = detections(words, 20, wanted=3)
        assert len(heard) == 3
        assert_on_time(stage, heard)
        assert {d.audio.channels for d in heard} == {4}

        stage.card.skip(500)
        heard = detections(words, 20, wanted=3)
        assert len(heard) == 3
        assert_on_time(stage, heard)
        with subscribed(stage, kinds=["status"]) as statuses:
            lost_in_silence = last_status(statuses, 2).lost_samples
        assert lost_in_silence == pytest.approx(500, abs=48)

        node.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        node.send_signal(signal.SIGCONT)
        heard = detections(words, 20, wanted=3)
        assert len(heard) == 3
        assert_on_time(stage, heard)
        with subscribed(stage, kinds=["status"]) as statuses:
            status = last_status(statuses, 2)
        assert status.lost_samples is not None
        assert status.lost_samples > lost_in_silence
        assert status.state == "degraded"
        assert any("samples lost" in reason for reason in status.reasons)


@pytest.mark.timeout(120)
def test_an_unplugged_card_is_noticed_within_5_s_told_and_ends_the_process(stage: Stage) -> None:
    with subscribed(stage) as words, running_node(stage) as node:
        assert detections(words, 20, wanted=1)
        stage.card.unplug()
        unplugged_s = time.monotonic()
        assert node.wait(15) == 2
        assert time.monotonic() - unplugged_s < 5 + 1.0  # and the farewell to the broker
        assert "has delivered nothing for 2 s" in stage.log.read_text()
        statuses = [w.message for w in words.within(1) if isinstance(w.message, Status)]
    assert [s.state for s in statuses][-2:] == ["degraded", "offline"]
    assert any("has delivered nothing" in reason for reason in statuses[-2].reasons)


@pytest.mark.timeout(180)
def test_broker_stopped_and_node_killed_lose_and_double_nothing(stage: Stage) -> None:
    # A subscriber that the broker remembers: one that comes back late would miss what came before.
    lasting = {"client_id": "auditor", "session_expiry_s": 3600}
    with subscribed(stage, kinds=["detection"], **lasting) as words:
        with running_node(stage) as node:
            heard = detections(words, 20, wanted=2)
            stage.broker.stop()
            time.sleep(3 * SHOT_EVERY_S)
            os.kill(node.pid, signal.SIGKILL)
            node.wait()
        stage.broker.start()
        with running_node(stage) as node:
            heard += detections(words, 40, wanted=6)
            node.send_signal(signal.SIGTERM)
            assert node.wait(20) == 0
            heard += detections(words, 2, wanted=100)
    numbers = sorted(detection.seq for detection in heard)
    assert numbers == list(range(1, len(numbers) + 1)), "every event arrives, none twice"
    assert len({d.event_id for d in heard}) == len(heard)
    first_boot = heard[0].boot_id
    waited = [d for d in heard if d.boot_id == first_boot][2:]
    assert len(waited) >= 2
    assert all(d.transport is not None and d.transport.delayed for d in waited)
    fresh = [d for d in heard[:2] if d.transport is not None and not d.transport.delayed]
    assert len(fresh) == 2


@pytest.mark.timeout(90)
def test_a_full_disk_is_told_and_loses_nothing(stage: Stage) -> None:
    with subscribed(stage) as words, running_node(stage) as node:
        heard = detections(words, 20, wanted=1)
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))
        assert detections(words, 2.5 * SHOT_EVERY_S, wanted=1) == []
        with subscribed(stage, kinds=["status"]) as statuses:
            status = last_status(statuses, 2)
        assert status.state == "degraded"
        assert any("wait in memory" in reason for reason in status.reasons)
        resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        heard += detections(words, 2 * SHOT_EVERY_S, wanted=3)
    assert [detection.seq for detection in heard] == [1, 2, 3, 4]
    gaps_s = np.diff([parse_utc_ns(detection.onset_utc) / 1e9 for detection in heard])
    assert gaps_s == pytest.approx(SHOT_EVERY_S, abs=0.01)


@pytest.mark.timeout(60)
def test_a_node_with_a_broken_model_times_what_it_hears_and_says_so(stage: Stage) -> None:
    model = stage.config.with_name("broken.tflite")
    model.write_bytes(b"TFL3")
    with stage.config.open("a") as config:
        config.write(f'[classify]\nmodel = "{model}"\npublish_rejected = false\n')
    with subscribed(stage, kinds=["detection"]) as words, running_node(stage):
        (detection,) = detections(words, 20, wanted=1)
        with subscribed(stage, kinds=["status"]) as statuses:
            status = last_status(statuses, 2)
    assert_on_time(stage, [detection])
    assert detection.abstained
    assert detection.grade == "not_gunfire"
    assert detection.model.name == "none"
    assert any("broken" in reason for reason in status.reasons)


@pytest.mark.timeout(60)
def test_a_device_that_is_not_there_is_told_and_ends_with_2(stage: Stage) -> None:
    stage.config.write_text(stage.config.read_text().replace(stage.card.name, "no such card"))
    with subscribed(stage, kinds=["status"]) as words, running_node(stage) as node:
        assert node.wait(20) == 2
        statuses = [w.message for w in words.within(1) if isinstance(w.message, Status)]
    assert "sound device 'no such card' is not there; set capture.device" in stage.log.read_text()
    assert [s.state for s in statuses][-2:] == ["degraded", "offline"]
    assert any("no such card" in reason for reason in statuses[-1].reasons)


@pytest.mark.timeout(120)
def test_a_node_without_a_broker_hears_and_keeps(stage: Stage) -> None:
    status = stage.config.with_name("status.json")
    with stage.config.open("a") as config:
        config.write(f'[health]\nstatus_file = "{status}"\n')

    def keeps_two() -> bool:
        return status.exists() and json.loads(status.read_text())["outbox"]["depth"] >= 2

    stage.broker.stop()
    with running_node(stage) as node:
        assert wait_until(keeps_two, 40)
        node.send_signal(signal.SIGINT)
        assert node.wait(20) == 0
    stage.broker.start()
    with subscribed(stage, kinds=["detection"]) as words, running_node(stage) as node:
        heard = detections(words, 10, wanted=2)
        node.send_signal(signal.SIGHUP)
        assert node.wait(20) == 0
    assert len(heard) == 2
    assert all(d.transport is not None and d.transport.delayed for d in heard)
