"""The background that an impulse must stand out of: one level per channel.

The floor is the mean of the bins' levels in dB over some seconds. A mean of logarithms hardly
notices a shot; clipping what it may learn from one bin makes it notice even less (signal.md §2).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect.levels import BIN_S, Mask, Power

TAU_S: Final = 4.0

# The first floor: a low quantile of 5 ms means over the first quarter of a second.
PRIME_S: Final = 0.25
PRIME_QUANTILE: Final = 0.1
PRIME_MEAN_BINS: Final = 10

CLIP_UP_DB: Final = 6.0
CLIP_DOWN_DB: Final = 12.0

# Below the last bit of a 16-bit recording there is nothing to be heard.
LOWEST_DB: Final = -100.0

# A channel that was dead for longer has to learn its floor anew.
STALE_S: Final = 1.0


def to_db(power: Power) -> Power:
    """Give 10 log10 of a power, never less than `LOWEST_DB`."""
    return np.asarray(10 * np.log10(np.maximum(power, 10 ** (LOWEST_DB / 10))))


class Floor:
    """The adaptive floor of every channel, in dB relative to full scale.

    Attributes
    ----------
    level_db
        Shape [channels]; means nothing where `known` is False.
    known
        Shape [channels].
    """

    def __init__(self, channels: int) -> None:
        self.level_db: npt.NDArray[np.float64] = np.full(channels, LOWEST_DB)
        self.known: npt.NDArray[np.bool_] = np.zeros(channels, dtype=bool)
        self._age_s = np.zeros(channels)
        self._dead_s = np.zeros(channels)

    def forget(self) -> None:
        """Know nothing of any channel, as at the start of a stream."""
        self.known[:] = False

    def prime(self, power: Power, live: Mask) -> None:
        """Take a first floor from bins still to be judged, for channels that have none.

        The quantile is low, so that a recording that begins with its shot does not lose it; it
        is taken of means, so that steady noise does not look like a rise out of its own dips.
        """
        for channel in np.flatnonzero(~self.known & live.any(axis=0)):
            first = power[live[:, channel], channel][: round(PRIME_S / BIN_S)]
            width = min(PRIME_MEAN_BINS, len(first))
            means = np.convolve(first, np.full(width, 1 / width), mode="valid")
            self.level_db[channel] = np.quantile(to_db(means), PRIME_QUANTILE)
            self.known[channel] = True
            self._age_s[channel] = PRIME_S
            self._dead_s[channel] = 0.0

    def learn(self, db: Power, live: Mask) -> None:
        """Learn from the levels of bins that have been judged, shape [bins, channels]."""
        seconds = live.sum(axis=0) * BIN_S
        step = np.clip(db - self.level_db, -CLIP_DOWN_DB, CLIP_UP_DB)
        mean = (step * live).sum(axis=0) / np.maximum(live.sum(axis=0), 1)
        self._age_s = np.minimum(self._age_s + seconds, TAU_S)
        self.level_db += self.known * mean * seconds / np.maximum(self._age_s, PRIME_S)
        self._dead_s = np.where(seconds > 0, 0.0, self._dead_s + len(db) * BIN_S)
        self.known &= self._dead_s < STALE_S
