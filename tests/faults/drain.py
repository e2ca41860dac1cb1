"""A long queue drains fast, and what is new does not wait behind it: against a real Mosquitto.

10,000 detections wait when the broker comes back; one more is heard every tenth of a second. The
subscriber is another process; both read the one monotonic clock of the machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.deliver import Outbox
from node.network import PrivateBroker
from tests.evidence import Claim, Detail
from tests.integration.deliver_node import DETECTION_TOPIC, append, id_of, publisher
from tests.parts import Part, Tell

QUEUED: Final = 10_000
FRESH_EVERY_S: Final = 0.1
LEAST_PER_S: Final = 1_000
MOST_LATENCY_S: Final = 1.0
GIVE_UP_S: Final = 120.0
_OUTBOX_BYTES: Final = 2**27

# As Mosquitto comes, but for a queue that holds all for a subscriber of 20 messages at a time.
_STOCK: Final = "max_inflight_messages 20\nmax_queued_messages 0\n"
_AS_IT_COMES: Final = "persistence true\npersistence_location {folder}/\n" + _STOCK
_DURABLE: Final = _AS_IT_COMES + "autosave_on_changes true\nautosave_interval 1\n"


@dataclass(frozen=True)
class Drain:
    """What one drain showed."""

    per_s: float
    latencies_s: tuple[float, ...]
    lost: int
    doubled: int


def measure(tell: Tell) -> Part:
    """Drain twice: with Mosquitto's own persistence, and with acknowledgements that last."""
    with tempfile.TemporaryDirectory(prefix="gunfire-drain-") as scratch:
        folder = Path(scratch)
        tell(f"{QUEUED:,} detections are queued")
        queue_up(folder / "queue")
        tell("a queue drains, default persistence")
        stock = drain(folder / "queue", folder / "stock", _AS_IT_COMES)
        tell("a queue drains, durable acknowledgement")
        durable = drain(folder / "queue", folder / "durable", _DURABLE)
    queued = f"{QUEUED:,} queued detections drain"
    claims = [
        Claim(
            f"{queued}, Mosquitto's default persistence",
            stock.per_s,
            "/s",
            f"≥ {LEAST_PER_S:,}",
            stock.per_s >= LEAST_PER_S,
        ),
        Claim(f"{queued}, durable acknowledgement", durable.per_s, "/s"),
    ]
    for name, run in (("default persistence", stock), ("durable acknowledgement", durable)):
        worst_s = max(run.latencies_s, default=float("inf"))
        claims += [
            Claim(
                f"a new detection during that drain arrives, {name}: worst of "
                f"{len(run.latencies_s)}",
                worst_s,
                "s",
                f"≤ {MOST_LATENCY_S:g}",
                worst_s <= MOST_LATENCY_S,
            ),
            Claim(f"lost in that drain, {name}", run.lost, "", "0", run.lost == 0),
        ]
    rows = tuple(
        (
            name,
            f"{run.per_s:,.0f}",
            f"{sorted(run.latencies_s)[len(run.latencies_s) // 2] * 1000:.0f}",
            f"{max(run.latencies_s) * 1000:.0f}",
            str(run.doubled),
        )
        for name, run in (("default", stock), ("durable", durable))
        if run.latencies_s
    )
    columns = ("persistence", "drained /s", "new one: median ms", "worst ms", "doubled")
    return Part(tuple(claims), (Detail("A queue drains", columns, rows),))


def queue_up(folder: Path) -> None:
    """Make an outbox in which `QUEUED` detections wait; in memory, where there is such a disk."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="gunfire-drain-", dir=place) as scratch:
        with Outbox(Path(scratch) / "outbox.sqlite3", _OUTBOX_BYTES) as outbox:
            for number in range(QUEUED):
                append(outbox, number)
        shutil.copytree(scratch, folder)


def drain(queue: Path, folder: Path, configuration: str) -> Drain:
    """Let what waits in a queue go out, and hear more until all has arrived."""
    shutil.copytree(queue, folder)
    with (
        Outbox(folder / "outbox.sqlite3", _OUTBOX_BYTES) as outbox,
        PrivateBroker(extra=configuration.format(folder=folder)) as broker,
    ):
        return _drain(outbox, broker)


def _drain(outbox: Outbox, broker: PrivateBroker) -> Drain:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.drain", str(broker.port), str(QUEUED)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as listener:
        assert listener.stdin is not None
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"
        sender = publisher(outbox, broker.url)
        begun_ns = time.monotonic_ns()
        sender.start()
        heard_ns: dict[int, int] = {}
        all_sent = threading.Event()

        def hear() -> None:
            number = QUEUED
            while not all_sent.wait(FRESH_EVERY_S):
                heard_ns[number] = time.monotonic_ns()
                append(outbox, number)
                number += 1

        ears = threading.Thread(target=hear)
        ears.start()
        drained = listener.stdout.readline()
        all_sent.set()
        ears.join()
        sender.close(drain_s=20)
        listener.stdin.close()
        arrived = json.loads(listener.stdout.readline())
    assert drained == "drained\n"
    first_ns: dict[str, int] = {}
    for event_id, at_ns in arrived:
        first_ns.setdefault(event_id, at_ns)
    queued = [first_ns[id_of(n)] for n in range(QUEUED) if id_of(n) in first_ns]
    fresh = {n: first_ns.get(id_of(n)) for n in heard_ns}
    return Drain(
        per_s=len(queued) / ((max(queued) - begun_ns) / 1e9),
        latencies_s=tuple((at - heard_ns[n]) / 1e9 for n, at in fresh.items() if at is not None),
        lost=QUEUED - len(queued) + list(fresh.values()).count(None),
        doubled=len(arrived) - len(first_ns),
    )


def listen(port: int, count: int) -> None:
    """Hear until stdin ends; tell when `count` have come, and at the end what came when."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    came: list[tuple[bytes, int]] = []
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.on_connect = lambda *_: client.subscribe(DETECTION_TOPIC, qos=1)
    client.on_subscribe = lambda *_: print("listening", flush=True)

    def take(_c: object, _u: object, message: object) -> None:
        came.append((message.payload, time.monotonic_ns()))  # type: ignore[attr-defined]
        if len(came) == count:
            print("drained", flush=True)

    client.on_message = take
    client.connect("127.0.0.1", port)
    client.loop_start()
    late = threading.Timer(GIVE_UP_S, lambda: print("too slow", flush=True))
    late.daemon = True
    late.start()
    sys.stdin.read()
    client.disconnect()
    client.loop_stop()
    print(json.dumps([(json.loads(payload)["event_id"], at_ns) for payload, at_ns in came]))


if __name__ == "__main__":
    listen(int(sys.argv[1]), int(sys.argv[2]))
