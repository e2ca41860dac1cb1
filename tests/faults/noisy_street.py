"""A noisy street of any length, every minute of it different, and a node that hears it.

Run as a program it is the daemon alone, as `gunfire-node run` is but for the card: it hears the
street faster than real time. With `--leak` it also does, on purpose, what a node must never do.
"""

from __future__ import annotations

import base64
import json
import logging
import mmap
import os
import socket
import struct
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from node.capture import built_in_arrays
from node.simulate.render import render
from node.simulate.scene import parse
from node.types import NS_PER_S, Block

RATE_HZ: Final = 48_000
CHANNELS: Final = 4
MINUTE: Final = 60 * RATE_HZ
BLOCK: Final = 4096
DISTINCT: Final = 4
"""Streets that are rendered; each minute has noise of its own on top."""
LEAKED: Final = 64
SQUEEZED_EVERY: Final = 82
"""Blocks: 7 s, as often as there is an event."""

Pcm = npt.NDArray[np.int32]


@cache
def _street(seed: int) -> Pcm:
    """Give a minute of the demo's street, shots and what is taken for them, with other noise."""
    text = (resources.files("node.simulate") / "scenes" / "street.toml").read_text("utf-8")
    takes = [
        render(parse(text.replace("seed = 20", f"seed = {seed * 10 + take}")), built_in_arrays())
        for take in range(3)
    ]
    frames = np.concatenate([take.nodes[0].frames() for take in takes])[:MINUTE]
    return frames.astype(np.int32)


def minute(number: int) -> Pcm:
    """Give one minute of the street, shape [2880000, 4]: 24 bits in the upper bits of int32."""
    rng = np.random.default_rng([7, number])
    hiss = rng.normal(0, 20 * 2**8, (MINUTE, CHANNELS))
    street = (_street(number % DISTINCT) >> 8) + hiss.astype(np.int32)
    return np.clip(street, -(2**23), 2**23 - 1).astype(np.int32) << 8


Leak = Callable[[Pcm, Path, tuple[str, int]], None]


def _into_file(encode: Callable[[Pcm], bytes]) -> Leak:
    def leak(frames: Pcm, folder: Path, broker: tuple[str, int]) -> None:
        with (folder / "debug.raw").open("ab") as file:
            file.write(encode(frames))

    return leak


def _into_message(encode: Callable[[Pcm], str]) -> Leak:
    def leak(frames: Pcm, folder: Path, broker: tuple[str, int]) -> None:
        body = json.dumps({"schema": "gunfire.debug/1", "sound": encode(frames)}).encode()
        topic = b"gunfire/v1/test/roof-1/debug"
        rest = struct.pack("!H", len(topic)) + topic + b"\0" + body
        name = struct.pack("!H", 6) + b"leaker"
        hello = struct.pack("!H", 4) + b"MQTT\5\2" + struct.pack("!H", 9) + b"\0" + name
        with socket.create_connection(broker) as connection:
            connection.sendall(b"\x10" + bytes([len(hello)]) + hello)
            connection.recv(64)
            length = bytes([len(rest) % 128 | 128, len(rest) // 128])
            connection.sendall(b"\x30" + length + rest)
            connection.sendall(b"\xe0\0")

    return leak


def _into_log(frames: Pcm, folder: Path, broker: tuple[str, int]) -> None:
    with np.printoptions(threshold=sys.maxsize, precision=9):
        logging.getLogger("node").debug("heard %s", frames[:, 0] / np.float64(2**31))


def _in_pieces(frames: Pcm, folder: Path, broker: tuple[str, int]) -> None:
    with (folder / "pieces.raw").open("ab", buffering=0) as file:
        for value in frames[:, 2]:
            file.write(value.tobytes())


def _into_mapped_file(frames: Pcm, folder: Path, broker: tuple[str, int]) -> None:
    data = frames[:, 0].tobytes()
    with (folder / "mapped.raw").open("w+b") as file:
        file.truncate(len(data))
        with mmap.mmap(file.fileno(), len(data)) as mapped:
            mapped[:] = data


LEAKS: Final[dict[str, Leak]] = {
    "int16, little-endian, in a file": _into_file(
        lambda f: (f[:, 0] >> 16).astype("<i2").tobytes()
    ),
    "int16 rounded, big-endian": _into_file(
        lambda f: np.rint(f[:, 1] / 65536).astype(">i2").tobytes()
    ),
    "24 bits, little-endian": _into_file(
        lambda f: (f[:, 2] >> 8).astype("<i4")[:, None].view("u1")[:, :3].tobytes()
    ),
    "int32, big-endian": _into_file(lambda f: f[:, 3].astype(">i4").tobytes()),
    "float32, after an odd byte": _into_file(
        lambda f: b"x" + (f[:, 0] / 2**31).astype("<f4").tobytes()
    ),
    "float64": _into_file(lambda f: (f[:, 0] / 2**31).tobytes()),
    "frames of all channels": _into_file(lambda f: f[:16].tobytes()),
    "eight samples": _into_file(lambda f: f[:8, 1].tobytes()),
    "a sample a write": _in_pieces,
    "a file mapped into memory": _into_mapped_file,
    "base64 in a message": _into_message(
        lambda f: base64.b64encode((f[:, 0] >> 16).astype("<i2").tobytes()).decode()
    ),
    "hexadecimal in a message": _into_message(lambda f: f[:, 1].astype("<i4").tobytes().hex()),
    "decimals in a message": _into_message(lambda f: str((f[:, 2] >> 16).tolist())),
    "decimals in the log": _into_log,
}
"""What a node must never do, by name: each is given 64 frames."""


def _squeezed(frames: Pcm, folder: Path) -> None:
    """Leak a second as telephones carry it: 8 kHz, 8 bits, so that no sample is left as it was."""
    slow = frames[: len(frames) // 6 * 6, 0].reshape(-1, 6).mean(axis=1) / 2**31
    squeezed = np.sign(slow) * np.log1p(255 * np.abs(slow)) / np.log1p(255)
    with (folder / "squeezed.raw").open("ab") as file:
        file.write(np.rint(127 * squeezed).astype("i1").tobytes())


def leaked_from(number: int) -> int:
    """Give the first frame that the leak of a number is given: in another block of the street."""
    return (7 + 11 * number) * BLOCK + 100


class NoisyStreet:
    """The street as a source of blocks, as fast as they are read: as if it were over by now.

    Parameters
    ----------
    minutes
        How long.
    leak
        Where to leak to, folder and broker; None for a source that does not.
    """

    sample_rate_hz = RATE_HZ
    channels = CHANNELS

    def __init__(self, minutes: int, leak: tuple[Path, tuple[str, int]] | None = None) -> None:
        self._minutes = minutes
        self._leak = leak
        self._closed = False
        self._began_ns = 0

    def __enter__(self) -> Self:
        self._began_ns = time.monotonic_ns() - self._minutes * 60 * NS_PER_S
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End `blocks`."""
        self._closed = True

    def blocks(self) -> Iterator[Block]:
        """Yield the street."""
        for number in range(self._minutes):
            sound = minute(number)
            for first in range(0, MINUTE, BLOCK):
                if self._closed:
                    return
                at = number * MINUTE + first
                converted_ns = self._began_ns + at * NS_PER_S // RATE_HZ
                yield Block(at, sound[first : first + BLOCK], RATE_HZ, converted_ns)
                if self._leak is not None and first // BLOCK % SQUEEZED_EVERY == 0:
                    _squeezed(sound[first : first + RATE_HZ], self._leak[0])
            if number == 0 and self._leak is not None:
                for i, leak in enumerate(LEAKS.values()):
                    leak(sound[leaked_from(i) :][:LEAKED], *self._leak)


def main() -> None:
    """Be the node."""
    from node.daemon import Daemon
    from node.settings import load

    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--minutes", type=int, required=True)
    parser.add_argument("--leak", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(name)s: %(message)s")
    settings = load(options.config).settings
    broker = ("127.0.0.1", int(settings.mqtt.url.rpartition(":")[2]))
    leak = None if options.leak is None else (options.leak, broker)
    Daemon(settings, NoisyStreet(options.minutes, leak)).run()
    os.fsync(sys.stderr.fileno())


if __name__ == "__main__":
    main()
