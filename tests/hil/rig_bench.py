"""The bench that is hardware: a node reached by SSH, a player, a witness, relays.

    GUNFIRE_RIG_HOST     user@host: the node, installed as a service; root, or who may sudo
    GUNFIRE_RIG_BENCH    this machine's address, as the node reaches it: the broker is here
    GUNFIRE_RIG_PLAY     a command that is given a WAV file, and plays it over and over until it is
                         ended: outputs 1 to 4 into the node's inputs, output 5 into the witness
    GUNFIRE_RIG_LISTEN   a command that writes what the witness hears to its output, 48 kHz, S32_LE:
                         a receiver's pulse in its first input, the player's output 5 in its second
    GUNFIRE_RIG_POWER, GUNFIRE_RIG_USB, GUNFIRE_RIG_ANTENNA, GUNFIRE_RIG_PULSE
                         commands that are given `on` or `off`; without one its faults are skipped
    GUNFIRE_RIG_LATE_US  by how much the sound is later than its mark; 0 for wires
    GUNFIRE_RIG_SSH      the program that calls the node, with options; `ssh`

What the node had is set aside (`tests.hil.rig_loan`) and given back in the end, or, if this machine
did not come to that, as the next run begins. `python -m tests.hil.rig_bench` looks at the rig,
and gives back too.
How to build and wire it: docs/do/build-a-rig.md. Not yet tried on hardware.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from node.deliver import BrokerAddress
from node.network import PrivateBroker
from node.simulate.render import RenderedNode
from tests.hil.bench import Frames, Part, Switch
from tests.hil.container import NODE
from tests.hil.ear import Ear
from tests.hil.network_proxy import NetworkProxy
from tests.hil.rig_command import Command, Relay, RigError
from tests.hil.rig_loan import MICROPHONES, give_back, lend_settings, lent
from tests.hil.rig_marks import with_marks, write_wav
from tests.hil.rig_truth import Witness
from tests.hil.ssh_machine import SshMachine
from tests.hil.virtual_bench import BenchFleet, street

PREFIX: Final = "GUNFIRE_RIG_"
NEEDED: Final = {
    "HOST": "SSH to the node (GUNFIRE_RIG_HOST=user@host: root, or who may sudo)",
    "BENCH": "the node's network to this machine (GUNFIRE_RIG_BENCH=its address there)",
    "PLAY": "a player to the node's inputs (GUNFIRE_RIG_PLAY=command that is given a WAV file)",
    "LISTEN": "a witness to a pulse and the player (GUNFIRE_RIG_LISTEN=command that writes sound)",
}
RELAYS: Final[dict[str, Part]] = {
    "POWER": "power", "USB": "card", "ANTENNA": "receiver", "PULSE": "pulse",
}  # fmt: skip
_PATIENCE_S: Final = 3.0
_CALM_S: Final = (0.8, 1.6)
"""After a shot; the next one is 2.6 s after it at least."""
_NO_MARK_S: Final = 8.0


def missing(environment: Mapping[str, str] = os.environ) -> str:
    """Say what is to be wired before a rig is a rig, or nothing."""
    return "; ".join(
        f"wire {how}" for name, how in NEEDED.items() if not environment.get(PREFIX + name)
    )


@dataclass
class RigMicrophones:
    """What goes into the node's inputs, and, beside it, the marks."""

    player: Command
    witness: Witness
    folder: Path
    street: Frames
    arrivals: tuple[float, ...]

    def play(self, frames: Frames) -> None:
        """Play this from now on; a shot that is being played is played to its end."""
        file = self.folder / "sound.wav"
        write_wav(file.with_suffix(".new"), with_marks(frames, self.arrivals))
        self._wait_for_calm()
        self.player.end()
        file.with_suffix(".new").replace(file)
        self.player.start(str(file))

    def stop(self) -> None:
        """Play nothing more."""
        self.player.end()

    def _wait_for_calm(self) -> None:
        give_up_s = time.monotonic() + _NO_MARK_S
        least_s, most_s = _CALM_S
        while time.monotonic() < give_up_s:
            since_s = self.witness.since_mark_s
            if since_s is None or least_s < since_s < most_s:
                return
            time.sleep(0.05)


@dataclass
class PowerRelay(Relay):
    """The relay in the node's supply."""

    machine: SshMachine

    def off(self) -> None:
        super().off()
        self.machine.hang_up()


@dataclass
class RigBench:
    """See `tests.hil.bench.Bench`; `pulse_in_channel`: whether the node's card hears its pulse."""

    machine: SshMachine
    microphones: RigMicrophones
    witness: Witness
    proxy: NetworkProxy
    broker: PrivateBroker
    ear: Ear
    switches: Mapping[Part, Switch]
    pulse_in_channel: bool
    kind: Literal["rig"] = "rig"

    @property
    def parts(self) -> frozenset[Part]:
        return frozenset(("microphones", "broker", "network", "machine", "memory", *self.switches))

    def hear(self, sound: RenderedNode) -> None:
        """Have the node hear another sound in place of the street from now on."""
        microphones = self.microphones
        microphones.street, microphones.arrivals = _lines(sound)
        microphones.play(microphones.street)
        self.witness.check_marks()

    def onsets_utc_ns(self, from_utc_ns: int, to_utc_ns: int) -> list[int]:
        self.microphones.player.see()
        return self.witness.onsets_utc_ns(from_utc_ns, to_utc_ns, _PATIENCE_S)


@contextmanager
def rig_bench(
    environment: Mapping[str, str] = os.environ, sound: RenderedNode | None = None
) -> Iterator[RigBench]:
    """Take a rig over, have its node hear a street, and give it back as it was.

    Parameters
    ----------
    environment
        Where the variables are; `missing` has to say nothing of it.
    sound
        What is heard, over and over, in place of the street.

    Raises
    ------
    RigError
        If anything is not as the variables say.
    """
    given = {name: environment.get(PREFIX + name, "") for name in (*NEEDED, *RELAYS)}
    late_s = _late_s(environment.get(f"{PREFIX}LATE_US", "0"))
    sound = sound or street(pulse=False)
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="gunfire-rig-")))
        machine = opened.enter_context(_machine(environment))
        switches = _switches(given, machine)
        for switch in switches.values():
            switch.on()
        listener = Command(f"{PREFIX}LISTEN", given["LISTEN"])
        witness = opened.enter_context(Witness(listener, late_s))
        witness.check_pulses()
        player = Command(f"{PREFIX}PLAY", given["PLAY"])
        microphones = RigMicrophones(player, witness, folder, *_lines(sound))
        opened.callback(microphones.stop)
        before = opened.enter_context(lent(machine))
        node_id = str(before["node"]["id"])
        fleet = BenchFleet(folder / "fleet", node_id)
        broker = opened.enter_context(PrivateBroker(folder / "broker", fleet.configuration))
        proxy = NetworkProxy(fleet.port, given["BENCH"])
        try:
            opened.enter_context(proxy)
        except OSError as error:
            raise RigError(
                f"GUNFIRE_RIG_BENCH={given['BENCH']}: {error.strerror}; `ip address` shows which "
                "addresses this machine has"
            ) from None
        lend_settings(machine, fleet, before, f"{given['BENCH']}:{proxy.port}")
        microphones.play(microphones.street)
        machine.systemctl("--no-block", "restart", NODE)
        witness.check_marks()
        player.see()
        ear = opened.enter_context(Ear(_address(fleet), node_id))
        # While its broker is there, it ends sooner; and there is nothing without power.
        opened.callback(machine.run, "systemctl", "stop", NODE, check=False)
        for switch in switches.values():
            opened.callback(switch.on)
        pulse_in_channel = before.get("timing", {}).get("pps_channel") is not None
        yield RigBench(
            machine, microphones, witness, proxy, broker, ear, switches, pulse_in_channel
        )


def _late_s(us: str) -> float:
    try:
        return float(us) / 1e6
    except ValueError:
        raise RigError(f"GUNFIRE_RIG_LATE_US={us}: a number of µs, such as 2915") from None


def _machine(environment: Mapping[str, str]) -> SshMachine:
    ssh = shlex.split(environment.get(f"{PREFIX}SSH", "ssh"))
    return SshMachine(environment[f"{PREFIX}HOST"], ssh)


def _switches(given: Mapping[str, str], machine: SshMachine) -> dict[Part, Switch]:
    switches: dict[Part, Switch] = {}
    for name, part in RELAYS.items():
        if given[name]:
            command = Command(PREFIX + name, given[name])
            switches[part] = PowerRelay(command, machine) if part == "power" else Relay(command)
    return switches


def _lines(sound: RenderedNode) -> tuple[Frames, tuple[float, ...]]:
    """Give what goes into the node's inputs, and where its shots begin."""
    frames = np.asarray(sound.frames(), np.int32)[:, :MICROPHONES]
    return frames, tuple(arrival.sample for arrival in sound.arrivals())


def _address(fleet: BenchFleet) -> BrokerAddress:
    files = fleet.operator()
    return BrokerAddress.from_url(
        f"mqtts://127.0.0.1:{fleet.port}",
        ca_file=fleet.ca_file,
        cert_file=files.certificate,
        key_file=files.key,
    )


def look(environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Say of each part of a rig whether it is as it has to be, and give the node back.

    Raises
    ------
    RigError
        By the first part that is not.
    """
    given = {name: environment.get(PREFIX + name, "") for name in (*NEEDED, *RELAYS)}
    if not given["HOST"]:
        raise RigError(f"wire {NEEDED['HOST']}")
    with _machine(environment) as machine, tempfile.TemporaryDirectory() as folder:
        give_back(machine)
        yield f"node: {machine.host} lets us in as root, and has what is its own"
        switches = _switches(given, machine)
        for switch in switches.values():
            switch.on()
        yield f"relays: {', '.join(switches) or 'none'}"
        if missing(environment):
            raise RigError(missing(environment))
        with Witness(Command(f"{PREFIX}LISTEN", given["LISTEN"])) as witness:
            witness.check_pulses()
            yield f"witness: {witness}"
            player = Command(f"{PREFIX}PLAY", given["PLAY"])
            microphones = RigMicrophones(
                player, witness, Path(folder), *_lines(street(pulse=False))
            )
            try:
                microphones.play(microphones.street)
                witness.check_marks()
            finally:
                microphones.stop()
            yield f"witness: {witness}"
    yield "the rig is ready"


def main() -> int:
    """Look at a rig; what its node did not get back it gets."""
    try:
        for line in look():
            print(line, flush=True)
    except RigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
