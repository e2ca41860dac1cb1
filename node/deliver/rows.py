"""Whether the rows of an outbox are such as it writes: a disk spoils values as well as pages.

SQLite's own check knows pages and keys, but takes any value in any column; the outbox asks here
when it opens a file.
"""

import sqlite3
from typing import Final

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
