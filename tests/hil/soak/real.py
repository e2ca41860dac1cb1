"""`gunfire-node run` in real time, as long as one likes, with all about it that a bench has.

The program hears the virtual sound card through PyAudio: four microphones, and a receiver's pulse
in a channel of its own. gpsd, chronyd (which leaves the clock alone) and a Mosquitto that asks for
certificates are real; the receiver writes NMEA, the NTP server is a dozen lines. The broker is
stopped for a minute now and then. Light and button are left out: gpiozero's mock keeps every state
that a pin ever had, half a megabyte an hour, and this is no growth of the node's.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ed25519

from node.deliver import Outbox
from node.network import PrivateBroker
from node.settings import load
from tests.evidence import commit_now
from tests.faults.auditor import Auditor
from tests.hil.fleet_ca import FleetCa
from tests.hil.process import GUNFIRE_NODE
from tests.hil.soak.card import FADE_S, Mixer
from tests.hil.soak.judge import HOUR_S, Outcome
from tests.hil.soak.ledger import Ledger
from tests.hil.soak.library import PPM, Pcm
from tests.hil.soak.rendering import ARRAYS, PULSES_S, rendered
from tests.hil.soak.series import MAPPED, Looker, Place, Sample
from tests.hil.soak.simulated import ENDS_S, ENVIRONMENT, SETTLES_S, WORKING_S, wait_for
from tests.hil.soak.street import Street
from tests.hil.virtual_card import Truth, VirtualCard, build_plugin
from tests.hil.virtual_chrony import VirtualChrony
from tests.hil.virtual_receiver import Gpsd, VirtualReceiver
from tests.parts import Tell
from tests.units.surroundings import People, TimeServer, chronyc, wait_until_held

NAME: Final = "soak-real"
FULL_S: Final = HOUR_S
RATE_HZ: Final = 48_000
MICROPHONES: Final = 4
LOOP_S: Final = 5 * PULSES_S
"""Of sound, after which the card begins again; the pulse goes on over the seam."""
LOOK_S: Final = 5.0
OPENS_S: Final = 60.0
BROKER_AWAY_S: Final = 60.0
BROKER_EVERY_S: Final = 900.0
BROKER_FIRST_S: Final = 300.0
BROKER_CALM_S: Final = 300.0
"""Before the end, in which it stays."""
DRAINS_S: Final = 90.0
"""So long the outbox may take: a node pauses for a minute at most before it tries again."""
NODE_ID, SITE = "mast-1", "soak"


@dataclass(frozen=True)
class _Bench:
    """The node that runs, and what stands about it."""

    node: subprocess.Popen[bytes]
    broker: PrivateBroker
    ledger: Ledger
    truth: Truth
    config: Path


def run(
    hours: float, folder: Path, tell: Tell, kept: Path | None = None
) -> tuple[Outcome, list[Sample]]:
    """Let the node hear in real time; a KeyboardInterrupt ends it in good order.

    Parameters
    ----------
    hours
        How long.
    folder
        An empty one, for everything.
    tell
        Told how far it is.
    kept
        Where sounds are kept from run to run, if they are.
    """
    begun = Outcome(
        name=NAME,
        what="`gunfire-node run` on a virtual card, 4 microphones and a pulse at 48 kHz",
        asked_s=hours * HOUR_S,
        full_s=FULL_S,
        commit=commit_now(),
    )
    begun.save(folder)
    with rendered(kept, RATE_HZ, MICROPHONES, tell) as library:
        tell("putting the street together")
        street = Street(library, LOOP_S / HOUR_S)
        card = VirtualCard(
            folder / "card", build_plugin(folder), loop(street), RATE_HZ,
            ppm=PPM, align=True, loop=True,
        )  # fmt: skip
    place = Place(folder / "outbox.sqlite3", folder / "status.json", folder / "node.log")
    tell("waiting for receiver, gpsd, chronyd and broker")
    with _bench(folder, card) as bench:
        looker = Looker(place, bench.ledger, folder)
        heard_s, struck = _follow(bench, looker, hours * HOUR_S, tell)
        bench.broker.start()
        _drain(folder / "status.json", tell)
        bench.node.terminate()
        code = bench.node.wait(ENDS_S)
        if code:
            raise RuntimeError(f"the node ended with {code}: see node.log")
        with Outbox(load(bench.config).settings.outbox.path, 2**30) as outbox:
            made, waiting = outbox.last_seq, outbox.depth
        wait_for(bench.ledger, made)
        shots_ns = _shots_ns(street, bench.truth, heard_s)
        tally = bench.ledger.tally(made, waiting, shots_ns)
    outcome = replace(
        begun, heard_s=heard_s, wall_s=heard_s, tally=tally, troubles={"broker stopped": struck}
    )
    outcome.save(folder)
    return outcome, looker.samples


def loop_frames(rate_hz: int) -> int:
    """Give how many frames the card plays before it begins again."""
    return round(LOOP_S * rate_hz * (1 + PPM * 1e-6))


def loop(street: Street) -> Pcm:
    """Give a street that can be played over and over, shape [n, 5], the pulse in the last."""
    rate_hz = street.library.sample_rate_hz
    frames = loop_frames(rate_hz)
    fade = round(FADE_S * rate_hz)
    mixer = Mixer(street)
    # Hop by hop: a mixer goes by where a hop begins.
    hops = [mixer.frames(first, rate_hz) for first in range(0, frames + fade, rate_hz)]
    mixer.close()
    sound = np.concatenate(hops)
    share = (np.arange(fade) / fade)[:, None]
    sound[:fade] = sound[:fade] * np.sqrt(share) + sound[frames : frames + fade] * np.sqrt(
        1 - share
    )
    pulses = street.library.open_pulses()
    pulse = pulses.read(0, street.library.pulse_frames)
    pulses.close()
    turns = frames // len(pulse)
    return np.column_stack((sound[:frames], np.tile(pulse, (turns, 1))))


def _follow(bench: _Bench, looker: Looker, until_s: float, tell: Tell) -> tuple[float, int]:
    """Look at the node for its time; give how long it heard, and how often the broker was away."""
    heard_s, struck = 0.0, 0
    ends_s = until_s - BROKER_CALM_S
    away_s = BROKER_FIRST_S  # when the broker goes next, or is to come back
    try:
        while heard_s < until_s:
            time.sleep(min(LOOK_S, max(0.0, until_s - heard_s) + 0.01))
            heard_s = (time.monotonic_ns() - bench.truth.frame0_monotonic_ns) / 1e9
            if bench.node.poll() is not None:
                raise RuntimeError("the node has ended by itself: see node.log")
            if heard_s >= away_s and bench.broker.pid is None:
                bench.broker.start()
                away_s += BROKER_EVERY_S - BROKER_AWAY_S
            elif heard_s >= away_s and away_s + BROKER_AWAY_S < ends_s:
                bench.broker.stop()
                struck += 1
                away_s += BROKER_AWAY_S
            sample = looker.look(bench.node.pid, bench.broker.pid, heard_s, heard_s)
            if sample is not None:
                tell(
                    f"{heard_s / 60:.1f} of {until_s / 60:g} min; "
                    f"{sample.anonymous_bytes / 1e6:.1f} MB, {sample.descriptors} descriptors, "
                    f"{sample.threads} threads, {sample.received} received, "
                    f"{sample.outbox_depth} wait, clock {sample.clock_source} "
                    f"± {sample.clock_sigma_s:.1e} s"
                )
    except KeyboardInterrupt:
        tell("broken off: the node is to leave")
    return min(heard_s, until_s), struck


def _drain(status: Path, tell: Tell) -> None:
    """Wait until nothing waits for the broker, who may have come back only now."""
    until_s = time.monotonic() + DRAINS_S
    while time.monotonic() < until_s:
        said = json.loads(status.read_text())
        if said["broker"]["connected"] and not said["outbox"]["depth"]:
            return
        tell("waiting for the outbox to drain")
        time.sleep(1.0)


@contextmanager
def _bench(folder: Path, card: VirtualCard) -> Iterator[_Bench]:
    with ExitStack() as opened:
        chrony = opened.enter_context(VirtualChrony(folder / "chrony", 0.0))
        sky = opened.enter_context(VirtualReceiver())
        gpsd = opened.enter_context(Gpsd(sky.device))
        server = opened.enter_context(TimeServer())
        people = People(folder / "fleet", NODE_ID)
        broker = opened.enter_context(PrivateBroker(folder / "broker", people.configuration))
        ledger = Ledger()
        opened.enter_context(Auditor(people.port, ledger.take, fleet=people))
        wait_until_held(chrony)
        config = _configure(folder, people, gpsd.address, server.address)
        path = f"{chronyc(folder / 'bin', chrony.command)}:{os.environ['PATH']}"
        environment = card.environment | ENVIRONMENT | {"PATH": path}
        with (folder / "node.log").open("wb") as log:
            node = subprocess.Popen(
                # A card does not wait for what else this machine has to do.
                ["nice", "-n", "-10", *GUNFIRE_NODE, "run", "--config", str(config)],
                env=environment,
                stderr=log,
                process_group=0,  # a Ctrl-C is ours alone
            )
        try:
            yield _Bench(node, broker, ledger, _opened(card, node), config)
        finally:
            if node.poll() is None:
                node.kill()
            node.wait()
            (folder / "card" / MAPPED).unlink()  # half a gigabyte


def _opened(card: VirtualCard, node: subprocess.Popen[bytes]) -> Truth:
    """Wait until the node has opened the card."""
    until_s = time.monotonic() + OPENS_S
    while time.monotonic() < until_s and node.poll() is None:
        try:
            return card.truth()
        except (OSError, ValueError):  # not there yet, or half written
            time.sleep(0.1)
    raise RuntimeError("the node did not open its card: see node.log")


def _configure(folder: Path, people: People, gpsd: str, time_server: str) -> Path:
    client = people.client(NODE_ID)
    signing = FleetCa(folder / "signing").issue(
        NODE_ID, organization=SITE, key=ed25519.Ed25519PrivateKey.generate()
    )
    settings: dict[str, dict[str, Any]] = {
        "node": {"id": NODE_ID, "site": SITE},
        "node.position": {"lat_deg": 47.85, "lon_deg": 106.2, "alt_m": 1280.0, "sigma_m": 2.0},
        "capture": {
            "device": "microphones",
            "channels": MICROPHONES + 1,
            "array": ARRAYS[MICROPHONES],
            "block_frames": 16384,  # for a machine that does much else
        },
        "timing": {"pps_channel": MICROPHONES, "gpsd": gpsd, "ntp_servers": [time_server]},
        "outbox": {"path": str(folder / "outbox.sqlite3")},
        "integrity": {
            "key_file": str(signing.key),
            "certificate_file": str(signing.certificate),
        },
        "mqtt": {
            "url": f"mqtts://127.0.0.1:{people.port}",
            "ca_file": str(people.ca_file),
            "cert_file": str(client.certificate),
            "key_file": str(client.key),
        },
        "health": {"status_file": str(folder / "status.json")},
    }
    lines: list[str] = []
    for section, values in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    file = folder / "node.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def _shots_ns(street: Street, truth: Truth, heard_s: float) -> list[list[int]]:
    """Give when each shot was that is well inside the run."""
    frames = loop_frames(street.library.sample_rate_hz)
    onsets = [onset for onset in street.onsets() if onset < frames]
    shots = []
    for turn in range(int(heard_s / LOOP_S) + 1):
        for onset in onsets:
            frame = turn * frames + onset
            if SETTLES_S < frame / truth.rate_hz < heard_s - WORKING_S:
                shots.append([round(truth.utc_ns(frame))])
    return shots
