"""The node of the simulated soak as a program: the daemon itself, over the card that never waits.

Its housekeeping (status, health, checkpoints, the file that `status` reads, what is looked after
each second or every ten minutes) goes by the card's time too, as a real node's does: the modules
that do it are given a `time` whose monotonic clock is the card's. What sends keeps real time, since
the broker does. After each minute of the street a line of JSON on standard output says how far it
is. With `--plant` it does, on purpose, what a node must never do.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import node.daemon
import node.keeper
import node.vitals
from node.daemon import Daemon
from node.settings import load
from tests.hil.soak.card import StreetCard, StreetClock
from tests.hil.soak.library import Library
from tests.hil.soak.plants import PLANTS
from tests.hil.soak.street import Street

HOUSEKEEPERS: Final[tuple[ModuleType, ...]] = (node.daemon, node.keeper, node.vitals)


class CardTime:
    """The module `time`, but for its monotonic clock."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def main() -> None:
    """Be the node, until the street ends or a signal comes."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True)
    parser.add_argument("--hours", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--start-utc-ns", type=int, required=True)
    parser.add_argument("--plant", choices=sorted(PLANTS), action="append", default=[])
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    street = Street(Library.load(options.library), options.hours, options.seed)
    clock = StreetClock(options.start_utc_ns, street.troubles())
    for module in HOUSEKEEPERS:
        vars(module)["time"] = CardTime(clock.monotonic)
    planted = [PLANTS[name](street.seconds) for name in options.plant]

    def tell(at_s: float, waited_s: float) -> None:
        for plant in planted:
            plant(at_s)
        said = {"at_s": at_s, "waited_s": waited_s, "blocks": sys.getallocatedblocks()}
        print(json.dumps(said), flush=True)

    card = StreetCard(street, clock, tell)
    daemon = Daemon(load(options.config).settings, card, clock)
    signal.signal(signal.SIGTERM, lambda *_: daemon.stop())
    daemon.run()
    sys.stderr.flush()


if __name__ == "__main__":
    main()
