"""The order of sending: fresh first, late by onset, and less of it where the way is slow."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integration.deliver_node import append

from node.deliver import Outbox
from node.deliver.backlog import KEPT_FREE, SETTLE_S, SLOW_S, WINDOW, Backlog


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as opened:
        yield opened


class Way:
    """A connection that answers when it is told to; its clock stands still in between."""

    def __init__(self, outbox: Outbox, window: int = WINDOW) -> None:
        self.backlog = Backlog(outbox)
        outbox.listen(self.backlog.appended)
        self.now_s = 0.0
        self.mids: list[int] = []
        self.seqs: list[int] = []
        self.delayed: dict[int, bool] = {}
        self._next_mid = 1
        self.backlog.begin(window)

    def send(self) -> list[int]:
        """Send what may be sent; give the numbers."""
        sent = []
        for row, delayed in self.backlog.take(self.now_s):
            self.backlog.sent(self._next_mid, row, self.now_s)
            self.mids.append(self._next_mid)
            self._next_mid += 1
            self.delayed[row.seq] = delayed
            sent.append(row.seq)
        self.seqs += sent
        return sent

    def answer(self, after_s: float, count: int | None = None) -> None:
        """Have the oldest that are under way acknowledged."""
        self.now_s += after_s
        for mid in self.mids[:count]:
            row = self.backlog.answered(mid, self.now_s)
            assert row is not None
            self.backlog.acknowledged(row, self.now_s)
        del self.mids[:count]

    def cut(self, pause_s: float = 0.0) -> None:
        """Have the connection end, and the next one begin."""
        self.backlog.end(self.now_s)
        self.mids.clear()
        self.now_s += pause_s
        self.backlog.begin(WINDOW)


def test_a_fresh_detection_goes_before_the_late_ones_and_at_once(outbox: Outbox) -> None:
    for number in range(200):
        append(outbox, number)
    way = Way(outbox)
    for _ in range(10):
        way.send()
        way.answer(0.01)
    way.send()
    fresh = append(outbox, 1000)
    assert way.send() == [fresh]  # though the late ones have all that they may have
    assert not way.delayed[fresh]
    assert all(way.delayed[seq] for seq in way.seqs if seq != fresh)


def test_late_ones_leave_room_for_fresh_ones_whatever_the_broker_takes(outbox: Outbox) -> None:
    for number in range(200):
        append(outbox, number)
    for window in (1, 2, 5, 19, WINDOW, 65535):
        way = Way(outbox, window)
        for _ in range(40):
            way.send()
            assert len(way.mids) <= min(window, WINDOW)
            assert window == 1 or len(way.mids) <= min(window, WINDOW) - min(KEPT_FREE, window // 2)
            way.answer(0.01)


def test_where_acknowledgements_are_slow_fewer_late_ones_are_under_way(outbox: Outbox) -> None:
    for number in range(300):
        append(outbox, number)
    way = Way(outbox)
    for _ in range(4):
        way.send()
        way.answer(0.01)
    way.send()
    assert len(way.mids) > WINDOW / 2
    way.answer(SLOW_S * 2)
    way.send()
    assert len(way.mids) <= WINDOW / 2
    for _ in range(10):
        way.answer(SLOW_S * 2)
        way.send()
    assert len(way.mids) == 1
    for _ in range(2000):
        way.answer(0.01)
        if not way.send():
            break
    assert sorted(way.seqs) == list(range(1, 301))


def test_a_row_leaves_only_after_the_connection_stood_for_a_while(outbox: Outbox) -> None:
    append(outbox, 1)
    way = Way(outbox)
    way.send()
    way.answer(0.01)
    assert not way.backlog.remove_settled(way.now_s + SETTLE_S - 0.1)
    way.backlog.end(way.now_s + SETTLE_S - 0.1)  # the broker died: it may not have saved
    way.backlog.begin(WINDOW)
    assert way.send() == [1]
    assert way.delayed[1]
    way.answer(0.01)
    assert way.backlog.remove_settled(way.now_s + SETTLE_S)
    assert outbox.depth == 0
    assert not way.backlog.busy


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["append", "send", "answer", "slow", "lose", "settle"])))
def test_whatever_happens_each_is_sent_and_none_goes_unacknowledged(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    with Outbox(tmp_path_factory.mktemp("backlog") / "o", 2**20) as outbox:
        way = Way(outbox, window=3)
        count = acknowledged = 0
        for step in steps:
            if step == "append":
                append(outbox, count)
                count += 1
            elif step == "send":
                way.send()
            elif step == "lose":
                way.backlog.end(way.now_s)
                way.mids.clear()
                way.backlog.begin(3)
            elif step == "settle":
                way.now_s += SETTLE_S + 1
                way.backlog.remove_settled(way.now_s)
            else:
                acknowledged += len(way.mids)
                way.answer(1.0 if step == "slow" else 0.01)
            assert len(way.mids) <= 3
            assert outbox.depth >= count - acknowledged
        for _ in range(2 * count + 2):
            way.send()
            way.answer(0.01)
        way.now_s += SETTLE_S + 1
        way.backlog.remove_settled(way.now_s)
        assert set(way.seqs) == set(range(1, count + 1))
        assert outbox.depth == 0


def test_one_that_the_broker_hangs_up_on_without_a_word_holds_no_other_up(outbox: Outbox) -> None:
    for number in range(30):
        append(outbox, number)
    way = Way(outbox)
    poison = 3
    cuts = 0

    def work(seconds: int, hangs_up: bool) -> int:
        nonlocal cuts
        for _ in range(seconds):
            while sent := way.send():
                if hangs_up and poison in sent:
                    way.answer(0.01, sent.index(poison))
                    way.cut()
                    cuts += 1
                    break
                way.answer(0.01)
            way.now_s += 1
            way.backlog.remove_settled(way.now_s)
        return outbox.depth

    assert work(20, hangs_up=True) == 1
    append(outbox, 1000)
    assert work(5, hangs_up=True) == 1
    assert cuts < 10
    work(600, hangs_up=True)
    assert cuts < 20  # so it is tried now and then
    assert work(65, hangs_up=False) == 0


def test_several_that_the_broker_hangs_up_on_hold_no_other_up(outbox: Outbox) -> None:
    for number in range(100):
        append(outbox, number)
    way = Way(outbox)
    poison = {3, 7, 20, 50}
    for _ in range(3600):
        while sent := way.send():
            found = [place for place, seq in enumerate(sent) if seq in poison]
            if found:
                way.answer(0.01, found[0])
                way.cut(pause_s=45)  # the pauses between such connections grow
                break
            way.answer(0.01)
        way.now_s += 1
        way.backlog.remove_settled(way.now_s)
    assert {row.seq for row in outbox.newer(0)} == poison


def test_one_that_was_under_way_alone_in_cut_connections_does_not_wait_for_silence(
    outbox: Outbox,
) -> None:
    append(outbox, 0)
    way = Way(outbox)
    for _ in range(4):
        assert way.send() == [1]
        way.cut()
    for number in range(1, 200):
        append(outbox, number)
        while way.send():
            way.answer(0.01)
        way.now_s += 0.5
        way.backlog.remove_settled(way.now_s)
    assert way.seqs.count(1) == 5
    assert 1 not in {row.seq for row in outbox.newer(0)}


def test_only_connections_that_were_cut_count_against_what_was_under_way(outbox: Outbox) -> None:
    append(outbox, 1)
    way = Way(outbox)
    way.send()
    way.answer(0.01)
    way.now_s += SETTLE_S  # settled, and lost before the next look
    for _ in range(5):
        way.backlog.end(way.now_s)  # nobody answers
    assert not way.backlog.alone
    for _ in range(3):
        append(outbox, 2)
        way.backlog.begin(WINDOW)
        way.send()
        way.answer(0.01)
        way.backlog.end(way.now_s)
    way.backlog.begin(WINDOW)
    assert way.backlog.alone


def test_a_connection_that_is_cut_now_and_then_changes_no_order(outbox: Outbox) -> None:
    for number in range(30):
        append(outbox, number)
    way = Way(outbox)
    for _ in range(2):
        way.send()
        way.cut()
    way.seqs.clear()
    while way.send():
        way.answer(0.01)
    assert way.seqs == list(range(1, 31))
