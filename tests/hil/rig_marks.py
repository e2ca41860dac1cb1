"""Marks beside shots, and where marks and pulses stand in what a witness hears.

A pulse is a step, a mark a bell of some kilohertz. A step through the slope of a bell and a bell
through a bell are bells again, of the same low band, where converters delay everything alike; the
logarithm of a bell is a parabola, and three samples tell where it stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile

from tests.hil.bench import Frames
from tests.hil.unit_stage import RATE

Floats = npt.NDArray[np.float64]

MARK: Final = 0.25
"""Of full scale."""
WIDTH: Final = 6.0
"""Standard deviation of a mark, in samples: a band of 1.3 kHz."""
FULL: Final = 2.0**31

_REACH: Final = 24
_AT: Final = np.arange(-_REACH, _REACH + 1)
_BELL: Final = np.exp(-0.5 * (_AT / WIDTH) ** 2)
BELL: Final = _BELL / (WIDTH * np.sqrt(np.pi))  # a mark of 1 comes out as 1
SLOPE: Final = _AT * _BELL / WIDTH**2  # a step of 1 comes out as 1
_FAINTEST: Final = 0.003


def with_marks(frames: Frames, arrivals: Sequence[float]) -> Frames:
    """Give frames of shape [n, channels] one channel more: a mark at each arrival, in samples."""
    marks = np.zeros(len(frames))
    for arrival in arrivals:
        middle = round(arrival)
        at = np.arange(max(0, middle - 8 * _REACH), min(len(marks), middle + 8 * _REACH))
        marks[at] += MARK * np.exp(-0.5 * ((at - arrival) / WIDTH) ** 2)
    return np.column_stack([frames, np.round(marks * FULL).astype(np.int32)])


def write_wav(file: Path, frames: Frames) -> None:
    """Write frames for a player."""
    soundfile.write(file, frames, RATE, subtype="PCM_32", format="WAV")


class Finder:
    """Finds bells in a stream, by the frame and its fraction at which each stands.

    Parameters
    ----------
    kernel
        What makes a bell of what is looked for.
    """

    def __init__(self, kernel: Floats) -> None:
        self._kernel = kernel
        self._kept = np.zeros(2 * _REACH + 2)
        self._heights: deque[float] = deque(maxlen=9)

    @property
    def height(self) -> float:
        """How high the last ones stood, of full scale."""
        return median(self._heights) if self._heights else 0.0

    def find(self, samples: Floats, first: int) -> list[float]:
        """Give the bells among further samples, of which the first has this number."""
        joined = np.concatenate([self._kept, samples])
        self._kept = joined[-(2 * _REACH + 2) :]
        y = np.correlate(joined, self._kernel, "valid")
        least = max(_FAINTEST, 0.5 * self.height)
        tops = np.flatnonzero((y[1:-1] > least) & (y[1:-1] >= y[:-2]) & (y[1:-1] > y[2:])) + 1
        found = []
        for top in tops.tolist():
            if min(y[top - 1], y[top + 1]) <= 0:
                continue
            before, here, after = np.log(y[top - 1 : top + 2]).tolist()
            self._heights.append(float(y[top]))
            off = 0.5 * (before - after) / (before - 2 * here + after)
            found.append(first - len(joined) + len(samples) + top + _REACH + off)
        return found
