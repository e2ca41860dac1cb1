"""The outbox's promises, on real SQLite files."""

import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from node.deliver import Outbox
from node.deliver.sequence import RESERVE
from node.errors import OutboxError

SMALL = 2**20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite3"


@pytest.fixture
def outbox(file: Path) -> Iterator[Outbox]:
    with Outbox(file, SMALL) as opened:
        yield opened


def render(seq: int) -> bytes:
    return b"message %d" % seq


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
    def broken(_seq: int) -> bytes:
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
            outbox.append(f"e{n}", 0, n, lambda _seq: b"x" * 4500)
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
    outbox.append("huge", 0, 0, lambda _seq: b"x" * SMALL)
    assert [row.event_id for row in outbox.pending()] == ["huge"]


def spoil(file: Path) -> None:
    """Overwrite the middle of the database, as a dying card does."""
    with file.open("r+b") as opened:
        opened.seek(100)
        opened.write(b"\xa5" * (file.stat().st_size - 200))


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
        for n in range(50):  # more than SQLite keeps in memory, or it would not look at the disk
            outbox.append(f"e{n}", 0, n, lambda _seq: b"x" * 100_000)
        last = outbox.last_seq
    with Outbox(file, large) as outbox:
        spoil(file)
        with pytest.raises(OutboxError, match="set aside; a new one is started: try again"):
            outbox.pending()
        assert outbox.append("next", 0, 0, render).seq > last
        assert (outbox.depth, len(outbox.notices)) == (1, 1)


def test_a_file_of_another_format_is_left_alone(file: Path) -> None:
    with Outbox(file, SMALL):
        pass
    db = sqlite3.connect(file)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OutboxError, match=r"is of format 99, this version knows 1: move it away"):
        Outbox(file, SMALL)


def test_a_path_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxError, match=r"cannot be written .*: let this user write the file"):
        Outbox(tmp_path / "file/outbox.sqlite3", SMALL)


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
        assert all(row.payload == render(row.seq) for row in rows)
        assert (self.outbox.depth, self.outbox.refused) == (len(expected), len(self.refused))
        assert (self.outbox.dropped, self.outbox.last_seq) == (0, self.last_seq)

    def teardown(self) -> None:
        self.outbox.close()
        self.folder.cleanup()


OutboxMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
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
