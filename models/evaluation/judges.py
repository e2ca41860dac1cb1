"""Who judges a fold: its own network, as it ships and as it was before it was quantised."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.evaluation.networks import FloatRunner
from models.evaluation.recordings import Frames
from models.evaluation.table import OURS, as_row, log_names
from node.classify import TfliteClassifier, sidecar

Evidence = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judges:
    """Our networks of one fold, by the names of `table.OURS`; `float` may be absent."""

    networks: dict[str, TfliteClassifier]
    version: str

    @property
    def int8(self) -> TfliteClassifier:
        """Give the one that a node would run."""
        return self.networks["int8"]

    def stream(self, which: str, frames: Frames, rate_hz: int) -> dict[str, float]:
        """Judge a sound as `gunfire-node classify` does: columns named `which` + int8 and so on."""
        return self._each(which, lambda network: network.stream_evidence([frames], rate_hz)[0])

    def event(self, windows: list[Frames], rate_hz: int) -> dict[str, float]:
        """Judge an event as the node does."""
        return self._each("", lambda network: network.evidence(windows, rate_hz))

    def _each(
        self, which: str, evidence: Callable[[TfliteClassifier], Evidence]
    ) -> dict[str, float]:
        row: dict[str, float] = {}
        for name in OURS:
            if name in self.networks:
                row |= as_row(which + name, evidence(self.networks[name]))
            else:
                row |= dict.fromkeys(log_names(which + name), math.nan)
        return row


def load(model: Path) -> Judges:
    """Load a model with its sidecar, and its float twin `<stem>.float.tflite` where there is one.

    Raises
    ------
    ModelError
        The model or its sidecar is missing or not what it should be.
    """
    networks = {"int8": TfliteClassifier.load(model)}
    version = hashlib.sha256(model.read_bytes())
    twin = model.with_name(f"{model.stem}.float.tflite")
    if twin.exists():
        card = sidecar.read(model.with_suffix(".json"))
        networks["float"] = TfliteClassifier(FloatRunner(twin), card)  # type: ignore[arg-type]
        version.update(twin.read_bytes())
    return Judges(networks, version.hexdigest())
