"""The first step of detection: samples in, short-time power in the trigger band out.

A high-pass takes away traffic rumble and wind, in which a distant shot drowns; its output is
squared and summed over bins of 0.5 ms. The trigger reads the bins, the onset picker the
high-passed samples.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from node import dsp

Samples = npt.NDArray[np.float32]
Power = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BIN_S: Final = 0.0005
HIGH_PASS_HZ: Final = 500.0  # docs/decisions/0005: best of 150, 300, 500, 1000 on live fire

# So many seconds of exact zeros are no sound but a redaction, a muted card or a dead channel. A
# quiet 16-bit recording crosses zero for a millisecond at most before its last bit moves.
DEAD_S: Final = 0.005

# What is filtered at once, counted from where the caller begins: his step, or a part of it. How
# sums are rounded would else hang on how many steps he had ready, and so on how blocks are cut.
STEP_S: Final = 0.1


def bin_frames(sample_rate_hz: int) -> int:
    """Give the frames in a bin."""
    return max(1, round(sample_rate_hz * BIN_S))


class HighPass:
    """A Butterworth high-pass of second order that knows no edges.

    It starts as if its first sample had stood for ever, and starts anew after a dead stretch, so
    that neither the start of a stream nor the edge of a redaction makes a click.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._cascade = dsp.Cascade(dsp.high_pass(HIGH_PASS_HZ, sample_rate_hz))
        self._state = self._cascade.silence(channels)
        self._step = round(STEP_S / BIN_S) * bin_frames(sample_rate_hz)
        self._dead = np.ones(channels, dtype=bool)
        self.dead_frames = max(2, round(sample_rate_hz * DEAD_S))

    def reset(self) -> None:
        """Forget all: the next sample begins a new stretch."""
        self._dead[:] = True

    def filter(self, x: Samples, ahead: Samples) -> tuple[Samples, Mask | None]:
        """Filter the next frames.

        Parameters
        ----------
        x
            The next frames, shape [n, channels].
        ahead
            The frames after them, shape [m, channels], m >= `dead_frames` unless the stretch
            ends: a run of zeros at the end of `x` is dead only if it goes on for long enough.

        Returns
        -------
        filtered, dead
            Filtered frames, and where a channel is dead (filtered to 0), both of shape
            [n, channels]; `dead` is None where nothing is, which is the common case.
        """
        sound = np.concatenate((x, ahead[: self.dead_frames]))
        # Each channel's samples stand together, as the onset picker reads them.
        y = np.zeros(x.shape, dtype=np.float32, order="F")
        dead: Mask | None = None
        for at in range(0, len(x), self._step):
            end = min(at + self._step, len(x))
            step, next_ones = sound[at:end], sound[end : end + self.dead_frames]
            if not self._dead.any() and not self._may_be_dead(step, next_ones):
                y[at:end], self._state = self._cascade.run(step, self._state)
                continue
            if dead is None:
                dead = np.zeros(x.shape, dtype=bool)
            for channel in range(x.shape[1]):
                self._filter_channel(channel, step, next_ones, y[at:end], dead[at:end])
        return y, dead if dead is not None and dead.any() else None

    def _may_be_dead(self, x: Samples, ahead: Samples) -> bool:
        """Look at a few frames of each `dead_frames`: a dead run shows in two neighbours."""
        step = self.dead_frames // 2
        sparse = np.concatenate((x, ahead))[::step] == 0
        return bool((sparse[1:] & sparse[:-1]).any())

    def _filter_channel(
        self, channel: int, x: Samples, ahead: Samples, y: Samples, dead: Mask
    ) -> None:
        n = len(x)
        zero = np.concatenate((x[:, channel], ahead[:, channel])) == 0
        edges = np.flatnonzero(np.diff(zero, prepend=False, append=False))
        at = 0
        for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            goes_on = start == 0 and self._dead[channel]
            if start >= n or (end - start < self.dead_frames and not goes_on):
                continue
            self._filter_run(channel, x, y, at, start)
            dead[start:end, channel] = True
            self._dead[channel] = True
            at = end
        self._filter_run(channel, x, y, at, n)

    def _filter_run(self, channel: int, x: Samples, y: Samples, start: int, end: int) -> None:
        if start >= end:
            return
        if self._dead[channel]:
            self._state[:, channel] = self._cascade.rest * x[start, channel]
            self._dead[channel] = False
        alone = slice(channel, channel + 1)
        y[start:end, alone], self._state[:, alone] = self._cascade.run(
            x[start:end, alone], self._state[:, alone]
        )


def bin_power(y: Samples, dead: Mask | None, frames: int) -> tuple[Power, Mask]:
    """Give the mean power per bin, and which bins are wholly alive.

    `y` and `dead` have shape [bins * frames, channels]; both answers have shape [bins, channels].
    """
    shape = (len(y) // frames, frames, y.shape[1])
    power = np.square(y, dtype=np.float64).reshape(shape).sum(axis=1) / frames
    if dead is None:
        return power, np.ones(power.shape, dtype=bool)
    return power, ~dead.reshape(shape).any(axis=1)
