"""Plays the city: broker, service, subscriber and ten processes, from one start instant.

It starts all, passes on what comes, and ends all, however it is left: processes of nodes end when
their line goes, the broker when we do.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

from node.city.fleet import DemoFleet
from node.city.player import Ready, Rendering, Role, Spent, live
from node.city.streets import SITE, City
from node.city.verdict import Arrived
from node.classify.runner import RUNTIMES
from node.deliver import BrokerAddress
from node.errors import GunfireNodeError
from node.messages import Incident
from node.network import PrivateBroker, Subscription
from node.network.admission import Admission
from node.network.incidents import Locator
from node.network.intake import Intake, Locates
from node.network.keys import Keys
from node.network.service import LocateService
from node.settings import (
    CaptureSettings,
    HealthSettings,
    IntegritySettings,
    MqttSettings,
    NodeSettings,
    OutboxSettings,
    PositionSettings,
    Settings,
    TimingSettings,
)
from node.timing import HostClock
from node.timing.host import utc_now_ns
from node.types import NS_PER_S

# All processes know of the start before it comes.
START_IN_S: Final = 0.3
# After the last node has left, what it said last is at the service within so much, and what the
# service then says at us.
LAST_WORD_S: Final = 1.5
_ARRIVES_S: Final = 0.3
_TICK_S: Final = 0.25
_END_S: Final = 8.0  # a daemon drains its outbox for up to 5 s
# Ten pipelines share the cores: more threads in each would only stand in each other's way.
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# What each node's process would else import anew.
_PRELOADED: Final = ("node.city.player", *(f"{name}.interpreter" for name in RUNTIMES))


class Watcher:
    """Who is told how it goes; this one does nothing. Called on several threads."""

    def rendering(self, share: float) -> None:
        """Take note of the share of all sound that is worked out, 0 to 1."""

    def playing(self, seconds: float) -> None:
        """Take note of how far the scene has come, in s."""

    def incident(self, arrived: Arrived, since_start_s: float) -> None:
        """Take an incident as it comes from the broker, with when (s from the scene's start)."""


@dataclass(frozen=True)
class Played:
    """What came of it.

    Attributes
    ----------
    start_utc_ns
        UTC of the scene's start.
    arrived
        Every revision of every incident, in the order in which they came.
    doubts
        What the network tells of nodes, by their names.
    spent
        What each node's process has cost, by their names.
    duration_s
        How long the scene lasted.
    report
        What the service counts, in a line.
    """

    start_utc_ns: int
    arrived: tuple[Arrived, ...]
    doubts: Mapping[str, str]
    spent: Mapping[str, Spent]
    duration_s: float
    report: str

    @property
    def load(self) -> float:
        """Processor time of all nodes over the scene's: 1 is one core all the time."""
        return sum(spent.cpu_s for spent in self.spent.values()) / self.duration_s


@dataclass
class _Cast:
    """A node's process, and our end of its line."""

    name: str
    process: ForkServerProcess
    line: Connection
    ready: Ready | None = None
    spent: Spent | None = None
    share: float = 0.0


def play(city: City, watcher: Watcher | None = None, locator: Locates | None = None) -> Played:
    """Play a city in real time.

    Parameters
    ----------
    watcher
        Told how it goes.
    locator
        What the service locates with; the real one unless a test has another.

    Raises
    ------
    BrokerError
        There is no Mosquitto on this machine.
    GunfireNodeError
        A node's process has ended before its scene.
    """
    watcher = watcher or Watcher()
    host = HostClock().read()
    duration_s = city.rendered.scene.duration_s
    with ExitStack() as opened:
        folder = Path(opened.enter_context(TemporaryDirectory(prefix="gunfire-node-city-")))
        broker = opened.enter_context(PrivateBroker())
        address = BrokerAddress.from_url(broker.url)
        fleet = DemoFleet(folder, SITE, utc_now_ns())
        roles = [
            Role(
                rendered,
                _settings(city, i, fleet, folder, broker.url),
                host.utc_minus_monotonic_ns + round(city.clock_errors_s[i] * NS_PER_S),
                logging.getLogger().getEffectiveLevel(),
            )
            for i, rendered in enumerate(city.rendered.nodes)
        ]
        service = opened.enter_context(_Service(address, fleet.ca_file, locator or Locator()))
        crew = opened.enter_context(_processes(roles))
        _await(crew, lambda: all(one.ready for one in crew), watcher)
        start_ns = _start_ns(crew)
        start_utc_ns = start_ns + host.utc_minus_monotonic_ns
        told = opened.enter_context(_Listener(address, start_utc_ns, watcher))
        for one in crew:
            one.line.send(start_ns)

        def ended() -> bool:
            service.check()
            watcher.playing(min((time.monotonic_ns() - start_ns) / NS_PER_S, duration_s))
            return all(one.spent for one in crew)

        _await(crew, ended, watcher)
        time.sleep(LAST_WORD_S)
        service.end()
        time.sleep(_ARRIVES_S)
        arrived = tuple(told.arrived)
        spent = {one.name: one.spent for one in crew if one.spent}
        return Played(
            start_utc_ns, arrived, service.doubts() | _doubts(arrived), spent, duration_s,
            service.report(),
        )  # fmt: skip


def _settings(city: City, index: int, fleet: DemoFleet, folder: Path, url: str) -> Settings:
    rendered = city.rendered.nodes[index]
    node, stated = rendered.node, city.stated[index]
    key_file, certificate_file = fleet.enrol(node.id)
    return Settings(
        node=NodeSettings(
            id=node.id,
            site=SITE,
            height_m=node.z_m,
            position=PositionSettings(
                lat_deg=stated.lat_deg,
                lon_deg=stated.lon_deg,
                alt_m=stated.alt_m,
                sigma_m=stated.sigma_m,
            ),
        ),
        capture=CaptureSettings(
            sample_rate_hz=rendered.scene.sample_rate_hz,
            channels=rendered.channels,
            array=node.array or "mono",
            heading_deg=node.heading_deg,
            order_fixed=True,
        ),
        # The clock of a process is told by us: neither chrony nor a server may have another mind.
        timing=TimingSettings(chrony=False, ntp_servers=()),
        outbox=OutboxSettings(path=folder / f"{node.id}.sqlite3"),
        integrity=IntegritySettings(key_file=key_file, certificate_file=certificate_file),
        mqtt=MqttSettings(url=url),
        health=HealthSettings(status_file=None, setup_folder=None),
    )


@contextmanager
def _processes(roles: list[Role]) -> Iterator[list[_Cast]]:
    """Start a process for each node; on leaving none is left."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    crew: list[_Cast] = []
    try:
        resource_tracker.ensure_running()  # else it would let Ctrl-C in again
        with _one_thread_each(), _left_alone_by_ctrl_c():
            for role in roles:
                ours, theirs = context.Pipe()
                name = role.node.node.id
                process = context.Process(target=live, args=(role, theirs), name=name, daemon=True)
                process.start()
                theirs.close()
                crew.append(_Cast(name, process, ours))
        yield crew
    except BaseException:
        for one in crew:
            one.process.kill()  # nobody waits for what it would still have to say
        raise
    finally:
        for one in crew:
            one.line.close()
        give_up_s = time.monotonic() + _END_S
        for one in crew:
            one.process.join(max(0.0, give_up_s - time.monotonic()))
            if one.process.is_alive():
                one.process.kill()
                one.process.join()
            one.process.close()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _left_alone_by_ctrl_c() -> Iterator[None]:
    """Have processes that are started here not see it: we do, and end them.

    Here it waits until all are started: one that is being started is nobody's yet.
    """
    pressed: list[int] = []
    ours: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            ours[number] = signal.signal(number, lambda got, _: pressed.append(got))
    # What is blocked stays so in what is started.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in ours.items():
            signal.signal(number, handler)
    if pressed:
        raise KeyboardInterrupt


def _await(crew: list[_Cast], done: Callable[[], bool], watcher: Watcher) -> None:
    """Listen to the nodes' processes until something is so."""
    while not done():
        lines: dict[Any, _Cast] = {one.line: one for one in crew if one.spent is None}
        for line in wait(list(lines), timeout=_TICK_S):
            one = lines[line]
            try:
                word = one.line.recv()
            except (EOFError, OSError):
                raise GunfireNodeError(
                    f"{one.name}: its process has ended before its scene; see what it has said, "
                    "with --verbose"
                ) from None
            if isinstance(word, Rendering):
                one.share = word.share
                watcher.rendering(sum(each.share for each in crew) / len(crew))
            elif isinstance(word, Ready):
                one.ready = word
            elif isinstance(word, Spent):
                one.spent = word


def _start_ns(crew: list[_Cast]) -> int:
    """Give the instant (CLOCK_MONOTONIC) at which all start."""
    soon_ns = time.monotonic_ns() + round(START_IN_S * NS_PER_S)
    return max(soon_ns, *(one.ready.not_before_ns for one in crew if one.ready))


class _Service:
    """Whoever locates, as `gunfire-node locate` has it, on a thread of its own.

    It takes no node's word without the signature of the fleet's CA.
    """

    def __init__(self, address: BrokerAddress, ca_file: Path, locator: Locates) -> None:
        self._intake = Intake(locator, Admission(keys=Keys(ca=ca_file)))
        self._service = LocateService(address, self._intake, site=SITE)
        self._thread = threading.Thread(target=self._run, name="locate", daemon=True)
        self._fault: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def end(self) -> None:
        """Have it settle what is open, and wait until that is sent."""
        self._service.close()
        self._thread.join(_END_S)

    def check(self) -> None:
        """Raise what has ended it, if anything has."""
        if self._fault is not None:
            raise self._fault

    def _run(self) -> None:
        try:
            self._service.run()
        except Exception as error:
            self._fault = error

    def doubts(self) -> dict[str, str]:
        """Say which nodes do not agree with the others, and how."""
        return {name: how for (_, name), how in self._intake.locator.doubts.items()}

    def report(self) -> str:
        """Say in a line what came and what became of it."""
        return self._service.report()


def _doubts(arrived: Sequence[Arrived]) -> dict[str, str]:
    """Give what incidents say of nodes."""
    return {
        witness.node_id: witness.doubt
        for one in arrived
        for witness in one.incident.nodes
        if witness.doubt is not None
    }


class _Listener:
    """A subscriber to the incidents, on a thread of its own."""

    def __init__(self, address: BrokerAddress, start_utc_ns: int, watcher: Watcher) -> None:
        self._words = Subscription(address, site=SITE, kinds=["incident"])
        self._start_utc_ns = start_utc_ns
        self._watcher = watcher
        self._thread = threading.Thread(target=self._listen, name="incidents", daemon=True)
        self.arrived: list[Arrived] = []

    def __enter__(self) -> Self:
        self._words.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._words.close()
        self._thread.join()

    def _listen(self) -> None:
        for word in self._words:
            if isinstance(word.message, Incident):
                arrived = Arrived(word.message, utc_now_ns())
                self.arrived.append(arrived)
                since_s = (arrived.utc_ns - self._start_utc_ns) / NS_PER_S
                self._watcher.incident(arrived, since_s)
