"""What is planted in a good node: each function makes one thing wrong, on the bench alone.

Beside `tests.units.planted_faults`, which says what is to be told of each.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

import numpy as np

from node.classify.classifier import shipped_model
from tests.hil.network_proxy import NetworkProxy
from tests.hil.virtual_chrony import VirtualChrony
from tests.hil.virtual_receiver import Gpsd, VirtualReceiver, free_port
from tests.units.good_node import MICROPHONES, RATE, Bench
from tests.units.surroundings import TimeServer, chronyc

FULL_SCALE: Final = 2**31
_ADDRESSES: Final = count(1)


def put(section: str, **values: object) -> Callable[[Bench], None]:
    """Give what sets settings."""

    def plant(bench: Bench) -> None:
        bench.settings.setdefault(section, {}).update(values)

    return plant


def sound(channel: int, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Bench], None]:
    """Give what changes a channel's sound; full scale is 1."""

    def plant(bench: Bench) -> None:
        of = bench.sound[:, channel] / FULL_SCALE
        whole = np.clip(np.round(make(of) * 2**23), -(2**23), 2**23 - 1)  # as a converter has it
        bench.sound[:, channel] = whole.astype(np.int64) << 8

    return plant


def dead(of: np.ndarray) -> np.ndarray:
    """Give what a cable that is off does: the converter's own last bits."""
    return np.asarray(np.random.default_rng(1).integers(-1, 2, len(of)) / 2**23)


def hum(of: np.ndarray) -> np.ndarray:
    """Add the mains and its odd harmonics, 30 dB over the street."""
    t = np.arange(len(of)) / RATE
    level = 30 * float(np.std(of))
    return np.asarray(of + sum(level / k * np.sin(2 * np.pi * 50 * k * t) for k in (1, 3, 5, 7)))


def too_loud(of: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(of * (4 / np.std(of)), -1, 1))


def all_dead(bench: Bench) -> None:
    for channel in range(MICROPHONES):
        sound(channel, dead)(bench)


def copied(bench: Bench) -> None:
    bench.sound[:, 2] = bench.sound[:, 1]


def rotated(bench: Bench) -> None:
    bench.sound = np.roll(bench.sound, 1, axis=1)


def no_pulse(of: np.ndarray) -> np.ndarray:
    return np.asarray(np.random.default_rng(2).normal(0, 1e-4, len(of)))


def two_cards(bench: Bench) -> None:
    bench.second_card = "microphones2"
    bench.settings["capture"]["device"] = "microphone"


def stall(bench: Bench) -> None:
    bench.deed = lambda card: card.stall()


def unplug(bench: Bench) -> None:
    bench.deed = lambda card: card.unplug()


def lose(bench: Bench) -> None:
    bench.deed = lambda card: card.skip(700)


def sky(*, fix: bool = True, silent: bool = False) -> Callable[[Bench], None]:
    def plant(bench: Bench) -> None:
        sky = VirtualReceiver()
        sky.fix, sky.silent = fix, silent
        bench.hooks.enter_context(sky)
        gpsd = bench.hooks.enter_context(Gpsd(sky.device))
        put("timing", gpsd=gpsd.address)(bench)

    return plant


def chrony_off(bench: Bench) -> None:
    command = ("chronyc", "-h", str(bench.folder / "nobody.sock"))
    path = chronyc(bench.folder / "bin", command)
    bench.environment["PATH"] = f"{path}:{bench.environment['PATH']}"


def chrony_adrift(bench: Bench) -> None:
    chrony = VirtualChrony(bench.folder / "chrony", 0.0)
    chrony.pulse = False
    bench.hooks.enter_context(chrony)
    path = chronyc(bench.folder / "bin", chrony.command)
    bench.environment["PATH"] = f"{path}:{bench.environment['PATH']}"


def opinion(off_s: float) -> Callable[[Bench], None]:
    def plant(bench: Bench) -> None:
        server = bench.hooks.enter_context(TimeServer(off_s))
        put("timing", ntp_servers=[server.address])(bench)

    return plant


def broker_away(bench: Bench) -> None:
    put("mqtt", url=f"mqtts://127.0.0.1:{free_port()}")(bench)


def broker_swallows(bench: Bench) -> None:
    proxy = bench.hooks.enter_context(NetworkProxy(bench.around.broker_port))
    proxy.stall()
    put("mqtt", url=f"mqtts://127.0.0.1:{proxy.port}")(bench)


def no_names(bench: Bench) -> None:
    """Have a name server that listens and never answers."""
    deaf = bench.hooks.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    address = f"127.7.{next(_ADDRESSES)}.53"
    deaf.bind((address, 53))
    resolv = bench.folder / "resolv.conf"
    resolv.write_text(f"nameserver {address}\n")
    bench.mounts.append(f"mount --bind {resolv} /etc/resolv.conf")
    put("mqtt", url="mqtts://broker.example.org")(bench)


def all_hangs(bench: Bench) -> None:
    """Have all hang that can: every name, the receiver, the time server, and then the card."""
    no_names(bench)
    sky(silent=True)(bench)
    put("timing", ntp_servers=["time.example.org", "time2.example.org"])(bench)
    stall(bench)


def other_rights(bench: Bench) -> None:
    files = bench.around.people.auditor
    put("mqtt", cert_file=str(files.certificate), key_file=str(files.key))(bench)


def no_certificate(bench: Bench) -> None:
    del bench.settings["mqtt"]["cert_file"], bench.settings["mqtt"]["key_file"]


def other_ca(bench: Bench) -> None:
    other = bench.around.people.sign(bench.folder / "other", "other").certificate
    put("mqtt", ca_file=str(other.with_name("ca.crt")))(bench)


def client_expired(bench: Bench) -> None:
    files = bench.around.people.expired(bench.name)
    put("mqtt", cert_file=str(files.certificate), key_file=str(files.key))(bench)


def disk(options: str, *then: str) -> Callable[[Bench], None]:
    def plant(bench: Bench) -> None:
        place = bench.folder / "disk"
        place.mkdir()
        bench.mounts.append(f"mount -t tmpfs -o {options} none {place}")
        bench.mounts += [line.format(place=place) for line in then]
        put("outbox", path=str(place / "outbox.sqlite3"))(bench)

    return plant


def spoilt_model(bench: Bench) -> None:
    shipped = shipped_model()
    shutil.copy(shipped.with_suffix(".json"), bench.folder)
    model = Path(shutil.copy(shipped, bench.folder))
    model.write_bytes(model.read_bytes()[:9000])
    put("classify", model=str(model))(bench)


def key(bench: Bench) -> Path:
    return Path(bench.settings["integrity"]["key_file"])


def other_certificate(bench: Bench) -> None:
    files = bench.around.people.sign(bench.folder / "other", "mast-2")
    put("integrity", key_file=str(files.key), certificate_file=str(files.certificate))(bench)


def sysfs(**files: str) -> Callable[[Bench], None]:
    """Lay files over /sys/class, as a Pi's kernel has them."""

    def plant(bench: Bench) -> None:
        root = bench.folder / "class"
        for path, text in files.items():
            file = root / path.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text + "\n")
        bench.mounts.append(f"mount --bind {root} /sys/class")

    return plant
