"""The locator in a process of its own, so that verifying and locating have a core each.

Python runs one thread at a time, and a thousand detections a second take most of a core to receive
and verify. Orders go over a pipe in lists, detections in them as JSON; incidents come back. What
the locator finds is given by the next call, whichever that is, and `news` is called when there is
any. What has come is heard before known incidents are gone through again, so that the more there is
to do, the later these are told better, and not the later a new one is told.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol, Self

from node.errors import GunfireNodeError
from node.messages import Detection, Incident, parse_detection
from node.messages.detection import Local, Position
from node.network.garbage import Garbage
from node.network.intake import Locates
from node.network.medium import Weather
from node.types import NS_PER_S

log = logging.getLogger(__name__)

_TICK_NS: Final = NS_PER_S // 20
_SOON_S: Final = 5.0
_START_S: Final = 300.0
_FINISH_S: Final = 20.0
_STOP_S: Final = 5.0
# So many orders wait at most for the next `tick`, to go with one call and wake the other side once.
_MOST_WAITING: Final = 64


class Works(Locates, Protocol):
    """What can leave for later what is due: `node.network.incidents.Locator`."""

    def hear(self, detection: Detection, now_ns: int) -> list[Incident]:
        """Take a detection; give what is new."""

    def work(self, now_ns: int) -> list[Incident] | None:
        """Do one of the things that are due; None where nothing is."""


class LocatorProcess:
    """A locator elsewhere; a context manager that starts and ends it.

    Parameters
    ----------
    make
        Makes the locator there; importable by name.
    news
        Called on a thread of our own when there is something to fetch, by `tick` for instance.

    Attributes
    ----------
    doubts
        As the locator's own, when it was last asked to let time pass.
    faults
        Calls in which it raised; it goes on, and what it raised is logged.
    """

    def __init__(self, make: Callable[[], Works], news: Callable[[], None] = lambda: None) -> None:
        self.news = news
        self.doubts: dict[tuple[str, str], str] = {}
        spawning = multiprocessing.get_context(
            "spawn"
        )  # a fork would take our threads' locks along
        # One each way: a pipe that a thread of ours reads from could not be closed under it.
        orders, self._orders = spawning.Pipe(duplex=False)
        self._answers, answers = spawning.Pipe(duplex=False)
        self._theirs = (orders, answers)
        self._process = spawning.Process(
            target=_serve, args=(orders, answers, make), name="gunfire-locator", daemon=True
        )
        self.faults = 0
        self._waiting: list[tuple[str, tuple[Any, ...]]] = []
        self._found: deque[Incident] = deque()
        self._ticked = threading.Event()
        self._ticked.set()
        self._ticked_ns = 0
        self._finished = threading.Event()
        self._ready = threading.Event()
        self._ended = False
        self._reader = threading.Thread(target=self._read, name="locator", daemon=True)

    def place(self, site: str, node_id: str, place: Position | Local) -> None:
        """As the locator's own."""
        self._send("place", site, node_id, place)

    def up(self, site: str, node_id: str, up: bool) -> None:
        """As the locator's own."""
        self._send("up", site, node_id, up)

    def weather(self, site: str, weather: Weather) -> None:
        """As the locator's own."""
        self._send("weather", site, weather)

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        """Hand a detection over with the next `tick`; give what was found of those before it."""
        # A fifth of the cost of pickling it.
        self._send("push", detection.model_dump_json(by_alias=True), now_ns)
        return self._fetch()

    def tick(self, now_ns: int) -> list[Incident]:
        """Let time pass there, now and then, unless it is busy; give what was found so far."""
        if self._ticked.is_set() and not 0 <= now_ns - self._ticked_ns < _TICK_NS:
            self._ticked_ns = now_ns
            self._ticked.clear()
            self._send("tick", now_ns)
        self._flush()
        return self._fetch()

    def finish(self) -> list[Incident]:
        """Settle all, and wait for it."""
        self._send("finish")
        self._flush()
        if not self._finished.wait(_FINISH_S):
            log.error("the locator did not finish within %g s: what was open is lost", _FINISH_S)
        self._finished.clear()
        return self._fetch()

    def __enter__(self) -> Self:
        self._process.start()
        for end in self._theirs:  # so that its end ends our reading
            end.close()
        self._reader.start()
        if not self._ready.wait(_SOON_S):
            log.info("compiling what locates: half a minute, once for each version")
        if not self._ready.wait(_START_S) or self._ended:
            self.__exit__()
            raise GunfireNodeError(
                "the locator's process does not start: see above for why, and report it"
            )
        return self

    def __exit__(self, *exc: object) -> None:
        self._orders.close()
        self._process.join(_STOP_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._reader.join(_STOP_S)
        self._answers.close()

    def _send(self, what: str, *arguments: Any) -> None:
        self._waiting.append((what, arguments))
        if len(self._waiting) >= _MOST_WAITING:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            if waiting:
                self._orders.send(waiting)
        except (OSError, ValueError):
            self._ended = True
        if self._ended:
            raise GunfireNodeError(
                "the locator's process has ended: see the log for why, and report it"
            )

    def _fetch(self) -> list[Incident]:
        found: list[Incident] = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._found.popleft())
        return found

    def _read(self) -> None:
        while True:
            try:
                what, found, told = self._answers.recv()
            except (EOFError, OSError):
                break
            self._found.extend(found)
            if what == "tick":
                self.doubts = told
                self._ticked.set()
            elif what == "fault":
                self.faults += 1
                if self.faults.bit_count() == 1:  # the first, second, fourth …
                    log.error("fault in the locator (%d so far): %s", self.faults, told)
            elif what == "finish":
                self._finished.set()
            elif what == "ready":
                self._ready.set()
            if found:
                self.news()
        self._ended = True
        for awaited in (self._finished, self._ready):
            awaited.set()
        self.news()


def _serve(orders: Connection, answers: Connection, make: Callable[[], Works]) -> None:
    """Do what is ordered until nobody is left to order; in the other process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # whoever has started us says when
    from node.network.warm import warm  # a node, which lists this command, has no compiler

    warm()  # the first shot is not to wait for it
    worker, garbage = _Worker(make(), answers), Garbage()
    answers.send(("ready", [], None))
    with contextlib.suppress(EOFError, OSError):
        while True:
            # One thing each time, so that none waits for ever.
            while worker.work() and not orders.poll():
                pass
            for what, arguments in orders.recv():
                worker.do(what, arguments)
            garbage.tidy()


class _Worker:
    """Does orders as they come, and what is due when none does."""

    def __init__(self, locator: Works, answers: Connection) -> None:
        self._locator = locator
        self._answers = answers
        self._now_ns = 0

    def do(self, what: str, arguments: tuple[Any, ...]) -> None:
        found: list[Incident] = []
        told: Any = None
        try:
            if what == "push":
                text, self._now_ns = arguments
                found = self._locator.hear(parse_detection(text), self._now_ns)
            elif what == "tick":
                (self._now_ns,) = arguments
                told = dict(self._locator.doubts)
            else:
                found = getattr(self._locator, what)(*arguments) or []
        except Exception:
            self._answer("fault", [], traceback.format_exc())
        if found or what in ("tick", "finish"):
            self._answer(what, found, told)

    def work(self) -> bool:
        """Do one thing that is due; say whether there may be more."""
        try:
            found = self._locator.work(self._now_ns)
        except Exception:
            self._answer("fault", [], traceback.format_exc())
            return False
        if found:
            self._answer("work", found, None)
        return found is not None

    def _answer(self, what: str, found: list[Incident], told: Any) -> None:
        with contextlib.suppress(OSError):
            self._answers.send((what, found, told))
