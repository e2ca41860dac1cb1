"""YAMNet (Google, Apache-2.0) beside us, as its users run it: the best of its 0.975 s frames."""

from __future__ import annotations

from math import gcd
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from node.classify.features import pick_channel
from node.classify.runner import runtime

RATE_HZ: Final = 16_000
FRAME: Final = 15_600
GUNS: Final = slice(421, 426)
"""Gunshot, machine gun, fusillade, artillery fire, cap gun in yamnet_class_map.csv."""


class Yamnet:
    """Scores a sound as YAMNet would."""

    def __init__(self, model: Path) -> None:
        self._network: Any = runtime().Interpreter(model_path=str(model), num_threads=1)
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        self._output = self._network.get_output_details()[0]["index"]

    def gunfire(self, frames: npt.NDArray[np.float32], rate_hz: int) -> float:
        """Give the highest score of any gun class in any half-overlapping frame."""
        common = gcd(RATE_HZ, rate_hz)
        sound = resample_poly(pick_channel(frames), RATE_HZ // common, rate_hz // common)
        sound = np.pad(sound, (0, max(0, FRAME - len(sound)))).astype(np.float32)
        best = 0.0
        for start in range(0, len(sound) - FRAME + 1, FRAME // 2):
            self._network.set_tensor(self._input, sound[start : start + FRAME])
            self._network.invoke()
            best = max(best, float(self._network.get_tensor(self._output)[0, GUNS].max()))
        return best
