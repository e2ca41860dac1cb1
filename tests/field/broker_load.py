"""How long an incident takes through a real broker, at a thousand signed detections a second.

Everything is on this machine: Mosquitto, `gunfire-node locate` as it is deployed, with the fleet's
CA, a publisher in a process of its own that sends what was signed beforehand when it is due, and
the subscriber, which is this process. Clocks are the machine's one.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from node.messages import (
    Array,
    Microphone,
    Node,
    Origin,
    Privacy,
    build_node,
    build_status,
    incident_topic,
    node_topic,
    parse_incident,
    to_json,
)
from node.messages.detection import Local
from node.messages.signing import Signer
from node.messages.wire import with_transport
from node.network import PrivateBroker
from node.types import NS_PER_S, ModelIdentity
from tests.evidence import Claim, Detail
from tests.field.city import at_least, at_most
from tests.field.detections import SITE, Sender
from tests.field.stream import Fired, Stream
from tests.hil.fleet_ca import FleetCa
from tests.parts import Part, Tell

SEED: Final = 20_274
NODES: Final = 2000
PER_S: Final = 1000.0
SECONDS: Final = 40
WARM_S: Final = 10.0
# Of shots that late not every node's word has come when the publisher ends.
END_S: Final = 5.0
PREPARE_S: Final = 40.0
SETTLE_S: Final = 10.0
STEP_S: Final = 0.002

P99_S: Final = 0.5
TOLD: Final = 95.0

# Queues long enough that whatever is too slow shows as lateness, not as loss.
_BROKER: Final = "max_queued_messages 0\nmax_inflight_messages 1000\nset_tcp_nodelay true"
# A clean session without a name and without a keep-alive (MQTT 3.1.1 §3.1, §3.2, §3.4, §3.14).
_CONNECT: Final = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"
_CONNACK: Final = b"\x20\x02\x00\x00"
_PUBACK_BYTES: Final = 4
_DISCONNECT: Final = b"\xe0\x00"
_MICROPHONE: Final = Microphone(x_m=0, y_m=0, z_m=0)
_MODEL: Final = ModelIdentity("gunfire-node", "1.0.0", "9f" * 32, 0.7, 0.35)
_PRIVACY: Final = Privacy(snippets=False, snippet_seconds=0, publish_rejected=True)


@dataclass(frozen=True)
class Due:
    """A message ready to be sent.

    Attributes
    ----------
    at_s
        When, in s after the begin.
    event_id
        Of its detection.
    """

    at_s: float
    topic: str
    payload: bytes
    event_id: str


@dataclass(frozen=True)
class Passed:
    """What came of it.

    Attributes
    ----------
    sent, sent_per_s, latest_s
        Detections, how many a second, and by how much the publisher was late at most.
    shots, told
        Shots that three nodes or more heard themselves, and those an incident came of.
    waits_s
        From when the third of these was handed to the broker to the first incident; negative where
        two had been enough.
    incidents
        Revisions that came.
    busy
        Cores that the locator took, its children's among them.
    report
        What the locator says of itself in the end.
    """

    sent: int
    sent_per_s: float
    latest_s: float
    shots: int
    told: int
    waits_s: tuple[float, ...]
    incidents: int
    busy: float
    report: str


class Fleet:
    """Signed births and detections of a stream's nodes."""

    def __init__(self, ca: FleetCa, senders: Sequence[Sender]) -> None:
        self._signers: dict[str, Signer] = {}
        self._heads: dict[str, str | None] = {}
        self._senders = senders
        for sender in senders:
            key = Ed25519PrivateKey.generate()
            issued = ca.issue(sender.node_id, organization=sender.site, key=key)
            self._signers[sender.node_id] = Signer(key, issued.certificate.read_text())
            self._heads[sender.node_id] = None

    def births(self, utc_ns: int) -> Iterator[tuple[str, bytes]]:
        """Give each node's birth message and status, each with its topic."""
        for sender in self._senders:
            local = sender.place if isinstance(sender.place, Local) else None
            position = None if local is not None else sender.place
            assert not isinstance(position, Local)
            origin = Origin(
                sender.site, sender.node_id, sender.boot_id, "0.0.test", position, local
            )
            said: Node = build_node(
                origin,
                utc_ns=utc_ns,
                array=Array(
                    name="mono", channels=1, sample_rate_hz=48_000, microphones=(_MICROPHONE,)
                ),
                model=_MODEL,
                key=self._signers[sender.node_id].key,
                privacy=_PRIVACY,
            )
            signed, _ = self._signers[sender.node_id].sign(said)
            yield node_topic(sender.site, sender.node_id, "node"), to_json(signed)
            online = to_json(build_status(origin, "online", utc_ns=utc_ns))
            yield node_topic(sender.site, sender.node_id, "status"), online

    def signed(self, stream: Stream, begin_ns: int, seconds: float) -> Iterator[list[Due]]:
        """Give what is to be sent, second by second."""
        for deliveries in stream.slices(seconds):
            ready = []
            for delivery in deliveries:
                said = delivery.detection
                head = self._heads[said.node_id]
                sealed, self._heads[said.node_id] = self._signers[said.node_id].seal(said, head)
                published_ns = begin_ns + round(delivery.at_s * NS_PER_S)
                payload = with_transport(to_json(sealed), published_ns, delayed=False)
                topic = node_topic(said.site, said.node_id, "detection")
                ready.append(Due(delivery.at_s, topic, payload, said.event_id))
            yield ready


def through_a_broker(
    nodes: int,
    per_s: float,
    seconds: int,
    *,
    warm_s: float = WARM_S,
    prepare_s: float = PREPARE_S,
    progress: Callable[[str], None] = lambda what: None,
) -> Passed:
    """Send a stream through Mosquitto and the locator; give how long incidents take.

    Raises
    ------
    RuntimeError
        Signing took longer than `prepare_s`, or the locator ended.
    """
    with tempfile.TemporaryDirectory() as scratch, PrivateBroker(extra=_BROKER) as broker:
        folder = Path(scratch)
        ca = FleetCa(folder / "ca")
        begin_ns = time.time_ns() + round(prepare_s * NS_PER_S)
        stream = Stream(nodes, SEED, per_s, begin_ns)
        fleet = Fleet(ca, stream.senders)
        progress("births")
        _keep(broker.port, fleet.births(time.time_ns()))
        with _locator(broker.url, ca, folder) as (locator, told):
            file = folder / "due.jsonl"
            sent_ids: list[str] = []
            with file.open("w") as lines:
                for number, due in enumerate(fleet.signed(stream, begin_ns, seconds)):
                    progress(f"signing: {number + 1} of {seconds} s")
                    for one in due:
                        sent_ids.append(one.event_id)
                        lines.write(json.dumps([one.at_s, one.topic, one.payload.decode()]) + "\n")
            if time.time_ns() > begin_ns:
                raise RuntimeError(f"signing took longer than {prepare_s:g} s")
            with _subscriber(broker.port) as came:
                log = folder / "sent.json"
                publisher = subprocess.Popen(
                    [
                        sys.executable, "-m", "tests.field.broker_load",
                        str(broker.port), str(file), str(begin_ns), str(log),
                    ]
                )  # fmt: skip
                try:
                    busy = _watch(locator, publisher, begin_ns, warm_s, seconds, progress)
                finally:
                    if publisher.poll() is None:
                        publisher.terminate()
                    publisher.wait(10)
                time.sleep(SETTLE_S)
            if locator.poll() is not None:
                raise RuntimeError(f"the locator ended: {told.read_text()}")
        report = told.read_text().strip().splitlines()[-1]
        sent_s = np.array(json.loads(log.read_text()))
        due_s = begin_ns / NS_PER_S + np.array(
            [json.loads(line)[0] for line in file.read_text().splitlines()]
        )
        at = dict(zip(sent_ids, sent_s.tolist(), strict=True))
        last_s = seconds - END_S
        shots = [
            one for one in stream.fired if warm_s <= one.at_s < last_s and len(one.direct) >= 3
        ]
        first = first_told(came, shots)
        waits_s = [
            first[i] - sorted(at[event] for event in shot.direct if event in at)[2]
            for i, shot in enumerate(shots)
            if i in first
        ]
        return Passed(
            len(sent_s),
            len(sent_s) / float(sent_s.max() - sent_s.min()),
            float(np.max(sent_s - due_s)),
            len(shots),
            len(first),
            tuple(waits_s),
            len(came),
            busy,
            report,
        )


def first_told(came: Sequence[tuple[float, bytes]], shots: Sequence[Fired]) -> dict[int, float]:
    """Give when the first incident came that rests on each shot, by the shot's number.

    It rests on a shot if it uses what two nodes at least heard of it.
    """
    of = {event: i for i, shot in enumerate(shots) for event in shot.direct}
    first: dict[int, float] = {}
    for at_s, payload in came:
        incident = parse_incident(payload)
        if incident.type == "cancel":
            continue
        witnesses = [
            of[node.event_id] for node in incident.nodes if node.used and node.event_id in of
        ]
        for shot in set(witnesses):
            if witnesses.count(shot) >= 2:
                first.setdefault(shot, at_s)
    return first


def measure(tell: Tell) -> Part:
    """Measure how long incidents take through a real broker."""
    passed = through_a_broker(NODES, PER_S, SECONDS, progress=lambda what: tell(f"broker: {what}"))
    waits_s = np.array(passed.waits_s) if passed.waits_s else np.array([1e3])
    p50_s, p99_s = np.quantile(waits_s, [0.5, 0.99])
    where = f"through Mosquitto, {PER_S:g} signed detections/s, {NODES:,} nodes"
    claims = (
        at_most(f"third node's message to incident, {where}, 99th percentile", p99_s, "s", P99_S),
        Claim(f"third node's message to incident, {where}, median", p50_s, "s"),
        at_least(
            "shots that three nodes heard, told",
            100 * passed.told / max(passed.shots, 1),
            "% of shots",
            TOLD,
        ),
    )
    detail = Detail(
        f"{where}, on {psutil.cpu_count()} cores with broker, publisher and subscriber",
        ("figure", "value"),
        (
            ("detections sent", f"{passed.sent:,}, {passed.sent_per_s:,.0f} a second"),
            ("publisher late by at most", f"{1e3 * passed.latest_s:.0f} ms"),
            ("cores that the locator took", f"{passed.busy:.2f}"),
            ("shots", f"{passed.shots}, told {passed.told}"),
            ("told when two had been enough", f"{int(np.sum(waits_s < 0))}"),
            ("wait, 90th percentile", f"{np.quantile(waits_s, 0.9):.3f} s"),
            ("longest wait", f"{np.max(waits_s):.2f} s"),
            ("revisions of incidents", f"{passed.incidents}"),
            ("the locator's own report", passed.report),
        ),
    )
    return Part(claims, (detail,), lambda axes: _draw(axes, waits_s))


def _draw(axes: Any, waits_s: Any) -> None:
    share = 100 * np.arange(1, len(waits_s) + 1) / len(waits_s)
    axes.plot(np.sort(waits_s), share)
    axes.axvline(P99_S, linestyle=":", color="gray", label=f"{P99_S:g} s")
    axes.set(
        title=f"third node's message to incident at {PER_S:g} detections/s",
        xlabel="seconds",
        ylabel="% of shots",
        ylim=(0, 100),
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")


def _client(port: int) -> Client:
    client = Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(1000)
    client.max_queued_messages_set(0)
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


def _keep(port: int, births: Iterator[tuple[str, bytes]]) -> None:
    client = _client(port)
    sent = [client.publish(topic, payload, qos=1, retain=True) for topic, payload in births]
    for one in sent:
        one.wait_for_publish(30)
    client.disconnect()
    client.loop_stop()


@contextmanager
def _locator(url: str, ca: FleetCa, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run `gunfire-node locate`; give it, and the file that it tells of itself in."""
    told = folder / "locator.txt"
    with told.open("wb") as file:
        process = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "gunfire-node"), "locate", "--broker", url,
                "--ca", str(ca.certificate_file), "--crl", str(ca.crl_file), "--quiet",
            ],
            stdout=file,
            stderr=file,
        )  # fmt: skip
        try:
            yield process, told
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


@contextmanager
def _subscriber(port: int) -> Iterator[list[tuple[float, bytes]]]:
    """Give what comes of incidents, each with when."""
    came: list[tuple[float, bytes]] = []
    subscribed = threading.Event()
    client = _client(port)

    def take(_client: Client, _userdata: Any, message: MQTTMessage) -> None:
        came.append((time.time(), bytes(message.payload)))

    client.on_message = take
    client.on_subscribe = lambda *_: subscribed.set()
    client.subscribe(incident_topic(SITE), qos=1)
    if not subscribed.wait(10):
        raise RuntimeError("the broker does not answer")
    try:
        yield came
    finally:
        client.disconnect()
        client.loop_stop()


def _watch(
    locator: subprocess.Popen[bytes],
    publisher: subprocess.Popen[bytes],
    begin_ns: int,
    warm_s: float,
    seconds: int,
    progress: Callable[[str], None],
) -> float:
    """Wait until all is sent; give how many cores the locator took after the warm-up."""
    process = psutil.Process(locator.pid)
    begun: tuple[float, float] | None = None
    busy = 0.0
    while publisher.poll() is None:
        now_s = time.time() - begin_ns / NS_PER_S
        progress(f"sending: {max(0, int(now_s))} of {seconds} s")
        if locator.poll() is not None:
            raise RuntimeError("the locator ended")
        spent_s = _spent_s(process)
        if now_s >= warm_s:
            if begun is None:
                begun = (now_s, spent_s)
            elif now_s <= seconds:
                busy = (spent_s - begun[1]) / (now_s - begun[0])
        time.sleep(0.5)
    return busy


def _spent_s(process: psutil.Process) -> float:
    """Give the processor time of a process and its children so far."""
    total_s = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total_s += times.user + times.system
    return total_s


def publish(port: int, file: Path, begin_ns: int, log: Path) -> None:
    """Send each line of a file when it is due; keep when that was, UTC in s.

    In MQTT 3.1.1 spelled here: paho takes a sixth of a core for it, of two that all share.
    """
    due = [json.loads(line) for line in file.read_text().splitlines()]
    due_s = [begin_ns / NS_PER_S + at_s for at_s, _, _ in due]
    packets = [
        _packet(topic, payload, number % 65_535 + 1)
        for number, (_, topic, payload) in enumerate(due)
    ]
    sent_s: list[float] = []
    with socket.create_connection(("127.0.0.1", port), timeout=SETTLE_S) as broker:
        broker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        broker.sendall(_CONNECT)
        if broker.recv(len(_CONNACK), socket.MSG_WAITALL) != _CONNACK:
            raise RuntimeError("the broker does not let the publisher in")
        broker.settimeout(None)
        acknowledged = 0
        while len(sent_s) < len(packets):
            time.sleep(STEP_S)
            now_s = time.time()
            upto = bisect_right(due_s, now_s)
            broker.sendall(b"".join(packets[len(sent_s) : upto]))
            sent_s += [now_s] * (upto - len(sent_s))
            with contextlib.suppress(BlockingIOError):
                acknowledged += len(broker.recv(2**16, socket.MSG_DONTWAIT))
        broker.settimeout(SETTLE_S)
        while acknowledged < _PUBACK_BYTES * len(packets):
            acknowledged += len(broker.recv(2**16)) or sys.exit("the broker has hung up")
        broker.sendall(_DISCONNECT)
    log.write_text(json.dumps(sent_s))


def _packet(topic: str, payload: str, packet_id: int) -> bytes:
    """Write a PUBLISH of QoS 1 (MQTT 3.1.1 §3.3)."""
    name = topic.encode()
    body = struct.pack(">H", len(name)) + name + struct.pack(">H", packet_id) + payload.encode()
    length, left = bytearray(), len(body)
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([0x32, *length, left]) + body


if __name__ == "__main__":
    publish(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
