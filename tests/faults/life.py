"""One life of the node under fault: the real daemon over a test card; and where such lives begin.

As a program it is a nursery: it has everything imported and forks a life for each request on its
standard input, a socket. So a life costs a tenth of a second and not two, and can be killed by the
hundred.

A life tells down a pipe what it does, a JSON list a line: `born` with its clock, `made` with each
message from inside the outbox's transaction, `durable` once `append` has returned, `at` with the
sample up to which all was taken in, `utc` whenever its clock was stepped, `ended` in good order.
What it told before it was killed is what the harness holds it to.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import node.daemon
from node.classify import TfliteClassifier
from node.daemon import Daemon
from node.deliver import Link, Outbox, Rendered
from node.deliver.outbox import Appended
from node.settings import Settings
from tests.faults.card import FastClock, RingCard
from tests.faults.firing_range import RATE_HZ, firing_range

REQUEST_BYTES: Final = 65_536


@dataclass(frozen=True)
class Plan:
    """What a life is to be.

    Attributes
    ----------
    settings
        As JSON.
    shift_ns
        How far its UTC is from the host's own, in ns.
    speed
        Seconds of sound in a second.
    silent
        Whether nobody shoots.
    """

    settings: str
    shift_ns: int
    speed: float
    silent: bool


class TellingOutbox(Outbox):
    """The outbox itself, but for telling what goes in."""

    tell: Callable[..., None]

    def append(
        self, event_id: str, revision: int, onset_utc_ns: int, render: Callable[[Link], Rendered]
    ) -> Appended:
        def told(link: Link) -> Rendered:
            rendered = render(link)
            self.tell("made", link.seq, event_id, revision, rendered.payload.decode())
            return rendered

        appended = super().append(event_id, revision, onset_utc_ns, told)
        self.tell("durable", appended.seq, event_id, revision)
        return appended


def live(plan: Plan, pipe: int) -> None:
    """Live until the signal to end, or to the death."""

    def tell(*words: Any) -> None:
        os.write(pipe, json.dumps(words).encode() + b"\n")

    TellingOutbox.tell = staticmethod(tell)
    node.daemon.Outbox = TellingOutbox  # type: ignore[misc]
    sound = firing_range()
    card = RingCard(
        sound.silence if plan.silent else sound.frames,
        RATE_HZ,
        plan.speed,
        lambda sample, lost, waited_s: tell("at", sample, lost, waited_s, card.start_ns),
    )
    clock = FastClock(card, plan.shift_ns, lambda offset_ns: tell("utc", offset_ns))
    daemon = Daemon(Settings.model_validate_json(plan.settings), card, clock)
    signal.signal(signal.SIGTERM, lambda *_: daemon.stop())
    tell("born", daemon.boot_id)
    daemon.run()
    tell("ended")


def main() -> None:
    """Fork lives until nobody asks any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead need no burial
    firing_range()
    TfliteClassifier.load(None)
    desk = socket.socket(fileno=sys.stdin.fileno())
    desk.sendall(b"ready")
    while True:
        request, descriptors, _, _ = socket.recv_fds(desk, REQUEST_BYTES, 2)
        if not request:
            return
        plan, (pipe, log) = Plan(**json.loads(request)), descriptors
        pid = os.fork()
        if not pid:
            _become(plan, pipe, log, desk)
        os.close(pipe)
        os.close(log)
        desk.sendall(str(pid).encode())


def _become(plan: Plan, pipe: int, log: int, desk: socket.socket) -> None:
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        logging.basicConfig(
            level=logging.INFO, format="%(relativeCreated)d %(levelname)s %(message)s", force=True
        )
        live(plan, pipe)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def request(plan: Plan) -> bytes:
    """Write a plan down for the nursery."""
    return json.dumps(asdict(plan)).encode()


if __name__ == "__main__":
    main()
