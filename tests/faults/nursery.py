"""Start, watch and kill lives of the node under fault; see `life` for what a life is."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from node.messages.signing import read_object
from tests.evidence import ROOT
from tests.faults.life import Plan, request

Key = tuple[str, int]
"""Event id and revision: what a message is unique by."""

READY_S: Final = 60.0
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Made:
    """A message as it went into the outbox, and when it was told to be durable, if it was."""

    seq: int
    payload: bytes


@dataclass(eq=False)
class Life:
    """What one life has told so far.

    Attributes
    ----------
    made
        Messages by key, each with all its makings: a commit that failed is tried again.
    durable_s
        When a message was told to be durable, by key, CLOCK_MONOTONIC.
    taken, lost
        Up to which sample all was taken in, and how many were lost.
    losses
        Where samples were lost: somewhere between two places in the stream.
    waited_s
        Longest that sound has waited for the daemon to take it.
    offsets_ns
        UTC minus the card's clock, each value it has had.
    start_ns
        The card's clock at sample 0.
    ended
        Whether it left in good order.
    """

    pid: int
    silent: bool
    log: Path
    pidfd: int
    boot_id: str = ""
    made: dict[Key, list[Made]] = field(default_factory=dict)
    durable_s: dict[Key, float] = field(default_factory=dict)
    taken: int = 0
    lost: int = 0
    waited_s: float = 0.0
    losses: list[tuple[int, int]] = field(default_factory=list)
    offsets_ns: list[int] = field(default_factory=list)
    start_ns: int = 0
    ended: bool = False
    reader: threading.Thread | None = None

    def kill(self) -> None:
        """Kill it, and wait until it is dead and all that it told has been read."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.wait(30)

    def end(self, seconds: float = 30.0) -> bool:
        """Have it leave in good order; say whether it did in time, and kill it if not."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        if not self.wait(seconds):
            self.kill()
        return self.ended

    def wait(self, seconds: float) -> bool:
        """Wait for its end."""
        gone = bool(select.select([self.pidfd], [], [], seconds)[0])
        if gone and self.reader is not None:
            self.reader.join()
        return gone

    @property
    def alive(self) -> bool:
        """Whether it lives."""
        return not select.select([self.pidfd], [], [], 0)[0]

    def hear(self, words: list[Any]) -> None:
        """Take one line of what it tells."""
        match words:
            case ["at", taken, lost, waited_s, start_ns]:
                if lost != self.lost:
                    self.losses.append((self.taken, taken))
                self.taken, self.lost, self.start_ns = taken, lost, start_ns
                self.waited_s = waited_s
            case ["made", seq, event_id, revision, payload]:
                self.made.setdefault((event_id, revision), []).append(Made(seq, payload.encode()))
            case ["durable", _, event_id, revision]:
                self.durable_s[event_id, revision] = time.monotonic()
            case ["utc", offset_ns]:
                self.offsets_ns.append(offset_ns)
            case ["born", boot_id]:
                self.boot_id = boot_id
            case ["ended"]:
                self.ended = True
            case _:
                raise AssertionError(f"a life told nonsense: {words}")


class Nursery:
    """Where lives begin; a context manager.

    Parameters
    ----------
    folder
        Where their logs go.
    environment
        Beside our own.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._environment = {**os.environ, **_ONE_THREAD, **(environment or {})}
        self._lives: list[Life] = []
        self._desk: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, (self._folder / "nursery.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.life"],
                stdin=theirs,
                stderr=log,
                cwd=ROOT,
                env=self._environment,
            )
        self._desk = ours
        ours.settimeout(READY_S)
        assert ours.recv(64) == b"ready", (self._folder / "nursery.log").read_text()
        return self

    def __exit__(self, *exc: object) -> None:
        for life in self._lives:
            if life.alive:
                life.kill()
            os.close(life.pidfd)
        if self._desk is not None:
            self._desk.close()
        if self._process is not None:
            self._process.wait(10)

    def begin(self, plan: Plan, heard: Callable[[], None] = lambda: None) -> Life:
        """Fork a life; `heard` is called after each thing that it tells."""
        assert self._desk is not None
        log = self._folder / f"life-{len(self._lives)}.log"
        read_end, write_end = os.pipe()
        with log.open("wb") as log_file:
            socket.send_fds(self._desk, [request(plan)], [write_end, log_file.fileno()])
        os.close(write_end)
        pid = int(self._desk.recv(64))
        life = Life(pid, plan.silent, log, os.pidfd_open(pid))
        life.reader = threading.Thread(target=_read, args=(life, read_end, heard), daemon=True)
        life.reader.start()
        self._lives.append(life)
        return life


def _read(life: Life, read_end: int, heard: Callable[[], None]) -> None:
    with open(read_end, "rb") as pipe:
        for line in pipe:
            if line.endswith(b"\n"):  # a torn last line was not told
                life.hear(json.loads(line))
                heard()


def signed_part(payload: bytes) -> dict[str, Any]:
    """Give a detection's JSON object without what only sending adds."""
    document = read_object(payload)
    document.pop("transport", None)
    return document
