"""What the nodes of a fleet say: genuine, signed, and of the size that a node's words have."""

from __future__ import annotations

import time
import uuid
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.messages import (
    Array,
    ArrayHealth,
    CheckHealth,
    Microphone,
    Origin,
    OutboxStatus,
    Position,
    Privacy,
    SampleClockHealth,
    build_detection,
    build_health,
    build_node,
    build_status,
    node_topic,
    numbered,
    to_json,
)
from node.messages.signing import Signer
from node.messages.topics import Kind
from node.types import (
    NS_PER_S,
    ClockQuality,
    Direction,
    Event,
    Impulse,
    Instant,
    Judgement,
    ModelIdentity,
    Rounds,
    Scores,
)

SITE: Final = "city"
RATE_HZ: Final = 48_000
ROUNDS: Final = 2
CHECKS: Final = 14
"""That a node with a receiver and an array tells of itself."""
_CLOCK: Final = ClockQuality("pps", 1.2e-7, 7e-7, True)
_MODEL: Final = ModelIdentity("gunfire-node", "1.0.0", "9f" * 32, 0.79, 0.65)
_PRIVACY: Final = Privacy(snippets=False, snippet_seconds=0, publish_rejected=True)
_MICROPHONE: Final = Microphone(x_m=0.1, y_m=0.1, z_m=0.05)
_JUDGED: Final = Judgement(Scores(0.91, 0.06, 0.01, 0.02), "gunfire", False, "gunfire")


def name_of(number: int) -> str:
    """Name a node of the fleet."""
    return f"node-{number:04d}"


class Words:
    """One node's: a chain of detections, and what else it says."""

    def __init__(self, number: int) -> None:
        where = Position(
            lat_deg=52.5 + number / 1000, lon_deg=13.4 + number / 777, alt_m=51.5, sigma_m=1.5
        )
        self.origin = Origin(SITE, name_of(number), str(uuid.uuid4()), "0.0.test", where)
        self._signer = Signer(Ed25519PrivateKey.generate())
        self._head: str | None = None
        self._said = 0

    def topic(self, kind: Kind) -> str:
        """Give the topic of one of its kinds of messages."""
        return node_topic(SITE, self.origin.node_id, kind)

    def detection(self) -> bytes:
        """Give the next one, linked to the one before and signed; not sent yet."""
        self._said += 1
        sample = self._said * RATE_HZ
        onsets = [sample + 0.25 + 9_000 * i for i in range(ROUNDS)]
        bearing = Direction(39.5, -5.2, 0.34, 0.001)
        detection = build_detection(
            self.origin,
            Event(tuple(Impulse(o, 1.8, 31.2, -14.1, direction=bearing) for o in onsets)),
            Rounds(tuple(range(ROUNDS)), is_minimum=False),
            [Instant(time.time_ns() + i * NS_PER_S // 5, 1e-4) for i in range(ROUNDS)],
            _JUDGED,
            _CLOCK,
            _MODEL,
            direction=bearing,
            sample_rate_hz=RATE_HZ,
            channels=4,
        )
        sealed, self._head = self._signer.seal(numbered(detection, self._said), self._head)
        return to_json(sealed)

    def birth(self) -> bytes:
        """Give its birth message."""
        array = Array(
            name="tetrahedron_200mm",
            channels=4,
            sample_rate_hz=RATE_HZ,
            microphones=(_MICROPHONE,) * 4,
        )
        node = build_node(
            self.origin,
            utc_ns=time.time_ns(),
            array=array,
            model=_MODEL,
            key=self._signer.key,
            privacy=_PRIVACY,
        )
        return to_json(self._signer.sign(node)[0])

    def status(self) -> bytes:
        """Give its status, which is well."""
        outbox = OutboxStatus(depth=0, dropped=0)
        return to_json(
            build_status(
                self.origin,
                "online",
                utc_ns=time.time_ns(),
                clock=_CLOCK,
                lost_samples=0,
                outbox=outbox,
            )
        )

    def health(self) -> bytes:
        """Give its health."""
        checks = tuple(
            CheckHealth(
                name=f"check {i}", verdict="pass", figure="as it should be, 12.5 of 20", advice=""
            )
            for i in range(CHECKS)
        )
        return to_json(
            build_health(
                self.origin,
                utc_ns=time.time_ns(),
                uptime_s=86_400.0,
                clock=_CLOCK,
                sample_clock=SampleClockHealth(
                    method="pps", rate_ppm=12.5, pulses=86_000, missed=3, refused=0, reason=None,
                    host_steps=0,
                ),
                chrony=None,
                receiver=None,
                array=ArrayHealth(
                    sample_rate_hz=RATE_HZ, channels=4, lost_samples=0,
                    floor_dbfs=(-71.5, -71.2, -71.9, -70.8), order_proven=True,
                    order_reason="the pulse is in channel 4",
                ),
                outbox=OutboxStatus(depth=0, dropped=0),
                condition="ok",
                checks=checks,
            )
        )  # fmt: skip
