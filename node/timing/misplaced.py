"""Which samples may bear an index that is not theirs: those round frames that were lost unseen.

How many frames a card lost without a flag its later time stamps tell, and nobody tells where in the
blocks that were read meanwhile (`node.capture.gaps`): an impulse in these is where the
counter says, or off by all that was lost. Asked by the sample clocks.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from node.types import Block, Unplaced

# Of a card that loses frames all the time the latest are of use: what is asked for is seconds old.
MOST: Final = 64


class Misplaced:
    """Remembers where frames were lost of late, and how many.

    Parameters
    ----------
    sample_rate_hz
        Nominal rate.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._stream: int | None = None
        self._losses: deque[Unplaced] = deque(maxlen=MOST)

    def observe(self, block: Block) -> None:
        """Take the next block; another stream begins from nothing."""
        if block.stream != self._stream:
            self._stream = block.stream
            self._losses.clear()
        if block.unplaced is not None:
            self._losses.append(block.unplaced)

    def sigma_s(self, sample: float) -> float:
        """Give the standard error of a sample's index, in s: half of what may be missing before it.

        It is off by nothing or by all of it, and neither is likelier. Of a loss that was found in
        parts the last has them all.
        """
        near = (one for one in self._losses if one.first_sample <= sample < one.end_sample)
        return max((one.frames for one in near), default=0) / 2 / self._rate
