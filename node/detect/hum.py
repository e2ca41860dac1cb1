"""How much of a sound is mains hum: lines at 50 or 60 Hz and their multiples, over the rest.

A loop through the ground carries the mains themselves: 50 or 60 Hz to a tenth of a hertz, steady,
with *odd* multiples. What hums in air by itself does not: a core that is magnetised by the mains
pulls at every half wave, so a transformer, a ballast or a motor sounds at the *even* ones, 100 or
120 Hz and up; an engine stays on no frequency for seconds. Pure; asked once a second by
`node.detect.microphones`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

MAINS_HZ: Final = (50.0, 60.0)
# EN 50160 has grids within 1 % for all but a few hours a year; 0.2 Hz is where reserves are called.
OFF_HZ: Final = 0.3
OFF_STEPS: Final = 13
HUM_RATE_HZ: Final = 2000
# A line is 0.5 Hz wide then, and a bass note (G1, 49.0 Hz) is another one.
SPAN_S: Final = 4
LOWEST_HZ: Final = 40.0
HIGHEST_LINE_HZ: Final = 650.0
# Of noise, three bins together never stand so far above their neighbours' mean.
LINE_DB: Final = 20.0
ODD_LINE_DB: Final = 15.0
NEAR_BINS: Final = (4, 16)
_MEDIAN_OF_POWER: Final = 0.693  # over its mean, of noise


@dataclass(frozen=True, slots=True)
class Hum:
    """Hum of every microphone, arrays of shape [channels].

    Attributes
    ----------
    ratio_db
        Power in the lines over all else between 40 Hz and 1 kHz.
    level_db
        Power in the lines, re full scale.
    mains_hz
        The frequency that the lines are multiples of.
    lines, odd
        Whether there are any, and whether the mains and an odd multiple of them are among them.
    """

    ratio_db: Floats
    level_db: Floats
    mains_hz: Floats
    lines: Flags
    odd: Flags


class HumMeter:
    """Keeps the last seconds at a low rate and measures the hum in them."""

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._every = max(1, round(sample_rate_hz / HUM_RATE_HZ))
        self._rate = sample_rate_hz / self._every
        self._kept: list[Float32Array] = []
        self._channels = channels
        self._n = 0
        self._combs: list[tuple[float, npt.NDArray[np.intp], Floats]] = []
        self._window: Floats = np.zeros(0)

    def reset(self) -> None:
        """Forget the sound before: what comes next does not follow it."""
        self._kept = []

    def take(self, second: Float32Array) -> Hum | None:
        """Take the next second, shape [channels, n]; None until there are enough of them."""
        n = second.shape[1] // self._every * self._every
        slow = second[:, :n].reshape(self._channels, -1, self._every).mean(axis=2)
        self._kept = [*self._kept[-(SPAN_S - 1) :], slow]
        if len(self._kept) < SPAN_S:
            return None
        return self._measure(np.concatenate(self._kept, axis=1))

    def _prepare(self, n: int) -> None:
        self._n = n
        self._window = np.hanning(n)
        for mains_hz in MAINS_HZ:
            multiples = np.arange(1, int(HIGHEST_LINE_HZ / mains_hz) + 1)
            exact_hz = mains_hz + np.linspace(-OFF_HZ, OFF_HZ, OFF_STEPS)
            bins = np.rint(exact_hz[:, None] * multiples * n / self._rate).astype(np.intp)
            self._combs.append((mains_hz, bins, exact_hz))

    def _measure(self, x: Float32Array) -> Hum:
        if self._n != x.shape[1]:
            self._combs = []
            self._prepare(x.shape[1])
        x = x - x.mean(axis=1, keepdims=True)
        spectrum = np.fft.rfft(x * self._window, axis=1)
        power = np.square(np.abs(spectrum)) * (2 / self._n / np.square(self._window).sum())
        three = power.copy()
        three[:, 1:] += power[:, :-1]
        three[:, :-1] += power[:, 1:]
        first = int(LOWEST_HZ * self._n / self._rate)
        band = power[:, first:].sum(axis=1) + 1e-30
        found = [self._of(power, three, band, *comb) for comb in self._combs]
        fifty = found[0].ratio_db >= found[1].ratio_db
        return Hum(
            *(
                np.where(fifty, getattr(found[0], name), getattr(found[1], name))
                for name in Hum.__slots__
            )
        )

    def _of(
        self,
        power: Floats,
        three: Floats,
        band: Floats,
        _mains_hz: float,
        bins: npt.NDArray[np.intp],
        exact_hz: Floats,
    ) -> Hum:
        # Of the frequencies that the mains may have, the one whose multiples hold most.
        best = three[:, bins].sum(axis=2).argmax(axis=1)
        at = bins[best]
        line = np.take_along_axis(three, at, axis=1)
        low, high = NEAR_BINS
        beside = np.concatenate((np.arange(-high, -low), np.arange(low + 1, high + 1)))
        rows = np.arange(self._channels)[:, None, None]
        near = np.median(power[rows, at[:, :, None] + beside], axis=2) / _MEDIAN_OF_POWER
        stands_db = 10 * np.log10((line + 1e-30) / (3 * near + 1e-30))
        hum = np.where(stands_db >= ODD_LINE_DB, line, 0).sum(axis=1)
        rest = np.maximum(band - hum, 1e-30)
        odd = (stands_db[:, 0] >= LINE_DB) & (stands_db[:, [2, 4]] >= ODD_LINE_DB).any(axis=1)
        return Hum(
            ratio_db=10 * np.log10((hum + 1e-12 * rest) / rest),
            level_db=10 * np.log10(hum + 1e-20),
            mains_hz=exact_hz[best],
            lines=np.asarray((stands_db >= LINE_DB).any(axis=1)),
            odd=np.asarray(odd),
        )
