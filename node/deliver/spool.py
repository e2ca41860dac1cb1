"""Large messages that may be lost: a file each beside the outbox, sent when nothing else waits.

A detection must arrive; what accompanies it (a snippet) is worth less, and many times as large. So
it waits apart, under a bound of its own, one file a message: what is dropped frees its room on the
disk at once, which is what a detection may be waiting for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path
from typing import Final, NamedTuple

from node.deliver.backlog import SETTLE_S
from node.deliver.board import Board, Word
from node.deliver.database import outbox_error
from node.errors import OutboxError
from node.files import sync_folder

log = logging.getLogger(__name__)

_SUFFIX: Final = ".message"
_UNFINISHED: Final = "unfinished"
_UNDATED_NS: Final = 0  # the time of a file that no trusted clock has seen yet


class Parcel(NamedTuple):
    """A message that waits, and the file that it is in."""

    name: str
    payload: bytes


class Spool:
    """Keep messages until they are removed, bounded in bytes, the oldest dropped first.

    For one process; its threads may share it.

    Parameters
    ----------
    folder
        Made if absent, for its owner alone. One that cannot be used is told, and tried again with
        the next message: hearing does not wait for it.
    max_bytes
        Bound of all that waits.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        self._last = 0
        self._is_open = False
        try:
            self._open()
        except OutboxError as error:
            log.error("%s", error)

    @property
    def depth(self) -> int:
        """Messages that wait."""
        return len(self._sizes)

    def add(self, payload: bytes) -> int:
        """Make a message durable; give how many older ones had to go for it.

        Raises
        ------
        OutboxError
            If it could not be made durable; then nothing has changed.
        """
        if not self._is_open:
            self._open()
        name = f"{self._last + 1:012d}{_SUFFIX}"
        unfinished = self._folder / _UNFINISHED
        try:
            with unfinished.open("wb") as file:
                file.write(payload)
                file.flush()
                # Not by this machine's clock, which may be a month behind and set only later.
                os.utime(file.fileno(), ns=(_UNDATED_NS, _UNDATED_NS))
                os.fsync(file.fileno())
            unfinished.rename(self._folder / name)
            sync_folder(self._folder)
        except OSError as error:
            with contextlib.suppress(OSError):  # on a dying disk this may fail as well
                unfinished.unlink(missing_ok=True)
            self._is_open = False  # somebody may have removed the folder
            raise outbox_error(self._folder, error) from error
        with self._lock:
            self._last += 1
            self._sizes[name] = len(payload)
            return self._drop_to(self._max_bytes)

    def next(self, besides: frozenset[str]) -> Parcel | None:
        """Give the oldest message but for some; None where there is no other."""
        for name in tuple(self._sizes):
            if name in besides:
                continue
            try:
                return Parcel(name, (self._folder / name).read_bytes())
            except OSError as error:
                log.error("%s cannot be read back from the disk: %s", name, error)
                self.remove(name)
        return None

    def remove(self, name: str) -> None:
        """Forget a message: the broker has it, or never will. An unknown one is passed."""
        with self._lock:
            self._forget(name)

    def clear(self) -> int:
        """Drop all, since something that matters more needs the room; give how many."""
        with self._lock:
            return self._drop_to(0)

    def expire(self, utc_now_ns: int, max_age_s: float) -> int:
        """Drop what has waited too long; give how many.

        A message's age is counted from the first call after it was added, as in the outbox, and
        kept as its file's time. So call this only while the clock can be trusted.
        """
        dropped = 0
        for name in tuple(self._sizes):
            file = self._folder / name
            try:
                since_ns = file.stat().st_mtime_ns
                if since_ns == _UNDATED_NS or since_ns > utc_now_ns:
                    os.utime(file, ns=(utc_now_ns, utc_now_ns))
                    continue
            except OSError:
                continue  # it went meanwhile
            if since_ns < utc_now_ns - round(max_age_s * 1e9):
                self.remove(name)
                dropped += 1
        return dropped

    def _open(self) -> None:
        folder = self._folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / _UNFINISHED).unlink(missing_ok=True)
            files = sorted(
                file
                for file in folder.iterdir()
                if file.suffix == _SUFFIX and file.stem.isdecimal()
            )
            sizes = {file.name: file.stat().st_size for file in files}
        except OSError as error:
            raise outbox_error(folder, error) from error
        with self._lock:
            self._sizes = sizes
            self._last = max([self._last, *(int(Path(name).stem) for name in sizes)])
            self._is_open = True

    def _drop_to(self, most_bytes: int) -> int:
        dropped = 0
        while sum(self._sizes.values()) > most_bytes:
            self._forget(next(iter(self._sizes)))
            dropped += 1
        return dropped

    def _forget(self, name: str) -> None:
        self._sizes.pop(name, None)
        try:
            (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed, and is sent again after a restart: %s", name, error)


class Parcels:
    """A spool, as one connection after another works it off: one message on the board at a time.

    On the sending thread.
    """

    def __init__(self, spool: Spool, topic: str, board: Board, expiry_s: int | None) -> None:
        self._spool = spool
        self.topic = topic
        self._board = board
        self._expiry_s = expiry_s
        self._offered: str | None = None
        self._word: Word | None = None  # what was offered, as it stands on the board
        self._settling_s: dict[str, float] = {}

    @property
    def busy(self) -> bool:
        """Whether anything waits, is under way or not settled."""
        return self._spool.depth > 0

    def begin(self) -> None:
        """Start a connection: what was offered or not settled is sent again, in its turn."""
        self._settling_s = {}
        if self._word is not None:
            self._board.give_up(self._word)
        self._offered = self._word = None

    def turn(self, now_s: float, *, idle: bool) -> None:
        """Remove what has settled, and offer the next message if nothing else waits."""
        for name in [name for name, at_s in self._settling_s.items() if at_s <= now_s]:
            del self._settling_s[name]
            self._spool.remove(name)
        if self._offered is None and idle and self.busy:
            parcel = self._spool.next(besides=frozenset(self._settling_s))
            if parcel is not None:
                self._offered = parcel.name
                self._word = Word(self.topic, parcel.payload, False, self._expiry_s)
                self._board.put(self._word)

    def acknowledged(self, now_s: float) -> None:
        """Note that the broker has the message that was offered."""
        if self._offered is not None:
            self._settling_s[self._offered] = now_s + SETTLE_S
            self._offered = None

    def given_up(self) -> None:
        """Drop the message that was offered: the broker can never take it."""
        if self._offered is not None:
            self._spool.remove(self._offered)
            self._offered = None
