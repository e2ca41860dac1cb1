"""Many nodes in one process: each its own TLS connection, client id, last will, key and messages.

MQTT 5 is spelled here, since paho takes more of a core for a message than the broker does; what is
said is what a node says: signed detections at QoS 1, retained birth and status, health at QoS 0.

As a program, `fleet_nodes.py PORT CERTIFICATES`, it does what JSON lines on stdin say, and answers
each with a line:

- `{"do": "connect", "upto": N}`: have N nodes connected, their births said;
- `{"do": "prepare", "count": N}`: sign N detections, dealt out to the nodes in turn;
- `{"do": "send", "per_s": R, "seconds": S, "again": false}`: send what was prepared, evenly;
  `again` sends the same ones over and over;
- `{"do": "minutes", "count": N, "seconds": S}`: have N nodes, one after the other, say in S seconds
  what an idle minute says: a health, a status, two pings.
"""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from node.messages import build_status, to_json
from node.utc import utc_text
from tests.hil.load.fleet_words import Words
from tests.hil.load.packets import Reader, connect, ping, publish

STEP_S: Final = 0.002
AT_A_TIME: Final = 8
ANSWER_S: Final = 10.0
SETTLE_S: Final = 3.0
KEEPALIVE_S: Final = 600
"""Longer than a run: pings are sent by hand, at the rate that a node's 30 s make."""

_NOT_SENT: Final = b'"transport":null}'


def sent_at(payload: bytes, utc_ns: int) -> bytes:
    """Put into a detection when it is sent: the same bytes as `with_transport` makes, for less."""
    assert payload.endswith(_NOT_SENT)
    stamp = f'"transport":{{"published_utc":"{utc_text(utc_ns)}","delayed":false}}}}'
    return payload[: -len(_NOT_SENT)] + stamp.encode()


class Wire:
    """One node's connection."""

    def __init__(self, words: Words, port: int, certificates: Path) -> None:
        self.words = words
        self._reader = Reader()
        self._packet_id = 0
        self.topic = words.topic("detection")
        context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        name = words.origin.node_id
        context.load_cert_chain(certificates / f"{name}.crt", certificates / f"{name}.key")
        plain = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        offline = to_json(build_status(words.origin, "offline", utc_ns=time.time_ns()))
        self.send(
            connect(name, KEEPALIVE_S, (words.topic("status"), offline))
            + publish(words.topic("node"), words.birth(), self.next_id(), retain=True)
            + publish(words.topic("status"), words.status(), self.next_id(), retain=True)
        )
        answers = 0
        while answers < 3:
            answers += self.read()

    def next_id(self) -> int:
        """Give the next packet's id."""
        self._packet_id = self._packet_id % 65_535 + 1
        return self._packet_id

    def send(self, packet: bytes) -> None:
        """Hand a packet to the kernel, encrypted."""
        self.socket.sendall(packet)

    def read(self) -> int:
        """Read what has come; give how many packets."""
        came = self.socket.recv(4096)
        if not came:
            raise RuntimeError("the broker has hung up")
        packets = self._reader.feed(came)
        if refused := [packet for packet in packets if packet.refusal]:
            raise RuntimeError(f"the broker refuses: {refused[0]}")
        return len(packets)


class Crowd:
    """All nodes."""

    def __init__(self, port: int, certificates: Path) -> None:
        self._port = port
        self._certificates = certificates
        self._wires: list[Wire] = []
        self._selector = selectors.DefaultSelector()
        self._ready: deque[tuple[Wire, bytes]] = deque()
        self._kept: list[tuple[Wire, bytes]] = []
        self._waiting = 0

    def connect(self, upto: int) -> dict[str, Any]:
        """Connect until there are so many."""
        begun_s = time.monotonic()
        before = len(self._wires)

        def come(number: int) -> Wire:
            return Wire(Words(number), self._port, self._certificates)

        # Some at a time: each waits 40 ms for an acknowledgement that TCP puts off.
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            new = list(pool.map(come, range(before, upto)))
        for wire in new:
            wire.socket.setblocking(False)
            self._selector.register(wire.socket, selectors.EVENT_READ, wire)
            self._wires.append(wire)
        return {"connected": upto - before, "seconds": time.monotonic() - begun_s}

    def prepare(self, count: int) -> dict[str, Any]:
        """Sign so many detections."""
        for number in range(count):
            wire = self._wires[number % len(self._wires)]
            self._ready.append((wire, wire.words.detection()))
        self._kept = list(self._ready)
        _, payload = self._kept[-1]
        return {"bytes": len(sent_at(payload, time.time_ns()))}

    def send(self, per_s: float, seconds: float, *, again: bool) -> dict[str, Any]:
        """Send at an even rate; give how many went, how late at worst, and what it cost here."""
        begun_s, cpu_s = time.monotonic(), time.process_time()
        sent, latest_s, count = 0, 0.0, round(per_s * seconds)
        while sent < count:
            due = min(count, int((time.monotonic() - begun_s) * per_s))
            if due == sent:
                self._listen(STEP_S)
                continue
            latest_s = max(latest_s, time.monotonic() - begun_s - sent / per_s)
            for number in range(sent, min(due, sent + 50)):
                wire, payload = (
                    self._kept[number % len(self._kept)] if again else self._ready.popleft()
                )
                self._say(
                    wire, publish(wire.topic, sent_at(payload, time.time_ns()), wire.next_id())
                )
                sent += 1
            self._listen(0)
        spent_s = time.monotonic() - begun_s
        cores = (time.process_time() - cpu_s) / spent_s
        until_s = time.monotonic() + SETTLE_S
        while self._waiting and time.monotonic() < until_s:
            self._listen(0.01)
        return {
            "sent": sent,
            "seconds": spent_s,
            "latest_s": latest_s,
            "cores": cores,
            "not_acknowledged": self._waiting,
        }

    def minutes(self, count: int, seconds: float) -> dict[str, Any]:
        """Say what so many nodes say in an idle minute, in less."""
        begun_s = time.monotonic()
        for number in range(count):
            while time.monotonic() < begun_s + seconds * number / count:
                self._listen(STEP_S)
            wire = self._wires[number % len(self._wires)]
            words = wire.words
            self._say(
                wire, publish(words.topic("status"), words.status(), wire.next_id(), retain=True)
            )
            wire.send(publish(words.topic("health"), words.health()))
            self._say(wire, ping())
            self._say(wire, ping())
        while self._waiting:
            self._listen(0.01)
        return {"seconds": time.monotonic() - begun_s}

    def _say(self, wire: Wire, packet: bytes) -> None:
        """Send what is answered."""
        wire.send(packet)
        self._waiting += 1

    def _listen(self, wait_s: float) -> None:
        for key, _ in self._selector.select(wait_s):
            wire: Wire = key.data
            try:
                while True:
                    self._waiting -= wire.read()
            except ssl.SSLWantReadError:
                continue


def main() -> None:
    """Do what stdin says."""
    crowd = Crowd(int(sys.argv[1]), Path(sys.argv[2]))
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(crowd, order.pop("do"))(**order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
