"""The Raspberry Pi gunshot networks of Morehead et al. (2019) beside us: a majority of three.

Low cost gunshot detection using deep learning on the Raspberry Pi, IEEE Big Data 2019. Their code
gives the pictures: power mel spectra of 2 s at 22.05 kHz, which it takes for 44.1 kHz in training
and on the device alike, so that it is kept here.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from models.evaluation.networks import Network, windows

RATE_HZ: Final = 22_050
_FRAME: Final = 2 * RATE_HZ
_STATED_HZ: Final = 44_100
_LOW_HZ: Final = 20.0
_MELS: Final = 128
_FFT: Final = 2560
_HOPS: Final = {"128_x_64_2D.tflite": 690, "128_x_128_2D.tflite": 345}
_RAW: Final = "1D.tflite"
_TOP_DB: Final = 80.0


class Morehead:
    """Scores a sound as the three networks would together."""

    rate_hz: Final = RATE_HZ

    def __init__(self, folder: Path) -> None:
        self._raw = Network(folder / _RAW)
        self._drawn = {hop: Network(folder / name) for name, hop in _HOPS.items()}

    def gunfire(self, sound: npt.NDArray[np.float32]) -> float:
        """Give the highest median of the three in any half-overlapping window of 2 s.

        A median of three is at or above a cut where two of them are: their majority, at any cut.
        """
        return max(self._median(frame) for frame in windows(sound, _FRAME, _FRAME // 2))

    def _median(self, frame: npt.NDArray[np.float32]) -> float:
        votes = [self._raw(frame[None, :, None])[0, 1]]
        for hop, network in self._drawn.items():
            votes.append(network(mel_db(frame, hop)[None, :, :, None])[0, 1])
        return float(np.median(votes))


def mel_db(frame: npt.NDArray[np.float32], hop: int) -> npt.NDArray[np.float32]:
    """Draw a picture as librosa's `melspectrogram` and `power_to_db` would, [_MELS, frames]."""
    padded = np.pad(frame.astype(np.float64), _FFT // 2, mode="reflect")
    cuts = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)
    power = np.abs(np.fft.rfft(cuts * hann, axis=1)) ** 2
    level_db = 10 * np.log10(np.maximum(1e-10, _bank() @ power.T))
    drawn: npt.NDArray[np.float32] = np.maximum(level_db, level_db.max() - _TOP_DB).astype(
        np.float32
    )
    return drawn


@lru_cache(maxsize=1)
def _bank() -> npt.NDArray[np.float64]:
    """Triangles of equal area on Slaney's scale (Auditory Toolbox, 1998), [_MELS, FFT / 2 + 1]."""
    edges = np.linspace(_mel(_LOW_HZ), _mel(_STATED_HZ / 2), _MELS + 2)
    hertz = np.where(edges < 15, edges * 200 / 3, 1000 * np.exp((edges - 15) * np.log(6.4) / 27))
    bins = np.fft.rfftfreq(_FFT, 1 / _STATED_HZ)
    rise = (bins - hertz[:-2, None]) / np.diff(hertz)[:-1, None]
    fall = (hertz[2:, None] - bins) / np.diff(hertz)[1:, None]
    bank = np.maximum(0.0, np.minimum(rise, fall))
    scaled: npt.NDArray[np.float64] = bank * (2.0 / (hertz[2:] - hertz[:-2]))[:, None]
    return scaled


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)
