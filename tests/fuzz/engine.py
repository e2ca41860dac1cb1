"""Runs a fuzz target: inputs from a seed, a watch on hangs, a file for each input that fails.

A target makes an input from valid ones (`make`) and judges what the code under test did with it
(`check`): refused by a documented error, or accepted and right. All else is a finding: an exception
that is not documented, something wrong accepted, or no end within two seconds of processor time.
Input number n of a seed is always the same, so a finding can be made again.
"""

from __future__ import annotations

import hashlib
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from tests.evidence import ROOT

KEPT: Final = ROOT / "build" / "fuzz"
"""Where inputs that failed are kept."""
TICK_S: Final = 1.0
MOST_FINDINGS: Final = 20


class WrongError(AssertionError):
    """Something was accepted that is not right."""


class HangError(BaseException):
    """An input took too long. No `except Exception` of the code under test may swallow it."""


@dataclass(frozen=True)
class Target:
    """One way into the code.

    Attributes
    ----------
    name
        Names it on the command line.
    inputs
        Its share of the long run.
    modules
        The parsers that it is to take every branch of.
    corpus
        Gives the valid inputs that all others are made from; each must be accepted.
    make
        Makes an input from the corpus.
    check
        Gives whether an input was accepted; raises `WrongError` where that is wrong. It may use
        the folder as it likes.
    """

    name: str
    inputs: int
    modules: tuple[str, ...]
    corpus: Callable[[], list[bytes]]
    make: Callable[[Random, list[bytes]], bytes]
    check: Callable[[bytes, Path], bool]


@dataclass(frozen=True)
class Finding:
    """An input that the code under test did wrong on."""

    target: str
    number: int
    what: str
    place: str
    data: bytes

    def keep(self, folder: Path = KEPT) -> Path:
        """Write the input to a file that `python -m tests.fuzz again` takes."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}"
        file.write_bytes(self.data)
        return file


@dataclass
class Tally:
    """What came of a run."""

    inputs: int = 0
    accepted: int = 0
    findings: list[Finding] = field(default_factory=list)


def nth_input(target: Target, corpus: list[bytes], seed: int, number: int) -> bytes:
    """Make the input of a number: the corpus first, as it is, then what is made from it."""
    if number < len(corpus):
        return corpus[number]
    return target.make(Random(seed << 32 | number), corpus)


def run(
    target: Target,
    seed: int,
    first: int,
    count: int,
    folder: Path,
    at: Callable[[int], None] = lambda number: None,
    most_findings: int = MOST_FINDINGS,
) -> Tally:
    """Give a target its inputs of these numbers.

    Parameters
    ----------
    at
        Told each number before its input is tried.
    most_findings
        After so many different ones the run ends.
    """
    corpus, tally, places = target.corpus(), Tally(), set[str]()
    with _watched() as begin:
        for number in range(first, first + count):
            data = nth_input(target, corpus, seed, number)
            at(number)
            begin()
            finding = attempt(target, number, data, folder, tally)
            if finding is not None and finding.place not in places:
                places.add(finding.place)
                tally.findings.append(finding)
                if len(places) == most_findings:
                    break
    return tally


def attempt(target: Target, number: int, data: bytes, folder: Path, tally: Tally) -> Finding | None:
    """Try one input."""
    tally.inputs += 1
    try:
        tally.accepted += target.check(data, folder)
    except (Exception, HangError) as error:
        return Finding(target.name, number, _said(error), _place(error), data)
    return None


@contextmanager
def _watched() -> Iterator[Callable[[], None]]:
    """Raise `HangError` in an input that outlives two ticks of processor time."""
    ticks = 0

    def begin() -> None:
        nonlocal ticks
        ticks = 0

    def tick(*_: object) -> None:
        nonlocal ticks
        ticks += 1
        if ticks > 2:
            ticks = 0
            raise HangError(f"no end within {2 * TICK_S:g} s of processor time")

    # Processor time, not the clock's: a busy machine makes no hang.
    before = signal.signal(signal.SIGPROF, tick)
    signal.setitimer(signal.ITIMER_PROF, TICK_S, TICK_S)
    try:
        yield begin
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]


def _place(error: BaseException) -> str:
    """Name a finding by where it shows, so that one defect is told once."""
    if isinstance(error, HangError):
        return "hang"
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/node/" in f.filename or "/tests/fuzz/" in f.filename]
    last = (ours or frames)[-1]
    place = f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    return f"{place} {error}"[:120] if isinstance(error, WrongError) else place
