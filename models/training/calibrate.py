"""From a fresh .tflite to one that a node may believe: calibration, thresholds, the sidecar.

All of it from the `calibrate` part, through the very code that the node runs. Eight numbers per
path are fitted by maximum likelihood with a weak prior towards doing nothing, since a class that
the part lacks (there are no open backfires) must keep its raw odds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.progress import track
from scipy.optimize import minimize

from models.training import corpus, moments, splits
from models.training.surroundings import surround
from node.classify import TfliteClassifier, features
from node.classify.runner import golden_inputs, runtime
from node.classify.sidecar import FORMAT
from node.types import LABELS, Scores

FALSE_ALARMS: Final = {"gunfire": 0.01, "probable": 0.05}
PIECE_S: Final = 10.0
"""Long recordings are judged in pieces, so that a display is many city sounds and not one."""
_SIMULATED: Final = 40
_PRIOR: Final = 0.02
_IDENTITY: Final = {"scale": (1.0,) * 4, "bias": (0.0,) * 4}

Rows = npt.NDArray[np.float64]


def finish(model: Path, clips: list[corpus.Clip], version: str, training: dict[str, Any]) -> None:
    """Calibrate a model on its held-out part and write the .json beside it."""
    described = _describe(model, version, training, clips)
    _write(model, described)
    raw = TfliteClassifier.load(model)
    event_logs, event_labels = _rows(_events(clips, raw))
    described["calibration"] = fit_scaling(event_logs, event_labels)
    logs, labels = _rows(_files(clips, raw))
    described["stream_calibration"] = fit_scaling(logs, labels)
    _write(model, described)
    calibrated = TfliteClassifier.load(model)
    logs, labels = _rows(_files(clips, calibrated))
    described["thresholds"] = {
        grade: float(np.clip(_city_quantile(logs, labels, rate), 0.01, 0.99))
        for grade, rate in FALSE_ALARMS.items()
    }
    # One pair of thresholds serves both ways. The prior of the node's way is set so that as many
    # city events are above the lower one as city recordings; the ranking stays as it is.
    logs, labels = _rows(_events(clips, calibrated))
    events = _city_quantile(logs, labels, FALSE_ALARMS["probable"])
    prior = _log_odds(described["thresholds"]["probable"]) - _log_odds(events)
    described["calibration"]["bias"][0] = round(described["calibration"]["bias"][0] + prior, 4)
    _write(model, described)


def _city_quantile(logs: Rows, labels: npt.NDArray[np.int64], rate: float) -> float:
    """Give the score of gunfire that a share of city sounds is above."""
    return float(np.quantile(np.exp(logs[labels != 0, 0]), 1 - rate))


def _log_odds(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def fit_scaling(logs: Rows, labels: npt.NDArray[np.int64]) -> dict[str, list[float]]:
    """Fit vector scaling of log-probabilities, shape [n, 4], to labels, shape [n]."""

    def cost(parameters: Rows) -> float:
        scaled = logs * np.exp(parameters[:4]) + parameters[4:]
        most = scaled.max(axis=1)
        norm = most + np.log(np.exp(scaled - most[:, None]).sum(axis=1))
        missed = norm - scaled[np.arange(len(labels)), labels]
        return float(missed.mean() + _PRIOR * np.mean(parameters**2))

    found = minimize(cost, np.zeros(8), method="BFGS").x
    return {
        "scale": [round(float(v), 4) for v in np.exp(found[:4])],
        "bias": [round(float(v), 4) for v in found[4:]],
    }


def pieces(sound: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
    """Cut a recording at the internal rate into pieces of `PIECE_S`; a short rest joins in."""
    size = round(PIECE_S * features.RATE_HZ)
    cuts = list(range(0, max(1, len(sound) - size // 2), size))
    return [sound[a : b if b else None] for a, b in zip(cuts, [*cuts[1:], 0], strict=True)]


def _rows(judged: Iterator[tuple[Scores, int]]) -> tuple[Rows, npt.NDArray[np.int64]]:
    scores, labels = zip(*judged, strict=True)
    table = np.array([[getattr(s, label) for label in LABELS] for s in scores])
    return np.log(np.maximum(table, 1e-9)), np.array(labels)


def _files(clips: list[corpus.Clip], classifier: TfliteClassifier) -> Iterator[tuple[Scores, int]]:
    mine = [c for c in clips if c.part == "calibrate" and c.label in LABELS]
    for clip in track(mine, "calibration, recordings"):
        for piece in pieces(corpus.load(clip.path)):
            judged = classifier.classify_stream([piece], features.RATE_HZ)
            yield judged.judgement.scores, LABELS.index(clip.label)


def _events(
    clips: list[corpus.Clip], classifier: TfliteClassifier, most_per_group: int = 40
) -> Iterator[tuple[Scores, int]]:
    """Judge moments as the trigger would hand them on: recordings as they are, and simulations.

    What is simulated is carried through surroundings; what was recorded had its own.
    """
    draw = np.random.default_rng(0)
    found = moments.gather(clips, "calibrate")
    spans = []
    for label in LABELS:
        for group in found.by_label[label].values():
            few = draw.permutation(len(group))[:most_per_group]
            spans += [(label, found.dry(group[int(i)], draw)) for i in few]
        for _ in range(_SIMULATED):
            dry = moments.simulated(label, draw)
            street = found.background(draw)
            spans.append((label, surround(dry, moments.LEAD, street, draw, recorded=False)))
    before, after = classifier.window(features.RATE_HZ)
    for label, sound in track(spans, "calibration, events"):
        window = sound[moments.LEAD - before : moments.LEAD + after, None].astype(np.float32)
        yield classifier.judge([window], features.RATE_HZ).scores, LABELS.index(label)


def _describe(
    model: Path, version: str, training: dict[str, Any], clips: list[corpus.Clip]
) -> dict[str, Any]:
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
    groups = sorted({clip.group for clip in clips if clip.label in LABELS})
    return {
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
        "training": {
            **training,
            "groups": {
                part: [group for group in groups if splits.part_of(group) == part]
                for part in ("train", "calibrate", "test")
            },
        },
    }


def _write(model: Path, described: dict[str, Any]) -> None:
    model.with_suffix(".json").write_text(json.dumps(described, indent=1) + "\n")
