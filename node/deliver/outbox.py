"""The outbox: a detection is on disk before anything is sent, and until the broker has it.

Messages come in from the pipeline by `append`, which numbers them; the sender takes them by
`pending` and removes them by `acknowledge`. Nothing is written while nothing is heard.
"""

import logging
import sqlite3
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from node.deliver import tables
from node.deliver.database import LOG_BYTES, Database, aside_numbers, outbox_error
from node.deliver.gaps import Gap, with_gaps
from node.deliver.sequence import RESERVE, Kept, SequenceCeiling
from node.errors import OutboxError

log = logging.getLogger(__name__)

MIN_BYTES: Final = 2**20
"""Smallest bound of an outbox."""

# A node that lost both its count and the ceiling goes on this far above the last such loss: more
# than it can have counted since, for 136 years of one detection a second.
_LEAP: Final = 2**32

_FIRST: Final = (-(2**63), 0)


class Link(NamedTuple):
    """Where a message stands: its number, and the digest of the one before it.

    `prev_digest` is None where there was none before, or it is not known any more.
    """

    seq: int
    prev_digest: str | None


class Rendered(NamedTuple):
    """A message as it will be sent, and its digest, for the next one's link."""

    payload: bytes
    digest: str | None = None


class Chain(NamedTuple):
    """How far the messages have come.

    Attributes
    ----------
    seq
        The last number given out.
    digest
        Of the message of that number; None where there is none, or it is not known any more.
    gaps
        Numbers of which some never left this node, in order.
    """

    seq: int
    digest: str | None
    gaps: tuple[Gap, ...]


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

    What is dropped, and what a lost or corrupt file may have held, is kept as gaps.

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
        If the file cannot be opened or is no regular file, or another process holds it; on a full
        disk only the messages are refused, until there is room. A corrupt one is set aside
        (`<name>.corrupt-<n>`) and a new one started, as is one that a later version wrote
        (`<name>.format-<version>-<n>`): `notices` then says so.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        if max_bytes < MIN_BYTES:
            raise ValueError(f"an outbox of {max_bytes} bytes is too small: at least {MIN_BYTES}")
        self._max_bytes = max_bytes
        self._listener: Callable[[], None] | None = None
        self._told_of_drops = False
        self._depth = self._refused = self._dropped = 0
        self._chain = Chain(0, None, ())
        self._lowest: int | None = None  # number that the file holds
        _refuse_unless_regular(path)
        # The file itself, not a link to it: what stands beside it must stay beside it.
        self._path = path = path.resolve()
        try:
            self._ceiling = SequenceCeiling(path.with_name(path.name + ".seq"))
        except OSError as error:
            raise outbox_error(path, error) from error
        self._log = path.with_name(path.name + "-wal")
        self._log_was_there = self._log.exists()
        self._database = Database(path, tables.SCHEMA, tables.FORMAT, tables.MIGRATIONS, self._load)

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
        """Messages dropped, over the file's life, to stay within the bounds."""
        return self._dropped

    @property
    def last_seq(self) -> int:
        """The last number given out; 0 if none was."""
        return self._chain.seq

    @property
    def chain(self) -> Chain:
        """How far the messages have come; one word, and none that waits for another's slow disk."""
        return self._chain

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences on files that could not be used and had to be set aside."""
        return tuple(self._database.notices)

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Have a function called after each new message, on the thread that appended it."""
        self._listener = listener

    def append(
        self, event_id: str, revision: int, onset_utc_ns: int, render: Callable[[Link], Rendered]
    ) -> Appended:
        """Give a message its number and make it durable.

        Parameters
        ----------
        event_id, revision
            Name the message. While one of that name waits here, a second is not taken.
        onset_utc_ns
            Its place in the order of sending.
        render
            Makes the message from its place, inside the transaction: number, digest and message
            advance together or not at all.

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
                seq = self._chain.seq + 1
                self._ceiling.cover(seq, self._floor_and_gaps)
                rendered = render(Link(seq, self._chain.digest))
                db.execute(
                    "INSERT INTO detection VALUES (?, ?, ?, ?, ?, NULL, NULL)",
                    (seq, event_id, revision, onset_utc_ns, rendered.payload),
                )
                tables.set_counter(db, "last_seq", seq)
                tables.set_digest(db, rendered.digest)
                gaps = self._keep_gaps(db, self._make_room(db, newest=seq))
            before, self._chain = self._chain, Chain(seq, rendered.digest, gaps)
            self._depth += 1
            self._lowest = self._lowest or seq
            if gaps != before.gaps:
                self._tell_of_drops("full")
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
        """Keep a message aside that the broker will not take, and why; see `reconsider`."""
        with self._database.lock:
            with self._database.transaction() as db:
                db.execute("UPDATE detection SET refusal = ? WHERE seq = ?", (reason, seq))
            self._recount()

    def reconsider(self) -> None:
        """Have what was kept aside wait again: the broker may be another one, or mended."""
        with self._database.lock:
            if not self._refused:
                return
            with self._database.transaction() as db:
                db.execute("UPDATE detection SET refusal = NULL WHERE refusal IS NOT NULL")
            self._recount()

    def expire(self, utc_now_ns: int, max_age_s: float) -> None:
        """Drop what has waited too long; nothing is written while nothing waits.

        A message's age is counted from the first call after it was appended, not from its onset,
        which a clock that was wrong then may have put anywhere. So call this only while the clock
        can be trusted.

        Raises
        ------
        OutboxError
            If it could not be done; then nothing has changed.
        """
        with self._database.lock:
            if not self._depth + self._refused:
                return
            oldest_ns = utc_now_ns - round(max_age_s * 1e9)
            with self._database.guard() as db:
                news = db.execute(
                    "SELECT EXISTS (SELECT 1 FROM detection WHERE waits_since_utc_ns IS NULL"
                    " OR waits_since_utc_ns < ? OR waits_since_utc_ns > ?)",
                    (oldest_ns, utc_now_ns),
                ).fetchone()[0]
            if not news:
                return
            with self._database.transaction() as db:
                db.execute(
                    "UPDATE detection SET waits_since_utc_ns = ?"
                    " WHERE waits_since_utc_ns IS NULL OR waits_since_utc_ns > ?",
                    (utc_now_ns, utc_now_ns),
                )
                dropped = db.execute(
                    "DELETE FROM detection WHERE waits_since_utc_ns < ? RETURNING seq",
                    (oldest_ns,),
                ).fetchall()
                gaps = self._keep_gaps(db, sorted(seq for (seq,) in dropped))
            if gaps != self._chain.gaps:
                self._chain = self._chain._replace(gaps=gaps)
                self._tell_of_drops("holds what has waited too long")
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
        with self._database.lock:
            with suppress(OutboxError), self._database.guard():
                pass  # a look puts back what somebody has removed
            try:
                if self._chain.seq:  # else no file could be opened, and what it counts is not known
                    self._ceiling.close(self._chain.seq, self._floor_and_gaps)
            except OSError as error:
                log.warning("%s", outbox_error(self._path, error))
                self._database.close()
                with suppress(OSError):
                    self._log.touch(0o600)  # as a killed process leaves it; see `_lost`
            else:
                self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _load(self, db: sqlite3.Connection) -> None:
        """Take the counts from a file just opened; see `sequence` for where numbering goes on."""
        tables.check_rows(db)
        last_seq, digest, gaps = tables.counter(db, "last_seq"), tables.digest(db), tables.gaps(db)
        lost = self._lost(last_seq)
        if lost is not None:
            # The file is a new one after a loss, or an old copy.
            kept = self._ceiling.kept
            new = [lost] if lost.from_seq <= lost.to_seq else []  # else nothing had waited
            gaps = with_gaps((*gaps, *self._chain.gaps, *(kept.gaps if kept else ())), new)
            # Seen in this very run, the chain goes on from what is in memory.
            last_seq, digest = lost.to_seq, self._chain.digest
            db.execute("BEGIN IMMEDIATE")
            tables.set_counter(db, "last_seq", last_seq)
            tables.set_digest(db, digest)
            tables.write_gaps(db, tables.gaps(db), gaps)
            db.execute("COMMIT")
        self._chain = Chain(last_seq, digest, gaps)
        self._count(db)

    def _lost(self, last_seq: int) -> Gap | None:
        """Give the numbers that a file just opened should hold or have let go of, and may not."""
        if self._chain.seq:  # there was another file a moment ago
            if last_seq == self._chain.seq:
                return None  # and it was put back
            return Gap(self._floor_and_gaps()[0], self._chain.seq, None, "lost")
        kept = self._ceiling.kept
        if kept is not None and (
            last_seq == 0 or kept.ceiling - last_seq > RESERVE or self._is_old(last_seq, kept)
        ):
            return Gap(last_seq + 1 if last_seq else kept.floor, kept.ceiling, None, "lost")
        leap = _LEAP * max(aside_numbers(self._path), default=0)
        if kept is None and last_seq == 0 and leap:
            return Gap(1, leap, None, "lost")
        return None

    def _is_old(self, last_seq: int, kept: Kept) -> bool:
        """Say whether a file just opened is an old copy, or has lost its log.

        A file that was closed holds the last number. One that was not has a log, as SQLite keeps
        it from the first message to the closing.
        """
        without_its_end = kept.state == "closed" or (
            kept.state == "open" and not self._log_was_there
        )
        return without_its_end and last_seq < kept.ceiling

    def _floor_and_gaps(self) -> tuple[int, tuple[Gap, ...]]:
        """Give the lowest number that may still wait here, and the gaps."""
        return self._lowest or self._chain.seq + 1, self._chain.gaps

    def _recount(self) -> None:
        with self._database.guard() as db:
            self._count(db)

    def _count(self, db: sqlite3.Connection) -> None:
        # Each by an index alone: the rows themselves are some 60 MB when the outbox is full, and
        # the pipeline may wait for the lock.
        held, self._depth, self._lowest = db.execute(
            "SELECT (SELECT count(*) FROM detection),"
            " (SELECT count(*) FROM detection INDEXED BY to_send WHERE refusal IS NULL),"
            " (SELECT min(seq) FROM detection)"
        ).fetchone()
        self._refused = held - self._depth
        self._dropped = tables.counter(db, "dropped")

    def _make_room(self, db: sqlite3.Connection, newest: int) -> list[int]:
        """Drop the oldest until the bound holds, the newest always kept; give their numbers."""
        budget_pages = (self._max_bytes - LOG_BYTES) // tables.pragma(db, "page_size")
        dropped: list[int] = []
        while tables.pragma(db, "page_count") - tables.pragma(db, "freelist_count") > budget_pages:
            oldest = db.execute("SELECT min(seq) FROM detection").fetchone()[0]
            if oldest == newest:
                break
            db.execute("DELETE FROM detection WHERE seq = ?", (oldest,))
            dropped.append(oldest)
        return dropped

    def _keep_gaps(self, db: sqlite3.Connection, dropped: list[int]) -> tuple[Gap, ...]:
        """Count and keep what was dropped; give all gaps as they are then."""
        if not dropped:
            return self._chain.gaps
        tables.set_counter(db, "dropped", tables.counter(db, "dropped") + len(dropped))
        gaps = with_gaps(self._chain.gaps, [Gap(seq, seq, 1, "dropped") for seq in dropped])
        tables.write_gaps(db, self._chain.gaps, gaps)
        return gaps

    def _tell_of_drops(self, why: str) -> None:
        if not self._told_of_drops:
            log.warning("outbox %s %s, dropping the oldest from now on", self._path, why)
            self._told_of_drops = True


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
