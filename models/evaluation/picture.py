"""One picture for people: false alarms against live fire heard, and what range does to it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from models.evaluation.claims import Judges
from models.evaluation.figures import Floats
from models.evaluation.measures import is_live_fire
from models.evaluation.peers import NAMES
from models.evaluation.views import View

STEP_M: Final = 100.0
FEWEST: Final = 5
_COLOURS: Final = ("#1b4f72", "#b9770e", "#7d3c98", "#7b7d7d")


def draw(seen: Judges, path: Path) -> bool:
    """Write the picture as PNG; False where there is no live fire or no city sound to draw."""
    live, city = _sides(seen.ours)
    if not live.any() or not city.any():
        return False
    # Slow to import, and only wanted here.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    curves, ranges = figure.subplots(1, 2)
    judges = {"this node": seen.ours, **{NAMES[p]: view for p, view in seen.peers.items()}}
    for colour, (name, view) in zip(_COLOURS, judges.items(), strict=False):
        live, city = _sides(view)
        rank = view.pieces.rank
        curves.plot(*roc(rank[live], rank[city]), color=colour, label=name, drawstyle="steps-post")
        middle, heard = by_range(view)
        if len(middle):
            ranges.plot(middle, heard, "o-", color=colour, markersize=4)
    curves.axvline(0.01, color="#aaaaaa", linewidth=0.8, linestyle="--")
    curves.set(xscale="log", xlim=(1e-3, 1), ylim=(0, 1.02), ylabel="live fire heard")
    curves.set_xlabel("city sounds called gunfire, fireworks among them")
    curves.legend(frameon=False, loc="lower right")
    ranges.set(ylim=(0, 1.02), xlabel="range, m", ylabel="live fire heard at 1 % false alarms")
    for axes in (curves, ranges):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return True


def roc(positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
    """Give false alarms and hits at every threshold, both rising from 0 to 1."""
    scores = np.concatenate([positive, negative])
    cuts = np.unique(scores)[::-1]
    false = np.array([0.0, *((negative >= cut).mean() for cut in cuts)])
    hits = np.array([0.0, *((positive >= cut).mean() for cut in cuts)])
    return false, hits


def by_range(view: View) -> tuple[Floats, Floats]:
    """Give the middles of steps of `STEP_M` that hold `FEWEST` recordings, and what was heard."""
    live, _ = _sides(view)
    range_m, called = view.pieces.table["range_m"][live], view.pieces.called[live]
    middles, heard = [], []
    for step in np.unique(range_m[~np.isnan(range_m)] // STEP_M):
        mine = range_m // STEP_M == step
        if mine.sum() >= FEWEST:
            middles.append((step + 0.5) * STEP_M)
            heard.append(float(called[mine].mean()))
    return np.array(middles), np.array(heard)


def _sides(view: View) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], ...]:
    table = view.pieces.table
    known = ~np.isnan(view.pieces.rank)
    return is_live_fire(table) & known, (table["label"] != "gunfire") & known
