"""Which detections to send next, and which have arrived: the publisher's reading of the outbox.

Between the outbox and the publisher, on the sending thread. What is fresh goes first; what had to
wait fills the rest of the window, by onset. A row leaves the outbox once it was acknowledged and
the connection has stood for a moment after that (see `SETTLE_S`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from node.deliver.outbox import Outbox, OutboxRow

WINDOW: Final = 64
"""Most detections under way to the broker at a time."""

KEPT_FREE: Final = 4
"""Places in the window that late detections leave to fresh ones."""

SLOW_S: Final = 0.5
"""An acknowledgement that takes longer shows a queue on the way: fewer late ones are sent then,
since a fresh one has to pass through the same queue."""

SETTLE_S: Final = 2.0
"""How long the connection must stand after an acknowledgement before the row is removed.

Mosquitto acknowledges first and saves then, if it saves on changes at all. Killed in the moment of
an acknowledgement it has always lost that message (9 of 9); half a second later never, even where
it had to save 80 MB. A row of `make faults` kills it so: without this pause it lost 6 in 6 kills,
with it none."""

# Rows leave in batches: each is a transaction and so an fsync.
_REMOVE_EVERY_S: Final = 0.25
_READ_ROWS: Final = 64
_FIRST_LIMIT: Final = 8.0
# After so many connections that were cut off before anything could be removed, one of the rows
# under way, or a word beside them, may be what the broker, or something before it, hangs up on.
_FRUITLESS: Final = 3
_SUSPECT_AGAIN_S: Final = 60.0


class _Sent(NamedTuple):
    row: OutboxRow
    at_s: float


class Backlog:
    """What waits in an outbox, as one connection after another works it off.

    A call that reads or removes may raise `OutboxError`; nothing is forgotten then.

    Notes
    -----
    A detection is fresh if it was committed while the connection stood and could be sent at once;
    one that had to wait, or may have been sent before, is delayed.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._news = True  # set from the pipeline's thread; each look clears it first
        self._in_flight: dict[int, _Sent] = {}
        self._fruitless = 0
        # seq → not before, the latest last; 0 where it never ended a connection alone
        self._suspects: dict[int, float] = {}
        self._removable_s: dict[int, float] = {}  # seq of an acknowledged row → when it may go
        self._remove_again_s = 0.0
        self._window = WINDOW
        self._limit = _FIRST_LIMIT
        self._was_slow = False
        self._cut_at_s = 0.0
        self._late: deque[OutboxRow] = deque()
        self._late_after: tuple[int, int] | None = None
        self._late_left = True
        self._late_up_to_seq = self._fresh_after_seq = self._delayed_up_to_seq = 0

    def appended(self) -> None:
        """Note that there is a new row; from any thread."""
        self._news = True

    def begin(self, window: int) -> None:
        """Start a connection that takes `window` messages at a time; all that waits is late."""
        self._in_flight = {}
        self._window = max(1, min(WINDOW, window))
        self._limit = _FIRST_LIMIT
        self._was_slow = False
        self.rewind()

    def rewind(self) -> None:
        """Look at the outbox from its start again: something there was not taken."""
        self._late.clear()
        self._late_after = None
        self._late_left = True
        last_seq = self._outbox.last_seq
        self._late_up_to_seq = self._fresh_after_seq = self._delayed_up_to_seq = last_seq

    def end(self, now_s: float) -> None:
        """End a connection: what was acknowledged only just now may have died with the broker."""
        if self._in_flight or any(at_s > now_s for at_s in self._removable_s.values()):
            self._fruitless += 1
        for sent in self._in_flight.values():
            # Of several each is tried alone, after all others; the one that was alone has to wait.
            not_before_s = self._suspects.pop(sent.row.seq, None)
            if not_before_s is not None and len(self._in_flight) == 1:
                self._suspects[sent.row.seq] = now_s + _SUSPECT_AGAIN_S
            elif not_before_s is not None or self._fruitless >= _FRUITLESS:
                self._suspects[sent.row.seq] = not_before_s or 0.0
        while len(self._suspects) > WINDOW:
            del self._suspects[next(iter(self._suspects))]
        self._in_flight = {}
        self._removable_s = {seq: at for seq, at in self._removable_s.items() if at <= now_s}

    @property
    def in_flight(self) -> tuple[OutboxRow, ...]:
        """Rows sent and not answered yet."""
        return tuple(sent.row for sent in self._in_flight.values())

    @property
    def unanswered_since_s(self) -> float | None:
        """When the oldest of those was sent; None where there is none."""
        return next((sent.at_s for sent in self._in_flight.values()), None)

    @property
    def busy(self) -> bool:
        """Whether anything waits, is under way or not settled; suspects wait apart."""
        return bool(self._in_flight or self._removable_s or self._news or self._late_left)

    @property
    def waiting(self) -> bool:
        """Whether anything waits or is under way; suspects wait apart."""
        return bool(self._in_flight or self._news or self._late_left)

    @property
    def idle(self) -> bool:
        """Whether nothing waits, and after a fruitless connection others have left on this one.

        So what may end the connection can be sent: it does not keep all others here.
        """
        return not self.waiting and not (self._removable_s and self._fruitless)

    @property
    def alone(self) -> bool:
        """Whether detections should go alone: with words beside them none has left for a while."""
        return self.busy and self._fruitless >= _FRUITLESS

    def take(self, now_s: float) -> Iterator[tuple[OutboxRow, bool]]:
        """Give what to send now, and whether it is delayed; report each by `sent` at once."""
        if self._news:
            yield from self._take_fresh()
        if self._late_left:
            yield from self._take_late()
        if not self.waiting:
            yield from self._take_suspect(now_s)

    def sent(self, mid: int, row: OutboxRow, now_s: float) -> None:
        """Note that a row is under way."""
        self._in_flight[mid] = _Sent(row, now_s)

    def answered(self, mid: int, now_s: float) -> OutboxRow | None:
        """Give the row that an answer is to, or None if there is none."""
        sent = self._in_flight.pop(mid, None)
        if sent is None:
            return None
        if now_s - sent.at_s > SLOW_S:
            if sent.at_s >= self._cut_at_s:  # once for all that stood in the same queue
                self._limit = max(1.0, self._limit / 2)
                self._cut_at_s = now_s
            self._was_slow = True
        elif self._limit < self._window:
            self._limit += 1 / self._limit if self._was_slow else 1
        return sent.row

    def acknowledged(self, row: OutboxRow, now_s: float) -> None:
        """Have a row removed once the connection has stood for `SETTLE_S` from now."""
        self._removable_s[row.seq] = now_s + SETTLE_S

    def remove_settled(self, now_s: float) -> bool:
        """Remove what is due; say whether anything was."""
        if now_s < self._remove_again_s:
            return False
        settled = [seq for seq, at_s in self._removable_s.items() if at_s <= now_s]
        if not settled:
            return False
        self._remove_again_s = now_s + _REMOVE_EVERY_S
        self._outbox.acknowledge(settled)
        self._fruitless = 0
        for seq in settled:
            del self._removable_s[seq]
            self._suspects.pop(seq, None)
        return True

    def pause_removal(self, until_s: float) -> None:
        """Remove nothing before then."""
        self._remove_again_s = until_s

    def _take_fresh(self) -> Iterator[tuple[OutboxRow, bool]]:
        room = self._window - len(self._in_flight)
        if room <= 0:
            return
        self._news = False  # before the look: what is appended after it sets it again
        try:
            rows = self._outbox.newer(self._fresh_after_seq, room + 1)
        except BaseException:
            self._news = True
            raise
        for row in rows[:room]:
            self._fresh_after_seq = row.seq
            yield row, row.seq <= self._delayed_up_to_seq
        if len(rows) > room:
            self._news = True
            self._delayed_up_to_seq = self._outbox.last_seq

    def _take_late(self) -> Iterator[tuple[OutboxRow, bool]]:
        kept_free = min(KEPT_FREE, self._window // 2)
        limit = max(1, min(int(self._limit), self._window - kept_free))
        while len(self._in_flight) < limit:
            if not self._late:
                self._late.extend(self._outbox.pending(_READ_ROWS, self._late_after))
                if not self._late:
                    self._late_left = False
                    return
            row = self._late.popleft()
            self._late_after = (row.onset_utc_ns, row.seq)
            if row.seq <= self._late_up_to_seq and not self._is_known(row.seq):
                yield row, True

    def _take_suspect(self, now_s: float) -> Iterator[tuple[OutboxRow, bool]]:
        for seq, not_before_s in tuple(self._suspects.items()):
            if now_s < not_before_s or seq in self._removable_s:
                continue
            if not_before_s and not self.idle:
                continue  # two such, by turns, would have nothing else ever settle
            row = next(iter(self._outbox.newer(seq - 1, 1)), None)
            if row is not None and row.seq == seq:
                yield row, True
                return
            del self._suspects[seq]  # it is gone, or was set aside

    def _is_known(self, seq: int) -> bool:
        return (
            seq in self._removable_s
            or seq in self._suspects
            or any(sent.row.seq == seq for sent in self._in_flight.values())
        )
