"""A node hears days of a street, and nothing in it may grow, be lost or come twice.

Ctrl-C, or SIGTERM, ends a run in good order, and what was measured until then is judged; not so on
New Year's Eve. Figures of 72 simulated hours, of a real one, or of one of New Year's Eve go into
docs/evidence/hil.json; those of less are only shown.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.evidence import FOLDER, Claim, Detail, commit_now, publish, show
from tests.hil.load.new_year import night
from tests.hil.soak import judge, real, series, simulated
from tests.hil.soak.judge import Outcome
from tests.hil.soak.pictures import pictures, save
from tests.hil.soak.plants import PLANTS
from tests.hil.soak.series import Sample
from tests.parts import Draw

TARGET: Final = "hil"
COMMAND: Final = "make soak"
NOTE: Final = (
    "The simulated soak is the daemon as shipped, with its model, its outbox on disk, its key and "
    "its sender, in one process of its own: it hears a street as fast as it can, from a card that "
    "loses nothing, by a host's clock that runs as fast; what it does each second or minute goes "
    "by that clock too, while what sends keeps real time. The broker is a real Mosquitto, stopped "
    "and killed now and then. The real soak is `gunfire-node run` on a virtual sound card in real "
    "time. Growth is judged after a warm-up of 6 h, or of a quarter of a shorter run."
)
NIGHT: Final = "soak-new-year"
NIGHT_NOTE: Final = (
    "Nodes with the real daemon, side by side in real time, each on a virtual sound card of its "
    "own that plays a minute of display over and over. They have a card's priority (nice -10), "
    "since the virtual card is part of their process."
)
TELL_S: Final = 20.0
"""Between two lines of progress that go into a file."""


def main() -> None:
    """Run a soak, or judge and draw anew one that was kept."""
    options = _options()
    if options.again is not None:
        samples = series.load(options.again)
        outcome = judge.load(options.again, samples)
        _conclude(outcome, samples, options.again, publishes=options.publish)
        return
    folder: Path = options.keep or Path(tempfile.mkdtemp(prefix="gunfire-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty: name another by --keep")
    kept = "everything" if options.new_year is None else "the picture"
    print(f"{kept} of this run is kept in {folder}", file=sys.stderr)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has those behind it ignore the first
        signal.signal(number, signal.default_int_handler)
    progress = Progress()
    if options.new_year is not None:
        _new_year(options.new_year, folder, progress)
        return
    try:
        outcome, samples = _soak(options, folder, progress)
    except KeyboardInterrupt:
        raise SystemExit("broken off before the node heard anything") from None
    progress.end()
    _conclude(outcome, samples, folder, publishes=True)


def _new_year(hours: float, folder: Path, progress: Progress) -> None:
    """Let nodes hear New Year's Eve; see `tests.hil.load.new_year`."""
    commit = commit_now()
    try:
        part = night(hours * real.HOUR_S, progress.tell)
    except KeyboardInterrupt:
        raise SystemExit("broken off: half a New Year's Eve is not judged") from None
    progress.end()
    _show(
        NIGHT, part.claims, part.details, part.pictures, folder, note=NIGHT_NOTE, commit=commit,
        is_evidence=hours >= 1,
    )  # fmt: skip


def _soak(options: Namespace, folder: Path, progress: Progress) -> tuple[Outcome, list[Sample]]:
    if options.simulated_hours is None:
        return real.run(options.hours, folder, progress.tell, options.library)
    form = simulated.Form(
        options.simulated_hours, options.microphones, options.rate, options.seed,
        tuple(options.plant),
    )  # fmt: skip
    return simulated.run(form, folder, progress.tell, options.library)


def _options() -> Namespace:
    parser = ArgumentParser(prog="python -m tests.hil.soak", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--simulated-hours", type=float, help="so long a street, faster than real")
    which.add_argument("--hours", type=float, help="so long in real time")
    which.add_argument("--new-year", type=float, metavar="HOURS", help="a display, in real time")
    which.add_argument("--again", type=Path, metavar="FOLDER", help="judge and draw a run anew")
    parser.add_argument("--publish", action="store_true", help="with --again: as evidence too")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an empty one, for everything")
    parser.add_argument("--library", type=Path, help="where rendered sounds are kept between runs")
    parser.add_argument("--microphones", type=int, choices=(1, 4), default=4, help="simulated")
    parser.add_argument("--rate", type=int, default=48_000, help="simulated: in hertz")
    parser.add_argument("--seed", type=int, default=7, help="simulated: which street")
    parser.add_argument(
        "--plant", choices=sorted(PLANTS), action="append", default=[],
        help="simulated: have the node do this wrong; nothing is published",
    )  # fmt: skip
    return parser.parse_args()


def _conclude(
    outcome: Outcome, samples: Sequence[Sample], folder: Path, *, publishes: bool
) -> None:
    claims, details = judge.claims(outcome, samples), judge.details(outcome, samples)
    _show(
        outcome.name, claims, details, pictures(outcome, samples), folder, note=NOTE,
        commit=outcome.commit, is_evidence=publishes and outcome.is_evidence,
    )  # fmt: skip


def _show(
    name: str,
    claims: Sequence[Claim],
    details: Sequence[Detail],
    draws: Sequence[Draw],
    folder: Path,
    *,
    note: str,
    commit: str,
    is_evidence: bool,
) -> None:
    """Draw, and publish what is evidence; the exit code is 1 where a claim does not hold."""
    save(draws, folder / f"{TARGET}-{name}.png")
    if is_evidence:
        save(draws, FOLDER / f"{TARGET}-{name}.png")
        publish(TARGET, COMMAND, claims, note, details, part=name, commit=commit)
    else:
        show(f"{COMMAND}: {name}, not published", claims, details)
    if not all(claim.holds for claim in claims):
        raise SystemExit(1)


class Progress:
    """A line that is written over on a terminal, and now and then one more in a file."""

    def __init__(self) -> None:
        self._silent_until_s = 0.0

    def tell(self, what: str) -> None:
        """Show how far a run is."""
        if sys.stderr.isatty():
            print(f"\r{what}\033[K", end="", file=sys.stderr, flush=True)
        elif time.monotonic() >= self._silent_until_s:
            self._silent_until_s = time.monotonic() + TELL_S
            print(what, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line as it is."""
        if sys.stderr.isatty():
            print(file=sys.stderr)


if __name__ == "__main__":
    main()
