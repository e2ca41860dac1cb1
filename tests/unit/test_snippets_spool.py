"""The spool: what may be lost is, before anything else, and never half of a message."""

from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from node.deliver import Spool, is_full
from node.deliver.backlog import SETTLE_S
from node.deliver.board import Board
from node.deliver.spool import Parcels
from node.errors import OutboxError


def payloads(spool: Spool) -> list[bytes]:
    found: list[bytes] = []
    names: set[str] = set()
    while (parcel := spool.next(frozenset(names))) is not None:
        names.add(parcel.name)
        found.append(parcel.payload)
    return found


def test_what_waits_is_there_after_a_restart_in_its_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1000)
    for payload in (b"one", b"two", b"three"):
        assert spool.add(payload) == 0
    again = Spool(tmp_path / "spool", 1000)
    assert payloads(again) == [b"one", b"two", b"three"]
    again.add(b"four")
    assert payloads(again)[-1] == b"four"


def test_the_oldest_goes_first_when_the_bound_is_reached(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10)
    assert [spool.add(bytes([i]) * 4) for i in range(4)] == [0, 0, 1, 1]
    assert payloads(spool) == [b"\2\2\2\2", b"\3\3\3\3"]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == 8


def test_all_go_when_something_else_needs_the_room(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.add(b"one")
    spool.add(b"two")
    assert (spool.clear(), spool.depth, list(tmp_path.iterdir())) == (2, 0, [])


def test_what_a_cut_of_power_left_half_written_is_no_message(tmp_path: Path) -> None:
    (tmp_path / "unfinished").write_bytes(b"half of a mess")
    spool = Spool(tmp_path, 1000)
    assert (spool.depth, list(tmp_path.iterdir())) == (0, [])


def test_a_folder_that_cannot_be_used_is_told_and_taken_up_once_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Spool(tmp_path / "folder", 1000).add(b"one")
    (tmp_path / "folder").rename(tmp_path / "away")
    (tmp_path / "folder").write_text("in the way")
    spool = Spool(tmp_path / "folder", 1000)
    assert "folder: cannot be written" in caplog.text
    with pytest.raises(OutboxError, match="folder: cannot be written"):
        spool.add(b"two")
    assert (spool.depth, spool.clear()) == (0, 0)
    (tmp_path / "folder").unlink()
    (tmp_path / "away").rename(tmp_path / "folder")
    spool.add(b"three")
    assert payloads(spool) == [b"one", b"three"]


def test_a_folder_that_somebody_removes_at_work_is_made_again_and_no_name_comes_twice(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path / "spool", 1000)
    spool.add(b"one")
    first = spool.next(frozenset())
    shutil.rmtree(tmp_path / "spool")
    with pytest.raises(OutboxError, match="spool: cannot be written"):
        spool.add(b"two")
    spool.add(b"three")
    second = spool.next(frozenset())
    assert first is not None
    assert second is not None
    assert (second.payload, spool.depth) == (b"three", 1)
    assert second.name > first.name


def test_what_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = Spool(folder, 1000)
    folder.rmdir()
    with pytest.raises(OutboxError):
        spool.add(b"one")
    assert spool.depth == 0


def test_what_cannot_be_read_back_is_passed_over(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.add(b"one")
    spool.add(b"two")
    next(iter(sorted(tmp_path.iterdir()))).unlink()
    assert payloads(spool) == [b"two"]


def test_a_file_that_cannot_be_removed_stops_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10)
    for payload in (b"one", b"two"):
        spool.add(payload)
        file = sorted(tmp_path.iterdir())[-1]
        file.unlink()
        file.mkdir()  # no unlink can remove it
    assert (spool.add(b"12345678"), spool.depth) == (2, 1)
    (tmp_path / "unfinished").mkdir()  # which can neither be written nor removed
    with pytest.raises(OutboxError):
        spool.add(b"next")
    assert (spool.clear(), spool.depth) == (1, 0)


def test_a_file_that_is_none_of_ours_is_let_be(tmp_path: Path) -> None:
    (tmp_path / "notes.message").write_text("hello")
    spool = Spool(tmp_path, 10)
    spool.add(b"one")
    assert payloads(spool) == [b"one"]
    assert (tmp_path / "notes.message").exists()


NOW_NS = 20_000 * 86_400 * 10**9
AGE_S = 100.0


def test_what_has_waited_too_long_is_dropped_after_a_restart_too(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.add(b"old")
    assert spool.expire(NOW_NS, AGE_S) == 0
    spool.add(b"new")
    spool = Spool(tmp_path, 1000)
    assert spool.expire(NOW_NS + 99 * 10**9, AGE_S) == 0
    assert spool.expire(NOW_NS + 101 * 10**9, AGE_S) == 1
    assert payloads(spool) == [b"new"]


def test_what_was_added_by_a_clock_far_behind_is_no_older_for_that(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path, 1000)
    spool.add(b"fresh")
    utc_ns = time.time_ns() + 31 * 86_400 * 10**9  # by then something has set it
    assert spool.expire(utc_ns, 30 * 86_400.0) == 0
    assert payloads(spool) == [b"fresh"]


def test_a_clock_put_back_keeps_nothing_for_ever(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.add(b"one")
    spool.expire(NOW_NS + 10**18, AGE_S)
    assert spool.expire(NOW_NS, AGE_S) == 0
    assert spool.expire(NOW_NS + 101 * 10**9, AGE_S) == 1


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    Spool(tmp_path / "spool", 1000)
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0


def parcels(tmp_path: Path) -> tuple[Spool, Board, Parcels]:
    spool, board = Spool(tmp_path, 1000), Board()
    spool.add(b"one")
    spool.add(b"two")
    return spool, board, Parcels(spool, "snippet", board, None)


def test_nothing_is_offered_while_a_detection_waits(tmp_path: Path) -> None:
    _, board, under_test = parcels(tmp_path)
    under_test.turn(0.0, idle=False)
    assert board.due(0.0) is None


def test_a_message_leaves_the_disk_once_its_acknowledgement_has_settled(tmp_path: Path) -> None:
    spool, board, under_test = parcels(tmp_path)
    under_test.turn(0.0, idle=True)
    word = board.due(0.0)
    assert word is not None
    assert word.payload == b"one"
    board.sent(1, word)
    board.answered(1, refused=False, now_s=0.0)
    under_test.acknowledged(0.0)
    under_test.turn(0.1, idle=True)
    second = board.due(0.1)
    assert second is not None
    assert second.payload == b"two"
    assert spool.depth == 2
    under_test.turn(SETTLE_S, idle=True)
    assert payloads(spool) == [b"two"]


def test_what_had_not_settled_when_the_connection_went_is_sent_again(tmp_path: Path) -> None:
    spool, board, under_test = parcels(tmp_path)
    under_test.turn(0.0, idle=True)
    word = board.due(0.0)
    assert word is not None
    board.sent(1, word)
    board.answered(1, refused=False, now_s=0.0)
    under_test.acknowledged(0.0)
    board.begin()
    under_test.begin()
    under_test.turn(10.0, idle=True)
    again = board.due(10.0)
    assert again is not None
    assert again.payload == b"one"
    assert spool.depth == 2


def test_what_the_broker_can_never_take_is_dropped_and_the_next_is_offered(tmp_path: Path) -> None:
    spool, board, under_test = parcels(tmp_path)
    under_test.turn(0.0, idle=True)
    word = board.due(0.0)
    assert word is not None
    board.give_up(word)
    under_test.given_up()
    under_test.turn(0.0, idle=True)
    after = board.due(0.0)
    assert after is not None
    assert (after.payload, spool.depth) == (b"two", 1)


def test_a_full_disk_is_told_from_other_troubles() -> None:
    full, busy = sqlite3.OperationalError(), sqlite3.OperationalError()
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    causes = [full, OSError(28, "No space left on device"), busy, OSError(13, "no"), None]
    errors = [OutboxError("outbox x") for _ in causes]
    for error, cause in zip(errors, causes, strict=True):
        error.__cause__ = cause
    assert [is_full(error) for error in errors] == [True, True, False, False, False]
