"""Edges of a receiver's pulse in a channel of the sound card, to a small fraction of a sample.

The first step of the pulse clock: samples of one channel in, edges out. A step through a
converter's filter and a coupling capacitor is a short burst in its differences, whatever its shape
the same each time; the slope of that burst's phase over frequency tells where it is (signal.md
§1.2). The filter delays pulse and sound alike, so its delay drops out between them. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

# Differences looked at round the steepest, and the share of the rate up to which their phase is
# true: above it lies the filter's edge, and what it aliases.
SPAN: Final = 64
HIGHEST: Final = 0.36
# An edge stands out of the channel's own differences, and is not much weaker than those before.
STANDS_OUT: Final = 12.0
WEAKER: Final = 0.4
FORGETS_S: Final = 30.0
# Edges nearer than this are one, with its ringing.
APART_S: Final = 0.002
# Standard error of an edge in samples, times its height over the median difference by noise:
# measured on steps through a linear- and a minimum-phase filter, at -70 to -40 dB of noise.
SIGMA_BY_NOISE: Final = 1.8


@dataclass(frozen=True, slots=True)
class Edge:
    """A step: where, in fractional samples, with its standard error by the noise; up or down."""

    sample: float
    sigma_samples: float
    rises: bool


class EdgeFinder:
    """Finds the edges in a stream of one channel, the same whatever the blocks.

    Parameters
    ----------
    sample_rate_hz
        Of the stream.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._apart = max(SPAN, round(APART_S * sample_rate_hz))
        # Judged in stretches of this length, counted from the start of an unbroken run.
        self._stretch = 4 * self._apart
        self._held: npt.NDArray[np.float64] = np.zeros(0)
        self._first = 0
        self._usual_height = 0.0

    def push(self, first_sample: int, x: npt.NDArray[np.float32]) -> list[Edge]:
        """Take the next samples, shape [n]; give the edges that are whole by now.

        Samples that do not follow those before begin a new run: no edge is made of both.
        """
        if first_sample != self._first + len(self._held):
            self._held, self._first = np.zeros(0), first_sample
        self._held = np.concatenate((self._held, x))
        edges: list[Edge] = []
        margin = self._apart
        while len(self._held) >= 2 * margin + self._stretch + 1:
            edges += self._look(margin)
            self._held = self._held[self._stretch :]
            self._first += self._stretch
        return edges

    def _look(self, margin: int) -> list[Edge]:
        """Find the edges whose steepest difference lies in one stretch after the margin."""
        steps = np.diff(self._held[: 2 * margin + self._stretch + 1])
        size = np.abs(steps)
        inner = size[margin : margin + self._stretch]
        self._usual_height *= 1 - self._stretch / self._rate / FORGETS_S
        least = max(WEAKER * self._usual_height, 1e-6)
        if inner.max() < least:
            return []  # as nearly always: a median takes longer than all else here
        usual = float(np.median(size))
        least = max(least, STANDS_OUT * usual)
        found = []
        for at in (np.flatnonzero(inner >= least) + margin).tolist():
            near = size[at - margin : at + margin + 1]
            if size[at] < near.max() or (at and size[at] == size[at - 1]):
                continue
            found.append(self._edge(steps, at, usual))
            self._usual_height = max(self._usual_height, float(size[at]))
        return found

    def _edge(self, steps: Float64Array, at: int, usual: float) -> Edge:
        first = at - SPAN // 2
        spectrum = np.fft.rfft(steps[first : first + SPAN])[1 : len(self._frequency) + 1]
        # Turned to the steepest difference, so that the phase is small and does not wrap.
        turned = spectrum * np.exp(2j * np.pi * self._frequency * (SPAN // 2))
        rises = steps[at] > 0
        phase = np.unwrap(np.angle(turned if rises else -turned))
        weight = np.abs(spectrum) ** 2 * self._frequency
        shift = -float(weight @ phase) / (2 * np.pi * float(weight @ self._frequency))
        # A difference lies between its two samples.
        sigma = SIGMA_BY_NOISE * usual / float(abs(steps[at]))
        return Edge(self._first + at + shift + 0.5, sigma, bool(rises))

    @cached_property
    def _frequency(self) -> Float64Array:
        f = np.fft.rfftfreq(SPAN)
        return np.asarray(f[(f > 0) & (f < HIGHEST)])
