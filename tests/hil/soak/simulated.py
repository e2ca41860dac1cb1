"""Days of a street in hours: the daemon over a card that never waits, a real broker, and troubles.

The node is a process of its own, and real but for card and time: pipeline, model, outbox on disk,
signing key, publisher. The broker is a Mosquitto of one's own, stopped and killed now and then;
pulse and clock fail by the street's own plan.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from node.deliver import Outbox
from node.network import PrivateBroker
from node.settings import load
from node.types import NS_PER_S
from tests.evidence import ROOT, commit_now
from tests.faults.auditor import Auditor
from tests.hil.soak.card import true_rate_hz
from tests.hil.soak.judge import HOUR_S, Outcome
from tests.hil.soak.ledger import Ledger
from tests.hil.soak.library import Library
from tests.hil.soak.rendering import ARRAYS, rendered
from tests.hil.soak.series import Looker, Place, Sample
from tests.hil.soak.street import Street, Trouble
from tests.parts import Tell

NAME: Final = "soak-simulated"
FULL_S: Final = 72 * HOUR_S
LOOK_S: Final = 120.0
"""Of the street, between two samples; a node of less than six hours is looked at twice as often."""
TOLD_S: Final = 1.0
"""By so much the minutes at which a node tells may differ."""
SETTLES_S: Final = 60.0
"""Of a run, from its start: floor and clock are not known yet."""
WORKING_S: Final = 10.0
"""From an onset until its detection is in the outbox for certain."""
RECONNECTS_S: Final = 3.0
"""So long a node takes at most to be back at a broker that is back, and some more."""
ENDS_S: Final = 120.0
"""So long a node may take to leave in good order."""
ARRIVES_S: Final = 60.0
ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # as the unit has it


@dataclass(frozen=True)
class Form:
    """How the street is heard.

    Attributes
    ----------
    hours
        How long.
    microphones, sample_rate_hz
        Of the card, which has a channel more for the pulse.
    seed
        Which street.
    plants
        What the node is to do wrong, on purpose.
    """

    hours: float
    microphones: int = 4
    sample_rate_hz: int = 48_000
    seed: int = 7
    plants: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """Say it."""
        many = f"{self.microphones} microphones" if self.microphones > 1 else "1 microphone"
        return (
            f"a simulated street by {many} and a pulse channel at "
            f"{self.sample_rate_hz / 1000:g} kHz, one process"
        )


def run(
    form: Form, folder: Path, tell: Tell, kept: Path | None = None
) -> tuple[Outcome, list[Sample]]:
    """Let a node hear a street; a KeyboardInterrupt ends it in good order, and it is judged.

    Parameters
    ----------
    form
        How it is heard.
    folder
        An empty one, for everything.
    tell
        Told how far it is.
    kept
        Where sounds are kept from run to run, if they are.
    """
    begun = Outcome(
        name=NAME,
        what=form.sentence,
        asked_s=form.hours * HOUR_S,
        full_s=FULL_S,
        plants=form.plants,
        commit=commit_now(),
    )
    begun.save(folder)
    with ExitStack() as opened:
        sounds = opened.enter_context(rendered(kept, form.sample_rate_hz, form.microphones, tell))
        street = Street(sounds, form.hours, form.seed)
        start_utc_ns = (int(time.time()) - round(street.seconds) - 3600) * NS_PER_S
        broker = opened.enter_context(PrivateBroker(folder / "broker"))
        ledger = Ledger()
        opened.enter_context(Auditor(broker.port, ledger.take))
        config = _configure(form, folder, broker.url)
        node = opened.enter_context(_node(form, folder, config, sounds, start_utc_ns))
        watch = _Watch(form, street, folder, broker, node, ledger, tell)
        watch.follow()
        with Outbox(load(config).settings.outbox.path, 2**30) as outbox:
            made, waiting = outbox.last_seq, outbox.depth
        wait_for(ledger, made)
        shots_ns = _shots_ns(street, start_utc_ns, watch.at_s)
        outcome = replace(
            begun,
            heard_s=watch.at_s,
            wall_s=watch.wall_s,
            tally=ledger.tally(made, waiting, shots_ns),
            troubles=_lived(street.troubles(), watch.at_s),
        )
        unheard_s = [(shots_ns[i][0] - start_utc_ns) / NS_PER_S for i in ledger.unheard(shots_ns)]
        (folder / "unheard.json").write_text(json.dumps(unheard_s))  # to look into
    outcome.save(folder)
    return outcome, watch.looker.samples


class _Watch:
    """Follows a node through its street: looks at it, and strikes the broker when it is due."""

    def __init__(
        self,
        form: Form,
        street: Street,
        folder: Path,
        broker: PrivateBroker,
        node: subprocess.Popen[str],
        ledger: Ledger,
        tell: Tell,
    ) -> None:
        place = Place(folder / "outbox.sqlite3", folder / "status.json", folder / "node.log")
        self.looker = Looker(place, ledger, folder)
        self.at_s = self.wall_s = 0.0
        self._form, self._broker, self._node, self._tell = form, broker, node, tell
        self._strikes = [t for t in street.troubles() if t.kind.startswith("broker")]
        self._struck: Trouble | None = None
        self._waited_s = 0.0
        self._look_again_s = 0.0
        self._blocks = 0

    def follow(self) -> None:
        """Stay with it to its end, or have it leave before."""
        began_s = time.monotonic()
        try:
            self._read(began_s)
        except KeyboardInterrupt:
            self._tell("broken off: the node is to leave")
            if self._struck is not None:
                self._broker.start()
                time.sleep(RECONNECTS_S)
            self._strikes, self._struck = [], None
            self._node.terminate()
            self._read(began_s)
        if code := self._node.wait(ENDS_S):
            raise RuntimeError(f"the node ended with {code}: see node.log")

    def _read(self, began_s: float) -> None:
        assert self._node.stdout is not None
        for line in self._node.stdout:
            said = json.loads(line)
            self.at_s, waited_s, self._blocks = said["at_s"], said["waited_s"], said["blocks"]
            self.wall_s = time.monotonic() - began_s
            self._waited_s = max(self._waited_s, waited_s)
            self._strike()
            if self.at_s >= self._look_again_s:
                self._look()

    def _look(self) -> None:
        often = 1.0 if self._form.hours >= 6 else 0.5
        self._look_again_s = self.at_s + often * LOOK_S - TOLD_S
        sample = self.looker.look(
            self._node.pid,
            self._broker.pid,
            self.at_s,
            self.wall_s,
            self._waited_s,
            self._blocks,
        )
        self._waited_s = 0.0
        if sample is not None:
            speed = self.at_s / max(self.wall_s, 1e-9)
            left_s = (self._form.hours * HOUR_S - self.at_s) / max(speed, 1e-9)
            self._tell(
                f"{self.at_s / HOUR_S:.2f} of {self._form.hours:g} h at {speed:.1f} × real time, "
                f"{left_s / 60:.0f} min left; {sample.anonymous_bytes / 1e6:.1f} MB, "
                f"{sample.descriptors} descriptors, {sample.threads} threads, "
                f"{sample.received} received, {sample.outbox_depth} wait, "
                f"clock {sample.clock_source} ± {sample.clock_sigma_s:.1e} s"
            )

    def _strike(self) -> None:
        if self._struck is not None and self.at_s >= self._struck.end_s:
            self._struck = None
            self._broker.start()
        if self._struck is None and self._strikes and self.at_s >= self._strikes[0].at_s:
            self._struck = self._strikes.pop(0)
            end = self._broker.kill if self._struck.kind == "broker killed" else self._broker.stop
            end()


def _configure(form: Form, folder: Path, broker_url: str) -> Path:
    file = folder / "node.toml"
    file.write_text(
        '[node]\nid = "roof-1"\nsite = "soak"\n'
        f"[capture]\nchannels = {form.microphones + 1}\nsample_rate_hz = {form.sample_rate_hz}\n"
        f'array = "{ARRAYS[form.microphones]}"\norder_fixed = true\n'
        f"[timing]\nchrony = false\npps_channel = {form.microphones}\n"
        f'[outbox]\npath = "{folder}/outbox.sqlite3"\n'
        f'[integrity]\nkey_file = "{folder}/node.key"\n'
        f'[health]\nstatus_file = "{folder}/status.json"\n'
        f'[mqtt]\nurl = "{broker_url}"\nreconnect_max_s = 1\n'
    )
    return file


@contextmanager
def _node(
    form: Form, folder: Path, config: Path, library: Library, start_utc_ns: int
) -> Iterator[subprocess.Popen[str]]:
    """Start the node, which does not outlive us; a Ctrl-C is ours alone."""
    command = [
        sys.executable, "-m", "tests.hil.soak.node_process",
        "--config", str(config), "--library", str(library.folder),
        "--hours", str(form.hours), "--seed", str(form.seed),
        "--start-utc-ns", str(start_utc_ns),
    ]  # fmt: skip
    for name in form.plants:
        command += ["--plant", name]
    with (folder / "node.log").open("wb") as log:
        node = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            process_group=0,
        )
    with node:
        try:
            yield node
        finally:
            if node.poll() is None:
                node.kill()


def wait_for(ledger: Ledger, made: int) -> None:
    """Wait until so many detections have come, for a while."""
    until_s = time.monotonic() + ARRIVES_S
    while ledger.counts().received < made and time.monotonic() < until_s:
        time.sleep(0.1)


def _shots_ns(street: Street, start_utc_ns: int, heard_s: float) -> list[Sequence[int]]:
    """Give when each shot was that is well inside the run, by each clock that the host had."""
    rate_hz = true_rate_hz(street.library.sample_rate_hz)
    offs_ns = [0]
    offs_ns += [round(t.by_s * NS_PER_S) for t in street.troubles() if t.kind == "clock stepped"]
    times_s = (onset / rate_hz for onset in street.onsets())
    return [
        [start_utc_ns + round(at_s * NS_PER_S) + off_ns for off_ns in offs_ns]
        for at_s in times_s
        if SETTLES_S < at_s < heard_s - WORKING_S
    ]


def _lived(troubles: Sequence[Trouble], heard_s: float) -> dict[str, int]:
    return dict(Counter(trouble.kind for trouble in troubles if trouble.end_s < heard_s))
