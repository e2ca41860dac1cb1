"""What stands about a node on the bench: receiver, gpsd, chronyd, time server, broker, its fleet.

All real but the receiver, which writes NMEA, and the NTP server, which is a dozen lines; chronyd
leaves the clock alone. Started once, for all nodes.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric import ed25519

from node.capture import built_in_arrays
from node.network import PrivateBroker
from node.simulate.render import render
from node.simulate.scene import parse
from tests.faults.fleet import Fleet
from tests.hil.fleet_ca import DAY, Files, FleetCa
from tests.hil.virtual_chrony import VirtualChrony
from tests.hil.virtual_receiver import Gpsd, VirtualReceiver

NODE_ID, SITE = "mast-1", "bench"
PPM: Final = 25.0
SETTLE_S: Final = 60.0

Frames = npt.NDArray[np.int32]


def street() -> Frames:
    """Render 40 s of a quiet street, four microphones and the pulse, shape [n, 5]."""
    scene = parse(
        'name = "quiet"\nduration_s = 40.0\nseed = 5\nstart_utc = 2026-06-01T12:00:00Z\n'
        "[street]\nnoise_db_a = 55.0\n"
        f'[[nodes]]\nid = "{NODE_ID}"\nx_m = 0.0\ny_m = 0.0\nz_m = 6.0\nclock_ppm = {PPM}\n'
        'array = "tetrahedron_200mm"\npps = true\n'
    )
    return np.asarray(render(scene, built_in_arrays()).nodes[0].frames(), np.int32)


class People(Fleet):
    """The fleet about the broker, and who else may come."""

    def client(self, name: str) -> Files:
        """Give a node of this name its certificate for the broker.

        Each has its own: the broker knows clients by it, and holds one of each name.
        """
        return self._issue(name, name)

    def expired(self, name: str) -> Files:
        """Give one that has ended."""
        return self._issue(name, f"{name}-expired", (), datetime.now(UTC) - DAY)

    def sign(self, folder: Path, name: str) -> Files:
        """Give a signing key and the certificate over it, of a node of this name."""
        ca = FleetCa(folder)
        return ca.issue(name, organization=SITE, key=ed25519.Ed25519PrivateKey.generate())


class TimeServer:
    """An NTP server on loopback (RFC 5905) whose clock is off by so many seconds."""

    def __init__(self, off_s: float = 0.0) -> None:
        self._off_s = off_s
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        since_1900_s = 2_208_988_800
        with contextlib.suppress(OSError):
            while True:
                asked, who = self._socket.recvfrom(512)
                now = int((time.time() + self._off_s + since_1900_s) * 2**32)
                head = struct.pack("!BBbbII4s", 0x24, 2, 6, -20, 0, 1, b"GPS\0")
                stamps = struct.pack("!Q8sQQ", now, asked[40:48], now, now)
                self._socket.sendto(head + stamps, who)


@dataclass(frozen=True)
class Surroundings:
    """What every node on the bench shares."""

    folder: Path
    plugin: Path
    street: Frames
    people: People
    gpsd: str
    chronyc: Path
    time_server: str
    broker_port: int


@contextmanager
def surroundings(folder: Path, plugin: Path) -> Iterator[Surroundings]:
    """Start receiver, gpsd, chronyd, time server and broker; wait until the clock is held."""
    with ExitStack() as opened:
        chrony = opened.enter_context(VirtualChrony(folder / "chrony", 0.0))
        sky = opened.enter_context(VirtualReceiver())
        gpsd = opened.enter_context(Gpsd(sky.device))
        server = opened.enter_context(TimeServer())
        people = People(folder / "fleet", NODE_ID)
        opened.enter_context(PrivateBroker(folder / "broker", people.configuration))
        heard = street()
        wait_until_held(chrony)
        yield Surroundings(
            folder, plugin, heard, people, gpsd.address, chronyc(folder / "bin", chrony.command),
            server.address, people.port,
        )  # fmt: skip


def wait_until_held(chrony: VirtualChrony) -> None:
    """Wait until a chronyd follows its pulse."""
    until_s = time.monotonic() + SETTLE_S
    while time.monotonic() < until_s:
        said = subprocess.run(chrony.command, capture_output=True, text=True, check=False).stdout
        if "PPS" in said and not said.rstrip().endswith("Not synchronised"):
            return
        time.sleep(0.5)
    raise TimeoutError("chronyd does not take its pulse")


def chronyc(folder: Path, command: tuple[str, ...]) -> Path:
    """Make a folder for PATH, whose chronyc asks another chronyd than the machine's."""
    folder.mkdir(parents=True)
    real = shutil.which("chronyc")
    assert real
    file = folder / "chronyc"
    file.write_text(f'#!/bin/sh\nexec {real} {command[1]} {command[2]} "$@"\n')
    file.chmod(0o755)
    return folder
