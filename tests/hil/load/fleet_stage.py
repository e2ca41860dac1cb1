"""The fleet's broker, nodes and listeners, and what comes of sending at a rate.

A rate is *carried* if half of the messages take no longer than `CARRIED_S`, the nodes sent as fast
as they should, and all has come and was acknowledged soon after the last was sent. The broker
saturates at the first rate that is not carried.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import psutil

from tests.hil.fleet_ca import FleetCa
from tests.hil.load.fleet_words import SITE, name_of
from tests.hil.shipped_broker import ShippedBroker
from tests.parts import Tell

STEP_S: Final = 3.0
CARRIED_S: Final = 0.1
LATE_S: Final = 0.5
SOON_S: Final = 1.0
DRAIN_S: Final = 5.0
SHIPPED: Final = "autosave_on_changes true\nautosave_interval 1\n"
BY_CLOCK: Final = "autosave_on_changes false\nautosave_interval 1\n"

Kind = Literal["subscription", "counter"]


@dataclass(frozen=True)
class Rate:
    """What came of one rate.

    Attributes
    ----------
    per_s, sent_per_s
        Messages a second, asked for and sent.
    p50_s, p95_s, p99_s
        Of how long they took.
    missing
        That had not come, or not been acknowledged, `SOON_S` after the last.
    latest_s
        By how much the nodes were late at worst.
    cost_s
        The broker's processor time for each.
    broker, nodes, listener
        Cores that each took while messages were sent.
    """

    kind: Kind
    per_s: float
    sent_per_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    missing: int
    latest_s: float
    cost_s: float
    broker: float
    nodes: float
    listener: float

    @property
    def carried(self) -> bool:
        """Whether the rate is carried."""
        return self.p50_s <= CARRIED_S and not self.missing and self.latest_s <= LATE_S


class Partner:
    """A process that answers each line with a line, both JSON."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.hil.load.{module}", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **order: Any) -> dict[str, Any]:
        """Say something; give the answer."""
        self.tell(**order)
        return self.hear()

    def tell(self, **order: Any) -> None:
        """Say something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """Give the next answer."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"ended: {self._process.args!r}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Partner:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


class Stage:
    """A broker as shipped, its fleet's authority, and the nodes.

    Parameters
    ----------
    saving
        When the broker saves what it keeps: `SHIPPED`, or otherwise.
    """

    def __init__(self, folder: Path, nodes: int, saving: str, opened: ExitStack) -> None:
        (folder / "broker").mkdir(parents=True)
        self.certificates = folder / "ca"
        self._ca = FleetCa(self.certificates)
        own = self._ca.issue("broker", addresses=["127.0.0.1"])
        for name in (*map(name_of, range(nodes)), "operator", "auditor"):
            self._ca.issue(name, organization=SITE)
        broker = ShippedBroker(
            folder / "broker",
            ca=self._ca.certificate_file,
            crl=self._ca.crl_file,
            certificate=own.certificate,
            key=own.key,
        )
        conf = folder / "broker" / "mosquitto.conf"
        text = conf.read_text("utf-8")
        assert text.count(SHIPPED) == 1
        conf.write_text(text.replace(SHIPPED, saving), "utf-8")
        broker.start()
        opened.callback(broker.end)
        self.port = str(broker.port)
        self._opened = opened
        (self._broker,) = (
            child for child in psutil.Process().children() if str(conf) in child.cmdline()
        )
        self.nodes = opened.enter_context(Partner("fleet_nodes", self.port, str(self.certificates)))

    def listener(self, kind: Kind, name: str) -> Partner:
        """Have somebody hear the nodes' detections."""
        partner = self._opened.enter_context(
            Partner("fleet_listener", kind, self.port, str(self.certificates), name)
        )
        partner.hear()
        return partner

    def broker_s(self) -> float:
        """Give the broker's processor time so far, in s: to the ns, where the kernel tells it."""
        tasks = Path(f"/proc/{self._broker.pid}/task")
        spent_ns = [int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()]
        return sum(spent_ns) / 1e9

    def broker_bytes(self) -> int:
        """Give what the broker has in memory."""
        return int(self._broker.memory_info().rss)


def connected(stage: Stage, upto: int) -> float:
    """Have more nodes connect; give the broker's processor time for each, in s."""
    begun_s = stage.broker_s()
    more = stage.nodes.ask(do="connect", upto=upto)["connected"]
    return (stage.broker_s() - begun_s) / int(more)


def sweep(
    stage: Stage, listener: Partner, kind: Kind, rates_per_s: Sequence[float], tell: Tell
) -> list[Rate]:
    """Raise the rate until it is not carried any more."""
    done: list[Rate] = []
    for per_s in rates_per_s:
        tell(f"{per_s:,} messages a second, {kind}")
        done.append(at_rate(stage, listener, kind, per_s))
        if not done[-1].carried:
            break
    return done


def at_rate(stage: Stage, listener: Partner, kind: Kind, per_s: float) -> Rate:
    """Send at one rate; wait until all has come, or nothing more does."""
    again = kind == "counter"  # it does not mind to hear the same ones twice
    if not again:
        stage.nodes.ask(do="prepare", count=round(per_s * STEP_S))
    listener.ask()
    begun_s = stage.broker_s()
    stage.nodes.tell(do="send", per_s=per_s, seconds=STEP_S, again=again)
    time.sleep(STEP_S)
    broker = (stage.broker_s() - begun_s) / STEP_S
    sent = stage.nodes.hear()
    time.sleep(SOON_S)
    came = listener.ask()
    waits_s = came["waits_s"]
    missing = sent["sent"] - len(waits_s)
    until_s = time.monotonic() + DRAIN_S
    while len(waits_s) < sent["sent"] and time.monotonic() < until_s:
        time.sleep(SOON_S)
        waits_s += listener.ask()["waits_s"]
    p50_s, p95_s, p99_s = np.quantile(waits_s, [0.5, 0.95, 0.99], method="lower")
    return Rate(
        kind=kind,
        per_s=per_s,
        sent_per_s=sent["sent"] / sent["seconds"],
        p50_s=float(p50_s),
        p95_s=float(p95_s),
        p99_s=float(p99_s),
        missing=missing + sent["not_acknowledged"],
        latest_s=sent["latest_s"],
        cost_s=(stage.broker_s() - begun_s) / len(waits_s),
        broker=broker,
        nodes=sent["cores"],
        # It was asked a second after all was sent.
        listener=came["cores"] * (sent["seconds"] + SOON_S) / sent["seconds"],
    )
