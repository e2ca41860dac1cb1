"""What the claims are made of: by fold, by source, by kind, beside the peers; text for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from models.evaluation import claims, measures
from models.evaluation.claims import Judges
from models.evaluation.figures import NOTHING, Figure, Flags, area_under_roc
from models.evaluation.peers import NAMES
from models.evaluation.views import Judged, View
from node.types import LABELS
from tests.evidence import Detail

_BY_FOLD: Final = ("city", "live", "live_near", "live_far", "close", "urbansound", "low_area")


def tables(seen: Judges) -> list[Detail]:
    """Make every table that these recordings can carry."""
    made = [
        _beside_peers(seen),
        _by_fold(seen),
        _close_range(seen.ours),
        _firework_events(seen.ours),
        _false_alarms(seen.ours),
        _unseen_kinds(seen.ours),
        _confusion(seen.ours),
        _by_tier(seen.ours),
        _backfires(seen.ours),
    ]
    return [detail for detail in made if detail.rows]


def _beside_peers(seen: Judges) -> Detail:
    """Put all judges side by side, on the rows that all can be measured by."""
    others = {NAMES[peer]: view for peer, view in seen.peers.items()}
    columns = {"ours": seen.ours, **({"ours, float": seen.float_} if seen.float_ else {}), **others}
    rows: list[tuple[str, ...]] = []
    for measure in measures.EVERY:
        alone = measure in measures.OURS_ALONE
        figures = [
            NOTHING if alone and name in others else measure.of(view)
            for name, view in columns.items()
        ]
        if not math.isnan(figures[0].value):
            rows.append((measure.claim, *map(_shown, figures)))
    title = (
        "Beside others: each peer's threshold is set on these very city sounds, where as many of "
        "them are called gunfire as by ours, or 1 %"
    )
    return Detail(title, ("row", *columns), tuple(rows))


def _by_fold(seen: Judges) -> Detail:
    folds = sorted(seen.frozen)
    rows = []
    by_key = {measure.key: measure for measure in measures.EVERY}
    for fold in folds if len(folds) > 1 else ():
        view = _of_fold(seen.ours, fold)
        cuts = seen.frozen[fold].thresholds
        shown = [_shown(by_key[key].of(view), interval=False) for key in _BY_FOLD]
        events = _shown(measures.firework_events(view), interval=False)
        rows.append((str(fold), f"{cuts.gunfire:.3f} / {cuts.probable:.3f}", *shown, events))
    columns = ("fold", "thresholds", "city sounds called gunfire", "live fire", "≤ 300 m")
    more = ("> 400 m", "close range", "UrbanSound8K", "AUC at 6 kHz", "firework events")
    return Detail("By fold", (*columns, *more), tuple(rows))


def _of_fold(view: View, fold: int) -> View:
    def mine(judged: Judged) -> Judged:
        return judged.where(judged.table["fold"] == fold)

    events = None if view.events is None else mine(view.events)
    return View(view.name, mine(view.pieces), mine(view.low), mine(view.backfires), events)


def _close_range(ours: View) -> Detail:
    table = ours.pieces.table
    near = (table["label"] == "gunfire") & (table["live"] == 0)
    rows = _grouped(ours.pieces.where(near).by_recording(), ("source", "group"), fewest=5)
    return Detail(
        "Close range, by source and group (of five recordings or more)",
        ("source", "group", "recordings", "called gunfire", "or probable gunfire"),
        rows,
    )


def _firework_events(ours: View) -> Detail:
    columns = ("recordist", "events", "called gunfire", "or probable gunfire")
    title = "Events in firework recordings, by recordist"
    if ours.events is None:
        return Detail(title, columns, ())
    mine = ours.events.where(ours.events.table["what"] == "fireworks")
    return Detail(title, columns, _grouped(mine, ("group",)))


def _grouped(judged: Judged, by: Sequence[str], fewest: int = 1) -> tuple[tuple[str, ...], ...]:
    """Count what was called gunfire, group by group."""
    keys = np.array([*zip(*(judged.table[name] for name in by), strict=True)])
    rows: list[tuple[str, ...]] = []
    for key in np.unique(keys, axis=0) if len(keys) else ():
        mine = judged.where((keys == key).all(axis=1))
        size = len(mine.table)
        if size >= fewest:
            counts = (f"{flags.mean():.1%}" for flags in (mine.called, mine.probable))
            rows.append((*map(str, key), str(size), *counts))
    return tuple(rows)


def _false_alarms(ours: View) -> Detail:
    """List the kinds of city sound of which something was called gunfire, the worst first."""
    table = ours.pieces.table
    wrong = ours.pieces.where((table["label"] != "gunfire") & ours.pieces.called)
    sounds, counts = np.unique(wrong.table["sound"], return_counts=True)
    rows = []
    for index in np.argsort(-counts, kind="stable"):
        mine = ours.pieces.where((table["sound"] == sounds[index]) & (table["label"] != "gunfire"))
        size = len(mine.table)
        rows.append((str(sounds[index]), f"{counts[index]} of {size}"))
    return Detail("City sounds called gunfire", ("sound", "pieces"), tuple(rows))


def _unseen_kinds(ours: View) -> Detail:
    mine = ours.pieces.where(claims.kinds_held_out(ours))
    rows: list[tuple[str, ...]] = []
    for sound in np.unique(mine.table["sound"]):
        kind = mine.where(mine.table["sound"] == sound)
        probable = f"{int(kind.probable.sum())}"
        called, unsure = int(kind.called.sum()), int(kind.abstained.sum())
        rows.append((str(sound), str(len(kind.table)), str(called), probable, str(unsure)))
    return Detail(
        "Open set: kinds of sound that the fold's network never heard",
        ("sound", "pieces", "called gunfire", "or probable gunfire", "abstained"),
        tuple(rows),
    )


def _confusion(ours: View) -> Detail:
    table = ours.pieces.table
    rows: list[tuple[str, ...]] = []
    for name, mask in _classes(table["label"], table["live"] == 1):
        mine = ours.pieces.where(mask)
        if len(mine.table):
            told = [int(((mine.labels == label) & ~mine.abstained).sum()) for label in LABELS]
            rows.append((name, *map(str, told), str(int(mine.abstained.sum()))))
    return Detail("Confusion, pieces", ("was", *LABELS, "abstained"), tuple(rows))


def _classes(
    labels: np.ndarray[tuple[int], np.dtype[np.str_]], live: Flags
) -> list[tuple[str, Flags]]:
    rest = [(label, np.asarray(labels == label)) for label in LABELS[1:]]
    gunfire = labels == "gunfire"
    return [("live fire", gunfire & live), ("close range", gunfire & ~live), *rest]


def _by_tier(ours: View) -> Detail:
    table = ours.pieces.table
    rows: list[tuple[str, ...]] = []
    for tier in np.unique(table["tier"]):
        mine = table["tier"] == tier
        shots = ours.pieces.where(mine & (table["label"] == "gunfire"))
        recordings = shots.by_recording() if len(shots.table) else shots
        city = ours.pieces.where(mine & (table["label"] != "gunfire"))
        rows.append(
            (
                str(tier),
                _counted(recordings),
                _counted(city),
                f"{area_under_roc(recordings.rank, city.rank):.3f}",
            )
        )
    columns = ("tier", "gunfire heard", "city sounds called gunfire", "AUC")
    return Detail("By licence tier of the recordings judged", columns, tuple(rows))


def _counted(judged: Judged) -> str:
    size = len(judged.table)
    return f"{judged.called.mean():.1%} of {size}" if size else "–"


def _backfires(ours: View) -> Detail:
    mine = ours.pieces.where(ours.pieces.table["label"] == "backfire")
    rows = []
    for row in range(len(mine.table)):
        grade = "gunfire" if mine.called[row] else "probable" if mine.probable[row] else "no"
        label = "abstained" if mine.abstained[row] else str(mine.labels[row])
        name = f"{mine.table['path'][row]}, piece {mine.table['piece'][row]}"
        rows.append((name, f"{mine.gunfire[row]:.3f}", grade, label))
    columns = ("recording", "scores.gunfire", "called gunfire", "label")
    return Detail("Recorded backfires, one by one", columns, tuple(rows))


def _shown(figure: Figure, interval: bool = True) -> str:
    if math.isnan(figure.value):
        return "–"
    ends = figure.interval if interval else None
    return f"{figure.value:.3f}" + ("" if ends is None else f" ({ends[0]:.3f}–{ends[1]:.3f})")
