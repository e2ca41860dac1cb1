"""Which second a pulse marks: whole seconds by vote, so that no single wrong word moves them.

Beside the pulse clock: pulses are counted without gaps, and each word on which second it is (the
host's clock, a receiver's message) votes for a difference between second and count. Seconds are
TAI, so that a leap second is no difference. Pure.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, Literal

Voter = Literal["host", "receiver"]

ADOPT_VOTES: Final = 5
ADOPT_SHARE: Final = 0.7
REMEMBERED: Final = 20
# What was adopted changes only against so many that contradict it with one voice. A host's clock
# can be set by anyone, so it has to insist for longer; the pulse itself never jumped.
INSIST: Final[dict[Voter, int]] = {"receiver": 20, "host": 300}


class _Box:
    """The votes of one voter."""

    def __init__(self, insist: int) -> None:
        self._insist = insist
        self._votes: deque[int] = deque(maxlen=REMEMBERED)
        self._against: tuple[int, int] = (0, 0)  # difference, how often in a row
        self.adopted: int | None = None

    def vote(self, difference: int) -> None:
        self._votes.append(difference)
        if self.adopted is None:
            best, count = Counter(self._votes).most_common(1)[0]
            if count >= ADOPT_VOTES and count >= ADOPT_SHARE * len(self._votes):
                self.adopted = best
        elif difference == self.adopted:
            self._against = (0, 0)
        else:
            other, count = self._against
            self._against = (difference, count + 1 if difference == other else 1)
            if self._against[1] >= self._insist:
                self.adopted, self._against = difference, (0, 0)


class SecondVote:
    """Adopts the difference between TAI seconds and the pulse count."""

    def __init__(self) -> None:
        self._boxes = {voter: _Box(insist) for voter, insist in INSIST.items()}
        self._difference: int | None = None

    def vote(self, voter: Voter, count: int, tai_s: int) -> None:
        """Take a voter's word that the pulse of a count marks a second."""
        self._boxes[voter].vote(tai_s - count)
        told = {box.adopted for box in self._boxes.values() if box.adopted is not None}
        # Two that contradict each other: what was known stays; if nothing was, nothing is.
        if len(told) == 1:
            (self._difference,) = told
        elif self._difference not in told:
            self._difference = None

    @property
    def difference(self) -> int | None:
        """TAI second less pulse count; None while it is not known."""
        return self._difference

    @property
    def confirmed(self) -> bool:
        """Whether both voters say so."""
        return self._difference is not None and all(
            box.adopted == self._difference for box in self._boxes.values()
        )

    @property
    def disputed(self) -> bool:
        """Whether the voters contradict each other."""
        return len({b.adopted for b in self._boxes.values() if b.adopted is not None}) > 1
