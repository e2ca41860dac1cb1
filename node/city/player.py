"""One node of the city, in a process of its own: a whole daemon, its sound card a scene.

The daemon starts at once and opens its "card", which works out what the node will hear; then it
waits until all others are ready too, and all start at one instant. Whoever started the process
holds the other end of a line: when that goes, the node stops.
"""

from __future__ import annotations

import logging
import queue
import resource
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Self

import numpy as np

from node.capture import SimulatedSource
from node.city.streets import CLOCK
from node.daemon import Daemon
from node.settings import Settings
from node.simulate.render import RenderedNode
from node.timing.discipline import RISE_S
from node.timing.host import FakeHostClock
from node.types import NS_PER_S, Block

# What disciplines the clock counts once it has lasted (node.timing.discipline); and some slack.
CLOCK_RISES_S: Final = RISE_S + 0.5


@dataclass(frozen=True)
class Role:
    """What a node's process is to play.

    Attributes
    ----------
    node, settings
        What it hears, and what it is.
    utc_minus_monotonic_ns
        Its clock: the host's, and what is wrong with it.
    log_level
        From which on it logs to standard error.
    """

    node: RenderedNode
    settings: Settings
    utc_minus_monotonic_ns: int
    log_level: int


@dataclass(frozen=True)
class Rendering:
    """Said over the line: so much of what the node will hear is worked out, 0 to 1."""

    share: float


@dataclass(frozen=True)
class Ready:
    """Said over the line: the node may start, but not before (CLOCK_MONOTONIC, ns)."""

    not_before_ns: int


@dataclass(frozen=True)
class Spent:
    """Said over the line at the end: what playing has cost.

    Attributes
    ----------
    cpu_s
        Of processor time, from the start instant on.
    peak_bytes
        Of memory, pages that it shares with other nodes included.
    """

    cpu_s: float
    peak_bytes: int


def live(role: Role, line: Connection) -> None:
    """Be the node, until its scene ends or the line goes; what a process is started with."""
    # Ctrl-C goes to all processes of a terminal; ours ends in order, when the line goes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=role.log_level, format=f"{role.settings.node.id}: %(message)s")
    stage = _Stage(role.node, line)
    clock = FakeHostClock(role.utc_minus_monotonic_ns, CLOCK)
    daemon = Daemon(role.settings, stage, host_clock=clock)
    signal.signal(signal.SIGTERM, lambda *_: daemon.stop())

    def obey() -> None:
        while True:
            try:
                stage.cues.put(line.recv())
            except (EOFError, OSError):
                stage.cues.put(None)
                daemon.stop()
                return

    threading.Thread(target=obey, name="line", daemon=True).start()
    daemon.run()
    used = resource.getrusage(resource.RUSAGE_SELF)
    _say(line, Spent(time.process_time() - stage.rendered_cpu_s, used.ru_maxrss * 1024))


class _Stage:
    """The scene as a source of blocks: rendered when it is opened, played from the start instant.

    Parameters
    ----------
    node
        What to play.
    line
        Whom to tell.
    """

    def __init__(self, node: RenderedNode, line: Connection) -> None:
        self._node = node
        self._line = line
        self._source: SimulatedSource | None = None
        self._closed = False
        self.cues: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.rendered_cpu_s = 0.0

    @property
    def sample_rate_hz(self) -> int:
        """Rate in hertz."""
        return self._node.scene.sample_rate_hz

    @property
    def channels(self) -> int:
        """Channels in a frame."""
        return self._node.channels

    def __enter__(self) -> Self:
        opened_ns = time.monotonic_ns()
        frames = self._render()
        self.rendered_cpu_s = time.process_time()
        _say(self._line, Ready(opened_ns + round(CLOCK_RISES_S * NS_PER_S)))
        start_ns = self.cues.get()
        if start_ns is None:
            self._closed = True
            return self
        self._source = SimulatedSource(frames, self.sample_rate_hz, paced=True)
        self._source.__enter__()
        self._source.frame0_monotonic_ns = start_ns
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End `blocks` at once; may be called from another thread or from a signal handler."""
        self._closed = True
        self.cues.put(None)
        if self._source is not None:
            self._source.close()

    def blocks(self) -> Iterator[Block]:
        """Yield the scene in blocks, in real time."""
        if self._source is not None and not self._closed:
            yield from self._source.blocks()

    def _render(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        frames = np.empty((self._node.frame_count, self.channels), np.int32)
        done = 0
        for hop in self._node.hops():
            frames[done : done + len(hop)] = hop
            done += len(hop)
            if self._closed:
                break
            _say(self._line, Rendering(done / len(frames)))
        return frames


def _say(line: Connection, word: object) -> None:
    try:
        line.send(word)
    except (BrokenPipeError, OSError):
        return  # whoever listened has gone; `obey` sees it too
