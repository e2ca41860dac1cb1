"""A small node for the delivery tests: an outbox and a publisher; imported, or run to be killed.

As a program: `deliver_node.py OUTBOX URL FIRST COUNT` appends COUNT detections numbered from
FIRST, writes each event id on stdout once it is durable, and runs until it is killed.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from node.deliver import BrokerAddress, MqttPublisher, Outbox, Rendered, SessionOptions
from node.messages import (
    Detection,
    Origin,
    build_detection,
    build_status,
    event_id,
    node_topic,
    numbered,
    recording_boot_id,
    to_json,
    with_transport,
)
from node.types import (
    ClockQuality,
    Event,
    Impulse,
    Instant,
    Judgement,
    ModelIdentity,
    Rounds,
    Scores,
)

SITE, NODE_ID = "test-site", "node-1"
BOOT_ID = recording_boot_id(NODE_ID, 0)
ORIGIN = Origin(site=SITE, node_id=NODE_ID, boot_id=BOOT_ID, firmware="0.0.test")
START_NS = 1_600_000_000 * 10**9
DETECTION_TOPIC = node_topic(SITE, NODE_ID, "detection")
STATUS_TOPIC = node_topic(SITE, NODE_ID, "status")


def make_detection(number: int) -> Detection:
    """Make a detection whose name and onset follow from a number."""
    sample = number * 48_000
    return build_detection(
        ORIGIN,
        Event((Impulse(onset_sample=sample + 0.25, sigma_samples=2, snr_db=21, peak_dbfs=-6),)),
        Rounds((0,), is_minimum=False),
        [Instant(START_NS + number * 10**9, 1e-4)],
        Judgement(Scores(0.9, 0.06, 0.01, 0.03), "gunfire", False, "gunfire"),
        ClockQuality("ntp", 1e-3),
        ModelIdentity("test", "1", "0" * 64, 0.7, 0.4),
        direction=None,
        sample_rate_hz=48_000,
        channels=4,
    )


def id_of(number: int) -> str:
    return event_id(NODE_ID, BOOT_ID, number * 48_000)


def append(outbox: Outbox, number: int) -> int:
    detection = make_detection(number)
    return outbox.append(
        detection.event_id,
        detection.revision,
        START_NS + number * 10**9,
        lambda link: Rendered(to_json(numbered(detection, link.seq))),
    ).seq


def offline(reason: str) -> bytes:
    return to_json(build_status(ORIGIN, "offline", utc_ns=time.time_ns(), reasons=[reason]))


def online() -> bytes:
    return to_json(build_status(ORIGIN, "online", utc_ns=time.time_ns()))


def publisher(
    outbox: Outbox, url: str, protocol: Literal["5", "3.1.1"] = "5", **options: float
) -> MqttPublisher:
    return MqttPublisher(
        outbox,
        BrokerAddress.from_url(url, protocol=protocol),
        NODE_ID,
        SessionOptions(**{"keepalive_s": 5, "reconnect_max_s": 1, **options}),  # type: ignore[arg-type]
        detection_topic=DETECTION_TOPIC,
        status_topic=STATUS_TOPIC,
        offline=offline,
        stamp=with_transport,
        utc_now_ns=time.time_ns,
    )


def wait_until(claim: Callable[[], object], seconds: float = 15.0) -> bool:
    """Wait until a claim holds; say whether it came to."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        if claim():
            return True
        time.sleep(0.02)
    return bool(claim())


def main() -> None:
    path, url, first, count = sys.argv[1:]
    outbox = Outbox(Path(path), 2**26)
    sender = publisher(outbox, url)
    sender.start()
    sender.set_status(online())
    for number in range(int(first), int(first) + int(count)):
        append(outbox, number)
        print(id_of(number), flush=True)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
