"""Whether an impulse is no sound but a seam: where frames were lost unseen, two ends meet.

Between the trigger and the message, for what is heard where frames were lost without a flag. The
sound after them does not go on from the sound before: on every microphone it jumps, in one and the
same frame. No sound does that. A converter's filter spreads the steepest rise over some frames, and
a wave is at one microphone of an array before it is at the next. Pure.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

# The window round an onset: a seam is picked some samples early, as any rise is, and what fires
# within 10 ms of it is the same impulse.
BEFORE_S: Final = 0.005
AFTER_S: Final = 0.012
# In simulated streets a seam that fires stands 14 dB and more out of what is round it, a shot 2 dB.
STANDS_OUT_DB: Final = 12.0
# Where the front of a shot was lost, what is left of it begins with such a jump too, but is louder
# than what was before. After a seam alone it is as loud as it was, to 0.8 dB.
LOUDER_DB: Final = 1.0
# Within so many frames of the largest jump is still that jump, seen through a filter.
SAME: Final = 3
# Fewer microphones may hear a wave at once, from a side.
FEWEST: Final = 3


def is_seam(sound: npt.NDArray[np.float32]) -> bool:
    """Say whether the sound round an onset jumps once, on all microphones, and is as it was then.

    Parameters
    ----------
    sound
        Shape [n, channels]; frames of zeros on all of them were not heard.
    """
    heard = sound.any(axis=1)
    jumps = np.diff(sound, axis=0)[heard[1:] & heard[:-1]]
    power = np.square(jumps[:, jumps.any(axis=0)], dtype=np.float64)
    channels = power.shape[1]
    if channels < FEWEST:
        return False
    power /= power.mean(axis=0)
    largest = power.argmax(axis=0)
    at = int(np.median(largest))
    if np.count_nonzero(np.abs(largest - at) <= 1) < max(FEWEST, channels // 2 + 1):
        return False
    total = power.sum(axis=1)
    before, after = total[: max(0, at - SAME)], total[at + SAME + 1 :]
    if not (len(before) and len(after)):
        return False
    rest = max(before.max(), after.max())
    stands_out = total[max(0, at - 1) : at + 2].max() >= 10 ** (STANDS_OUT_DB / 10) * rest
    return bool(stands_out and after.mean() < 10 ** (LOUDER_DB / 10) * before.mean())
