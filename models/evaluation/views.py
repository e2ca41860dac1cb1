"""How each judge sees the same tables: ours as it ships, our float network, each peer.

Predictions and frozen thresholds come in; views go out to `measures`, which asks all judges alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.evaluation.figures import Flags, Floats, Names, threshold_at
from models.evaluation.frozen import Frozen
from models.evaluation.predictions import LOW
from models.evaluation.run import Predictions
from models.evaluation.table import Table
from node.classify.calibration import as_scores, normed, probabilities, verdict
from node.classify.sidecar import Calibration
from node.types import Judgement


@dataclass(frozen=True)
class Judged:
    """What was said of the rows of one table, row by row."""

    table: Table
    called: Flags
    probable: Flags
    rank: Floats
    labels: Names
    abstained: Flags
    gunfire: Floats

    def where(self, mask: Flags) -> Judged:
        """Give the rows for which the mask holds."""
        parts = (self.called, self.probable, self.rank, self.labels, self.abstained, self.gunfire)
        return Judged(self.table.where(mask), *(part[mask] for part in parts))

    def by_recording(self) -> Judged:
        """Give a row a recording: it is called gunfire if one of its pieces is."""
        _, first, index = np.unique(self.table["path"], return_index=True, return_inverse=True)
        whole = self.where(np.isin(np.arange(len(self.table)), first))
        # np.unique sorts by name; `where` keeps the order of rows.
        order = np.argsort(np.argsort(first))
        most: dict[str, Floats] = {}
        for name in ("called", "probable", "rank", "gunfire"):
            values = np.full(len(first), -np.inf)
            np.fmax.at(values, order[index], getattr(self, name))
            most[name] = values
        return Judged(
            whole.table,
            most["called"] > 0,
            most["probable"] > 0,
            most["rank"],
            whole.labels,
            whole.abstained,
            most["gunfire"],
        )


@dataclass(frozen=True)
class View:
    """One judge's view of pieces, their band-limited copies, events and simulated backfires."""

    name: str
    pieces: Judged
    low: Judged
    backfires: Judged
    events: Judged | None = None


def of_ours(predictions: Predictions, which: str, frozen: Mapping[int, Frozen]) -> View:
    """See through one of our networks, with each fold's own calibration and thresholds."""
    stream = {fold: f.stream for fold, f in frozen.items()}
    heard = predictions.events.where(predictions.events["event"] > 0)
    return View(
        which,
        _judged(predictions.recordings, which, stream, frozen),
        _judged(_copies(predictions.recordings), LOW + which, stream, frozen),
        _judged(predictions.backfires, which, stream, frozen),
        _judged(heard, which, {fold: f.event for fold, f in frozen.items()}, frozen),
    )


def of_peer(predictions: Predictions, peer: str, false_alarms: float) -> View:
    """See through a peer, its threshold set on these very city sounds: the best it can do."""
    pieces = predictions.recordings
    scores = pieces[peer]
    city = scores[(pieces["label"] != "gunfire") & ~np.isnan(scores)]
    cut = threshold_at(city, false_alarms) if len(city) else float("nan")
    low = _copies(pieces)
    return View(
        peer,
        _scored(pieces, scores, cut),
        _scored(low, low[LOW + peer], cut),
        _scored(predictions.backfires, predictions.backfires[peer], cut),
    )


def _copies(pieces: Table) -> Table:
    """Give the rows of which there is a band-limited copy."""
    return pieces.where((pieces["live"] == 1) | (pieces["label"] == "fireworks"))


def _scored(table: Table, scores: Floats, cut: float) -> Judged:
    called = scores >= cut
    told = np.where(called, "gunfire", "other")
    return Judged(table, called, called, scores, told, np.zeros(len(scores), bool), scores)


def _judged(
    table: Table,
    which: str,
    calibrations: Mapping[int, Calibration],
    frozen: Mapping[int, Frozen],
) -> Judged:
    """Judge rows as a node would, each by what its fold froze."""
    size = len(table)
    gunfire, rank = np.full(size, np.nan), np.full(size, np.nan)
    said: list[Judgement | None] = [None] * size
    logs = table.logs(which)
    for fold, calibration in calibrations.items():
        rows = np.flatnonzero((table["fold"] == fold) & ~np.isnan(logs).any(axis=1))
        scores = probabilities(logs[rows], calibration)
        scaled = normed(logs[rows]) * np.array(calibration.scale) + np.array(calibration.bias)
        gunfire[rows] = scores[:, 0]
        # Odds tell scores apart that a float rounds to 1.
        rank[rows] = scaled[:, 0] - np.logaddexp.reduce(scaled[:, 1:], axis=1)
        for row, score in zip(rows, scores, strict=True):
            said[row] = verdict(as_scores(score), frozen[fold].thresholds)
    grades = np.array(["" if s is None else s.grade for s in said], dtype=np.str_)
    return Judged(
        table,
        called=grades == "gunfire",
        probable=np.isin(grades, ("gunfire", "probable_gunfire")),
        rank=rank,
        labels=np.array(["" if s is None else s.label for s in said], dtype=np.str_),
        abstained=np.array([s is not None and s.abstained for s in said], dtype=np.bool_),
        gunfire=gunfire,
    )
