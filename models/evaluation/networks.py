"""Networks other than the shipped one, through the same runtime: the peers', and our float one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from node.classify.runner import runtime

Floats = npt.NDArray[np.float32]


class Network:
    """A network of one float input and one float output, on one thread."""

    def __init__(self, model: Path) -> None:
        self._network: Any = runtime().Interpreter(model_path=str(model), num_threads=1)
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        self._output = self._network.get_output_details()[0]["index"]

    def __call__(self, values: Floats) -> Floats:
        """Run it once; the shape of `values` is the network's own."""
        self._network.set_tensor(self._input, values)
        self._network.invoke()
        answer: Floats = self._network.get_tensor(self._output)
        return answer


class FloatRunner:
    """Our network before it was quantised, in the place of `node.classify.runner.Runner`."""

    def __init__(self, model: Path) -> None:
        self._network = Network(model)

    def logits(self, pictures: Floats) -> npt.NDArray[np.float64]:
        """Give the logits of pictures of shape [n, frames, bands]: [n, classes]."""
        rows = [self._network(picture[None, :, :, None])[0] for picture in pictures]
        return np.array(rows, dtype=np.float64)


def windows(sound: Floats, size: int, step: int) -> Iterator[Floats]:
    """Cut one channel into windows, the last filled up with silence if it holds what none has."""
    starts = range(0, max(1, len(sound) - size + step), step)
    for start in starts:
        window = sound[start : start + size]
        yield np.pad(window, (0, size - len(window)))
