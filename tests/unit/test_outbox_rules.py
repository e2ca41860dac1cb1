"""The outbox's promises, on real SQLite files."""

import errno
import hashlib
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from node.deliver import Chain, Gap, Link, Outbox, Rendered, database
from node.deliver.sequence import RESERVE, SequenceCeiling
from node.errors import OutboxError

SMALL = 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite3"


@pytest.fixture
def outbox(file: Path) -> Iterator[Outbox]:
    with Outbox(file, SMALL) as opened:
        yield opened


def message(seq: int) -> bytes:
    return b"message %d" % seq


def render(link: Link) -> Rendered:
    return Rendered(message(link.seq), f"digest {link.seq}")


def append_large(outbox: Outbox, count: int) -> None:
    for n in range(count):
        outbox.append(f"e{n}", 0, n, lambda link: Rendered(b"x" * 100_000, f"digest {link.seq}"))


def test_the_number_is_in_the_message_and_a_second_of_the_same_name_is_not_taken(
    outbox: Outbox,
) -> None:
    assert outbox.append("a", 0, 5, render) == (1, True)
    assert outbox.append("a", 0, 5, render) == (1, False)
    assert outbox.append("a", 1, 5, render) == (2, True)
    assert [row.payload for row in outbox.pending()] == [b"message 1", b"message 2"]
    assert outbox.depth == 2


def test_what_waits_comes_by_onset_not_by_number(outbox: Outbox) -> None:
    for name, onset in (("c", 30), ("a", 10), ("b", 20)):
        outbox.append(name, 0, onset, render)
    assert [row.event_id for row in outbox.pending()] == ["a", "b", "c"]
    assert [row.event_id for row in outbox.pending(limit=2)] == ["a", "b"]


def test_a_message_that_cannot_be_made_takes_no_number(outbox: Outbox) -> None:
    def broken(_link: Link) -> Rendered:
        raise RuntimeError("no such message")

    with pytest.raises(RuntimeError, match="no such message"):
        outbox.append("a", 0, 0, broken)
    assert outbox.append("b", 0, 0, render).seq == 1
    assert outbox.depth == 1


def test_what_is_acknowledged_is_gone_for_good_and_unknown_numbers_are_passed(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        for name in "abc":
            outbox.append(name, 0, 0, render)
        outbox.acknowledge([1, 3, 99])
        outbox.acknowledge([])
    with Outbox(file, SMALL) as outbox:
        assert [row.event_id for row in outbox.pending()] == ["b"]
        assert outbox.append("d", 0, 0, render).seq == 4


def test_what_is_refused_is_kept_with_its_reason_and_not_offered_again(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
        outbox.append("b", 0, 0, render)
        outbox.refuse(1, "too large")
    with Outbox(file, SMALL) as outbox:
        assert (outbox.depth, outbox.refused) == (1, 1)
        assert [row.event_id for row in outbox.pending()] == ["b"]
        assert outbox.refusals() == {1: "too large"}


def test_the_bound_holds_on_disk_the_oldest_go_and_are_counted_for_life(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        for n in range(400):
            outbox.append(f"e{n}", 0, n, lambda _link: Rendered(b"x" * 4500))
        on_disk = sum(part.stat().st_size for part in file.parent.iterdir())
        assert on_disk <= SMALL
        kept = [row.seq for row in outbox.pending()]
        assert kept == list(range(401 - len(kept), 401))
        assert outbox.dropped == 400 - len(kept) > 0
        dropped = outbox.dropped
    with Outbox(file, SMALL) as outbox:
        assert outbox.dropped == dropped


def test_a_message_larger_than_the_bound_is_kept_all_the_same(outbox: Outbox) -> None:
    outbox.append("small", 0, 0, render)
    outbox.append("huge", 0, 0, lambda _link: Rendered(b"x" * SMALL))
    assert [row.event_id for row in outbox.pending()] == ["huge"]


def spoil(file: Path) -> None:
    """Overwrite the middle of the database, as a dying card does."""
    with file.open("r+b") as opened:
        opened.seek(100)
        opened.write(b"\xa5" * (file.stat().st_size - 200))


def test_nobody_else_may_read_what_waits(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
        modes = {part.name: part.stat().st_mode & 0o777 for part in file.parent.glob("*sqlite3*")}
    assert {modes[name] for name in (file.name, f"{file.name}-wal")} == {0o600}


def test_a_corrupt_file_is_set_aside_told_and_no_number_comes_twice(file: Path) -> None:
    given: list[int] = []
    for life in range(4):
        with Outbox(file, SMALL) as outbox:
            assert len(outbox.notices) == (1 if life else 0)
            assert all("was corrupt" in notice for notice in outbox.notices)
            given += [outbox.append(f"{life}-{n}", 0, n, render).seq for n in range(20)]
        spoil(file)
    assert len(set(given)) == len(given)
    assert given == sorted(given)
    aside = {part.name for part in file.parent.iterdir() if "corrupt" in part.name}
    assert aside == {"outbox.sqlite3.corrupt-2", "outbox.sqlite3.corrupt-3"}  # the newest two


def test_a_lost_file_goes_on_above_all_numbers_given_out(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        last = [outbox.append(f"e{n}", 0, n, render).seq for n in range(RESERVE + 5)][-1]
    file.unlink()
    with Outbox(file, SMALL) as outbox:
        first = outbox.append("new", 0, 0, render).seq
    assert last < first <= last + RESERVE


def test_an_old_copy_of_the_file_does_not_bring_old_numbers_back(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
    copy = file.read_bytes()
    with Outbox(file, SMALL) as outbox:
        last = [outbox.append(f"e{n}", 0, n, render).seq for n in range(RESERVE)][-1]
    file.write_bytes(copy)
    with Outbox(file, SMALL) as outbox:
        assert outbox.append("b", 0, 0, render).seq > last


@pytest.mark.parametrize("killed", [True, False])
@pytest.mark.parametrize("lost", ["log", "all since the first message"])
def test_a_file_that_lacks_its_last_few_messages_does_not_bring_their_numbers_back(
    file: Path, killed: bool, lost: str
) -> None:
    log = file.with_name("outbox.sqlite3-wal")
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
    copy = file.read_bytes()
    with Outbox(file, SMALL) as outbox:
        last = [outbox.append(f"e{n}", 0, n, render).seq for n in range(3)][-1]
        parts = {part: part.read_bytes() for part in file.parent.iterdir()}
    if killed:
        for part, content in parts.items():
            part.write_bytes(content)
    if lost == "log":
        log.unlink(missing_ok=True)
    else:
        log.unlink(missing_ok=True)
        file.write_bytes(copy)
    with Outbox(file, SMALL) as outbox:
        found = outbox.chain
        seq = outbox.append("new", 0, 0, render).seq
    assert seq > last
    if killed or lost != "log":
        assert found.gaps == (Gap(2, seq - 1, None, "lost"),)
        assert seq - 1 == (1 + RESERVE if killed else last)  # closed, it is known to the number
    else:
        assert found.gaps == ()


def test_a_killed_life_and_one_on_a_full_disk_leave_no_gap_where_nothing_is_lost(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
        parts = {part: part.read_bytes() for part in file.parent.iterdir()}
    for part, content in parts.items():
        part.write_bytes(content)
    outbox = Outbox(file, SMALL)
    assert outbox.chain.gaps == ()
    assert outbox.append("b", 0, 0, render).seq == 2
    with monkeypatch.context() as patched:
        patched.setattr(SequenceCeiling, "_write", lambda *_: out_of_space(file))
        outbox.close()
    with Outbox(file, SMALL) as outbox:
        assert outbox.chain.gaps == ()
        assert outbox.append("c", 0, 0, render).seq == 3


def test_what_an_earlier_version_left_is_no_old_copy(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
    body = "ceiling 1000 floor 1\n"
    digest = hashlib.sha256(body.encode()).hexdigest()
    file.with_name("outbox.sqlite3.seq").write_text(f"{body}sha256 {digest}\n")
    with Outbox(file, SMALL) as outbox:
        assert outbox.chain.gaps == ()
        assert outbox.append("b", 0, 0, render).seq == 2
    assert "ceiling 2 floor 1 closed" in file.with_name("outbox.sqlite3.seq").read_text()


def test_a_full_disk_at_both_ends_of_a_life_forgets_no_number(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
        outbox.append("b", 0, 0, render)
    file.unlink()
    with monkeypatch.context() as patched:
        patched.setattr(database, "sync_folder", out_of_space)
        Outbox(file, SMALL).close()
    with Outbox(file, SMALL) as outbox:
        assert outbox.append("c", 0, 0, render).seq == 3


@pytest.mark.parametrize("ceiling", [None, "", "12 13\n", "rubbish", "\xff"])
def test_with_both_memories_gone_numbering_leaps_beyond_what_a_node_can_count(
    file: Path, ceiling: str | None
) -> None:
    memory = file.with_name("outbox.sqlite3.seq")
    given = []
    for life in range(3):
        with Outbox(file, SMALL) as outbox:
            given += [outbox.append(f"{life}-{n}", 0, n, render).seq for n in range(3)]
        spoil(file)
        memory.unlink()
        if ceiling is not None:
            memory.write_text(ceiling, "latin-1")
    assert len(set(given)) == len(given)
    assert given == sorted(given)
    assert given[-1] < 2**53  # exact in every reader's JSON


def test_corruption_found_at_work_is_set_aside_and_the_next_try_succeeds(file: Path) -> None:
    large = 2**23
    with Outbox(file, large) as outbox:
        append_large(outbox, 50)  # more than SQLite keeps in memory: it has to look at the disk
        last = outbox.last_seq
    with Outbox(file, large) as outbox:
        spoil(file)
        with pytest.raises(OutboxError, match="set aside; a new one is started: try again"):
            outbox.pending()
        assert outbox.append("next", 0, 0, render).seq > last
        assert (outbox.depth, len(outbox.notices)) == (1, 1)


def test_a_corrupt_file_that_cannot_be_replaced_yet_is_replaced_once_it_can(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = 2**23
    with Outbox(file, large) as outbox:
        append_large(outbox, 50)
        last = outbox.last_seq
    with Outbox(file, large) as outbox:
        spoil(file)
        with monkeypatch.context() as full:
            full.setattr("node.deliver.database.sync_folder", out_of_space)
            for _ in range(2):  # as it is set aside, and as the new one is made
                with pytest.raises(OutboxError, match="no space left"):
                    outbox.pending()
        assert outbox.append("next", 0, 0, render).seq == last + 1
        assert (outbox.depth, len(outbox.notices)) == (1, 1)
        assert outbox.chain.gaps == (Gap(1, last, None, "lost"),)


def out_of_space(_folder: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("ceiling_stands", [True, False])
def test_a_file_of_a_later_format_is_kept_whole_and_the_node_hears_on_with_another(
    file: Path, ceiling_stands: bool
) -> None:
    with Outbox(file, SMALL) as outbox:
        last = [outbox.append(f"e{n}", 0, n, render).seq for n in range(3)][-1]
    for _ in range(4):
        if not ceiling_stands:
            file.with_name("outbox.sqlite3.seq").unlink()
        set_format(file, 99)
        with Outbox(file, SMALL) as outbox:
            assert "is of format 99, this version knows 2, and is set aside" in outbox.notices[0]
            assert outbox.depth == 0
            assert outbox.chain.gaps[-1].reason == "lost"
            assert outbox.chain.gaps[-1].to_seq >= last
            seq = outbox.append("new", 0, 0, render).seq
            assert seq > last
            last = seq
    aside = sorted(part for part in file.parent.iterdir() if "format" in part.name)
    assert [part.name for part in aside] == [f"outbox.sqlite3.format-99-{n}" for n in (1, 2, 3, 4)]
    with closing(sqlite3.connect(aside[0])) as db:
        assert db.execute("SELECT count(*) FROM detection").fetchone() == (3,)
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


def set_format(file: Path, number: int) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute(f"PRAGMA user_version = {number}")


@pytest.mark.parametrize(("at", "value"), [(18, 3), (18, 255), (60, 0x80)])
def test_a_byte_of_the_header_that_forbids_writing_or_makes_no_format_sets_it_aside(
    file: Path, at: int, value: int
) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
    content = bytearray(file.read_bytes())
    content[at] = value
    file.write_bytes(content)
    with Outbox(file, SMALL) as outbox:
        assert "was corrupt" in outbox.notices[0]
        outbox.append("b", 0, 0, render)


def test_cut_off_while_a_file_is_set_aside_no_number_comes_twice(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
    log = file.with_name("outbox.sqlite3-wal")
    with Outbox(file, SMALL) as outbox:
        last = outbox.append("b", 0, 0, render).seq
        kept = log.read_bytes()
    file.rename(file.with_name("outbox.sqlite3.corrupt-1"))
    log.write_bytes(kept)
    with Outbox(file, SMALL) as outbox:
        assert outbox.append("new", 0, 0, render).seq > last


def test_a_file_that_may_not_be_written_is_no_failure_of_the_disk(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Outbox(file, SMALL):
        pass
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == file and mode & os.W_OK))
    with pytest.raises(OutboxError, match=r"cannot be written .*: let this user write the file"):
        Outbox(file, SMALL)


@pytest.mark.parametrize("number", [0, 1, 77])
def test_another_programs_database_is_left_alone(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE bookmark (name TEXT)")
        db.execute(f"PRAGMA user_version = {number}")
    with pytest.raises(OutboxError, match=r"another program's database .*'bookmark'.*outbox\.path"):
        Outbox(file, SMALL)
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmark",)]


def test_a_link_to_another_disk_stays_one_when_the_file_is_corrupt(tmp_path: Path) -> None:
    far, near = tmp_path / "disk" / "outbox", tmp_path / "card" / "outbox"
    for folder in (far.parent, near.parent):
        folder.mkdir()
    near.symlink_to(far)
    with Outbox(near, SMALL) as outbox:
        outbox.append("a", 0, 1, render)
    spoil(far)
    with Outbox(near, SMALL) as outbox:
        assert len(outbox.notices) == 1
        outbox.append("b", 0, 2, render)
        assert near.is_symlink()
        assert [path.name for path in near.parent.iterdir()] == ["outbox"]
        assert {path.name for path in far.parent.iterdir()} >= {"outbox", "outbox.corrupt-1"}


def test_a_path_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxError, match=r"cannot be written .*: let this user write the file"):
        Outbox(tmp_path / "file/outbox.sqlite3", SMALL)


def test_a_link_to_itself_is_no_failure_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutboxError, match=r"cannot be written .*: let this user write the file"):
        Outbox(tmp_path / "loop", SMALL)


def test_a_bound_below_the_smallest_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="too small"):
        Outbox(file, SMALL - 1)


def test_a_writer_and_a_sender_may_share_it(outbox: Outbox) -> None:
    sent: list[int] = []
    done = threading.Event()

    def send() -> None:
        while not done.is_set() or outbox.depth:
            rows = outbox.pending(limit=20)
            sent.extend(row.seq for row in rows)
            outbox.acknowledge([row.seq for row in rows])

    sender = threading.Thread(target=send)
    sender.start()
    given = [outbox.append(f"e{n}", 0, n, render).seq for n in range(500)]
    done.set()
    sender.join(30)
    assert sorted(sent) == given == list(range(1, 501))
    assert outbox.depth == 0


FORMAT_1 = """
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
INSERT INTO detection VALUES (7, 'a', 0, 5, x'6f6c64', NULL), (8, 'b', 0, 3, x'6f6c64', 'no');
INSERT INTO counter VALUES ('last_seq', 8), ('dropped', 2);
PRAGMA user_version = 1;
"""


def test_an_outbox_of_the_version_before_signing_opens_and_keeps_what_waits(file: Path) -> None:
    db = sqlite3.connect(file)
    db.executescript(FORMAT_1)
    db.close()
    file.with_name("outbox.sqlite3.seq").write_text("1000 1000\n")
    for _ in range(2):
        with Outbox(file, SMALL) as outbox:
            assert [(row.seq, row.payload) for row in outbox.pending()] == [(7, b"old")]
            assert outbox.refusals() == {8: "no"}
            assert (outbox.dropped, outbox.notices) == (2, ())
            assert outbox.chain == Chain(8, None, ())
    with Outbox(file, SMALL) as outbox:
        assert outbox.append("c", 0, 0, render).seq == 9
        assert outbox.chain == Chain(9, "digest 9", ())


def test_each_message_is_linked_to_the_one_before_it_over_lives_and_acknowledgements(
    file: Path,
) -> None:
    links: list[Link] = []

    def linked(link: Link) -> Rendered:
        links.append(link)
        return render(link)

    for life in range(3):
        with Outbox(file, SMALL) as outbox:
            for n in range(2):
                outbox.append(f"{life}-{n}", 0, n, linked)
            outbox.acknowledge(range(100))
    assert links[0] == Link(1, None)
    assert links[1:] == [Link(seq, f"digest {seq - 1}") for seq in range(2, 7)]


def test_how_far_the_chain_has_come_is_told_while_another_thread_s_commit_takes_long(
    outbox: Outbox,
) -> None:
    outbox.append("a", 0, 1, lambda _link: Rendered(b"", "digest 1"))
    with outbox._database.lock, ThreadPoolExecutor(1) as other:
        assert other.submit(lambda: outbox.chain).result(5.0) == Chain(1, "digest 1", ())


def test_a_message_that_could_not_be_made_leaves_the_chain_as_it_was(outbox: Outbox) -> None:
    outbox.append("a", 0, 0, render)
    before = outbox.chain
    with pytest.raises(ZeroDivisionError):
        outbox.append("b", 0, 0, lambda link: Rendered(b"", str(1 // (link.seq - 2))))
    assert outbox.chain == before


def test_what_was_dropped_is_a_gap_with_its_count_for_life(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        for n in range(300):
            outbox.append(f"e{n}", 0, n, lambda _link: Rendered(b"x" * 4500))
        (gap,) = outbox.chain.gaps
        assert gap == Gap(1, outbox.dropped, outbox.dropped, "dropped")
        first = outbox.pending(limit=1)[0].seq
        assert first == outbox.dropped + 1
        outbox.acknowledge([first])
        for n in range(300, 500):
            outbox.append(f"e{n}", 0, n, lambda _link: Rendered(b"x" * 4500))
        gaps = outbox.chain.gaps
        assert [(g.from_seq, g.count) for g in gaps] == [
            (1, first - 1),
            (first + 1, outbox.dropped - first + 1),
        ]
    with Outbox(file, SMALL) as outbox:
        assert outbox.chain.gaps == gaps


def test_a_lost_file_is_a_gap_from_the_oldest_that_waited_when_that_was_last_written(
    file: Path,
) -> None:
    with Outbox(file, SMALL) as outbox:
        for n in range(RESERVE):
            outbox.append(f"e{n}", 0, n, lambda _link: Rendered(b"x"))
        outbox.acknowledge(range(1, 901))
        outbox.append("raises the ceiling", 0, 0, render)
    file.unlink()
    for _ in range(2):
        with Outbox(file, SMALL) as outbox:
            assert outbox.chain == Chain(1001, None, (Gap(901, 1001, None, "lost"),))
    with Outbox(file, SMALL) as outbox:
        links: list[Link] = []
        outbox.append("new", 0, 0, lambda link: links.append(link) or render(link))
        assert links == [Link(1002, None)]


def test_gaps_told_before_a_loss_are_not_forgotten_by_it(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        for n in range(RESERVE + 1):
            outbox.append(f"e{n}", 0, n, lambda _link: Rendered(b"x" * 1500))
            if n == 600:
                outbox.acknowledge([row.seq for row in outbox.pending()])
        before = outbox.chain.gaps[0]
    spoil(file)
    with Outbox(file, SMALL) as outbox:
        assert outbox.chain.gaps[0] == before
        assert outbox.chain.gaps[-1].reason == "lost"


def test_a_file_that_is_lost_at_work_breaks_no_chain_and_loses_only_what_waited(
    file: Path,
) -> None:
    large = 2**23
    with Outbox(file, large) as outbox:
        append_large(outbox, 50)
        outbox.acknowledge(range(1, 21))
    with Outbox(file, large) as outbox:
        spoil(file)
        with pytest.raises(OutboxError, match="set aside; a new one is started: try again"):
            outbox.pending()
        assert outbox.chain == Chain(50, "digest 50", (Gap(21, 50, None, "lost"),))
        assert outbox.append("next", 0, 0, render).seq == 51


@pytest.mark.parametrize("what", ["folder", "file", "log", "replaced"])
def test_a_file_that_somebody_removes_at_work_is_put_back_with_all_that_waits(
    file: Path, tmp_path: Path, what: str
) -> None:
    with Outbox(tmp_path / "other", SMALL) as other:
        other.append("other", 0, 0, render)
    with Outbox(file, SMALL) as outbox:
        for n in range(3):
            outbox.append(f"e{n}", 0, n, lambda link: Rendered(b"x", f"digest {link.seq}"))
        outbox.acknowledge([1])
        if what == "folder":
            shutil.rmtree(file.parent)
        elif what == "file":
            file.unlink()
        elif what == "log":
            file.with_name("outbox.sqlite3-wal").unlink()
        else:
            (tmp_path / "other").rename(file)
        links: list[Link] = []

        def linked(link: Link) -> Rendered:
            links.append(link)
            return render(link)

        outbox.append("next", 0, 9, linked)
        assert links == [Link(4, "digest 3")]
        assert "put back with all that waits" in outbox.notices[0]
        parts = {part: part.read_bytes() for part in file.parent.iterdir() if "outbox" in part.name}
    for part, content in parts.items():  # as a process leaves it that is killed
        part.write_bytes(content)
    with Outbox(file, SMALL) as outbox:
        assert [row.event_id for row in outbox.newer(0)] == ["e1", "e2", "next"]
        assert outbox.chain.gaps == ()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("what", ["folder", "file", "log"])
def test_a_file_that_somebody_removes_just_before_the_end_is_put_back_too(
    file: Path, what: str
) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
        if what == "folder":
            shutil.rmtree(file.parent)
        else:
            file.with_name(file.name + ("-wal" if what == "log" else "")).unlink()
    with Outbox(file, SMALL) as outbox:
        assert [row.event_id for row in outbox.newer(0)] == ["a"]
        assert outbox.chain.gaps == ()


def test_a_file_that_is_lost_at_work_with_nothing_in_it_leaves_no_gap(file: Path) -> None:
    large = 2**23
    with Outbox(file, large) as outbox:
        append_large(outbox, 50)
        outbox.acknowledge(range(1, 51))
        spoil(file)
        with suppress(OutboxError):  # it may be noticed here, or at the next
            outbox.append("noticed", 0, 0, render)
        with suppress(OutboxError):
            outbox.append("noticed", 0, 0, render)
        assert outbox.notices
        assert outbox.chain.gaps == ()
        assert outbox.chain.seq == 51


def test_an_old_copy_of_the_file_is_a_gap_from_where_it_ends(file: Path) -> None:
    with Outbox(file, SMALL) as outbox:
        outbox.append("a", 0, 0, render)
    copy = file.read_bytes()
    with Outbox(file, SMALL) as outbox:
        for n in range(RESERVE):
            outbox.append(f"e{n}", 0, n, render)
    file.write_bytes(copy)
    with Outbox(file, SMALL) as outbox:
        assert outbox.chain == Chain(1001, None, (Gap(2, 1001, None, "lost"),))


DAY_S = 86_400
DAY_NS = DAY_S * 10**9
NOW_NS = 20_000 * DAY_NS


def test_what_has_waited_too_long_is_dropped_counted_and_a_gap(outbox: Outbox) -> None:
    outbox.append("old", 0, 0, render)
    outbox.append("refused", 0, 0, render)
    outbox.refuse(2, "no")
    outbox.expire(NOW_NS, 30 * DAY_S)
    outbox.append("new", 0, 0, render)
    outbox.expire(NOW_NS + 30 * DAY_NS, 30 * DAY_S)
    assert outbox.depth == 2
    outbox.expire(NOW_NS + 30 * DAY_NS + 1, 30 * DAY_S)
    assert [row.event_id for row in outbox.pending()] == ["new"]
    assert (outbox.dropped, outbox.refused) == (2, 0)
    assert outbox.chain.gaps == (Gap(1, 2, 2, "dropped"),)


def test_age_is_counted_from_when_it_was_first_known_not_from_an_onset_that_may_be_of_1970(
    outbox: Outbox,
) -> None:
    outbox.append("heard before the clock was set", 0, 0, render)
    outbox.expire(NOW_NS, 30 * DAY_S)
    assert outbox.depth == 1


def test_a_clock_put_back_keeps_nothing_for_ever(outbox: Outbox) -> None:
    outbox.append("a", 0, 0, render)
    outbox.expire(NOW_NS + 5000 * DAY_NS, 30 * DAY_S)
    outbox.expire(NOW_NS, 30 * DAY_S)
    outbox.expire(NOW_NS + 31 * DAY_NS, 30 * DAY_S)
    assert outbox.depth == 0


class OutboxMachine(RuleBasedStateMachine):
    """Whatever is done to it, over any number of lives, it holds what a plain list would."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "outbox.sqlite3"
        self.outbox = Outbox(self.file, SMALL)
        self.waiting: dict[int, tuple[str, int, int]] = {}
        self.refused: set[int] = set()
        self.last_seq = 0

    @rule(
        event=st.sampled_from("abcdefgh"), revision=st.integers(0, 2), onset=st.integers(0, 2**62)
    )
    def append(self, event: str, revision: int, onset: int) -> None:
        known = {(row[0], row[1]): seq for seq, row in self.waiting.items()}
        seq, is_new = self.outbox.append(event, revision, onset, render)
        assert is_new == ((event, revision) not in known)
        if is_new:
            assert seq == self.last_seq + 1
            self.last_seq = seq
            self.waiting[seq] = (event, revision, onset)
        else:
            assert seq == known[event, revision]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        seqs = data.draw(st.lists(st.sampled_from(sorted(self.waiting)), max_size=3))
        self.outbox.acknowledge(seqs)
        for seq in seqs:
            self.waiting.pop(seq, None)
            self.refused.discard(seq)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        seq = data.draw(st.sampled_from(sorted(self.waiting)))
        self.outbox.refuse(seq, "no")
        self.refused.add(seq)

    @rule()
    def open_again(self) -> None:
        self.outbox.close()
        self.outbox = Outbox(self.file, SMALL)

    @invariant()
    def it_holds_what_a_list_would(self) -> None:
        expected = sorted(
            (row[2], seq, row[0], row[1])
            for seq, row in self.waiting.items()
            if seq not in self.refused
        )
        rows = self.outbox.pending()
        assert [(r.onset_utc_ns, r.seq, r.event_id, r.revision) for r in rows] == expected
        assert all(row.payload == message(row.seq) for row in rows)
        assert (self.outbox.depth, self.outbox.refused) == (len(expected), len(self.refused))
        assert (self.outbox.dropped, self.outbox.last_seq) == (0, self.last_seq)

    def teardown(self) -> None:
        self.outbox.close()
        self.folder.cleanup()


OutboxMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
test_outbox_machine = OutboxMachine.TestCase


@pytest.mark.parametrize("name", ["", ".", "/dev/null", "/dev/full", "folder", "pipe"])
def test_what_is_not_a_regular_file_is_refused_before_anything_is_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    os.mkfifo("pipe")
    with pytest.raises(OutboxError, match=r"is not a regular file; set outbox\.path to a file"):
        Outbox(Path(name), SMALL)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["folder", "pipe"]
    assert not [file for file in os.listdir("/dev") if file.startswith(("null-", "full-"))]


def test_a_folder_that_cannot_be_made_is_not_called_a_failure_of_the_disk() -> None:
    with pytest.raises(OutboxError, match=r"cannot be written .*: let this user write"):
        Outbox(Path("/proc/nothing/outbox.sqlite3"), SMALL)
