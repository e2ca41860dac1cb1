"""From a fresh .tflite to one that a node may believe: calibration, thresholds, the sidecar.

Each recording is judged by the fold model that did not learn from it (`models.evaluation`); what
is fitted here is fitted to those verdicts, and frozen into the model that learnt from everything
(cross-conformal: Vovk, "Cross-conformal predictors", 2015). Eight numbers per path are fitted by
maximum likelihood with a weak prior towards doing nothing, since a class with next to no
recordings (there are no open backfires) must keep its raw odds.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from node.classify import features
from node.classify.runner import golden_inputs, runtime
from node.classify.sidecar import FORMAT
from node.types import LABELS

FALSE_ALARMS: Final = {"gunfire": 0.01, "probable": 0.05}
_PRIOR: Final = 0.02
_IDENTITY: Final = {"scale": (1.0,) * 4, "bias": (0.0,) * 4}

Rows = npt.NDArray[np.float64]


def fit_scaling(
    logs: Rows, labels: npt.NDArray[np.int64], weights: Rows | None = None
) -> dict[str, list[float]]:
    """Fit vector scaling of log-probabilities, shape [n, 4], to labels, shape [n]."""
    share = np.full(len(labels), 1 / len(labels)) if weights is None else weights / weights.sum()

    def cost(parameters: Rows) -> float:
        scaled = logs * np.exp(parameters[:4]) + parameters[4:]
        most = scaled.max(axis=1)
        norm = most + np.log(np.exp(scaled - most[:, None]).sum(axis=1))
        missed = norm - scaled[np.arange(len(labels)), labels]
        return float(share @ missed + _PRIOR * np.mean(parameters**2))

    found = minimize(cost, np.zeros(8), method="BFGS").x
    return {
        "scale": [round(float(v), 4) for v in np.exp(found[:4])],
        "bias": [round(float(v), 4) for v in found[4:]],
    }


def describe(model: Path, version: str, training: dict[str, Any]) -> None:
    """Write the .json of a fresh model: what it is, with no calibration yet."""
    content = model.read_bytes()
    interpreter = runtime()
    # Without delegates, as the node's own runner does: with them the bits differ.
    network = interpreter.Interpreter(
        model_content=content,
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    network.allocate_tensors()
    ends = {
        end: {
            "shape": [int(n) for n in tensor["shape"]],
            "scale": float(tensor["quantization"][0]),
            "zero_point": int(tensor["quantization"][1]),
        }
        for end, tensor in (
            ("input", network.get_input_details()[0]),
            ("output", network.get_output_details()[0]),
        )
    }
    golden = []
    for stripes in golden_inputs((1, features.FRAMES, features.BANDS, 1)):
        network.set_tensor(network.get_input_details()[0]["index"], stripes[None, :, :, None])
        network.invoke()
        outputs = network.get_tensor(network.get_output_details()[0]["index"])[0]
        golden.append([int(step) for step in outputs])
    _write(
        model,
        {
            "format": FORMAT,
            "name": "gunfire-cnn",
            "version": version,
            "sha256": hashlib.sha256(content).hexdigest(),
            "labels": list(LABELS),
            "features": features.describe(),
            **ends,
            "calibration": _IDENTITY,
            "stream_calibration": _IDENTITY,
            "thresholds": {"gunfire": 0.5, "probable": 0.5},
            "golden": golden,
            "training": training,
        },
    )


def _write(model: Path, described: dict[str, Any]) -> None:
    model.with_suffix(".json").write_text(json.dumps(described, indent=1) + "\n")
