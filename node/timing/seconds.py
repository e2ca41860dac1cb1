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
# Both together, with one voice: seconds were lost from the count, and nobody told.
INSIST_TOGETHER: Final = 10


class _Box:
    """The votes of one voter."""

    def __init__(self, insist: int) -> None:
        self._insist = insist
        self._votes: deque[tuple[int, bool]] = deque(maxlen=REMEMBERED)
        self.against: tuple[int, int] = (0, 0)  # difference, how often in a row
        self.adopted: int | None = None
        self._vouched = 0

    @property
    def vouched(self) -> bool:
        """Whether what is adopted was said often enough by one who knows it for himself."""
        return self._vouched >= ADOPT_VOTES

    def vote(self, difference: int, vouches: bool) -> None:
        self._votes.append((difference, vouches))
        if self.adopted is None:
            said = Counter(difference for difference, _ in self._votes)
            best, count = said.most_common(1)[0]
            if count >= ADOPT_VOTES and count >= ADOPT_SHARE * len(self._votes):
                self.adopt(best)
        elif difference == self.adopted:
            self.against = (0, 0)
            self._vouched += vouches
        else:
            other, count = self.against
            self.against = (difference, count + 1 if difference == other else 1)
            if self.against[1] >= self._insist:
                self.adopt(difference)

    def adopt(self, difference: int) -> None:
        self.adopted, self.against = difference, (0, 0)
        self._vouched = sum(vouches for said, vouches in self._votes if said == difference)


class SecondVote:
    """Adopts the difference between TAI seconds and the pulse count."""

    def __init__(self) -> None:
        self._boxes = {voter: _Box(insist) for voter, insist in INSIST.items()}
        self._difference: int | None = None
        self._settled = False

    def vote(self, voter: Voter, count: int, tai_s: int, *, vouches: bool = True) -> None:
        """Take a voter's word that the pulse of a count marks a second.

        One who may have it from the other voter does not vouch for it, and confirms nothing.
        """
        self._boxes[voter].vote(tai_s - count, vouches)
        against = {box.against[0] for box in self._boxes.values()}
        if len(against) == 1 and self._least_against() >= INSIST_TOGETHER:
            for box in self._boxes.values():
                box.adopt(*against)
        told = {box.adopted for box in self._boxes.values() if box.adopted is not None}
        # Two that contradict each other: what both had said stays; else who spoke first is no
        # more to be believed than the other.
        if len(told) == 1:
            (self._difference,) = told
            self._settled = self._settled or self.confirmed
        elif not self._settled or self._difference not in told:
            self._difference = None

    @property
    def difference(self) -> int | None:
        """TAI second less pulse count; None while it is not known."""
        return self._difference

    @property
    def confirmed(self) -> bool:
        """Whether both voters say so, each by himself."""
        return self._difference is not None and all(
            box.adopted == self._difference and box.vouched for box in self._boxes.values()
        )

    @property
    def apart_s(self) -> int:
        """By how much the voters contradict each other."""
        told = [box.adopted for box in self._boxes.values() if box.adopted is not None]
        return max(told) - min(told) if told else 0

    def _least_against(self) -> int:
        return min(box.against[1] for box in self._boxes.values())
