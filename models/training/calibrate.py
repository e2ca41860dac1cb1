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
from node.classify.calibration import normed, probabilities
from node.classify.runner import golden_inputs, runtime
from node.classify.sidecar import FORMAT, Calibration
from node.types import LABELS

FALSE_ALARMS: Final = {"gunfire": 0.006, "probable": 0.04}
"""Share of city sounds, fireworks among them, that each threshold may let through.

Below the 1 % and 5 % that are promised: what is held out has other sounds than what the thresholds
are taken from.
"""
FIREWORKS: Final = 0.015
"""Share of events in firework recordings that may be called gunfire: half of what is promised."""
_DEEPEST: Final = -30.0
_PRIOR: Final = 0.02
_GUNFIRE: Final = LABELS.index("gunfire")
_FIREWORKS: Final = LABELS.index("fireworks")
_IDENTITY: Final = {"scale": (1.0,) * 4, "bias": (0.0,) * 4}

Rows = npt.NDArray[np.float64]


def freeze(
    files: Rows,
    file_labels: npt.NDArray[np.int64],
    events: Rows,
    event_labels: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Fit calibration and thresholds to what was said of recordings that were not learnt from.

    Parameters
    ----------
    files
        Log-evidence of recordings, from `TfliteClassifier.stream_evidence`, shape [n, 4].
    file_labels
        What they are, as indices of `LABELS`, shape [n].
    events, event_labels
        The same of events, from `TfliteClassifier.evidence`.

    Returns
    -------
    The fields `calibration`, `stream_calibration` and `thresholds` of a sidecar. One pair of
    thresholds serves both ways: the prior of the node's way is set so that no larger a share of
    city events is above the lower one than of city recordings, and no more than `FIREWORKS` of the
    bursts above the upper one; the ranking of events stays as it is.
    """
    stream = fit_scaling(files, file_labels)
    city = gunfire_scores(files, stream)[file_labels != _GUNFIRE]
    thresholds = {
        grade: float(np.clip(np.quantile(city, 1 - rate), 0.01, 0.99))
        for grade, rate in FALSE_ALARMS.items()
    }
    node = fit_scaling(events, event_labels)
    scores = gunfire_scores(events, node)
    prior = _shift(
        scores[event_labels != _GUNFIRE], FALSE_ALARMS["probable"], thresholds["probable"]
    )
    bursts = scores[event_labels == _FIREWORKS]
    if len(bursts):
        prior = min(prior, _shift(bursts, FIREWORKS, thresholds["gunfire"]))
    node["bias"][_GUNFIRE] = round(node["bias"][_GUNFIRE] + prior, 4)
    return {"calibration": node, "stream_calibration": stream, "thresholds": thresholds}


def gunfire_scores(logs: Rows, scaling: dict[str, list[float]]) -> Rows:
    """Give the calibrated scores of gunfire of log-evidence of shape [n, 4]: shape [n]."""
    return probabilities(logs, Calibration.model_validate(scaling))[:, _GUNFIRE]


def install(model: Path, frozen: dict[str, Any], provenance: dict[str, Any]) -> None:
    """Put what `freeze` gave into a model's .json, with a note of what it was fitted to."""
    described = json.loads(model.with_suffix(".json").read_text())
    described["training"]["calibration"] = provenance
    _write(model, described | frozen)


def fit_scaling(logs: Rows, labels: npt.NDArray[np.int64]) -> dict[str, list[float]]:
    """Fit vector scaling of log-probabilities, shape [n, 4], to labels, shape [n]."""
    seen = np.maximum(logs, _DEEPEST)

    def cost(parameters: Rows) -> float:
        scaled = normed(seen * np.exp(parameters[:4]) + parameters[4:])
        missed = -scaled[np.arange(len(labels)), labels]
        return float(missed.mean() + _PRIOR * np.mean(parameters**2))

    found = minimize(cost, np.zeros(8), method="BFGS").x
    return {
        "scale": [round(float(v), 4) for v in np.exp(found[:4])],
        "bias": [round(float(v), 4) for v in found[4:]],
    }


def _shift(scores: Rows, share: float, cut: float) -> float:
    """Give what to add to the log-odds of scores, so that this share of them is above a cut."""
    return _log_odds(cut) - _log_odds(float(np.quantile(scores, 1 - share)))


def _log_odds(probability: float) -> float:
    held = float(np.clip(probability, 1e-6, 1 - 1e-6))
    return float(np.log(held / (1 - held)))


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
