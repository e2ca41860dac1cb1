"""The main job by itself: a simulated street through the whole daemon, truth beside what arrives.

Real are the daemon, its clock, the outbox, a Mosquitto of our own on loopback and the subscriber;
simulated is only the street, which plays in real time where the sound card would be.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from node.capture import SimulatedSource, built_in_arrays
from node.daemon import Daemon
from node.deliver import BrokerAddress
from node.messages import Detection
from node.network import PrivateBroker, Subscription
from node.settings import (
    CaptureSettings,
    IntegritySettings,
    MqttSettings,
    NodeSettings,
    OutboxSettings,
    Settings,
    TimingSettings,
)
from node.simulate.render import RenderedNode, render
from node.simulate.scene import load as load_scene
from node.simulate.scene import packaged as packaged_scene
from node.simulate.truth import Truth, TruthArrival, TruthSource
from node.timing import HostClock
from node.types import NS_PER_S, Label
from node.utc import parse_utc_ns

SCENE: Final = "street"
# Truth and detection are of one sound if they are closer than any two sounds of the street.
SAME_SOUND_NS: Final = 50_000_000
LARGEST_ONSET_ERROR_S: Final = 1e-3
LAST_WORD_S: Final = 1.0


@dataclass(frozen=True)
class Outcome:
    """What became of one sound of the scene, or of a detection that no sound explains.

    `onset_error_s` is the detection's time minus the truth's; `latency_s` goes from the sound's
    arrival to the detection's publication, `bearing_error_deg` is the detection's azimuth minus the
    truth's.
    """

    source: TruthSource | None
    distance_m: float | None
    detection: Detection | None
    onset_error_s: float | None = None
    latency_s: float | None = None
    bearing_error_deg: float | None = None

    @property
    def holds(self) -> bool:
        """Whether a shot was received as one, in time, and a look-alike as none."""
        heard = self.detection is not None and self.detection.grade != "not_gunfire"
        label: Label = "other" if self.source is None else self.source.label
        if label != "gunfire":
            # A look-alike must be received, and as what it is not: a deaf node proves nothing.
            return not heard and (self.source is None or self.detection is not None)
        error_s = self.onset_error_s
        return heard and error_s is not None and abs(error_s) <= LARGEST_ONSET_ERROR_S


@dataclass(frozen=True)
class Street:
    """A scene as its first node hears it, ready to be played."""

    node: RenderedNode
    truth: Truth

    @classmethod
    def load(cls, scene: Path | None = None) -> Street:
        """Read a scene; the packaged street if None."""
        rendered = render(load_scene(scene) if scene else packaged_scene(SCENE), built_in_arrays())
        return cls(rendered.nodes[0], rendered.truth)

    def distance_m(self, source: TruthSource) -> float:
        """Give the distance from a source to the node."""
        node = self.node.node
        return math.dist((source.x_m, source.y_m, source.z_m), (node.x_m, node.y_m, node.z_m))


def play(street: Street, heard: Callable[[Detection], None] = lambda _: None) -> list[Outcome]:
    """Play a street through a daemon in real time and compare what arrives with the truth.

    Parameters
    ----------
    heard
        Called on the subscriber's thread with each detection as it comes from the broker.

    Raises
    ------
    BrokerError
        There is no Mosquitto on this machine.
    """
    node = street.node.node
    source = SimulatedSource(street.node.frames(), street.node.scene.sample_rate_hz, paced=True)
    arrived: list[Detection] = []
    with TemporaryDirectory(prefix="gunfire-node-demo-") as folder, PrivateBroker() as broker:
        settings = Settings(
            node=NodeSettings(id=node.id, site="demo", height_m=node.z_m),
            capture=CaptureSettings(
                sample_rate_hz=source.sample_rate_hz,
                channels=source.channels,
                array=node.array or "mono",
                heading_deg=node.heading_deg,
                order_fixed=True,
            ),
            timing=TimingSettings(pps_channel=source.channels - 1 if node.pps else None),
            outbox=OutboxSettings(path=Path(folder) / "outbox.sqlite3"),
            integrity=IntegritySettings(key_file=Path(folder) / "node.key"),
            mqtt=MqttSettings(url=broker.url),
        )
        words = Subscription(BrokerAddress.from_url(broker.url), site="demo", kinds=["detection"])
        with words:
            listener = threading.Thread(
                target=_listen, args=(words, arrived, heard), name="demo-subscriber"
            )
            listener.start()
            Daemon(settings, source).run()
            # The daemon has left, so the broker has acknowledged all; it is with us in a moment.
            listener.join(LAST_WORD_S)
            words.close()
            listener.join()
    reading = HostClock().read()
    assert source.frame0_monotonic_ns is not None  # noqa: S101
    return compare(street, arrived, source.frame0_monotonic_ns + reading.utc_minus_monotonic_ns)


def compare(street: Street, arrived: Iterable[Detection], frame0_utc_ns: int) -> list[Outcome]:
    """Set each sound of a street beside the detection of it, by time; then what is left over."""
    left = sorted(arrived, key=lambda detection: detection.onset_utc)
    rate = street.node.scene.sample_rate_hz
    outcomes = []
    for arrival in street.truth.nodes[0].arrivals:
        utc = frame0_utc_ns + round(arrival.sample * NS_PER_S / rate)
        outcomes.append(_outcome(street, arrival, utc, left))
    explained = {outcome.detection.event_id for outcome in outcomes if outcome.detection}
    outcomes += [Outcome(None, None, d) for d in left if d.event_id not in explained]
    return outcomes


def _outcome(
    street: Street, arrival: TruthArrival, utc: int, detections: list[Detection]
) -> Outcome:
    source = street.truth.sources[arrival.source]
    distance_m = street.distance_m(source)
    errors = [
        (abs(parse_utc_ns(impulse.utc) - utc), parse_utc_ns(impulse.utc) - utc, detection)
        for detection in detections
        for impulse in detection.rounds
    ]
    if not errors or min(errors, key=lambda e: e[0])[0] > SAME_SOUND_NS:
        return Outcome(source, distance_m, None)
    _, error_ns, detection = min(errors, key=lambda e: e[0])
    published, direction = detection.transport, detection.direction
    return Outcome(
        source,
        distance_m,
        detection,
        onset_error_s=error_ns / NS_PER_S,
        latency_s=(parse_utc_ns(published.published_utc) - utc) / NS_PER_S if published else None,
        bearing_error_deg=None
        if direction is None
        else (direction.azimuth_deg - arrival.azimuth_deg + 180) % 360 - 180,
    )


def _listen(
    words: Subscription, arrived: list[Detection], heard: Callable[[Detection], None]
) -> None:
    for word in words:
        if isinstance(word.message, Detection):
            arrived.append(word.message)
            heard(word.message)
