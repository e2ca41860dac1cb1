"""A disk spoils values as well as pages: a file of such rows is set aside, and the node goes on."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.deliver.outbox import MIN_BYTES, Link, Outbox, Rendered


def render(link: Link) -> Rendered:
    return Rendered(b'{"seq": %d}' % link.seq, f"{link.seq:064x}")


@pytest.mark.parametrize(
    "spoil",
    [
        "UPDATE counter SET value = 'abc'",
        "UPDATE counter SET value = -1",
        "UPDATE counter SET value = 9223372036854775807",
        "UPDATE counter SET value = 1",
        "UPDATE detection SET onset_utc_ns = 'abc' WHERE seq = 2",
        "UPDATE detection SET payload = 'text' WHERE seq = 2",
        "UPDATE detection SET event_id = x'ff' WHERE seq = 2",
        "INSERT INTO gap VALUES (9, 3, 1, 'lost')",
        "INSERT INTO gap VALUES (3, 9, 1, CAST(x'ff' AS TEXT))",
        "DROP TABLE counter",
        "DROP TABLE gap",
        "PRAGMA user_version = 0",
    ],
)
def test_rows_that_were_never_written_set_the_file_aside(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "outbox.sqlite3"
    with Outbox(path, MIN_BYTES) as outbox:
        for number in range(3):
            outbox.append(f"event-{number}", 0, number, render)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(spoil)
    with Outbox(path, MIN_BYTES) as outbox:
        assert "set aside" in outbox.notices[0]
        assert outbox.append("event-9", 0, 9, render).seq > 3
        assert len(outbox.pending()) == 1


def test_text_that_is_no_utf_8_does_not_hold_the_others_up(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    with Outbox(path, MIN_BYTES) as outbox:
        for number in range(3):
            outbox.append(f"event-{number}", 0, number, render)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE detection SET event_id = CAST(x'ff' AS TEXT) WHERE seq = 2")
    with Outbox(path, MIN_BYTES) as outbox:
        assert [row.seq for row in outbox.pending()] == [1, 2, 3]


def test_a_ceiling_of_zero_is_none(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite3.seq").write_text("0 0\n")
    with Outbox(tmp_path / "outbox.sqlite3", MIN_BYTES) as outbox:
        assert outbox.append("event", 0, 1, render).seq == 1
        assert outbox.chain.gaps == ()
