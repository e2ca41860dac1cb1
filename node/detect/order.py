"""Whether the channels come in the order that the array's geometry is written in.

A known fault of popular boards: at the opening of a stream their channels come rotated by some
places, and so does every bearing. Until the order is proven there is no direction. A channel that
cannot be mistaken proves it: one that carries a receiver's pulse, or one constant by design.
A regular tetrahedron or a square cannot be proven by sounds alone: turned or mirrored by one of its
symmetries it hears a plane wave as another plane wave (decision 0017). Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from node.types import Block

# An edge of a pulse stands out of its channel's differences: the largest of 16 384 of noise is
# below 7 times their median.
EDGE: Final = 12.0
# A pulse comes a second after the one before, by a crystal that is 300 ppm off at worst.
PERIOD_SLACK: Final = 400e-6
STREAK: Final = 3
# So long without the marker and it has stopped.
WAIT_S: Final = 6.0
# So long after an edge, the crystal may have gone 4 ms, and what is in phase with it begins to be
# so by chance.
IN_PHASE_S: Final = 10
CONSTANT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class OrderState:
    """What is known of the order.

    Attributes
    ----------
    proven
        True; False where the channels are in another order; None while it is not known.
    reason
        How it is known, or why not, in a sentence.
    """

    proven: bool | None
    reason: str


class ChannelOrder:
    """Watches a stream for what proves the order of its channels.

    Parameters
    ----------
    channels, sample_rate_hz
        Of the blocks to come.
    pps_channel
        The channel that carries a receiver's pulse, if one does.
    silent_channels
        Channels that are constant by design.
    fixed
        Whether whoever set the node up vouches that the card cannot change the order.
    """

    def __init__(
        self,
        channels: int,
        sample_rate_hz: int,
        *,
        pps_channel: int | None = None,
        silent_channels: Sequence[int] = (),
        fixed: bool = False,
    ) -> None:
        self._channels = channels
        self._rate = sample_rate_hz
        self._pps = pps_channel
        self._silent = frozenset(silent_channels)
        self._fixed = fixed
        self._stream: int | None = None
        self._first: int | None = None
        self._now = 0
        self._last_frame: npt.NDArray[np.float32] | None = None
        self._lost_at: int | None = None  # where frames were lost last
        # And first, of those that no pulse came after: a card that runs rotates nothing, but where
        # frames were lost some drivers start it anew.
        self._doubt_at: int | None = None
        self._moved: npt.NDArray[np.bool_] = np.zeros(channels, dtype=bool)
        self._trains: list[_Train] = []
        self._state = OrderState(None, "nothing is heard yet")
        self._begin()

    @property
    def state(self) -> OrderState:
        """What is known of the stream observed last."""
        return self._state

    @property
    def pulsing(self) -> tuple[int, ...]:
        """Channels on which a pulse a second was heard; only sought if one is to carry it."""
        return tuple(c for c, train in enumerate(self._trains) if train.runs(0))

    def observe(self, block: Block) -> None:
        """Take the next block, all channels of it; another stream begins from nothing."""
        if block.stream != self._stream:
            self._stream = block.stream
            self._begin()
        if self._first is None:
            self._first = self._now = block.first_sample
        if block.lost_before > 0 or block.first_sample != self._now:
            self._last_frame = None
            self._lost_at = block.first_sample
            if self._doubt_at is None:
                self._doubt_at = block.first_sample
        self._now = block.end_sample
        if len(block.frames) == 0:
            return
        # Each channel's samples together: what is asked of them is several times faster so.
        rows = np.ascontiguousarray(block.samples().T)
        moving = np.ptp(rows, axis=1) > 0
        self._moved |= moving
        if self._pps is not None:
            self._follow(block.first_sample, rows)
            self._state = self._by_pulse()
        elif self._silent:
            self._state = self._by_silence()
        elif self._fixed:
            self._state = self._by_word(rows, moving)

    def _begin(self) -> None:
        self._first = None
        self._now = 0
        self._last_frame = None
        self._lost_at = self._doubt_at = None
        self._moved = np.zeros(self._channels, dtype=bool)
        self._trains = [_Train(self._rate) for _ in range(self._channels)]
        if self._pps is not None:
            reason = f"waiting for the pulse on channel {self._pps}"
        elif self._silent:
            reason = "listening whether the silent channels are silent"
        elif self._fixed:
            reason = "waiting for sound"
        else:
            reason = (
                "nothing marks a channel: set timing.pps_channel, capture.silent_channels, or "
                "capture.order_fixed for a card that cannot rotate them"
            )
        self._state = OrderState(None, reason)

    @property
    def _heard_s(self) -> float:
        return (self._now - (self._first or 0)) / self._rate

    def _follow(self, first_sample: int, rows: npt.NDArray[np.float32]) -> None:
        if self._last_frame is not None:  # an edge may lie between two blocks
            rows = np.concatenate((self._last_frame, rows), axis=1)
            first_sample -= 1
        self._last_frame = rows[:, -1:]
        if rows.shape[1] < 2:
            return
        for train, steps in zip(self._trains, np.abs(np.diff(rows, axis=1)), strict=True):
            at = int(np.argmax(steps))
            if _stands_out(steps, at):
                train.edge(first_sample + at)

    def _by_pulse(self) -> OrderState:
        assert self._pps is not None  # noqa: S101
        since = self._now - round(WAIT_S * self._rate)
        if self._lost_at is not None:
            since = max(since, self._lost_at)
        pulsing = [c for c, train in enumerate(self._trains) if train.runs(since)]
        if pulsing == [self._pps]:
            self._doubt_at = None
            return OrderState(
                True, f"the pulse is on channel {self._pps}, where it belongs, and on no other"
            )
        if self._pps in pulsing:
            others = ", ".join(str(c) for c in pulsing if c != self._pps)
            return OrderState(
                None, f"the pulse is heard on channels {others} too: shield the cable"
            )
        if pulsing:
            return OrderState(
                False,
                f"the pulse is on channel {pulsing[0]}, not on {self._pps}: the card has rotated "
                "its channels; they are in order again when it is opened anew",
            )
        doubt_at = self._doubt_at
        if self._state.proven is True and doubt_at is None:
            # A receiver that loses its satellites rotates no channels.
            return OrderState(True, f"the pulse was on channel {self._pps}, where it belongs")
        since_when = "" if doubt_at is None else " since frames were lost"
        waited_s = self._heard_s if doubt_at is None else (self._now - doubt_at) / self._rate
        if waited_s > WAIT_S:
            return OrderState(
                None, f"no pulse on channel {self._pps}{since_when}: see the receiver's cable"
            )
        return OrderState(None, f"waiting for the pulse on channel {self._pps}{since_when}")

    def _by_silence(self) -> OrderState:
        if self._heard_s < CONSTANT_S:
            return self._state
        still = set(np.flatnonzero(~self._moved).tolist())
        names = ", ".join(str(c) for c in sorted(self._silent))
        if still == self._silent:
            return OrderState(
                True, f"channels {names} are silent, as they should be, and no others"
            )
        if self._silent <= still:
            dead = ", ".join(str(c) for c in sorted(still - self._silent))
            return OrderState(None, f"channels {dead} are silent too: see their microphones")
        return OrderState(
            False,
            f"sound is on channels that should be silent ({names}): the card has rotated its "
            "channels; they are in order again when it is opened anew",
        )

    def _by_word(self, rows: npt.NDArray[np.float32], moving: npt.NDArray[np.bool_]) -> OrderState:
        live = np.flatnonzero(moving).tolist()
        for i, first in enumerate(live):
            for second in live[i + 1 :]:
                if np.array_equal(rows[first], rows[second]):
                    return OrderState(
                        False, f"channels {first} and {second} carry the same: see the card's mixer"
                    )
        if not live or self._state.proven is False:
            return self._state
        return OrderState(True, "capture.order_fixed says that this card cannot rotate channels")


def _stands_out(steps: npt.NDArray[np.float32], at: int) -> bool:
    """Say whether one of a channel's differences, the largest, is an edge."""
    largest = steps[at]
    # Where more than half of them are that large the median is, too; to count is far cheaper.
    common = np.count_nonzero(steps > largest / EDGE * (1 + 1e-4)) > len(steps) // 2
    return not common and bool(largest > EDGE * np.maximum(np.median(steps), 1e-7))


class _Train:
    """Edges of one channel, and whether they come once a second."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._edges: list[tuple[int, int]] = []  # sample, length of the run that it ends
        self._last: int | None = None  # of a run that is long enough

    def edge(self, sample: int) -> None:
        slack = PERIOD_SLACK * self._rate
        run = 1
        for before, length in self._edges:
            seconds = round((sample - before) / self._rate)
            if (
                0 < seconds <= IN_PHASE_S
                and abs(sample - before - seconds * self._rate) <= slack * seconds
            ):
                run = max(run, length + 1)
        self._edges = [e for e in self._edges if sample - e[0] < 3 * self._rate]
        self._edges.append((sample, run))
        if run >= STREAK:
            self._last = sample

    def runs(self, since: int) -> bool:
        return self._last is not None and self._last >= since
