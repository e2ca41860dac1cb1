"""The last seconds of sound, in memory: the only place where sound is kept, and for how long.

The pipeline pushes blocks and takes the windows that direction, rounds and classifier want.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
import numpy.typing as npt

from node.types import Block


class History:
    """The last seconds of sound, by sample index; frames that were lost read as zeros.

    Parameters
    ----------
    seconds
        How much to keep.
    sample_rate_hz, channels
        Of the stream.
    """

    def __init__(self, seconds: float, sample_rate_hz: int, channels: int) -> None:
        self._keep = math.ceil(seconds * sample_rate_hz)
        self._channels = channels
        self._blocks: deque[Block] = deque()

    @property
    def end_sample(self) -> int:
        """Index of the frame after the last one that was pushed."""
        return self._blocks[-1].end_sample if self._blocks else 0

    def push(self, block: Block) -> None:
        """Take a block in, and let go of what is too old."""
        if self._blocks and block.stream != self._blocks[-1].stream:
            self._blocks.clear()
        self._blocks.append(block)
        oldest = block.end_sample - self._keep
        while self._blocks[0].end_sample <= oldest:
            self._blocks.popleft()

    def window(self, first_sample: int, end_sample: int) -> npt.NDArray[np.float32]:
        """Give frames [first_sample, end_sample) as float32, full scale 1, shape [n, channels]."""
        out = np.zeros((end_sample - first_sample, self._channels), dtype=np.float32)
        for block in self._blocks:
            begin = max(first_sample, block.first_sample)
            end = min(end_sample, block.end_sample)
            if begin < end:
                inside = slice(begin - block.first_sample, end - block.first_sample)
                out[begin - first_sample : end - first_sample] = block.samples(inside)
        return out
