"""The few packets of MQTT 5 that a node or a subscriber under load sends and reads."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
SUBACK: Final = 9
_FAILS_FROM: Final = 0x80
_RETAIN_WILL_QOS_1: Final = 0x20 | 0x08 | 0x04
_CLEAN_START: Final = 0x02


class Packet(NamedTuple):
    """A packet that came: its kind (MQTT 5 §2.1.2), the lower half of that byte, and the rest."""

    kind: int
    flags: int
    body: bytes

    @property
    def refusal(self) -> int:
        """The reason code, where it says that something failed; 0 else (§2.4)."""
        code = 0
        if self.kind == CONNACK:
            code = self.body[1]
        elif self.kind == PUBACK and len(self.body) > 2:
            code = self.body[2]
        elif self.kind == SUBACK:
            code = self.body[-1]
        return code if code >= _FAILS_FROM else 0


class Reader:
    """Cuts a stream of bytes into packets."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, data: bytes) -> list[Packet]:
        """Take the next bytes; give the packets that are whole."""
        left = self._left
        left += data
        packets = []
        at = 0
        while (head := _head(left, at)) is not None:
            begin, end = head
            if len(left) < end:
                break
            packets.append(Packet(left[at] >> 4, left[at] & 0xF, bytes(left[begin:end])))
            at = end
        del left[:at]
        return packets


def connect(client_id: str, keepalive_s: int, will: tuple[str, bytes] | None = None) -> bytes:
    """Write a CONNECT (§3.1) of a clean session; a last will is retained, at QoS 1."""
    flags = _CLEAN_START | (_RETAIN_WILL_QOS_1 if will else 0)
    body = _text("MQTT") + bytes([5, flags]) + struct.pack(">H", keepalive_s) + b"\0"
    body += _text(client_id)
    if will is not None:
        topic, payload = will
        body += b"\0" + _text(topic) + struct.pack(">H", len(payload)) + payload
    return _packet(0x10, body)


def publish(topic: str, payload: bytes, packet_id: int = 0, *, retain: bool = False) -> bytes:
    """Write a PUBLISH (§3.3): at QoS 1 with a packet's id, at QoS 0 without."""
    number = struct.pack(">H", packet_id) if packet_id else b""
    kind = 0x30 | (0x02 if packet_id else 0) | retain
    return _packet(kind, _text(topic) + number + b"\0" + payload)


def acknowledge(packet_id: int) -> bytes:
    """Write a PUBACK (§3.4)."""
    return _packet(0x40, struct.pack(">H", packet_id))


def subscribe(topic: str) -> bytes:
    """Write a SUBSCRIBE (§3.8) at QoS 1."""
    return _packet(0x82, struct.pack(">H", 1) + b"\0" + _text(topic) + b"\x01")


def ping() -> bytes:
    """Write a PINGREQ (§3.12)."""
    return b"\xc0\0"


def read_publish(packet: Packet) -> tuple[int, bytes]:
    """Give packet id (0 at QoS 0) and payload of a PUBLISH."""
    body = packet.body
    at = 2 + int.from_bytes(body[:2])
    packet_id = 0
    if packet.flags & 0x06:
        packet_id = int.from_bytes(body[at : at + 2])
        at += 2
    length, at = _number(body, at) or (0, at)
    return packet_id, body[at + length :]


def _packet(first: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while left > 0x7F:
        length.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([first, *length, left]) + body


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">H", len(encoded)) + encoded


def _head(data: bytearray, at: int) -> tuple[int, int] | None:
    """Give where a packet's body begins and ends; None where that has not come."""
    if at >= len(data) or (number := _number(data, at + 1)) is None:
        return None
    length, begin = number
    return begin, begin + length


def _number(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Read a number of variable length (§1.5.5); give it, and where it ends."""
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at
    return None
