"""No sound leaves the node: a noisy hour with every byte that was written or sent looked at.

The daemon with its default settings hears a simulated street, faster than real time; outbox and
Mosquitto are real, the log is at debug. strace shows every byte that it and its children hand to
the kernel. Three things are asked of them: is there any run of eight samples in them, in any usual
form; is every byte that was sent part of a message whose form leaves no room for sound; and how
many bytes that are not copies of others were written for each event?
"""

from __future__ import annotations

import json
import lzma
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from node.messages import (
    parse_checkpoint,
    parse_detection,
    parse_health,
    parse_node,
    parse_snippet,
    parse_status,
    to_json,
)
from node.messages.fields import Message
from node.network import PrivateBroker
from tests.evidence import Claim
from tests.faults import noisy_street
from tests.faults.noisy_street import LEAKED, LEAKS, MINUTE, leaked_from, minute
from tests.faults.sound_search import RUN, Finds
from tests.faults.syscalls import Trace, python, trace, why_not
from tests.parts import Part, Tell

HOUR_MIN: Final = 60
PACKET_BYTES: Final = 64
"""Of a PUBLISH beside topic and payload (header, packet id, properties), the most; and the
acknowledgements and pings between."""
GREETING_BYTES: Final = 8192
"""CONNECT with its will, and DISCONNECT."""
EVENT_BYTES: Final = 2048
"""Bar for what is stored for an event, once copies are left out: less than a second of speech at
16 kbit/s, in the best of codecs."""
PARSERS: Final[dict[str, Callable[[bytes], Message]]] = {
    "detection": parse_detection,
    "status": parse_status,
    "health": parse_health,
    "node": parse_node,
    "checkpoint": parse_checkpoint,
    "snippet": parse_snippet,
}
"""What a node may say, by the last level of its topic."""


@dataclass
class Heard:
    """What a subscriber to everything received."""

    messages: list[tuple[str, bytes]] = field(default_factory=list)

    def of(self, kind: str) -> list[bytes]:
        """Give the payloads of a kind of message."""
        return [payload for topic, payload in self.messages if topic.endswith(f"/{kind}")]


@dataclass
class Run:
    """A traced run: what was written, what the files hold in the end, what arrived."""

    trace: Trace
    left: dict[str, bytes]
    heard: Heard
    log: str

    @property
    def streams(self) -> list[bytes]:
        """What went into each file and socket, pages that were written before left out."""
        written = self.trace.written.values()
        unlike = (dict.fromkeys(pieces) if _in_pages(pieces) else pieces for pieces in written)
        return [*self.left.values(), *(b"".join(pieces) for pieces in unlike)]

    @property
    def sent(self) -> int:
        """Bytes that went to the network."""
        return sum(map(len, self.trace.sent()))

    @property
    def unaccounted(self) -> int:
        """Bytes that went to the network and are of no message that arrived, beyond framing."""
        messages = self.heard.messages
        known = sum(len(topic) + len(payload) + PACKET_BYTES for topic, payload in messages)
        return max(0, self.sent - known - GREETING_BYTES)

    @property
    def strangers(self) -> list[str]:
        """Topics of messages that are of no known form."""
        return [topic for topic, payload in self.heard.messages if not _known(topic, payload)]

    @property
    def stored_per_event(self) -> float:
        """Bytes written to disk for each event, once copies of others are left out (LZMA)."""
        stored = b"".join(dict.fromkeys(self.trace.stored()))
        packed = lzma.compress(stored, preset=6)
        return len(packed) / max(1, len(self.heard.of("detection")))


def _known(topic: str, payload: bytes) -> bool:
    parse = PARSERS.get(topic.rpartition("/")[2])
    if parse is None:
        return False
    try:
        # A reader passes over fields that it does not know, and here there must be none.
        return bool(json.loads(to_json(parse(payload))) == json.loads(payload))
    except ValueError:
        return False


def _in_pages(pieces: list[bytes]) -> bool:
    return max(map(len, pieces)) >= 512


@contextmanager
def subscribed(port: int) -> Iterator[Heard]:
    """Hear everything that a broker has."""
    heard = Heard()
    ready = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

    def take(_client: Client, _data: object, message: MQTTMessage) -> None:
        heard.messages.append((message.topic, message.payload))

    client.on_message = take
    client.on_connect = lambda *_: client.subscribe("#", qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        if not ready.wait(10):
            raise TimeoutError("the broker takes no subscription")
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


def run(folder: Path, minutes: int, *, leak: bool = False, extra: str = "") -> Run:
    """Let a node hear so many minutes of the street, and keep all that it writes.

    Parameters
    ----------
    folder
        An empty one, for everything.
    minutes
        Of the street.
    leak
        Whether the node is to leak as `noisy_street.LEAKS` says.
    extra
        More settings, as TOML.
    """
    home, scratch = folder / "node", folder / "scratch"
    home.mkdir()
    scratch.mkdir()
    log = home / "node.log"
    with PrivateBroker(folder / "broker") as broker:
        config = scratch / "node.toml"
        config.write_text(
            '[node]\nid = "roof-1"\nsite = "test"\n[capture]\narray = "tetrahedron_200mm"\n'
            f'[outbox]\npath = "{home}/outbox.sqlite3"\n[mqtt]\nurl = "{broker.url}"\n'
            f'[integrity]\nkey_file = "{home}/node.key"\n{extra}'
        )
        options: list[str | Path] = ["--config", config, "--minutes", str(minutes)]
        if leak:
            options += ["--leak", home]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(home)}
        with subscribed(broker.port) as heard:
            traced = trace(
                python(noisy_street.__name__, *options),
                scratch,
                environment,
                log,
                timeout_s=60 + 30 * minutes,
            )
    left = {str(f): f.read_bytes() for f in sorted(home.rglob("*")) if f.is_file()}
    return Run(traced, left, heard, log.read_text("utf-8", "replace"))


def frames_found(run: Run, minutes: int, sealed: Sequence[str] = ()) -> set[int]:
    """Give the frames of the street whose sound is in what a run wrote.

    `sealed` are texts to be passed over: ciphertext, known as such. It is as good as noise, and
    noise in such lengths, read in so many ways, would take minutes to be told from sound.
    """
    streams = run.streams
    for text in sealed:
        streams = [stream.replace(text.encode(), b"") for stream in streams]
    finds = Finds(streams)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # numpy lets go of the interpreter
        found = pool.map(partial(_found_in, finds), range(minutes))
        return {frame for frames in found for frame in frames}


def _found_in(finds: Finds, number: int) -> set[int]:
    sound = minute(number)
    found: set[int] = set()
    for first in range(0, MINUTE, MINUTE // 6):
        # Some frames more, for a run across the edge.
        places = finds.places(sound[first : first + MINUTE // 6 + RUN])
        found |= {number * MINUTE + first + place for place in places}
    return found


def leaks_found(run: Run) -> set[str]:
    """Give the leaks of a leaky minute that were found, each by its own sound."""
    found = frames_found(run, 1)
    return {
        name
        for number, name in enumerate(LEAKS)
        if any(leaked_from(number) + i in found for i in range(LEAKED))
    }


def measure(tell: Tell) -> Part:
    """Measure a noisy hour, and planted leaks."""
    reason = why_not()
    if reason is not None:
        return Part((Claim(f"privacy: not measured, {reason}", 0, "", "measured", False),))
    with tempfile.TemporaryDirectory(prefix="gunfire-privacy-") as scratch:
        hours, leaky = Path(scratch, "hour"), Path(scratch, "leaky")
        hours.mkdir()
        leaky.mkdir()
        tell(f"{HOUR_MIN} minutes of a noisy street, traced")
        hour = run(hours, HOUR_MIN)
        tell("looking for the sound of the hour in what was written")
        found = frames_found(hour, HOUR_MIN)
        tell("planted leaks")
        leak = run(leaky, 1, leak=True)
        names = leaks_found(leak)
    events = len(set(hour.heard.of("detection")))
    seen_mb = sum(map(len, hour.streams)) / 1e6
    found_out = [bool(leak.trace.unseen), bool(leak.strangers), leak.stored_per_event > EVENT_BYTES]
    claims = (
        Claim(
            f"privacy: audio bytes on disk or network in a noisy hour of {events} detections, "
            f"default settings ({seen_mb:.0f} MB looked at)",
            len(found), "bytes", "0", not found and events >= 5 * HOUR_MIN,
        ),
        Claim("privacy: calls that write unseen (mapped files, copies in the kernel)",
              len(hour.trace.unseen), "calls", "0", not hour.trace.unseen),
        Claim("privacy: messages that are of no known form",
              len(hour.strangers), "messages", "0", not hour.strangers),
        Claim("privacy: bytes sent beyond the messages that arrived and their framing",
              hour.unaccounted, "bytes", "0", hour.unaccounted == 0),
        Claim("privacy: bytes sent for each detection, all messages",
              hour.sent / max(1, events), "bytes"),
        Claim("privacy: bytes stored for each detection, copies left out",
              hour.stored_per_event, "bytes", f"≤ {EVENT_BYTES}",
              hour.stored_per_event <= EVENT_BYTES),
        Claim(f"privacy: planted leaks of samples found, of {len(LEAKS)}",
              len(names), "leaks", f"{len(LEAKS)}", len(names) == len(LEAKS)),
        Claim("privacy: planted leaks told by their way or their size (a mapped file, a message "
              "of no known form, a second of sound thinned to 8 kB an event), of 3",
              sum(found_out), "leaks", "3", all(found_out)),
    )  # fmt: skip
    return Part(claims)
