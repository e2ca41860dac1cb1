"""An unbroken run of samples, and what is made of them: as much of it as is still needed.

A stretch begins with the stream, or after frames were lost. It is cut into bins of 0.5 ms that
are counted from its first sample, never from the edges of blocks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from node.detect.levels import HighPass, Mask, Power, Samples, bin_power
from node.detect.trigger import PAST_BINS


class Stretch:
    """Samples, the same high-passed, and the power of their bins.

    Parameters
    ----------
    first_sample
        Index of the first sample that will be appended.
    frames_per_bin
        Frames in a bin.
    high_pass
        The filter; it is reset.
    past_power
        Mean power of the bins that count as those before the first sample, shape [channels].
    history_bins
        How many those are.
    unheard
        So many frames that came before the first sample were not heard.

    Attributes
    ----------
    start
        Index of the sample at `raw[0]`.
    raw, filtered
        Shape [n, channels]; `filtered` may be shorter, by what is not yet a whole step.
    power, live
        Shape [bins, channels]: mean power per bin in the trigger band, and whether the channel
        was alive all through it. A bin that was not holds the mean of the 50 ms before, as the
        best guess of what would have been there.
    judged
        So many bins are judged, the history among them.
    heard_from
        Index in `raw` of the first sample that is not history.
    unheard
        So many frames that came before that one were not heard.
    """

    def __init__(
        self,
        first_sample: int,
        frames_per_bin: int,
        high_pass: HighPass,
        past_power: npt.NDArray[np.float64],
        history_bins: int,
        unheard: float,
    ) -> None:
        high_pass.reset()
        self._high_pass = high_pass
        self._bin = frames_per_bin
        self.heard_from = history_bins * frames_per_bin
        self.unheard = unheard
        self.start = first_sample - self.heard_from
        self.raw: Samples = np.zeros((self.heard_from, len(past_power)), dtype=np.float32)
        self.filtered: Samples = self.raw
        self.power: Power = np.tile(past_power, (history_bins, 1))
        self.live: Mask = np.zeros(self.power.shape, dtype=bool)
        self.judged = history_bins

    def append(self, x: Samples) -> None:
        """Take the next samples, shape [n, channels]."""
        self.raw = np.concatenate((self.raw, x))

    def measure(self, step_bins: int) -> None:
        """Filter and bin every whole step that has enough samples after it."""
        ready = len(self.raw) - len(self.filtered) - self._high_pass.dead_frames
        self._measure(max(0, ready) // (step_bins * self._bin) * step_bins)

    def measure_rest(self) -> None:
        """Filter and bin what is left at the end, up to a last bin that is not whole."""
        self._measure((len(self.raw) - len(self.filtered)) // self._bin)

    def _measure(self, bins: int) -> None:
        if bins == 0:
            return
        at = len(self.filtered)
        end = at + bins * self._bin
        y, dead = self._high_pass.filter(self.raw[at:end], self.raw[end:])
        power, live = bin_power(y, dead, self._bin)
        self.filtered = np.concatenate((self.filtered, y))
        self.power = np.concatenate((self.power, power))
        self.live = np.concatenate((self.live, live))
        if dead is not None:
            self._hold(len(self.power) - bins)

    def _hold(self, first: int) -> None:
        """Fill the dead bins from `first` on."""
        for channel in np.flatnonzero(~self.live[first:].all(axis=0)).tolist():
            power, live = self.power[:, channel], self.live[:, channel]
            edges = np.flatnonzero(np.diff(~live[first:], prepend=False, append=False)) + first
            for begin, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                goes_on = not live[begin - 1]
                held = power[begin - 1] if goes_on else power[begin - PAST_BINS : begin].mean()
                power[begin:end] = held

    def recent_power(self) -> npt.NDArray[np.float64]:
        """Give the mean power of the last `PAST_BINS` bins, shape [channels]."""
        return np.asarray(self.power[-PAST_BINS:].mean(axis=0))

    def forget(self, keep_bins: int) -> None:
        """Drop all but so many of the judged bins."""
        surplus = self.judged - keep_bins
        if surplus <= 0:
            return
        frames = surplus * self._bin
        self.raw = self.raw[frames:]
        self.filtered = self.filtered[frames:]
        self.power = self.power[surplus:]
        self.live = self.live[surplus:]
        self.judged -= surplus
        self.start += frames
        self.heard_from = max(0, self.heard_from - frames)
