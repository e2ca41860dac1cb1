"""Runs each part of the self-test on a thread of its own, for so long and no longer.

A name server, a broker or a disk that never answers must not hold up a technician on a roof: what
has not answered by then is told as that, and left behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from node.board.findings import Finding
from node.errors import DeviceError, GunfireNodeError

Tell = Callable[[str, float], None]
"""Told what is tested now, and how many seconds it takes at most."""

_LOOK_S: Final = 0.1


@dataclass(frozen=True)
class Part:
    """One part of the self-test.

    Attributes
    ----------
    check
        By which check it is told that this part failed as a whole.
    about
        What is tested, for whoever waits.
    seconds
        The most that it may take.
    find
        Tests it.
    """

    check: str
    about: str
    seconds: float
    find: Callable[[], Iterable[Finding]]


class Run:
    """A part under way."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self._found: list[Finding] = []
        self._fault: BaseException | None = None
        self._until_s = time.monotonic() + part.seconds
        self._thread = threading.Thread(target=self._run, name=f"check-{part.check}", daemon=True)
        self._thread.start()

    @property
    def left_s(self) -> float:
        """Seconds that it still has; 0 once it has ended."""
        return max(0.0, self._until_s - time.monotonic()) if self._thread.is_alive() else 0.0

    @property
    def hangs(self) -> bool:
        """Whether it is still under way."""
        return self._thread.is_alive()

    def findings(self) -> Iterator[Finding]:
        """Give what was found until now; what hangs is told as a failure."""
        if self._thread.is_alive():
            yield from tuple(self._found)
            yield Finding(self.part.check, "fail", f"no answer within {self.part.seconds:g} s")
            return
        if self._fault is not None:
            raise self._fault
        yield from self._found

    def _run(self) -> None:
        try:
            self._found.extend(self.part.find())
        except GunfireNodeError as error:
            self._found.append(failure(self.part.check, error))
        except BaseException as error:
            self._fault = error


def together(parts: Sequence[Part], tell: Tell) -> list[Run]:
    """Run parts at the same time, until all have ended or used up their time."""
    runs = [Run(part) for part in parts]
    while left := [run for run in runs if run.left_s > 0]:
        slowest = max(left, key=lambda run: run.left_s)
        tell(slowest.part.about, slowest.left_s)
        time.sleep(_LOOK_S)
    return runs


def failure(check: str, error: GunfireNodeError) -> Finding:
    """Tell an error as a finding: what is wrong as its figure, what to do as its advice."""
    figure, advice = split(error)
    return Finding(check, "fail", figure, advice)


def split(error: GunfireNodeError) -> tuple[str, str]:
    """Part what is wrong from what to do; the errors of a device have a semicolon there."""
    text = " ".join(str(error).split())
    if isinstance(error, DeviceError):
        what, _, advice = text.partition("; ")
        return what, advice
    where, *rest = text.split(": ", 2)
    if len(rest) == 2:
        return f"{where}: {rest[0]}", rest[1]
    return text, ""
