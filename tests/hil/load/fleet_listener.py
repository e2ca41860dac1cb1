"""Who hears a fleet: the subscriber that we ship, or one that only counts.

As a program, `fleet_listener.py KIND PORT CERTIFICATES NAME`: KIND is `subscription` or `counter`,
NAME whose certificate it comes with. For each line on stdin it answers with one: how many
detections have come since the line before, how long each took from when it was handed to the
broker's socket, in s, and how many cores this process took.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from node.messages import Detection, subscription
from node.network import subscribe as subscribe_words
from node.utc import parse_utc_ns
from tests.hil.load.packets import (
    PUBLISH,
    Reader,
    acknowledge,
    connect,
    read_publish,
    subscribe,
)

KEEPALIVE_S: Final = 600
TURN_S: Final = 0.1
_STAMP: Final = b'"published_utc":"'


class Came:
    """How long what has come took; filled and read by two threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits_s: list[float] = []
        self._begun = (time.monotonic(), time.process_time())

    def took(self, published_utc: str) -> None:
        """Note one that came just now."""
        wait_s = (time.time_ns() - parse_utc_ns(published_utc)) / 1e9
        with self._lock:
            self._waits_s.append(wait_s)

    def answer(self) -> str:
        """Give what came since the last answer."""
        now = (time.monotonic(), time.process_time())
        cores = (now[1] - self._begun[1]) / (now[0] - self._begun[0])
        self._begun = now
        with self._lock:
            waits_s, self._waits_s = self._waits_s, []
        return json.dumps({"waits_s": [round(wait_s, 6) for wait_s in waits_s], "cores": cores})


def hear_words(
    port: int, certificates: Path, name: str, came: Came, ended: threading.Event
) -> None:
    """Hear by `node.network.Subscription`, which reads and checks each message."""
    with subscribe_words(
        f"mqtts://127.0.0.1:{port}",
        kinds=["detection"],
        ca_file=certificates / "ca.crt",
        cert_file=certificates / f"{name}.crt",
        key_file=certificates / f"{name}.key",
    ) as words:
        print("{}", flush=True)
        while not ended.is_set():
            word = words.next(TURN_S)
            if word is None or not isinstance(word.message, Detection):
                continue
            assert word.message.transport is not None
            came.took(word.message.transport.published_utc)


def count(port: int, certificates: Path, name: str, came: Came, ended: threading.Event) -> None:
    """Hear by a bare socket, and read of each message only when it was sent."""
    with _connected(port, certificates, name) as link:
        print("{}", flush=True)
        reader = Reader()
        while not ended.is_set():
            try:
                data = link.recv(2**16)
            except TimeoutError:
                continue
            answers = []
            for packet in reader.feed(data):
                if packet.kind != PUBLISH:
                    continue
                packet_id, payload = read_publish(packet)
                answers.append(acknowledge(packet_id))
                at = payload.rindex(_STAMP) + len(_STAMP)
                came.took(payload[at : payload.index(b'"', at)].decode())
            if answers:
                link.sendall(b"".join(answers))


@contextmanager
def _connected(port: int, certificates: Path, name: str) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    context.load_cert_chain(certificates / f"{name}.crt", certificates / f"{name}.key")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as link,
    ):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = Reader()
        for packet in (connect(name, KEEPALIVE_S), subscribe(subscription("detection"))):
            link.sendall(packet)
            (answer,) = reader.feed(link.recv(4096))
            if answer.refusal:
                raise RuntimeError(f"the broker refuses: {answer}")
        link.settimeout(TURN_S)
        yield link


def main() -> None:
    """Hear until stdin ends."""
    kind, port, certificates, name = sys.argv[1:]
    came, ended = Came(), threading.Event()
    hear = {"subscription": hear_words, "counter": count}[kind]
    ears = threading.Thread(
        target=hear, args=(int(port), Path(certificates), name, came, ended), daemon=True
    )
    ears.start()
    for _ in sys.stdin:
        print(came.answer(), flush=True)
    ended.set()
    ears.join()


if __name__ == "__main__":
    main()
