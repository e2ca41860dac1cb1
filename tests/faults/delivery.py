"""Broker and network fail in every way that we know of, while shots go on.

One row a fault: a life of the node hears shots, the fault strikes and is mended, and all that was
made has to be received as it was made. What waits longest shows how soon delivery goes on.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.evidence import Claim, Detail
from tests.faults.book import Tally
from tests.faults.card import RING_S
from tests.faults.stage import Stage
from tests.hil.network_proxy import Break
from tests.parts import Part, Tell

AWAY_S: Final = 6.0
BREAKS: Final = 20
KILLS_OF_BROKER: Final = 6
SLOW_BYTES_PER_S: Final = 6_000
PUBACK: Final = 0x40
COLUMNS: Final = (
    "fault", "messages", "received", "again", "lost", "altered or retimed", "wrong",
    "shots", "unheard", "longest way", "samples lost", "sound waited",
)  # fmt: skip

Strike = Callable[[Stage, random.Random], None]


@dataclass(frozen=True)
class Row:
    """What one fault came to, and whether the life that it struck delivered all by itself."""

    fault: str
    tally: Tally
    went_on: bool = True

    def cells(self) -> tuple[str, ...]:
        """Give the row as it is shown."""
        t = self.tally
        return (
            self.fault, str(t.made), str(t.received), str(t.doubled), str(t.lost),
            str(t.altered + t.retimed), str(t.wrong), str(t.shots), str(t.unheard),
            f"{t.latest_s:.1f} s", str(t.samples_lost), f"{t.waited_s:.2f} s",
        )  # fmt: skip


def measure(tell: Tell) -> Part:
    """Strike with each fault in turn."""
    rows: list[Row] = []
    faults: list[str] = []
    strangers = 0
    for title, open_stage, strikes in _STAGES:
        with (
            tempfile.TemporaryDirectory(prefix="gunfire-faults-") as scratch,
            open_stage(Path(scratch)) as stage,
        ):
            for name, strike in strikes:
                tell(f"{title}: {name}")
                rows.append(one(stage, name, strike, random.Random(name)))
            faults += stage.book.chain_faults()
            strangers += stage.book.strangers(stage.lives)
    total = sum((row.tally for row in rows), Tally())
    what = f"broker and network, {len(rows)} faults"
    return Part(
        (*claims(what, total, strangers, faults), went_on(what, rows)),
        (Detail("Faults of broker and network", COLUMNS, tuple(row.cells() for row in rows)),),
    )


def claims(what: str, total: Tally, strangers: int, chain_faults: list[str]) -> tuple[Claim, ...]:
    """Say of some lives that nothing is lost, altered or wrong."""
    wrong = total.wrong + strangers
    return (
        Claim(
            f"{what}: lost, of {total.made:,} messages on {total.events:,} events "
            f"({total.doubled:,} came more than once)",
            total.lost, "", "0", total.lost == 0 and total.made > 0,
        ),
        Claim(
            f"{what}: shots heard well inside a life, {total.shots:,} of them, that nothing "
            "received tells to 1 ms",
            total.unheard, "", "0", total.unheard == 0 and total.shots > 0,
        ),
        Claim(f"{what}: wrong, made by no node or telling a shot that was none", wrong, "", "0",
              wrong == 0),
        Claim(f"{what}: whose time changed on the way", total.retimed, "", "0", not total.retimed),
        Claim(f"{what}: altered in anything that is signed", total.altered, "", "0",
              not total.altered),
        Claim(f"{what}: numbers missing or double, links broken", len(chain_faults), "", "0",
              not chain_faults),
        Claim(
            f"{what}: samples that capture lost (sound waited {total.waited_s:.2f} s at most, the "
            f"card holds {RING_S:g} s)",
            total.samples_lost, "", "0", total.samples_lost == 0,
        ),
    )  # fmt: skip


def went_on(what: str, rows: list[Row]) -> Claim:
    """Say that no fault needed another life of the node to be overcome."""
    stuck = sum(not row.went_on for row in rows)
    return Claim(f"{what}: after which the node delivered only once it was started anew",
                 stuck, "", "0", stuck == 0)  # fmt: skip


def one(stage: Stage, name: str, strike: Strike, rng: random.Random) -> Row:
    """Have a node live through a fault."""
    first = len(stage.lives)
    life = stage.live()
    stage.wait_until_heard(life, 3)
    strike(stage, rng)
    caught_up = strike is too_small or stage.catch_up()
    life.end()
    stage.settle()
    return Row(name, stage.book.tally(stage.lives[first:]), caught_up)


def hold(seconds: float) -> None:
    """Let a fault last."""
    time.sleep(seconds)


def nothing(stage: Stage, rng: random.Random) -> None:
    hold(AWAY_S)


def stopped(stage: Stage, rng: random.Random) -> None:
    stage.broker.stop()
    hold(AWAY_S)
    stage.broker.start()


def killed(times: int = KILLS_OF_BROKER) -> Strike:
    def strike(stage: Stage, rng: random.Random) -> None:
        for _ in range(times):
            stage.broker.kill()
            hold(rng.uniform(0.1, 1.0))
            stage.broker.start()
            hold(rng.uniform(0.5, 4.0))

    return strike


def killed_with_nobody_there(stage: Stage, rng: random.Random) -> None:
    # What nobody has fetched yet is on the broker's disk alone, or not even there.
    stage.auditor.leave()
    killed()(stage, rng)
    stage.auditor.connect()


def killed_as_it_acknowledges(stage: Stage, rng: random.Random) -> None:
    # Mosquitto acknowledges first and saves then: what it has just acknowledged dies with it.
    stage.auditor.leave()
    for _ in range(KILLS_OF_BROKER):
        pid, struck = stage.broker.pid, stage.proxy.broken + 1
        assert pid is not None
        stage.proxy.on_answer(PUBACK, partial(os.kill, pid, signal.SIGKILL))
        until(lambda: stage.proxy.broken >= struck, "nothing is acknowledged")  # noqa: B023
        stage.broker.kill()
        stage.broker.start()
        hold(rng.uniform(0.5, 3.0))
    stage.auditor.connect()


def paused(seconds: float) -> Strike:
    def strike(stage: Stage, rng: random.Random) -> None:
        assert stage.broker.pid is not None
        os.kill(stage.broker.pid, signal.SIGSTOP)
        hold(seconds)
        os.kill(stage.broker.pid, signal.SIGCONT)

    return strike


def cut(stage: Stage, rng: random.Random) -> None:
    stage.proxy.cut()
    hold(AWAY_S)
    stage.proxy.mend()


def flapping(stage: Stage, rng: random.Random) -> None:
    for _ in range(10):
        stage.proxy.cut(reset=rng.random() < 0.5)
        hold(rng.uniform(0.05, 0.4))
        stage.proxy.mend()
        hold(rng.uniform(0.2, 1.2))


def slowed(stage: Stage, rng: random.Random) -> None:
    stage.proxy.slow(SLOW_BYTES_PER_S)
    hold(AWAY_S)
    stage.proxy.mend()


def black_hole(stage: Stage, rng: random.Random) -> None:
    stage.proxy.stall()
    hold(2 * AWAY_S)
    stage.proxy.mend()


def answers_swallowed(stage: Stage, rng: random.Random) -> None:
    stage.proxy.deafen("down")
    hold(4.0)
    stage.proxy.cut()
    stage.proxy.mend()


def broken(how: Break, times: int = BREAKS) -> Strike:
    def strike(stage: Stage, rng: random.Random) -> None:
        for number in range(1, times + 1):
            struck = stage.proxy.broken + 1
            # A detection has some 1,400 bytes: most places are in the middle of one.
            stage.proxy.break_after(rng.randrange(1, 6_000), how)
            until(lambda: stage.proxy.broken >= struck, f"break {number} does not strike")  # noqa: B023

    return strike


def until(claim: Callable[[], object], otherwise: str, seconds: float = 30.0) -> None:
    """Wait for a claim."""
    end_s = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end_s, otherwise
        time.sleep(0.02)


@contextmanager
def plain(folder: Path) -> Iterator[Stage]:
    with Stage(folder) as stage:
        yield stage


class Guarded:
    """A broker that asks for a name and a password, and has a list of who may what."""

    def __init__(self, folder: Path) -> None:
        self._people = folder / "people"
        self._rights = folder / "rights"
        self.let(True)
        self.allow(True)
        self.extra = (
            f"allow_anonymous false\npassword_file {self._people}\nacl_file {self._rights}\n"
        )

    def let(self, node: bool) -> None:
        names = ("auditor", "node-1") if node else ("auditor",)
        self._people.write_text("".join(f"{name}:{name}\n" for name in names))
        subprocess.run(["mosquitto_passwd", "-U", self._people], check=True, capture_output=True)

    def allow(self, node: bool) -> None:
        rights = "readwrite" if node else "read"
        self._rights.write_text(
            f"user auditor\ntopic readwrite #\nuser node-1\ntopic {rights} gunfire/v1/#\n"
        )


_guards: dict[Stage, Guarded] = {}


@contextmanager
def guarded(folder: Path) -> Iterator[Stage]:
    guard = Guarded(folder)
    with Stage(
        folder, broker_extra=guard.extra, user="auditor", node_login="node-1:node-1"
    ) as stage:
        _guards[stage] = guard
        yield stage


def not_allowed(stage: Stage, rng: random.Random) -> None:
    guard = _guards[stage]
    guard.allow(False)
    stage.broker.reload(guard.extra)
    hold(AWAY_S)
    guard.allow(True)
    stage.broker.reload(guard.extra)


def not_let_in(stage: Stage, rng: random.Random) -> None:
    guard = _guards[stage]
    guard.let(False)
    stage.broker.reload(guard.extra)
    stage.proxy.cut()
    stage.proxy.mend()
    hold(AWAY_S)
    guard.let(True)
    stage.broker.reload(guard.extra)


@contextmanager
def crowded(folder: Path) -> Iterator[Stage]:
    with Stage(folder, broker_extra="max_connections 4") as stage:
        yield stage


def no_seat(stage: Stage, rng: random.Random) -> None:
    stage.proxy.cut()
    hold(1.0)
    with ExitStack() as seats:
        for _ in range(4):
            seats.enter_context(socket.create_connection(("127.0.0.1", stage.broker.port)))
        stage.proxy.mend()
        hold(AWAY_S)


def no_memory(stage: Stage, rng: random.Random) -> None:
    # A broker that keeps messages for a subscriber who is away, and has no room for them.
    stage.auditor.leave()
    restart(stage, "memory_limit 100000")
    hold(AWAY_S)
    restart(stage, "")
    stage.auditor.connect()


def too_small(stage: Stage, rng: random.Random) -> None:
    # What the broker says it will not take is set aside, and offered again at the next start.
    restart(stage, "max_packet_size 1200")
    hold(AWAY_S)
    restart(stage, "")


def restart(stage: Stage, extra: str) -> None:
    """Start the broker anew with other lines in its configuration."""
    stage.broker.reload(extra)
    stage.broker.stop()
    stage.broker.start()


_STAGES: Final = (
    (
        "broker",
        plain,
        (
            ("none", nothing),
            (f"broker stopped for {AWAY_S:.0f} s", stopped),
            (f"broker killed −9, {KILLS_OF_BROKER} times", killed()),
            (
                f"broker killed −9, {KILLS_OF_BROKER} times, the subscriber away",
                killed_with_nobody_there,
            ),
            (
                f"broker killed −9 as it acknowledges, {KILLS_OF_BROKER} times, the subscriber "
                "away",
                killed_as_it_acknowledges,
            ),
            ("broker paused for 3 s (SIGSTOP)", paused(3)),
            ("broker paused for 15 s, thrice the keep-alive", paused(15)),
            ("broker full: no memory left", no_memory),
            ("broker full: takes no message as large, until the node starts anew", too_small),
        ),
    ),
    (
        "network",
        plain,
        (
            (f"network cut for {AWAY_S:.0f} s", cut),
            ("network cut 10 times in 10 s", flapping),
            (f"network slowed to {SLOW_BYTES_PER_S / 1000:.0f} kB/s", slowed),
            (f"network swallows all for {2 * AWAY_S:.0f} s", black_hole),
            ("network swallows the broker's answers, then breaks", answers_swallowed),
            (f"half-closed in the middle of a publish, {BREAKS} times", broken("half_close")),
            (f"reset in the middle of a publish, {BREAKS} times", broken("reset")),
        ),
    ),
    (
        "refusals",
        guarded,
        (
            ("broker refuses the node's detections (access list)", not_allowed),
            ("broker refuses the node's password", not_let_in),
        ),
    ),
    ("refusals", crowded, (("broker full: no connection left", no_seat),)),
)
