"""A node under systemd, as it is installed, hearing a street; what befalls it, with the seconds.

Real are the units, their sandbox, systemd, the daemon, a Mosquitto and the subscriber. The sound
card is the virtual one, which one drop-in puts into the sandbox; nothing else of that is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from node.deliver import BrokerAddress
from node.messages import Detection, Status
from node.network import PrivateBroker, Subscription
from node.simulate.render import RenderedNode
from node.utc import parse_utc_ns
from tests.hil.container import CHECKOUT, NODE, ROOT, Container, own_network
from tests.hil.shots import detections, onset_errors_ns
from tests.hil.virtual_card import VirtualCard
from tests.hil.virtual_chrony import VirtualChrony

RATE = 48_000
CARD = "/card"
"""Where the card's folder is in the container."""
UNITS = sorted((CHECKOUT / "systemd").glob("*.service"))
SETTINGS = "/etc/gunfire-node/gunfire-node.toml"
SAME_NS = 0.1e9
"""Onsets less apart are of one shot."""


def exposure(unit: Path) -> float:
    """Give a unit's exposure level by systemd-analyze."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        timeout=60,
    )
    level = re.search(r"Overall exposure level for .*: ([\d.]+)", done.stdout)
    assert level, done.stderr
    return float(level[1])


@dataclass(frozen=True)
class Installed:
    """A container in which the node was installed: its layers, and what it was installed from."""

    layers: Sequence[Path]
    source: Path

    @classmethod
    def at(cls, place: Path) -> Self:
        """Give what was installed into the container that is there."""
        return cls((place / "upper", ROOT), place / "src")

    @property
    def place(self) -> Path:
        """Where that container is."""
        return self.source.parent

    def machine(self, name: str) -> Container:
        """Make a container of it, with the source in /src."""
        return Container(name, self.layers, [f"{self.source}:/src"])


INSTALL = ("/src/provisioning/install", "--wheels", "/wheels", "--no-start")


@contextmanager
def installed() -> Iterator[Installed]:
    """Install this checkout, as it is now, into a container, offline."""
    machine = Container("installed")
    source = machine.place / "src"
    source.mkdir()
    for part in (
        "node",
        "models",
        "systemd",
        "provisioning",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    ):
        subprocess.run(["cp", "-a", "--parents", part, source], cwd=CHECKOUT, check=True)
    machine.binds.append(f"{source}:/src")
    try:
        with machine:
            machine.run(*INSTALL)
            machine.systemctl("stop", NODE)
        yield Installed.at(machine.place)
    finally:
        machine.discard()


@dataclass(frozen=True)
class Stage:
    """A container that hears a card, and publishes."""

    machine: Container
    card: VirtualCard
    street: RenderedNode
    broker: PrivateBroker
    folder: Path

    @contextmanager
    def subscribed(self, **options: Any) -> Iterator[Subscription]:
        """Listen from outside, as a city would."""
        address = BrokerAddress.from_url(self.broker.url)
        with Subscription(address, site="test", **options) as words:
            yield words

    def onset_errors_ns(self, heard: Sequence[Detection]) -> list[float]:
        """Give by how much each onset is wrong, against the nearest true one."""
        return onset_errors_ns(heard, self._onsets_utc_ns())

    def unheard(self, heard: Sequence[Detection]) -> int:
        """Count the shots between the first and the last heard that were not."""
        told = sorted(parse_utc_ns(detection.onset_utc) for detection in heard)
        between = [o for o in self._onsets_utc_ns() if told[0] - SAME_NS < o < told[-1] + SAME_NS]
        return sum(all(abs(onset - one) > SAME_NS for one in told) for onset in between)

    def _onsets_utc_ns(self) -> list[float]:
        truth = self.card.truth()
        return [truth.utc_ns(arrival.sample) for arrival in self.street.arrivals()]


@contextmanager
def stage(
    name: str,
    product: Installed,
    plugin: Path,
    sound: RenderedNode,
    *,
    drop_ins: dict[str, str] | None = None,
    settings: str = "",
    loop: bool = False,
    receiver: bool = False,
) -> Iterator[Stage]:
    """Boot a container whose node hears a sound, or that sound for ever.

    Drop-ins by name go to the node's unit; with a receiver its chrony has a pulse.
    """
    machine = product.machine(name)
    folder = machine.place / "card"
    card = VirtualCard(folder, plugin, sound.frames(), RATE, ppm=25.0, loop=loop)
    hand_in(machine, card, folder, plugin)
    for drop_in, text in (drop_ins or {}).items():
        machine.drop_in(NODE, drop_in, text)
    try:
        with own_network(), PrivateBroker(machine.place / "broker") as broker:
            machine.write(
                SETTINGS,
                f'[node]\nid = "roof-1"\nsite = "test"\n'
                f'[capture]\ndevice = "{card.name}"\narray = "tetrahedron_200mm"\n'
                f'[mqtt]\nurl = "{broker.url}"\nreconnect_max_s = 2\n{settings}',
            )
            with ReceiverInside(machine) if receiver else nullcontext(), machine:
                yield Stage(machine, card, sound, broker, folder)
    finally:
        machine.discard()


def hand_in(machine: Container, card: VirtualCard, folder: Path, plugin: Path) -> None:
    """Show the card in a container."""
    shutil.copy(plugin, folder)
    configuration = folder / "asound.conf"
    configuration.write_text(
        configuration.read_text()
        .replace(str(plugin), f"{CARD}/{plugin.name}")
        .replace(str(folder), CARD)
    )
    folder.chmod(0o777)  # the node's user takes commands out of it
    machine.binds.append(f"{folder}:{CARD}")
    machine.drop_in(
        NODE,
        "card",
        f"[Service]\nEnvironment=ALSA_CONFIG_PATH={CARD}/asound.conf\nReadWritePaths={CARD}\n",
    )


class ReceiverInside(VirtualChrony):
    """A simulated GPS with pulse that feeds the chronyd of a container, made before it boots."""

    def __init__(self, machine: Container) -> None:
        super().__init__(machine.place / "refclocks", offset_s=0.0)
        machine.binds.append(f"{machine.place / 'refclocks'}:/run/refclocks")
        machine.write("/etc/default/chrony", 'DAEMON_OPTS="-x"\n')
        machine.drop_in("chrony.service", "x", "[Unit]\nConditionCapability=\n")
        machine.write(
            "/etc/chrony/chrony.conf",
            "refclock SOCK /run/refclocks/nmea.sock refid NMEA precision 1e-2 poll 1 noselect\n"
            "refclock SOCK /run/refclocks/pps.sock refid PPS precision 1e-6 poll 1 filter 2 "
            "lock NMEA\n",
        )

    def start(self) -> None:
        """Leave it to the container's systemd."""


@dataclass(frozen=True)
class Recovery:
    """What became of a fault, in seconds since it struck; None for what never came.

    Attributes
    ----------
    told_s
        Until a subscriber knew: a status that is not the one before, or the last will.
    hearing_s
        Until the first detection by a new run.
    reasons
        What was told.
    """

    told_s: float | None
    hearing_s: float | None
    reasons: tuple[str, ...]


def hang(stage: Stage) -> None:
    """Stop the node's process where it stands."""
    os.kill(stage.machine.pid(), signal.SIGSTOP)


def stall_disk(stage: Stage, stall_s: float, catch_up_s: float = 20.0) -> list[Detection]:
    """Have the disk take so long for a commit; give what is heard before, meanwhile and after."""
    with stage.subscribed() as words:
        heard = detections(words, 30.0, wanted=1)
        assert heard, stage.machine.journal()[-4000:]
        calls = "fsync,fdatasync"
        late = f"inject={calls}:delay_enter={stall_s * 1e6:.0f}:when=1"
        strace = ["strace", "-qq", "-o", "/dev/null", "-p", str(stage.machine.pid())]
        with subprocess.Popen([*strace, "-e", f"trace={calls}", "-e", late]) as slow:
            try:
                heard += detections(words, stall_s + catch_up_s, wanted=1000)
            finally:
                slow.terminate()
    return heard


def recover_from(stage: Stage, strike: Callable[[], None], deadline_s: float = 90.0) -> Recovery:
    """Strike a node that hears, and time what a subscriber learns of it."""
    with stage.subscribed() as words:
        before = detections(words, 30.0, wanted=1)
        assert before, stage.machine.journal()[-4000:]
        struck_s = time.monotonic()
        strike()
        told_s, reasons = None, ()
        for word in words.within(deadline_s):
            message, now_s = word.message, time.monotonic() - struck_s
            if isinstance(message, Status) and message.state == "offline" and told_s is None:
                told_s, reasons = now_s, message.reasons
            if isinstance(message, Detection) and message.boot_id != before[0].boot_id:
                return Recovery(told_s, now_s, tuple(reasons))
    return Recovery(told_s, None, tuple(reasons))


LEAK = """
import os, threading, time
def leak():
    kept = []
    time.sleep(5)
    while True:
        try:
            kept.append(b"x" * 8_000_000)
        except MemoryError:
            pass
        time.sleep(0.05)
if os.environ.get("NOTIFY_SOCKET"):
    threading.Thread(target=leak, daemon=True).start()
"""
"""Python's own hook for a site: beside the real daemon a thread that keeps 160 MB a second."""


def leak(stage: Stage, deadline_s: float = 60.0) -> tuple[Recovery, int]:
    """Have the next run of the node leak; give what became of it, and how much it had at most."""
    (stage.folder / "sitecustomize.py").write_text(LEAK)
    stage.machine.drop_in(NODE, "leak", f"[Service]\nEnvironment=PYTHONPATH={CARD}\n")
    stage.machine.systemctl("restart", NODE)
    most = 0

    def watch() -> None:
        nonlocal most
        pid = stage.machine.pid()
        (stage.folder / "sitecustomize.py").unlink()  # the run after that is sound
        give_up_s = time.monotonic() + deadline_s
        status = Path(f"/proc/{pid}/status")
        while time.monotonic() < give_up_s:
            try:
                found = re.search(r"RssAnon:\s+(\d+)", status.read_text())
            except OSError:
                return
            most = max(most, int(found[1]) * 1024 if found else 0)
            time.sleep(0.02)

    recovery = recover_from(stage, watch, deadline_s)
    return recovery, most
