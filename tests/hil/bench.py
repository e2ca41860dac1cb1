"""The seam between the bench's tests and what they run on: a rig, or nothing but software.

A test asks a bench for what a maintainer has hands for: play this, pull that plug, take the sky
away, cut the network, run a command on the node. `tests.hil.virtual_bench` does it with real
software in place of the hardware, `tests.hil.rig_bench` over SSH with relays. What a bench cannot
do it does not offer: a test names what it needs, and skips with what to wire.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tests.hil.ear import Ear
from tests.hil.network_proxy import NetworkProxy

Frames = npt.NDArray[np.int32]

Part = Literal[
    "card",
    "microphones",
    "power",
    "receiver",
    "pulse",
    "broker",
    "network",
    "machine",
    "memory",
    "packets",
    "software",
]
"""What a fault takes hold of."""

WIRING: Final[dict[Part, str]] = {
    "card": "the sound card's USB plug on a hub that switches its ports "
    "(GUNFIRE_RIG_USB=command that is given `on` or `off`)",
    "microphones": "a player whose outputs go into the card's inputs "
    "(GUNFIRE_RIG_PLAY=command that is given a WAV file, and plays it over and over)",
    "power": "a relay in the node's supply (GUNFIRE_RIG_POWER=command that is given `on` or `off`)",
    "receiver": "a relay in the antenna's supply (GUNFIRE_RIG_ANTENNA=command, `on` or `off`)",
    "pulse": "a relay in the pulse's line (GUNFIRE_RIG_PULSE=command, `on` or `off`)",
    "broker": "the bench's own address, where the node reaches it (GUNFIRE_RIG_BENCH=address)",
    "network": "the same as for the broker: the proxy stands between them",
    "machine": "SSH to the node as root (GUNFIRE_RIG_HOST=user@host)",
    "memory": "nothing: a container needs the cgroups' controller of memory, CAP_IPC_LOCK, and a "
    "/proc/sys that may be written",
    "packets": "nothing: nftables drops them on the virtual bench (apt: nftables)",
    "software": "nothing: no hardware can be asked for it, it runs on the virtual bench alone",
}


class Machine(Protocol):
    """The computer that the node runs on, as root."""

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        ...

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file there."""
        ...

    def systemctl(self, *words: str) -> str:
        """Run systemctl there, and give what it says."""
        ...


class Microphones(Protocol):
    """What the node's card hears: a street of shots, until it is told something else."""

    @property
    def street(self) -> Frames:
        """The sound as it is without a fault, one turn of it, shape [n, channels]."""
        ...

    def play(self, frames: Frames) -> None:
        """Have the card hear this from now on, in place of the street and as long."""
        ...


class Switch(Protocol):
    """Something that can be taken away and given back."""

    def off(self) -> None:
        """Take it away."""
        ...

    def on(self) -> None:
        """Give it back."""
        ...


class Broker(Protocol):
    """The broker that the node publishes to; it runs on the bench."""

    @property
    def pid(self) -> int | None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Bench(Protocol):
    """A node that hears a street of shots, and what stands about it.

    Attributes
    ----------
    kind
        Which bench.
    parts
        What faults may take hold of here.
    ear
        A subscriber that hears all the while.
    machine, microphones, proxy, broker
        The node's computer, what it hears, and the way to its broker.
    switches
        What can be taken away, of `card`, `power`, `receiver` and `pulse`.
    """

    kind: Literal["virtual", "rig"]
    parts: frozenset[Part]
    ear: Ear
    machine: Machine
    microphones: Microphones
    proxy: NetworkProxy
    broker: Broker
    switches: Mapping[Part, Switch]

    def onsets_utc_ns(self, from_utc_ns: int, to_utc_ns: int) -> list[int]:
        """Give when shots truly reached the first microphone in a stretch of time."""
        ...


def missing_parts(bench: Bench, needs: Sequence[Part]) -> str:
    """Say what to wire for what a bench lacks, or nothing."""
    return "; ".join(f"wire {WIRING[part]}" for part in needs if part not in bench.parts)
