"""The outbox: a detection is on disk before anything is sent, and until the broker has it.

Messages come in from the pipeline by `append`, which numbers them; the sender takes them by
`pending` and removes them by `acknowledge`. Nothing is written while nothing is heard.
"""

import logging
import sqlite3
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from node.deliver.database import LOG_BYTES, Database, aside_numbers, outbox_error
from node.deliver.sequence import RESERVE, SequenceCeiling
from node.errors import OutboxError

log = logging.getLogger(__name__)

MIN_BYTES: Final = 2**20
"""Smallest bound of an outbox."""

_FORMAT: Final = 1
_SCHEMA: Final = """
CREATE TABLE detection (
    seq INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    onset_utc_ns INTEGER NOT NULL,
    payload BLOB NOT NULL,
    refusal TEXT,
    UNIQUE (event_id, revision)
);
CREATE INDEX to_send ON detection (onset_utc_ns, seq) WHERE refusal IS NULL;
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

# A node that lost both its count and the ceiling goes on this far above the last such loss: more
# than it can have counted since, for 136 years of one detection a second.
_LEAP: Final = 2**32

_FIRST: Final = (-(2**63), 0)


class Appended(NamedTuple):
    """What `append` did: the number, and whether the message is new or was there already."""

    seq: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message that waits."""

    seq: int
    event_id: str
    revision: int
    onset_utc_ns: int
    payload: bytes


class Outbox:
    """Keep messages until they are acknowledged, bounded in bytes, the oldest dropped first.

    For one process; its threads may share it.

    Parameters
    ----------
    path
        SQLite file; it and its folder are made if absent. Beside it stand its log (`-wal`) and
        the ceiling of numbers given out (`.seq`).
    max_bytes
        Bound of the database and its log together, ≥ 1 MiB.

    Raises
    ------
    OutboxError
        If the file cannot be opened or is no regular file, or another process holds it. A corrupt
        one is set aside (`<name>.corrupt-<n>`) and a new one started: `notices` then says so.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        if max_bytes < MIN_BYTES:
            raise ValueError(f"an outbox of {max_bytes} bytes is too small: at least {MIN_BYTES}")
        self._path = path
        self._max_bytes = max_bytes
        self._listener: Callable[[], None] | None = None
        self._told_of_drops = False
        self._depth = self._refused = self._dropped = self._last_seq = 0
        _refuse_unless_regular(path)
        try:
            self._ceiling = SequenceCeiling(path.with_name(path.name + ".seq"))
        except OSError as error:
            raise outbox_error(path, error) from error
        self._database = Database(path, _SCHEMA, _FORMAT, self._load)

    @property
    def depth(self) -> int:
        """Messages that wait to be sent or acknowledged."""
        return self._depth

    @property
    def refused(self) -> int:
        """Messages kept aside since the broker will never take them."""
        return self._refused

    @property
    def dropped(self) -> int:
        """Messages dropped, over the file's life, to stay within the bound."""
        return self._dropped

    @property
    def last_seq(self) -> int:
        """The last number given out; 0 if none was."""
        return self._last_seq

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences on files that were corrupt and had to be set aside."""
        return tuple(self._database.notices)

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Have a function called after each new message, on the thread that appended it."""
        self._listener = listener

    def append(
        self, event_id: str, revision: int, onset_utc_ns: int, render: Callable[[int], bytes]
    ) -> Appended:
        """Give a message its number and make it durable.

        Parameters
        ----------
        event_id, revision
            Name the message. While one of that name waits here, a second is not taken.
        onset_utc_ns
            Its place in the order of sending.
        render
            Makes the message from its number, inside the transaction: number, message and all
            else that must advance with them advance together or not at all.

        Raises
        ------
        OutboxError
            If it could not be made durable; then nothing has changed, and it may be tried again.
        """
        with self._database.lock:
            with self._database.transaction() as db:
                known = db.execute(
                    "SELECT seq FROM detection WHERE event_id = ? AND revision = ?",
                    (event_id, revision),
                ).fetchone()
                if known is not None:
                    return Appended(known[0], is_new=False)
                seq = self._last_seq + 1
                self._ceiling.cover(seq)
                db.execute(
                    "INSERT INTO detection VALUES (?, ?, ?, ?, ?, NULL)",
                    (seq, event_id, revision, onset_utc_ns, render(seq)),
                )
                _set_counter(db, "last_seq", seq)
                dropped = self._make_room(db, newest=seq)
            self._last_seq = seq
            self._depth += 1
            if dropped:
                if not self._told_of_drops:
                    log.warning("outbox %s full, dropping the oldest from now on", self._path)
                    self._told_of_drops = True
                self._recount()
        if self._listener is not None:
            self._listener()
        return Appended(seq, is_new=True)

    def pending(
        self, limit: int | None = None, after: tuple[int, int] | None = None
    ) -> list[OutboxRow]:
        """Give the messages that wait, by onset, at most `limit` of them.

        With `after`, an onset (UTC, ns) and a number, only those that come later in that order.
        """
        return self._rows(
            "(onset_utc_ns, seq) > (?, ?) ORDER BY onset_utc_ns, seq",
            (_FIRST if after is None else after),
            limit,
        )

    def newer(self, seq: int, limit: int | None = None) -> list[OutboxRow]:
        """Give the messages that wait with a number above `seq`, by number."""
        return self._rows("seq > ? ORDER BY seq", (seq,), limit)

    def _rows(self, order: str, bounds: tuple[int, ...], limit: int | None) -> list[OutboxRow]:
        with self._database.guard() as db:
            rows = db.execute(
                "SELECT seq, event_id, revision, onset_utc_ns, payload FROM detection"  # noqa: S608 - our own text
                f" WHERE refusal IS NULL AND {order} LIMIT ?",
                (*bounds, -1 if limit is None else limit),
            ).fetchall()
        return [OutboxRow(*row) for row in rows]

    def acknowledge(self, seqs: Iterable[int]) -> None:
        """Remove the messages of these numbers: the broker has them. Unknown numbers are passed."""
        with self._database.lock:
            with self._database.transaction() as db:
                db.executemany("DELETE FROM detection WHERE seq = ?", [(seq,) for seq in seqs])
            self._recount()

    def refuse(self, seq: int, reason: str) -> None:
        """Keep a message aside that the broker will never take, and why."""
        with self._database.lock:
            with self._database.transaction() as db:
                db.execute("UPDATE detection SET refusal = ? WHERE seq = ?", (reason, seq))
            self._recount()

    def refusals(self) -> dict[int, str]:
        """Give number and reason of the messages kept aside."""
        with self._database.guard() as db:
            return dict(
                db.execute(
                    "SELECT seq, refusal FROM detection WHERE refusal IS NOT NULL ORDER BY seq"
                ).fetchall()
            )

    def close(self) -> None:
        """Close the file; what waits stays on disk."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _load(self, db: sqlite3.Connection) -> None:
        """Take the counts from a file just opened; see `sequence` for where numbering goes on."""
        last_seq = _counter(db, "last_seq")
        ceiling = self._ceiling.value
        if ceiling is not None and (last_seq == 0 or ceiling - last_seq > RESERVE):
            # The node has given out numbers that this file knows nothing of: it is a new one
            # after a loss, or an old copy.
            last_seq = ceiling
        elif ceiling is None and last_seq == 0:
            last_seq = _LEAP * max(aside_numbers(self._path), default=0)
        self._last_seq = last_seq
        self._count(db)

    def _recount(self) -> None:
        with self._database.guard() as db:
            self._count(db)

    def _count(self, db: sqlite3.Connection) -> None:
        self._depth, self._refused = db.execute(
            "SELECT count(*) - count(refusal), count(refusal) FROM detection"
        ).fetchone()
        self._dropped = _counter(db, "dropped")

    def _make_room(self, db: sqlite3.Connection, newest: int) -> int:
        """Drop the oldest until the bound holds, the newest always kept; give how many."""
        budget_pages = (self._max_bytes - LOG_BYTES) // _pragma(db, "page_size")
        dropped = 0
        while _pragma(db, "page_count") - _pragma(db, "freelist_count") > budget_pages:
            oldest = db.execute("SELECT min(seq) FROM detection").fetchone()[0]
            if oldest == newest:
                break
            db.execute("DELETE FROM detection WHERE seq = ?", (oldest,))
            dropped += 1
        if dropped:
            _set_counter(db, "dropped", _counter(db, "dropped") + dropped)
        return dropped


def _refuse_unless_regular(path: Path) -> None:
    """Keep SQLite from folders and devices: it would leave a journal beside /dev/null."""
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return  # it will be made
    except OSError as error:
        raise outbox_error(path, error) from error
    if not is_regular:
        raise OutboxError(f"outbox {path}: is not a regular file; set outbox.path to a file")


def _counter(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def _set_counter(db: sqlite3.Connection, name: str, value: int) -> None:
    db.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
