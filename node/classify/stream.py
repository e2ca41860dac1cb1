"""Pictures of everything: a recording of any length cut into overlapping windows.

Blocks of samples come in, the pictures of successive windows go out to the classifier; no more
than one segment is ever held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from node.classify import features

STEP_FRAMES: Final = 10
"""Frames from window to window, 80 ms: each onset is seen at three places that training drew."""
SEGMENT_S: Final = 8
"""Seconds cut at once: a whole number, so that it is a whole number of frames at every rate."""
LEAD_S: Final = 0.25
"""Silence put before the first sample: recordings are often cut right at the shot."""
MOST_CHANNELS: Final = 8

_SEGMENT_FRAMES: Final = SEGMENT_S * features.RATE_HZ // features.HOP
_OVERLAP_S: Final = features.WINDOW / features.RATE_HZ + 0.05


class Windows:
    """Cuts one recording into windows; `seconds` says how long it turned out to be."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate_hz = sample_rate_hz
        self._frames_seen = 0

    @property
    def seconds(self) -> float:
        """Length of what has been cut so far, in s."""
        return self._frames_seen / self._rate_hz

    def over(
        self, blocks: Iterable[features.Sound]
    ) -> Iterator[list[npt.NDArray[np.float32] | None]]:
        """Yield the pictures of successive windows, a segment at a time.

        None stands for a window of digital silence. How the recording is cut into blocks makes no
        difference.
        """
        for segment in self._segments(blocks):
            sound = features.resample(features.pick_channel(segment), self._rate_hz)
            lacking = features.WINDOW - len(sound)
            if lacking > 0:
                sound = np.pad(sound, (0, lacking))
            power = features.mel_power(sound)
            last = min(len(power) - features.FRAMES, _SEGMENT_FRAMES - 1)
            yield [
                features.picture(power[start : start + features.FRAMES])
                for start in range(0, last + 1, STEP_FRAMES)
            ]

    def _segments(self, blocks: Iterable[features.Sound]) -> Iterator[npt.NDArray[np.float32]]:
        """Cut blocks into segments of `SEGMENT_S` that overlap by a window."""
        step = SEGMENT_S * self._rate_hz
        size = step + int(np.ceil(_OVERLAP_S * self._rate_hz))
        held: list[npt.NDArray[np.float32]] = []
        for block in blocks:
            frames = np.asarray(block, dtype=np.float32)
            frames = frames[:, None] if frames.ndim == 1 else frames[:, :MOST_CHANNELS]
            if len(frames) == 0:
                continue
            if not held:
                held.append(self._silence(frames.shape[1]))
            self._frames_seen += len(frames)
            held.append(frames)
            while sum(map(len, held)) >= size:
                segment = np.concatenate(held)
                yield segment[:size]
                held = [segment[step:]]
        if held:
            # Sound right at the end gets a window that begins before it.
            yield np.concatenate([*held, self._silence(held[0].shape[1])])

    def _silence(self, channels: int) -> npt.NDArray[np.float32]:
        return np.zeros((round(LEAD_S * self._rate_hz), channels), dtype=np.float32)
