"""A node on the bench with nothing wrong, for faults to be planted in: what `check` then says.

Real are `gunfire-node check`, gpsd, chronyd (which leaves the clock alone), Mosquitto as it is
shipped with its certificates, and every file. The card is the virtual one, playing a simulated
street; the receiver writes NMEA; pins are gpiozero's mock; an NTP server is a dozen lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric import ed25519

from node.capture import built_in_arrays
from node.network import PrivateBroker
from node.simulate.render import render
from node.simulate.scene import parse
from tests.faults.fleet import Fleet
from tests.hil.fleet_ca import DAY, Files, FleetCa
from tests.hil.virtual_card import VirtualCard
from tests.hil.virtual_chrony import VirtualChrony
from tests.hil.virtual_receiver import Gpsd, VirtualReceiver

RATE: Final = 48_000
MICROPHONES: Final = 4
PULSE: Final = 4
NODE_ID, SITE = "mast-1", "bench"
PPM: Final = 25.0
LONGEST_S: Final = 120.0
"""After which a check is ended, and counts as one that never answered."""
SETTLE_S: Final = 60.0
LISTENS_S: Final = 15.0

Frames = npt.NDArray[np.int32]
Deed = Callable[[VirtualCard], None]


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

    def expired(self) -> Files:
        """Give a certificate of the node's that has ended."""
        from datetime import UTC, datetime

        return self._issue(NODE_ID, "expired", (), datetime.now(UTC) - DAY)

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


def bang(sound: Frames, at_s: float, bearing_deg: float) -> None:
    """Add a bang from far away, at the height of the array, to what the microphones hear."""
    azimuth = np.deg2rad(bearing_deg)
    places_m = built_in_arrays()["tetrahedron_200mm"]
    early_s = places_m @ np.array([np.sin(azimuth), np.cos(azimuth), 0.0]) / 343.0
    fade = np.exp(-np.arange(RATE // 20) / 200.0)
    wave = fade * np.random.default_rng(7).normal(0, 0.1, len(fade))
    for microphone, early in enumerate(early_s):
        at = round((at_s - early) * RATE)
        of = sound[at : at + len(wave), microphone]
        of += (np.round(wave[: len(of)] * 2**23).astype(np.int32)) << 8


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


@dataclass
class Bench:
    """One node on the bench, good until something is planted in it.

    Attributes
    ----------
    settings
        As they will stand in its file, by section.
    sound
        What its card plays, shape [n, 5].
    environment
        Beside the card's.
    mounts
        Shell commands that come before the check, in a mount namespace of its own.
    deed
        Done to the card some seconds after it has begun to deliver.
    second_card
        Another card's name, beside the first.
    hooks
        What has to run meanwhile.
    """

    folder: Path
    around: Surroundings
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    sound: Frames = field(default_factory=lambda: np.zeros((0, 0), np.int32))
    environment: dict[str, str] = field(default_factory=dict)
    mounts: list[str] = field(default_factory=list)
    deed: Deed | None = None
    second_card: str = ""
    hooks: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        around, people = self.around, self.around.people
        signing = people.sign(self.folder / "signing", NODE_ID)
        self.sound = around.street.copy()
        self.environment = {
            "PATH": f"{around.chronyc}:{os.environ['PATH']}",
            "GPIOZERO_PIN_FACTORY": "mock",
        }
        self.settings = {
            "node": {"id": NODE_ID, "site": SITE},
            "node.position": {"lat_deg": 47.85, "lon_deg": 106.2, "alt_m": 1280.0, "sigma_m": 2.0},
            "capture": {
                "device": "microphones",
                "channels": MICROPHONES + 1,
                "array": "tetrahedron_200mm",
                "block_frames": 16384,  # for a machine that does much else
            },
            "timing": {
                "pps_channel": PULSE,
                "gpsd": around.gpsd,
                "ntp_servers": [around.time_server],
            },
            "outbox": {"path": str(self.folder / "outbox.sqlite3")},
            "integrity": {
                "key_file": str(signing.key),
                "certificate_file": str(signing.certificate),
            },
            "mqtt": {
                "url": f"mqtts://127.0.0.1:{around.broker_port}",
                **{name: str(path) for name, path in people.files().items()},
            },
            "board": {"enabled": True},
            "health": {"status_file": str(self.folder / "status.json")},
        }

    def program(self, *arguments: str) -> list[str]:
        """Give the command line of a subcommand on it."""
        program = [sys.executable, "-c", "from node.cli import main; main()"]
        return [*program, *arguments, "--config", str(self.config())]

    def check(self, *more: str) -> Checked:
        """Run `gunfire-node check --json` on it."""
        with self.hooks:
            card = self.card()
            command = self.program("check", "--json", *more)
            if self.mounts:
                command = ["unshare", "-m", "sh", "-ec", "; ".join([*self.mounts, 'exec "$@"']),
                           "sh", *command]  # fmt: skip
            begun_s = time.monotonic()
            with subprocess.Popen(
                command,
                env=card.environment | self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as process:
                if self.deed is not None:
                    threading.Thread(target=self._do, args=(card,), daemon=True).start()
                try:
                    out, err = process.communicate(timeout=LONGEST_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    out, err = process.communicate()
                seconds = time.monotonic() - begun_s
        report = json.loads(out) if out.startswith("{") else {}
        return Checked(process.returncode, report, err, seconds)

    def card(self) -> VirtualCard:
        """Make its card."""
        card = VirtualCard(
            self.folder / "card", self.around.plugin, self.sound, RATE, ppm=PPM, align=True
        )
        if self.second_card:
            asound = self.folder / "card" / "asound.conf"
            said = asound.read_text()
            _, _, first = said.partition(f"pcm.{card.name} ")
            asound.write_text(f"{said}\npcm.{self.second_card} {first}")
        return card

    def config(self) -> Path:
        """Write its settings down."""
        file = self.folder / "node.toml"
        file.write_text(
            "".join(
                f"[{section}]\n"
                + "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
                for section, values in self.settings.items()
            )
        )
        return file

    def _do(self, card: VirtualCard) -> None:
        truth = self.folder / "card" / "truth.json"
        until_s = time.monotonic() + LONGEST_S
        while not truth.exists() and time.monotonic() < until_s:
            time.sleep(0.05)
        time.sleep(3.0)
        assert self.deed is not None
        self.deed(card)


@dataclass(frozen=True)
class Checked:
    """What a check said, its exit code, and how long it took."""

    code: int
    report: dict[str, Any]
    stderr: str
    seconds: float

    @property
    def lines(self) -> dict[str, dict[str, Any]]:
        """Its lines by their names."""
        return {line["name"]: line for line in self.report.get("checks", ())}

    @property
    def wrong(self) -> dict[str, dict[str, Any]]:
        """Those that did not pass."""
        return {name: line for name, line in self.lines.items() if line["verdict"] != "pass"}

    @property
    def light(self) -> tuple[int, int]:
        """Long and short flashes."""
        light = self.report.get("light", {"long": -1, "short": -1})
        return light["long"], light["short"]
