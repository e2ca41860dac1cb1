"""The table that the model is held to: claims with bars, worked out of saved predictions.

Predictions and frozen thresholds come in; claims go out to `tests.evidence`, views to `details`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.evaluation import frozen, measures, views
from models.evaluation.figures import Figure, poisson_upper, share
from models.evaluation.frozen import Frozen
from models.evaluation.measures import Measure
from models.evaluation.peers import NAMES, PEERS
from models.evaluation.run import Predictions
from models.evaluation.views import View
from tests.evidence import Claim

BUDGET: Final = 0.01
"""Share of city sounds that may be called gunfire where recall counts for anything."""
QUANTISED: Final = 0.5
"""Points by which int8 may be worse than float, on any row."""


@dataclass(frozen=True)
class Judges:
    """Every judge's view of the same predictions; those that were not there are left out."""

    ours: View
    float_: View | None
    peers: Mapping[str, View]
    frozen: Mapping[int, Frozen]


def judges(predictions: Predictions, ours: Mapping[int, Frozen] | None = None) -> Judges:
    """Let every judge see the predictions.

    Parameters
    ----------
    ours
        Calibration and thresholds by fold, as a model file carries them; fitted to the other
        folds' predictions where None, for the float network too.
    """
    recordings = predictions.recordings
    cuts = frozen.of_folds(predictions, "int8") if ours is None else ours
    view = views.of_ours(predictions, "int8", cuts)
    float_ = None
    if not np.isnan(recordings.logs("float")).any():
        own = frozen.of_folds(predictions, "float") if ours is None else ours
        float_ = views.of_ours(predictions, "float", own)
    rate = measures.city(view).value
    rate = BUDGET if math.isnan(rate) else max(BUDGET, rate)
    there = [peer for peer in PEERS if not np.isnan(recordings[peer]).all()]
    return Judges(
        view, float_, {peer: views.of_peer(predictions, peer, rate) for peer in there}, cuts
    )


def table(predictions: Predictions, seen: Judges) -> list[Claim]:
    """Work out all claims that need no clock and no model file."""
    ours = {measure.key: measure.of(seen.ours) for measure in measures.EVERY}
    city = ours["city"].value
    claims = []
    for measure in measures.EVERY:
        claim = _claim(measure, ours[measure.key])
        if measure in measures.RECALL and measure.bar is not None and not city <= BUDGET:
            # Recall bought by more false alarms than allowed is none.
            claim = Claim(**{**vars(claim), "holds": False})
        claims.append(claim)
    claims += _probable(seen.ours)
    claims += _through_pipeline(predictions, seen.ours)
    claims += _background(predictions, seen.ours)
    claims += _recorded_backfires(seen.ours)
    claims += _unseen(seen.ours)
    claims += _beaten(ours, seen.peers)
    if seen.float_ is not None:
        claims.append(_quantised(ours, seen.float_))
    return [claim for claim in claims if not math.isnan(claim.value)]


def lacking(told: Sequence[Claim]) -> list[str]:
    """Name the rows that the recordings could not carry."""
    there = {claim.claim for claim in told}
    return [measure.claim for measure in measures.EVERY if measure.claim not in there]


def _claim(measure: Measure, figure: Figure) -> Claim:
    return Claim(
        claim=measure.claim,
        value=figure.value,
        unit=measure.unit(figure),
        bar=measure.bar_text,
        holds=measure.holds(figure.value),
        interval=figure.interval,
    )


def _probable(ours: View) -> list[Claim]:
    pieces = ours.pieces
    rows = {
        "live fire graded gunfire or probable gunfire": measures.is_live_fire(pieces.table),
        "city sounds graded gunfire or probable gunfire": pieces.table["label"] != "gunfire",
    }
    claims = []
    for claim, mask in rows.items():
        figure = measures.called(pieces, mask, "probable")
        unit = f"share of {figure.cases} pieces"
        claims.append(Claim(claim, figure.value, unit, interval=figure.interval))
    return claims


def _through_pipeline(predictions: Predictions, ours: View) -> list[Claim]:
    """Count the recordings of shots in which the whole pipeline found one and called it so."""
    events, judged = predictions.events, ours.events
    streams = events.where((events["event"] == 0) & (events["what"] == "gunfire"))
    if judged is None or len(streams) == 0:
        return []
    shots = judged.called & (judged.table["what"] == "gunfire")
    heard = np.isin(streams["path"], judged.table["path"][shots])
    claims = []
    live = np.isin(
        streams["path"], predictions.recordings["path"][predictions.recordings["live"] == 1]
    )
    for name, mask in (("live fire", live), ("close range", ~live)):
        figure = share(heard[mask], streams["group"][mask])
        unit = f"share of {figure.cases} recordings"
        claim = f"{name} through the whole pipeline, an event at a shot called gunfire"
        claims.append(Claim(claim, figure.value, unit, interval=figure.interval))
    return claims


def _background(predictions: Predictions, ours: View) -> list[Claim]:
    """Count what the whole pipeline called gunfire where nothing was fired."""
    events, judged = predictions.events, ours.events
    streams = events.where((events["event"] == 0) & (events["what"] == "background"))
    if judged is None or len(streams) == 0:
        return []
    hours = float(streams["seconds"].sum()) / 3600
    mine = judged.table["what"] == "background"
    false = int(judged.called[mine].sum())
    told = f"of {int(mine.sum())} events in {hours:.2f} h"
    return [
        Claim("background through the pipeline, called gunfire", false, told, "= 0", false == 0),
        Claim(
            "background through the pipeline, false alarms, 95 % upper bound (Poisson)",
            poisson_upper(false, hours),
            "1/h",
        ),
    ]


def _recorded_backfires(ours: View) -> list[Claim]:
    mine = ours.pieces.where(ours.pieces.table["label"] == "backfire")
    if len(mine.table) == 0:
        return []
    unit = f"of {len(mine.table)} pieces"
    return [Claim("recorded backfires called gunfire", int(mine.called.sum()), unit)]


def _unseen(ours: View) -> list[Claim]:
    """Say what was made of whole kinds of sound that the fold's network never heard."""
    mask = kinds_held_out(ours)
    if not mask.any():
        return []
    kinds = len(np.unique(ours.pieces.table["sound"][mask]))
    claims = []
    for what, grade in (("called gunfire", "called"), ("abstained on", "abstained")):
        figure = measures.called(ours.pieces, mask, grade)
        unit = f"share of {figure.cases} pieces of {kinds} kinds"
        claim = f"kinds of sound never heard in training, {what}"
        claims.append(Claim(claim, figure.value, unit, interval=figure.interval))
    return claims


def kinds_held_out(ours: View) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Give the rows of those kinds of other sounds that lie in one fold alone."""
    table = ours.pieces.table
    other = table["label"] == "other"
    if len(np.unique(table["fold"])) < 2:
        return np.zeros(len(table), dtype=bool)
    alone = [
        sound
        for sound in np.unique(table["sound"][other])
        if len(np.unique(table["fold"][other & (table["sound"] == sound)])) == 1
    ]
    return np.asarray(other & np.isin(table["sound"], alone))


def _beaten(ours: Mapping[str, Figure], peers: Mapping[str, View]) -> list[Claim]:
    """Count the rows on which ours is better than each peer."""
    claims = []
    for peer, view in peers.items():
        theirs = {measure.key: measure.of(view).value for measure in measures.AGAINST_PEERS}
        rows = [
            measure
            for measure in measures.AGAINST_PEERS
            if not math.isnan(theirs[measure.key] + ours[measure.key].value)
        ]
        won = sum(m.better(ours[m.key].value, theirs[m.key]) for m in rows)
        claims.append(
            Claim(
                f"rows on which {NAMES[peer]} is beaten",
                won,
                f"of {len(rows)}",
                f"= {len(rows)}",
                won == len(rows),
            )
        )
    return claims


def _quantised(ours: Mapping[str, Figure], float_: View) -> Claim:
    """Give the most that int8 loses against float, over all rows."""
    losses = losses_in_points(ours, float_, measures.EVERY)
    worst = max(losses, key=lambda key: losses[key])
    row = next(measure.claim for measure in measures.EVERY if measure.key == worst)
    return Claim(
        "int8 worse than float, at most, over all rows",
        losses[worst],
        f"points ({row})",
        f"≤ {QUANTISED:g}",
        losses[worst] <= QUANTISED,
    )


def losses_in_points(
    ours: Mapping[str, Figure], float_: View, rows: Sequence[Measure]
) -> dict[str, float]:
    """Give by how many hundredths int8 is worse than float, row by row; negative if better."""
    losses = {}
    for measure in rows:
        change = measure.of(float_).value - ours[measure.key].value
        if not math.isnan(change):
            losses[measure.key] = 100 * (change if measure.higher else -change)
    return losses
