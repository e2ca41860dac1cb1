"""A process with less of a core than there is: as if its machine were slower.

By the kernel's bandwidth control where that is to be had (cgroup v1 or v2, as root), else by
stopping the process and letting it go on in turns. With cgroup v1 it is the main thread alone that
is slowed down, which hears and judges: every Pi that a node is built of has four cores, so that
what takes samples from the card and what sends have others, though not Python's one lock. The
other two slow down all threads together. None says anything of caches or of memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Final, Protocol, Self

# The kernel gives no less than a millisecond at a time, and the sooner the next comes the better a
# share resembles a slow core: the card's buffer holds 0.17 s.
LEAST_QUOTA_US: Final = 1_000
LEAST_PERIOD_US: Final = 10_000
TURN_S: Final = 0.05
MOUNTS: Final = Path("/proc/self/mounts")


class Throttle(Protocol):
    """Holds a process to a share of a core from when it is entered until `lift`."""

    how: str

    def lift(self) -> None:
        """Let it run as fast as it can."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def throttle(pid: int, share: float, of_all: float | None = None) -> Throttle:
    """Give what can hold a process of ours to a share of a core here.

    Parameters
    ----------
    share
        For its main thread, where that alone can be held back.
    of_all
        For all its threads together, where it cannot; the same if None.
    """
    of_all = share if of_all is None else of_all
    group = _group(f"gunfire-load-{pid}")
    if group is None:
        return Turns(pid, of_all)
    return Bandwidth(group, pid, share if _by_thread(group) else of_all)


def period_and_quota_us(share: float) -> tuple[int, int]:
    """Give how long a period is, and how much of it a process may run, in µs."""
    period_us = max(LEAST_PERIOD_US, -(-LEAST_QUOTA_US // share))
    return round(period_us), max(LEAST_QUOTA_US, round(period_us * share))


class Bandwidth:
    """By a control group of its own."""

    def __init__(self, group: Path, pid: int, share: float) -> None:
        self._group = group
        self._pid = pid
        self._share = share
        by_thread = _by_thread(group)
        # A main thread has the number of its process.
        self._members = "tasks" if by_thread else "cgroup.procs"
        whom = "the thread that hears" if by_thread else "the whole process"
        self.how = f"the kernel's bandwidth control, {whom}"

    def __enter__(self) -> Self:
        self._write(self._share)
        (self._group / self._members).write_text(f"{self._pid}\n")
        return self

    def __exit__(self, *exc: object) -> None:
        self.lift()
        with contextlib.suppress(OSError):  # it has ended
            (self._group.parent / self._members).write_text(f"{self._pid}\n")
        with contextlib.suppress(OSError):
            self._group.rmdir()

    def lift(self) -> None:
        self._write(None)

    def _write(self, share: float | None) -> None:
        period_us, quota_us = period_and_quota_us(share or 1.0)
        if (self._group / "cpu.max").exists():
            quota = "max" if share is None else str(quota_us)
            (self._group / "cpu.max").write_text(f"{quota} {period_us}\n")
        else:
            (self._group / "cpu.cfs_period_us").write_text(f"{period_us}\n")
            (self._group / "cpu.cfs_quota_us").write_text(f"{-1 if share is None else quota_us}\n")


class Turns:
    """By signals: it runs for its share of each turn, and is stopped for the rest."""

    how = "stopping the whole process in turns"

    def __init__(self, pid: int, share: float) -> None:
        self._pid = pid
        self._share = share
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._take_turns, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.lift()

    def lift(self) -> None:
        self._ended.set()
        self._thread.join()
        self._send(signal.SIGCONT)

    def _take_turns(self) -> None:
        while not self._ended.is_set() and self._send(signal.SIGCONT):
            time.sleep(TURN_S * self._share)
            self._send(signal.SIGSTOP)
            self._ended.wait(TURN_S * (1 - self._share))

    def _send(self, number: signal.Signals) -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)
            return True
        return False


def _by_thread(group: Path) -> bool:
    return (group / "tasks").exists()


def _group(name: str) -> Path | None:
    """Give where a control group of that name can limit a processor; None where none can."""
    for line in MOUNTS.read_text("utf-8").splitlines():
        _, place, kind, options, *_ = line.split()
        if not ((kind == "cgroup" and "cpu" in options.split(",")) or kind == "cgroup2"):
            continue
        group = Path(place) / name
        try:
            group.mkdir(exist_ok=True)
        except OSError:
            continue
        if (group / "cpu.max").exists() or (group / "cpu.cfs_quota_us").exists():
            return group
        group.rmdir()
    return None
