"""The one place that knows a TFLite runtime: int8 pictures in, four logits out.

`tflite-runtime` has wheels up to Python 3.11, its successor `ai-edge-litert` from 3.11 on; both
offer the same interpreter. Default delegates stay off: without XNNPACK the two give the same bits,
so that a verdict does not hang on which one pip could install.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.classify.sidecar import Sidecar
from node.errors import ModelError

RUNTIMES: Final = ("tflite_runtime", "ai_edge_litert")
_GOLDEN_COUNT: Final = 8


def runtime(name: str | None = None) -> ModuleType:
    """Import a TFLite interpreter: the named one, or the first of `RUNTIMES` that is installed."""
    for candidate in RUNTIMES if name is None else (name,):
        try:
            return importlib.import_module(f"{candidate}.interpreter")
        except ImportError:
            continue
    raise ModelError(
        f"no TFLite runtime ({' or '.join(RUNTIMES)}) is installed: install gunfire-node again "
        "with pip, which brings the right one for this Python"
    )


def golden_inputs(shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
    """Make the fixed inputs of the self-test, shape [n, frames, bands]: slanted stripes.

    Integers alone, so that no library's random numbers or rounding can change them.
    """
    frame, band = np.mgrid[0 : shape[1], 0 : shape[2]]
    stripes = [(frame * (3 + k) + band * (11 - k)) % 256 - 128 for k in range(_GOLDEN_COUNT)]
    return np.array(stripes, dtype=np.int8)


class Runner:
    """Runs one int8 network on one thread.

    Parameters
    ----------
    model
        The .tflite file.
    sidecar
        What the file must be: its hash, shapes and quantisation.
    runtime_name
        One of `RUNTIMES`; whichever is installed if None.

    Raises
    ------
    ModelError
        The file is not the one the sidecar describes, or no runtime can load it.
    """

    def __init__(self, model: Path, sidecar: Sidecar, runtime_name: str | None = None) -> None:
        try:
            content = model.read_bytes()
        except OSError as error:
            raise ModelError(
                f"model {model}: {error.strerror or error}; give another file as classify.model"
            ) from error
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 != sidecar.sha256:
            raise ModelError(
                f"model {model}: SHA-256 {sha256[:12]}… is not the {sidecar.sha256[:12]}… that "
                f"{model.with_suffix('.json').name} describes; copy both files of one release"
            )
        interpreter = runtime(runtime_name)
        try:
            # Given as bytes, so that the file may change or vanish while the node runs.
            self._network: Any = interpreter.Interpreter(
                model_content=content,
                num_threads=1,
                experimental_op_resolver_type=(
                    interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                ),
            )
            self._network.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ModelError(
                f"model {model}: no TFLite model that {interpreter.__name__} can run ({reason})"
            ) from error
        self._input = _check(model, "input", self._network.get_input_details(), sidecar)
        self._output = _check(model, "output", self._network.get_output_details(), sidecar)
        self._input_scale, self._input_zero = sidecar.input.scale, sidecar.input.zero_point
        self._output_scale, self._output_zero = sidecar.output.scale, sidecar.output.zero_point
        self._input_shape = sidecar.input.shape
        self._golden = np.array(sidecar.golden, dtype=np.int64)

    def quantise(self, pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
        """Round pictures in 0…1 to the network's int8."""
        steps = np.rint(pictures.astype(np.float64) / self._input_scale) + self._input_zero
        rounded: npt.NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
        return rounded

    def run(self, quantised: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Give the network's own int8 outputs.

        Parameters
        ----------
        quantised
            Shape [n, frames, bands].

        Returns
        -------
        Shape [n, classes].
        """
        outputs = np.empty((len(quantised), self._classes), dtype=np.int8)
        for row, picture in enumerate(quantised):
            self._network.set_tensor(self._input, picture.reshape(self._input_shape))
            self._network.invoke()
            outputs[row] = self._network.get_tensor(self._output)[0]
        return outputs

    def logits(self, pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Give the uncalibrated logits of pictures of shape [n, frames, bands]: [n, classes]."""
        outputs = self.run(self.quantise(pictures)).astype(np.float64)
        scaled: npt.NDArray[np.float64] = (outputs - self._output_zero) * self._output_scale
        return scaled

    def self_test(self) -> int:
        """Give the largest deviation, in steps of int8, from what the model's maker computed.

        0 on x86; other processors may round a step or two differently.
        """
        outputs = self.run(golden_inputs(self._input_shape)).astype(np.int64)
        return int(np.max(np.abs(outputs - self._golden)))

    @property
    def _classes(self) -> int:
        return int(self._network.get_output_details()[0]["shape"][-1])


def _check(model: Path, end: str, tensors: list[dict[str, Any]], sidecar: Sidecar) -> int:
    """Hold one end of the network against the sidecar; give its tensor's index."""
    wanted = sidecar.input if end == "input" else sidecar.output
    if len(tensors) != 1:
        raise ModelError(f"model {model}: has {len(tensors)} {end}s where one is wanted")
    found = tensors[0]
    shape = tuple(int(side) for side in found["shape"])
    if found["dtype"] is not np.int8 or shape != wanted.shape:
        raise ModelError(
            f"model {model}: {end} is {np.dtype(found['dtype']).name} {shape}, wanted int8 "
            f"{wanted.shape}; train it again with models/training of this release"
        )
    scale, zero_point = found["quantization"]
    if not np.isclose(scale, wanted.scale, rtol=1e-6) or zero_point != wanted.zero_point:
        raise ModelError(
            f"model {model}: {end} is quantised by ({scale}, {zero_point}), wanted "
            f"({wanted.scale}, {wanted.zero_point}); copy both files of one release"
        )
    return int(found["index"])
