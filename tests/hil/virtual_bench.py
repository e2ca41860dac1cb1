"""The bench without hardware: real software in place of all of it, in real time.

Real are the units and their sandbox under a real systemd, the daemon, PortAudio and PyAudio, gpsd,
chronyd (which leaves the clock alone), Mosquitto on the configuration and the access list that are
shipped, with mutual TLS. In place of hardware: a sound card that is an ALSA plug-in with a clock of
its own, a receiver that writes NMEA, its pulse in a channel of the card and in chronyd's SOCK
refclock, pins of gpiozero's mock. The network is loopback, behind a proxy that breaks it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np

from node.capture import built_in_arrays
from node.deliver import BrokerAddress, SessionOptions
from node.deliver.session import Session
from node.network import PrivateBroker
from node.simulate.render import RenderedNode, render
from node.simulate.scene import parse
from tests.faults.fleet import Fleet
from tests.hil.bench import Frames, Part, Switch
from tests.hil.container import CAN_BOUND_MEMORY, FORGET, NODE, Container, own_network
from tests.hil.ear import NAME, Ear
from tests.hil.fleet_ca import Files
from tests.hil.network_proxy import NetworkProxy
from tests.hil.unit_stage import CARD, LEAK, RATE, SETTINGS, Installed, ReceiverInside, hand_in
from tests.hil.virtual_card import Truth, VirtualCard
from tests.hil.virtual_receiver import Gpsd, VirtualReceiver

NODE_ID: Final = "mast-1"
BROKER_NAME: Final = "broker.bench"
"""Known to the node by its /etc/hosts alone."""
HEARD_FROM_M: Final = 200
"""How far off the impulses stand whose published times are measured."""
PPM: Final = 25.0
TURN_S: Final = 20
"""A turn of the street: of a whole number of frames at that clock, so that its pulses go on."""
SHOT_EVERY_S: Final = 2.63
"""No two shots are whole seconds apart, or they would look like a pulse."""
NFT: Final = "/usr/sbin/nft"
PULSE: Final = 4
"""The channel that carries the receiver's pulse."""
STATE: Final = "/var/lib/gunfire-node"
_FILES: Final = "/etc/gunfire-node"
_POLL_S: Final = 0.02


def street(*, pulse: bool) -> RenderedNode:
    """Build a turn of a quiet street with a shot every 2.6 s, 80 m away, for four microphones."""
    return _turn(TURN_S, SHOT_EVERY_S, (40.0, 70.0), pulse=pulse)


def impulses(*, pulse: bool, range_m: int = HEARD_FROM_M) -> RenderedNode:
    """Build a turn of impulses to time: every 1.9 s, each another part of a sample on.

    They stand as far out of the noise as what is injected into a line does. The air has rounded
    their rise: the moment of one that is much steeper than a sample is long, or much slower, the
    trigger tells less well, and a bench is to show what the way from card to message adds.
    """
    place_m = (range_m * 0.5, range_m * 0.866)
    return _turn(3 * TURN_S, 1.903, place_m, pulse=pulse, noise_db_a=30.0)


def _turn(
    turn_s: int,
    every_s: float,
    place_m: tuple[float, float],
    *,
    pulse: bool,
    noise_db_a: float = 50.0,
) -> RenderedNode:
    shots = "".join(
        f'[[sources]]\nkind = "muzzle_blast"\ncalibre = "9mm"\ntime_s = {1.0 + every_s * i}\n'
        f"x_m = {place_m[0]}\ny_m = {place_m[1]}\n"
        for i in range(int((turn_s - 1.0) / every_s))
    )
    frames = round(turn_s * RATE * (1 + PPM * 1e-6))
    scene = parse(
        f'name = "bench"\nduration_s = {frames / RATE}\nseed = 9\n'
        f"start_utc = 2026-06-01T12:00:00Z\n[street]\nnoise_db_a = {noise_db_a}\n"
        + shots
        + f'[[nodes]]\nid = "{NODE_ID}"\nx_m = 0.0\ny_m = 0.0\nz_m = 6.0\nclock_ppm = {PPM}\n'
        f'array = "tetrahedron_200mm"\npps = {str(pulse).lower()}\n'
    )
    return render(scene, built_in_arrays()).nodes[0]


@dataclass(frozen=True)
class _Stretch:
    """A stretch of time in which frames fell by one truth; it ends where the next begins."""

    from_utc_ns: int
    truth: Truth


class Streams:
    """Every stream that a card has had, as it told the truth of them; a context manager."""

    def __init__(self, card: VirtualCard, file: Path) -> None:
        self._card, self._file = card, file
        self._seen_ns = 0
        self._stretches: list[_Stretch] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="streams")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._thread.join()

    def onsets_utc_ns(
        self, frames: Sequence[float], turn: int, from_utc_ns: int, to_utc_ns: int
    ) -> list[int]:
        """Give when frames of each turn were converted, within a stretch of time."""
        stretches = tuple(self._stretches)
        ends = [later.from_utc_ns for later in stretches[1:]] + [to_utc_ns]
        onsets: list[int] = []
        for stretch, end_ns in zip(stretches, ends, strict=True):
            truth = stretch.truth
            first_ns = max(from_utc_ns, stretch.from_utc_ns)
            last_ns = min(end_ns, to_utc_ns)
            turn_ns = turn / truth.rate_hz * 1e9
            for number in range(
                max(0, int((first_ns - truth.frame0_utc_ns) // turn_ns)),
                int((last_ns - truth.frame0_utc_ns) // turn_ns) + 1,
            ):
                at = (truth.utc_ns(number * turn + frame) for frame in frames)
                onsets += [onset for onset in at if first_ns <= onset < last_ns]
        return onsets

    def _watch(self) -> None:
        while not self._closing.wait(_POLL_S):
            try:
                changed_ns = self._file.stat().st_mtime_ns
                if changed_ns == self._seen_ns:
                    continue
                truth = self._card.truth()
            except (OSError, ValueError):
                continue  # it is being written
            self._seen_ns = changed_ns
            begins_ns = max(time.time_ns(), truth.frame0_utc_ns)
            self._stretches.append(_Stretch(begins_ns, truth))


@dataclass
class VirtualMicrophones:
    """The card's inputs."""

    card: VirtualCard
    street: Frames

    def play(self, frames: Frames) -> None:
        self.card.play(frames, Path(CARD))


@dataclass
class CardSwitch:
    """The card's plug. It comes back behind two others, and so under another number."""

    card: VirtualCard

    def off(self) -> None:
        self.card.hide()
        self.card.unplug()

    def on(self) -> None:
        self.card.show(before=2)


@dataclass
class ReceiverSwitch:
    """The sky over the receiver's antenna."""

    receiver: VirtualReceiver

    def off(self) -> None:
        self.receiver.fix = False

    def on(self) -> None:
        self.receiver.fix = True


@dataclass
class PulseSwitch:
    """The pulse's line, to the card and to the kernel."""

    microphones: VirtualMicrophones
    chrony: ReceiverInside

    def off(self) -> None:
        self.chrony.pulse = False
        quiet = self.microphones.street.copy()
        quiet[:, PULSE] = 0
        self.microphones.play(quiet)

    def on(self) -> None:
        self.chrony.pulse = True
        self.microphones.play(self.microphones.street)


@dataclass
class PowerSwitch:
    """The node's supply: pulled, and put back. What was not synced is in no doubt here."""

    machine: Container

    def off(self) -> None:
        self.machine.stop()

    def on(self) -> None:
        self.machine.start()


@dataclass
class VirtualBench:
    """See `tests.hil.bench.Bench`; beside it, what only software can be asked to do."""

    machine: Container
    card: VirtualCard
    microphones: VirtualMicrophones
    receiver: VirtualReceiver
    gpsd: Gpsd
    chrony: ReceiverInside
    fleet: BenchFleet
    broker: PrivateBroker
    proxy: NetworkProxy
    ear: Ear
    streams: Streams
    arrivals: tuple[float, ...]
    folder: Path
    switches: Mapping[Part, Switch] = field(default_factory=dict)
    kind: Literal["virtual"] = "virtual"

    @property
    def parts(self) -> frozenset[Part]:
        always: tuple[Part, ...] = ("microphones", "broker", "network", "machine", "software")
        memory: tuple[Part, ...] = ("memory",) if self.machine.memory_bytes else ()
        packets: tuple[Part, ...] = ("packets",) if Path(NFT).exists() else ()
        return frozenset((*always, *memory, *packets, *self.switches))

    def onsets_utc_ns(self, from_utc_ns: int, to_utc_ns: int) -> list[int]:
        turn = len(self.microphones.street)
        return self.streams.onsets_utc_ns(self.arrivals, turn, from_utc_ns, to_utc_ns)

    def step_clock(self, seconds: float) -> None:
        """Have the host's clock be off by so much, as the node's process reads it."""
        (self.folder / "faketime").write_text(f"{seconds:+g}\n")

    def leak(self) -> None:
        """Have the next run of the node leak memory, and the one after that not."""
        hook = self.folder / "sitecustomize.py"
        once = f"import pathlib\npathlib.Path('{CARD}/{hook.name}').unlink()\n"
        hook.write_text(once + LEAK)

    def namesake(self) -> Session:
        """Give another client with the node's certificate and name."""
        address = BrokerAddress.from_url(
            f"mqtts://127.0.0.1:{self.fleet.port}", **_tls(self.fleet.ca_file, self.fleet.node)
        )
        return Session(address, NODE_ID, _Mute(), SessionOptions(reconnect_max_s=1))


class _Mute:
    """A client that says and hears nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class BenchFleet(Fleet):
    """The fleet about the bench's broker, which has a name."""

    addresses = ("127.0.0.1", BROKER_NAME)

    @property
    def crl_file(self) -> Path:
        """The list of what is revoked, as the broker reads it."""
        return self._ca.crl_file

    def operator(self) -> Files:
        """Give a subscriber that may read all its certificate."""
        return self._issue(NAME, NAME)


def _forget_files() -> None:
    """Have the kernel forget all files that it has read, so that each is read anew.

    It counts what it keeps of a file as memory of whichever machine read it first: of another one,
    a machine short of memory could not take the programs that it runs.
    """
    os.sync()
    FORGET.write_text("1\n")


@contextmanager
def virtual_bench(
    name: str,
    product: Installed,
    plugin: Path,
    *,
    pulse: bool = True,
    sound: RenderedNode | None = None,
    settings: str = "",
    drop_ins: Mapping[str, str] | None = None,
    state_bytes: int = 0,
    memory_bytes: int = 0,
    clock_steps: bool = False,
) -> Iterator[VirtualBench]:
    """Put a node on the bench, and wait until it hears and all is well.

    Parameters
    ----------
    name
        Of its container.
    product, plugin
        What `tests.hil.unit_stage.installed` and `tests.hil.virtual_card.build_plugin` gave.
    pulse
        Whether the card has the receiver's pulse in a fifth channel.
    sound
        What is heard, over and over, in place of the street.
    settings, drop_ins
        Further settings, and drop-ins of the node's unit.
    state_bytes
        Size of the disk that the node keeps its state on; unbounded if 0.
    memory_bytes
        The machine's memory; unbounded if 0, or if nothing here can bound it.
    clock_steps
        Whether the host's clock, as the node reads it, can be stepped (by libfaketime).
    """
    sound = sound or street(pulse=pulse)
    machine = product.machine(name)
    machine.memory_bytes = memory_bytes if CAN_BOUND_MEMORY else 0
    with ExitStack() as opened:
        opened.callback(machine.discard)
        opened.enter_context(own_network())
        folder = machine.place / "card"
        frames = np.asarray(sound.frames(), np.int32)
        card = VirtualCard(folder, plugin, frames, RATE, ppm=PPM, align=pulse, loop=True)
        hand_in(machine, card, folder, plugin)
        receiver = opened.enter_context(VirtualReceiver())
        gpsd = opened.enter_context(Gpsd(receiver.device))
        fleet = BenchFleet(machine.place / "fleet", NODE_ID)
        broker = opened.enter_context(PrivateBroker(machine.place / "broker", fleet.configuration))
        proxy = opened.enter_context(NetworkProxy(fleet.port))
        put_certificates(machine, fleet.ca_file, fleet.node)
        machine.write(
            SETTINGS,
            _settings(card.name, gpsd.address, proxy.port, pulse=pulse) + settings,
        )
        machine.write("/etc/hosts", f"127.0.0.1 localhost {BROKER_NAME}\n")
        for drop_in, text in {
            "pins": "[Service]\nEnvironment=GPIOZERO_PIN_FACTORY=mock\n",
            "leak": f"[Service]\nEnvironment=PYTHONPATH={CARD}\n",
            # A card does not wait for what else this machine has to do.
            "first": "[Service]\nNice=-10\n",
            **(drop_ins or {}),
        }.items():
            machine.drop_in(NODE, drop_in, text)
        if clock_steps:
            _put_faketime(machine, folder)
        if state_bytes:
            machine.write("/etc/fstab", f"state {STATE} tmpfs size={state_bytes},mode=0700 0 0\n")
            machine.write(f"{STATE}/.keep", "")
        microphones = VirtualMicrophones(card, frames)
        chrony = opened.enter_context(ReceiverInside(machine))
        address = BrokerAddress.from_url(
            f"mqtts://127.0.0.1:{fleet.port}", **_tls(fleet.ca_file, fleet.operator())
        )
        ear = opened.enter_context(Ear(address, NODE_ID))
        streams = opened.enter_context(Streams(card, folder / "truth.json"))
        if machine.memory_bytes:
            _forget_files()
        opened.enter_context(machine)
        bench = VirtualBench(
            machine, card, microphones, receiver, gpsd, chrony, fleet, broker, proxy, ear, streams,
            tuple(arrival.sample for arrival in sound.arrivals()), folder,
        )  # fmt: skip
        switches: dict[Part, Switch] = {
            "card": CardSwitch(card),
            "power": PowerSwitch(machine),
            "receiver": ReceiverSwitch(receiver),
        }
        if pulse:
            switches["pulse"] = PulseSwitch(microphones, chrony)
        bench.switches = switches
        yield bench


def _put_faketime(machine: Container, folder: Path) -> None:
    """Have the node read the host's clock through libfaketime."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    shutil.copy(library, folder)
    sleep = folder / "true_sleep.so"
    source = Path(__file__).with_name("true_sleep.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", sleep, source], check=True)
    (folder / "faketime").write_text("+0\n")
    machine.drop_in(
        NODE,
        "faketime",
        f"[Service]\nEnvironment=LD_PRELOAD={CARD}/{sleep.name}:{CARD}/{library.name}"
        f" FAKETIME_TIMESTAMP_FILE={CARD}/faketime FAKETIME_CACHE_DURATION=1"
        " FAKETIME_DONT_FAKE_MONOTONIC=1\n",
    )


def put_certificates(machine: Container, ca_file: Path, node: Files) -> None:
    """Put the node's certificate for the broker, and its key as a credential, where they belong."""
    machine.write(f"{_FILES}/ca.crt", ca_file.read_text())
    machine.write(f"{_FILES}/{NODE_ID}.crt", node.certificate.read_text())
    machine.write("/etc/credstore/gunfire-node.mqtt.key", node.key.read_text(), 0o600)


def _settings(card: str, gpsd: str, port: int, *, pulse: bool) -> str:
    return f"""
[node]
id = "{NODE_ID}"
site = "bench"
[node.position]
lat_deg = 47.85
lon_deg = 106.2
alt_m = 1280.0
sigma_m = 2.0
[capture]
device = "{card}"
channels = {4 + pulse}
block_frames = 16384  # for a machine that does much else
array = "tetrahedron_200mm"
{"" if pulse else "order_fixed = true"}
[timing]
gpsd = "{gpsd}"
{f"pps_channel = {PULSE}" if pulse else ""}
[board]
enabled = true
[mqtt]
url = "mqtts://{BROKER_NAME}:{port}"
ca_file = "{_FILES}/ca.crt"
cert_file = "{_FILES}/{NODE_ID}.crt"
key_file = "/run/credentials/{NODE}/gunfire-node.mqtt.key"
reconnect_max_s = 2
keepalive_s = 5
"""


def _tls(ca_file: Path, files: Files) -> dict[str, Path]:
    return {"ca_file": ca_file, "cert_file": files.certificate, "key_file": files.key}
