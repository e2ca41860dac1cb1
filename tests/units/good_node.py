"""A node on the bench with nothing wrong, for faults to be planted in: what `check` then says.

Real are `gunfire-node check`, gpsd, chronyd (which leaves the clock alone), Mosquitto as it is
shipped with its certificates, and every file. The card is the virtual one, playing a simulated
street; the receiver writes NMEA; pins are gpiozero's mock; an NTP server is a dozen lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from node.capture import built_in_arrays
from tests.hil.process import GUNFIRE_NODE
from tests.hil.virtual_card import VirtualCard
from tests.units.surroundings import PPM, SITE, Frames, Surroundings

RATE: Final = 48_000
MICROPHONES: Final = 4
PULSE: Final = 4
LONGEST_S: Final = 120.0
"""After which a check is ended, and counts as one that never answered."""

Deed = Callable[[VirtualCard], None]


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
        signing = people.sign(self.folder / "signing", self.name)
        client = people.client(self.name)
        self.sound = around.street.copy()
        self.environment = {
            "PATH": f"{around.chronyc}:{os.environ['PATH']}",
            "GPIOZERO_PIN_FACTORY": "mock",
        }
        self.settings = {
            "node": {"id": self.name, "site": SITE},
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
                "ca_file": str(people.ca_file),
                "cert_file": str(client.certificate),
                "key_file": str(client.key),
            },
            "board": {"enabled": True},
            "health": {"status_file": str(self.folder / "status.json")},
        }

    @property
    def name(self) -> str:
        """Its node.id: that of its folder."""
        return self.folder.name

    def program(self, *arguments: str) -> list[str]:
        """Give the command line of a subcommand on it."""
        return [*GUNFIRE_NODE, *arguments, "--config", str(self.config())]

    def check(self, *more: str) -> Checked:
        """Run `gunfire-node check --json` on it."""
        with self.hooks:
            card = self.card()
            command = self.program("check", "--json", *more)
            if self.mounts:
                command = ["unshare", "-m", "sh", "-ec", "; ".join([*self.mounts, 'exec "$@"']),
                           "sh", *command]  # fmt: skip
            # A card does not wait for what else this machine has to do.
            command = ["nice", "-n", "-10", *command]
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
        pulse = "pps_channel" in self.settings["timing"]  # then on the second
        card = VirtualCard(
            self.folder / "card", self.around.plugin, self.sound, RATE, ppm=PPM, align=pulse
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
