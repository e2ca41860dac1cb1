"""From logits to a verdict: calibrated scores, label, abstention, grade.

The runner's logits come in; a `Judgement` goes out to the pipeline. Vector scaling (Guo et al.,
"On calibration of modern neural networks", ICML 2017, §4.2) needs eight numbers, which a few
held-out recordings can support; it weighs the classes against each other anew, so that the ranking
changes a little.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Final

import numpy as np
import numpy.typing as npt

from node.classify.sidecar import Calibration, Thresholds
from node.types import LABELS, Grade, Judgement, Label, Scores

CLEAR: Final = 0.5
"""Below this no class has more evidence than all others together: the node abstains."""

SHARPNESS: Final = 8.0
BEST: Final = 6
"""Windows of a recording that speak, wherever they lie; half a second of it if side by side."""

_OTHER: Final = LABELS.index("other")

NOTHING_HEARD: Final = np.where(np.arange(len(LABELS)) == _OTHER, 0.0, -1e5)
"""Log-evidence of digital silence."""


def probabilities(
    logits: npt.NDArray[np.float64], calibration: Calibration
) -> npt.NDArray[np.float64]:
    """Give calibrated class probabilities, shape as `logits` ([…, 4], in the order of `LABELS`)."""
    scaled = normed(logits) * np.asarray(calibration.scale) + np.asarray(calibration.bias)
    shares: npt.NDArray[np.float64] = np.exp(normed(scaled))
    return shares


def normed(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Give log-probabilities: logits less log Σ exp over the classes."""
    most = logits.max(axis=-1, keepdims=True)
    less: npt.NDArray[np.float64] = logits - most
    less -= np.log(np.exp(less).sum(-1, keepdims=True))
    return less


def best_heard(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pool the logits of windows that go over a recording: shape [n, 4] to log-evidence [4].

    The mean of the `BEST` windows with the least evidence for the street: the looks at one onset,
    or at several. One alone would be a maximum over hundreds, and a maximum finds whatever
    resembles a shot for 80 ms. A recording of fewer windows is heard by those that it has.
    """
    evidence = normed(logits)
    best = np.argsort(evidence[:, _OTHER], kind="stable")[:BEST]
    mean: npt.NDArray[np.float64] = evidence[best].mean(axis=0)
    return mean


def pooled(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Pool the logits of looks at the impulses of one event: shape [n, 4] to log-evidence [4].

    A mean, weighted by the chance that a look shows something other than the street, to the power
    `SHARPNESS`: nearly the best look, but two good looks that differ are averaged, so that one
    burst that resembles a shot does not speak for a whole display.
    """
    evidence = normed(logits)
    heard = np.maximum(1.0 - np.exp(evidence[:, _OTHER]), 1e-9)
    weights = (heard / heard.max()) ** SHARPNESS
    mean: npt.NDArray[np.float64] = weights @ evidence / weights.sum()
    return mean


def verdict(scores: Scores, thresholds: Thresholds) -> Judgement:
    """Say what the scores amount to.

    The label is the class with at least `CLEAR` of the evidence, else `other`; where no class has
    it, the node also says that it abstained. The grade comes from `scores.gunfire` alone, so that
    an operator's false-alarm budget means the same whatever the label.
    """
    by_label = dict(zip(LABELS, astuple(scores), strict=True))
    best: Label = max(LABELS, key=by_label.__getitem__)
    abstained = by_label[best] < CLEAR
    return Judgement(
        scores=scores,
        label="other" if abstained else best,
        abstained=abstained,
        grade=grade(scores.gunfire, thresholds),
    )


def grade(gunfire_score: float, thresholds: Thresholds) -> Grade:
    """Cut the gunfire score at the two thresholds that the model file carries."""
    if gunfire_score >= thresholds.gunfire:
        return "gunfire"
    if gunfire_score >= thresholds.probable:
        return "probable_gunfire"
    return "not_gunfire"


def as_scores(probability: npt.NDArray[np.float64]) -> Scores:
    """Make the value that is published from four probabilities."""
    gunfire, fireworks, backfire, other = (float(p) for p in probability)
    return Scores(gunfire=gunfire, fireworks=fireworks, backfire=backfire, other=other)
