"""Stage two begins: calibration and thresholds of each fold, from the predictions of the others.

Saved predictions come in; what a node would have in its model file goes out to `views`. Those of a
fold are fitted to what the other folds' networks said of what they had not learnt from, and are
then left alone: cross-conformal (Vovk, "Cross-conformal predictors", 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.evaluation.figures import Flags
from models.evaluation.run import Predictions
from models.evaluation.table import Table
from models.training.calibrate import freeze
from node.classify.sidecar import Calibration, Sidecar, Thresholds
from node.types import LABELS


@dataclass(frozen=True)
class Frozen:
    """What turns evidence into grades: for recordings, for events, and the cuts for both."""

    stream: Calibration
    event: Calibration
    thresholds: Thresholds


def of_card(card: Sidecar) -> Frozen:
    """Take what a model file carries."""
    return Frozen(card.stream_calibration, card.calibration, card.thresholds)


def of_folds(predictions: Predictions, which: str) -> dict[int, Frozen]:
    """Fit those of each fold to the predictions of all others."""
    frozen = {}
    for fold in np.unique(predictions.recordings["fold"]):
        fields = fitted(predictions, which, without=int(fold))
        frozen[int(fold)] = Frozen(
            Calibration.model_validate(fields["stream_calibration"]),
            Calibration.model_validate(fields["calibration"]),
            Thresholds.model_validate(fields["thresholds"]),
        )
    return frozen


def fitted(
    predictions: Predictions, which: str = "int8", without: int | None = None
) -> dict[str, Any]:
    """Give the fields of a sidecar, fitted to all predictions or to those of all folds but one.

    The shipped model's are fitted to all: each was made by a network that had not learnt from what
    it judged. Recordings of shots that nothing is left of are left out: their label says nothing
    of what is in them. The figures count them.
    """
    recordings, events = predictions.recordings, predictions.events
    files = recordings.where((recordings["fold"] != without) & is_audible(recordings))
    heard = events.where((events["fold"] != without) & (events["event"] > 0))
    return freeze(files.logs(which), _classes(files), heard.logs(which), _classes(heard))


def is_audible(recordings: Table) -> Flags:
    """Say which rows are not those of shots that nothing is left of at the sensor."""
    return np.asarray(recordings["audible"] == 1)


def _classes(table: Table) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([LABELS.index(label) for label in table["label"]], dtype=np.int64)
