"""The tables of an outbox: how they are made, what may stand in them, and their single values.

Under the outbox, which holds the rules. A disk spoils values as well as pages: SQLite's own check
knows pages and keys but takes any value in any column, so `check_rows` looks when a file is opened.
"""

import sqlite3
from dataclasses import astuple
from typing import Final

from node.deliver.gaps import Gap

FORMAT: Final = 2
# From format 1 on: the head of the chain, the gaps in it, since when a message has waited.
_CHAIN: Final = """
CREATE TABLE chain (name TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE gap (
    from_seq INTEGER PRIMARY KEY, to_seq INTEGER NOT NULL, count INTEGER, reason TEXT NOT NULL
);
ALTER TABLE detection ADD COLUMN waits_since_utc_ns INTEGER;
"""
SCHEMA: Final = f"""
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
{_CHAIN}"""
MIGRATIONS: Final = {1: _CHAIN}

_HIGHEST: Final = 2**62
"""No node counts as far; numbers above it would soon leave 64 bits."""

_UNSOUND: Final = """
SELECT 'detection' FROM detection WHERE seq NOT BETWEEN 1 AND :highest
    OR typeof(event_id) <> 'text' OR typeof(revision) <> 'integer'
    OR typeof(onset_utc_ns) <> 'integer' OR typeof(payload) <> 'blob'
    OR typeof(refusal) NOT IN ('text', 'null')
    OR typeof(waits_since_utc_ns) NOT IN ('integer', 'null')
UNION ALL SELECT 'counter' FROM counter
    WHERE typeof(value) <> 'integer' OR value NOT BETWEEN 0 AND :highest
UNION ALL SELECT 'counter' FROM (SELECT max(seq) AS last FROM detection)
    WHERE last > coalesce((SELECT value FROM counter WHERE name = 'last_seq'), 0)
UNION ALL SELECT 'chain' FROM chain WHERE typeof(digest) <> 'text'
UNION ALL SELECT 'gap' FROM gap
    WHERE typeof(to_seq) <> 'integer' OR from_seq < 1 OR to_seq NOT BETWEEN from_seq AND :highest
    OR typeof(count) NOT IN ('integer', 'null') OR count NOT BETWEEN 0 AND to_seq - from_seq + 1
    OR reason NOT IN ('dropped', 'lost')
LIMIT 1
"""


def check_rows(db: sqlite3.Connection) -> None:
    """See that every value is of its kind and in its range.

    Raises
    ------
    sqlite3.DatabaseError
        With the code of a corrupt file, if one is not.
    """
    unsound = db.execute(_UNSOUND, {"highest": _HIGHEST}).fetchone()
    if unsound is not None:
        error = sqlite3.DatabaseError(f"table {unsound[0]} holds what was never written")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def digest(db: sqlite3.Connection) -> str | None:
    """Give the digest of the last message; None where it is not known."""
    row = db.execute("SELECT digest FROM chain WHERE name = 'head'").fetchone()
    return None if row is None else str(row[0])


def set_digest(db: sqlite3.Connection, digest: str | None) -> None:
    """Put the digest of the last message."""
    if digest is None:
        db.execute("DELETE FROM chain WHERE name = 'head'")
    else:
        db.execute("INSERT OR REPLACE INTO chain VALUES ('head', ?)", (digest,))


def gaps(db: sqlite3.Connection) -> tuple[Gap, ...]:
    """Give the gaps, in order of number."""
    rows = db.execute("SELECT from_seq, to_seq, count, reason FROM gap ORDER BY from_seq")
    return tuple(Gap(*row) for row in rows.fetchall())


def write_gaps(db: sqlite3.Connection, old: tuple[Gap, ...], new: tuple[Gap, ...]) -> None:
    """Write the difference: while the outbox is full, that is one row for each message."""
    gone, come = set(old) - set(new), set(new) - set(old)
    db.executemany("DELETE FROM gap WHERE from_seq = ?", [(gap.from_seq,) for gap in gone])
    db.executemany("INSERT INTO gap VALUES (?, ?, ?, ?)", [astuple(gap) for gap in come])


def counter(db: sqlite3.Connection, name: str) -> int:
    """Give a count; 0 where it was never put."""
    row = db.execute("SELECT value FROM counter WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def set_counter(db: sqlite3.Connection, name: str, value: int) -> None:
    """Put a count."""
    db.execute("INSERT OR REPLACE INTO counter VALUES (?, ?)", (name, value))


def pragma(db: sqlite3.Connection, name: str) -> int:
    """Give a figure of SQLite's own, such as `page_count`."""
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])
