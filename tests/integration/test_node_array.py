"""A node with an array and a receiver's pulse in a fifth channel: times, directions, revisions.

Real are the daemon, a Mosquitto and the subscriber; simulated are the street, and whoever
disciplines the host's clock.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Self

import paho.mqtt.client as mqtt
import pytest

from node.capture import SimulatedSource, built_in_arrays
from node.check import CLAP, Report, checks
from node.daemon import Daemon
from node.messages import Detection, Health, Status, parse_health
from node.network import PrivateBroker
from node.settings import Settings
from node.simulate.render import RenderedNode, render
from node.simulate.scene import parse
from node.timing import FakeHostClock
from node.types import NS_PER_S, ClockQuality
from node.utc import parse_utc_ns

pytestmark = pytest.mark.slow

RATE = 48_000
# Before the second of the pulse is known and after it: the host's clock is believed after 10 s, and
# its word five pulses later.
SHOTS_S = (2.5, 18.0, 21.0)
NTP = ClockQuality("ntp", 2e-3, 6e-3)


@pytest.fixture(scope="module")
def street() -> RenderedNode:
    sources = "\n".join(
        f'[[sources]]\nkind = "muzzle_blast"\ncalibre = "9mm"\ntime_s = {at}\n'
        f"x_m = {120.0 * (1 if i % 2 else -1)}\ny_m = 90.0\n"
        for i, at in enumerate(SHOTS_S)
    )
    scene = parse(
        'name = "array"\nduration_s = 24.0\nseed = 8\nstart_utc = 2026-06-01T12:00:00Z\n'
        "[street]\nnoise_db_a = 45.0\nground_reflection = 0.3\n"
        + sources
        + '[[nodes]]\nid = "mast-1"\nx_m = 0.0\ny_m = 0.0\nz_m = 6.0\nclock_ppm = 30.0\n'
        'array = "tetrahedron_200mm"\nheading_deg = 30.0\npps = true\n'
    )
    return render(scene, built_in_arrays()).nodes[0]


class Card(SimulatedSource):
    """Plays the street from a moment that is known before: the host's clock is right to 2 ms then.

    To set that clock when the card is opened would be a step of it.
    """

    def __init__(self, street: RenderedNode) -> None:
        super().__init__(street.frames(), RATE, paced=True)
        self._begin_ns = time.monotonic_ns() + 2 * NS_PER_S
        start_ns = round(street.scene.start_utc.timestamp()) * NS_PER_S
        self.clock = FakeHostClock(start_ns - self._begin_ns + 1_500_000, NTP)

    def __enter__(self) -> Self:
        super().__enter__()
        self.frame0_monotonic_ns = self._begin_ns
        return self


def settings_for(folder: Path, url: str, **capture: object) -> Settings:
    return Settings.model_validate(
        {
            "node": {"id": "mast-1", "site": "test"},
            "capture": {
                "channels": 5,
                "array": "tetrahedron_200mm",
                "heading_deg": 30.0,
                **capture,
            },
            "timing": {"pps_channel": 4, "chrony": False},
            "outbox": {"path": folder / "outbox.sqlite3"},
            "integrity": {"key_file": folder / "node.key"},
            "mqtt": {"url": url},
        }
    )


class Heard:
    """All that a node publishes."""

    def __init__(self, port: int) -> None:
        self.detections: list[Detection] = []
        self.statuses: list[Status] = []
        self.healths: list[Health] = []
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("gunfire/v1/test/mast-1/#", 1)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, client: object, userdata: object, message: mqtt.MQTTMessage) -> None:
        kind = message.topic.rpartition("/")[2]
        if kind == "detection":
            self.detections.append(Detection.model_validate_json(message.payload))
        elif kind == "status":
            self.statuses.append(Status.model_validate_json(message.payload))
        elif kind == "health":
            self.healths.append(parse_health(message.payload))

    def close(self) -> None:
        time.sleep(0.5)
        self._client.loop_stop()
        self._client.disconnect()


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory, street: RenderedNode) -> Heard:
    card = Card(street)
    with PrivateBroker() as broker, pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.daemon.HEALTH_S", 7.0)
        words = Heard(broker.port)
        Daemon(settings_for(tmp_path_factory.mktemp("node"), broker.url), card, card.clock).run()
        words.close()
    return words


def test_shots_get_their_direction_and_the_pulses_time_and_early_ones_a_revision(
    heard: Heard, street: RenderedNode
) -> None:
    start_ns = round(street.scene.start_utc.timestamp()) * NS_PER_S
    last = {d.event_id: d for d in heard.detections}
    assert len(last) == len(SHOTS_S)
    told = sorted(last.values(), key=lambda d: d.onset_utc)
    for arrival, detection in zip(street.arrivals(), told, strict=True):
        assert detection.round_count == 1
        true_ns = start_ns + round(arrival.sample * NS_PER_S / street.true_rate_hz)
        assert abs(parse_utc_ns(detection.onset_utc) - true_ns) < 4e9 * detection.rounds[0].sigma_s
        direction = detection.direction
        assert detection.clock.source == ("ntp" if detection is told[0] else "pps")
        if detection is not told[0]:
            assert abs(parse_utc_ns(detection.onset_utc) - true_ns) < 200_000
        assert direction is not None
        off = (direction.azimuth_deg - arrival.azimuth_deg + 180) % 360 - 180
        assert abs(off) < 1.5
        assert direction.elevation_deg is not None
        assert abs(direction.elevation_deg - arrival.elevation_deg) < 3.0
    early = [d for d in heard.detections if d.event_id == told[0].event_id]
    assert [d.revision for d in early] == list(range(len(early)))
    assert (early[0].clock.source, early[-1].type) == ("free", "update")
    assert early[-1].rounds[0].sigma_s < early[0].rounds[0].sigma_s


def test_health_tells_what_time_and_direction_rest_on(heard: Heard) -> None:
    health = heard.healths[-1]
    assert health.clock.source == "pps"
    assert health.sample_clock.method == "pps"
    assert health.sample_clock.rate_ppm == pytest.approx(30.0, abs=1.0)
    assert health.sample_clock.reason is None
    assert health.array.order_proven is True
    assert health.array.channels == 4
    assert all(floor is not None and floor < -40 for floor in health.array.floor_dbfs)
    first = heard.statuses[0]
    assert any("no direction is told" in reason for reason in first.reasons)
    assert not any("no direction is told" in reason for reason in heard.statuses[-2].reasons)


def test_check_shows_pulse_order_floor_and_a_claps_bearing(
    tmp_path: Path, street: RenderedNode
) -> None:
    """The street's own shots stand for the clap: the first after the order was proven counts."""
    source = SimulatedSource(street.frames(), RATE, paced=True)
    source.device_name, source.must_exit = "simulated", False  # type: ignore[attr-defined]
    asked: list[str] = []
    report = checks(
        settings_for(tmp_path, "mqtt://127.0.0.1:1"),
        source,  # type: ignore[arg-type]
        lambda what, _left_s: asked.append(what),
        clap_s=8.0,
    )
    said = {finding.name: finding for finding in report.findings}
    assert CLAP in asked
    assert said["pulse"].verdict == "pass"
    assert "0 missed, 0 refused, rising edge, peak" in said["pulse"].figure
    assert "card +30" in said["pulse"].figure
    assert said["channel order"].verdict == "pass"
    assert "in the trigger's band" in said["microphone 3"].figure
    assert "microphone 4" not in said
    assert said["clap"].verdict == "pass"
    azimuth_deg = street.arrivals()[1].azimuth_deg
    assert f"from azimuth {azimuth_deg:.0f}°" in said["clap"].figure, _lines(report)


def _lines(report: Report) -> str:
    return json.dumps([finding.figure for finding in report.findings], indent=1)
