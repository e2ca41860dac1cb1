"""YAMNet (Google, Apache-2.0) beside us, as its users run it: the best of its 0.975 s frames."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from models.evaluation.networks import Network, windows

RATE_HZ: Final = 16_000
_FRAME: Final = 15_600
_GUNS: Final = slice(421, 426)
"""Gunshot, machine gun, fusillade, artillery fire, cap gun in yamnet_class_map.csv."""


class Yamnet:
    """Scores a sound as YAMNet would."""

    rate_hz: Final = RATE_HZ

    def __init__(self, model: Path) -> None:
        self._network = Network(model)

    def gunfire(self, sound: npt.NDArray[np.float32]) -> float:
        """Give the highest score of any gun class in any half-overlapping frame."""
        frames = windows(sound, _FRAME, _FRAME // 2)
        return max(float(self._network(frame)[0, _GUNS].max()) for frame in frames)
