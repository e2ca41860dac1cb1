"""The rows by which every judge is measured alike: ours, our float network, the peers.

Views come in; figures go out to `claims`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from models.evaluation.figures import (
    NOTHING,
    Figure,
    Flags,
    area,
    calibration_error,
    over_groups,
    share,
)
from models.evaluation.frozen import is_audible
from models.evaluation.table import Table
from models.evaluation.views import Judged, View
from models.training.moments import STEADY

NEAR_M: Final = 300.0
FAR_M: Final = 400.0
BANDS_DB: Final = ((-np.inf, 15.0), (15.0, 25.0), (25.0, np.inf))
URBANSOUND: Final = "urbansound8k_acii"


@dataclass(frozen=True)
class Measure:
    """One row of the table.

    `cases` are what it counts. `bar` is the figure to reach: at least where `higher`, else at
    most; None where none was set. `share` says whether it is a share of the cases.
    """

    key: str
    claim: str
    cases: str
    of: Callable[[View], Figure]
    higher: bool = True
    bar: float | None = None
    share: bool = True

    def holds(self, value: float) -> bool:
        """Say whether a value reaches the bar."""
        if self.bar is None:
            return True
        return value >= self.bar if self.higher else value <= self.bar

    def better(self, ours: float, theirs: float) -> bool:
        """Say whether ours beats theirs; where ours cannot be better, to be level is enough."""
        best = 1.0 if self.higher else 0.0
        return ours == best or (ours > theirs if self.higher else ours < theirs)

    def unit(self, figure: Figure) -> str:
        """Write what the value is, and of how many."""
        return f"{'share of' if self.share else 'over'} {figure.cases} {self.cases}"

    @property
    def bar_text(self) -> str:
        """Write the bar as the table shows it."""
        return "" if self.bar is None else f"{'≥' if self.higher else '≤'} {self.bar:g}"


def called(judged: Judged, mask: Flags, grade: str = "called") -> Figure:
    """Give the share of some rows that was called gunfire, with its interval over groups."""
    some = judged.where(mask)
    return share(getattr(some, grade), some.table["group"])


def is_live_fire(table: Table) -> Flags:
    """Say which rows are shots of a live-fire test; its recordings of nothing are city sound."""
    return np.asarray((table["live"] == 1) & (table["label"] == "gunfire"))


def live_fire(view: View, mask: Callable[[Judged], Flags] | None = None) -> Figure:
    """Give the share of live-fire recordings that was heard."""
    some = view.pieces.where(is_live_fire(view.pieces.table)).by_recording()
    return called(some, np.ones(len(some.table), bool) if mask is None else mask(some))


def within(low_m: float, high_m: float) -> Callable[[View], Figure]:
    """Measure live fire at ranges above `low_m`, up to and with `high_m`."""

    def of(view: View) -> Figure:
        return live_fire(
            view, lambda j: (j.table["range_m"] > low_m) & (j.table["range_m"] <= high_m)
        )

    return of


def at_snr(low_db: float, high_db: float) -> Callable[[View], Figure]:
    """Measure live fire in a band of signal-to-noise ratio."""

    def of(view: View) -> Figure:
        return live_fire(
            view, lambda j: (j.table["snr_db"] >= low_db) & (j.table["snr_db"] < high_db)
        )

    return of


def near_by(view: View, urbansound: bool) -> Figure:
    """Give the share of close-range recordings that was heard, UrbanSound8K's or all others."""
    table = view.pieces.table
    mine = (table["source"] == URBANSOUND) == urbansound
    some = view.pieces.where((table["label"] == "gunfire") & (table["live"] == 0) & mine)
    heard = some.by_recording()
    return share(heard.called, heard.table["group"])


def city(view: View) -> Figure:
    """Give the share of city sounds, fireworks among them, that was called gunfire."""
    return called(view.pieces, view.pieces.table["label"] != "gunfire")


def firework_pieces(view: View) -> Figure:
    """Give the share of pieces of firework recordings that was called gunfire."""
    return called(view.pieces, view.pieces.table["label"] == "fireworks")


def firework_events(view: View) -> Figure:
    """Give the share of events in firework recordings that was called gunfire."""
    if view.events is None:
        return NOTHING
    return called(view.events, view.events.table["what"] == "fireworks")


def live_against_fireworks(view: View, audible: bool = False) -> Figure:
    """Give the AUC of live fire against fireworks, both without anything above 6 kHz.

    Where `audible`, of those recordings alone that hold an audible shot.
    """
    table, rank = view.low.table, view.low.rank
    live, burst = is_live_fire(table), table["label"] == "fireworks"
    if audible:
        live &= is_audible(table)
    if np.isnan(rank[live | burst]).any():
        return NOTHING
    return area(rank[live], table["group"][live], rank[burst], table["group"][burst])


def steady(view: View) -> Figure:
    """Give the share of pieces of continuous city sound that was called gunfire."""
    table = view.pieces.table
    return called(view.pieces, (table["label"] == "other") & np.isin(table["sound"], list(STEADY)))


def city_events(view: View) -> Figure:
    """Give the share of events of city sounds and background that was called gunfire."""
    if view.events is None:
        return NOTHING
    return called(view.events, view.events.table["what"] != "gunfire")


def simulated_backfires(view: View) -> Figure:
    """Give the share of simulated backfires that was called gunfire."""
    # What those of a fold share are its engines and streets; within one, each was drawn by itself.
    table = view.backfires.table
    folds = len(np.unique(table["fold"]))
    return share(view.backfires.called, table["fold" if folds > 1 else "number"])


def calibration(view: View) -> Figure:
    """Give the expected calibration error of `scores.gunfire` over pieces."""
    return _calibration(view.pieces)


def event_calibration(view: View) -> Figure:
    """Give the expected calibration error of `scores.gunfire` over events."""
    return NOTHING if view.events is None else _calibration(view.events)


def _calibration(judged: Judged) -> Figure:
    right = judged.table["label"] == "gunfire"
    return over_groups(
        lambda rows: calibration_error(judged.gunfire[rows], right[rows]), judged.table["group"]
    )


def _band_text(low_db: float, high_db: float) -> str:
    if np.isinf(low_db):
        return f"below {high_db:g} dB"
    return f"from {low_db:g} dB" if np.isinf(high_db) else f"{low_db:g} to {high_db:g} dB"


RECALL: Final = (
    Measure("live", "live fire heard", "recordings", live_fire, bar=0.98),
    Measure(
        "live_audible",
        "live fire heard, of recordings that hold an audible shot",
        "recordings",
        lambda v: live_fire(v, lambda j: is_audible(j.table)),
    ),
    Measure("live_near", "live fire heard within 300 m", "recordings", within(0, NEAR_M), bar=0.99),
    Measure("live_middle", "live fire heard at 300–400 m", "recordings", within(NEAR_M, FAR_M)),
    Measure(
        "live_far", "live fire heard beyond 400 m", "recordings", within(FAR_M, np.inf), bar=0.95
    ),
    Measure(
        "close",
        "close range heard, a source never trained on",
        "recordings",
        lambda v: near_by(v, False),
        bar=0.97,
    ),
    Measure(
        "urbansound",
        "UrbanSound8K gunshots heard, a fold never trained on",
        "recordings",
        lambda v: near_by(v, True),
        bar=0.95,
    ),
)
REJECTED: Final = (
    Measure(
        "firework_pieces",
        "firework recordings called gunfire",
        "pieces",
        firework_pieces,
        higher=False,
    ),
    Measure("steady", "continuous city sound called gunfire", "pieces", steady, higher=False),
    Measure(
        "backfires",
        "simulated backfires over engines never used, called gunfire",
        "simulations",
        simulated_backfires,
        higher=False,
        bar=0.03,
    ),
)
RANKING: Final = (
    Measure(
        "low_area",
        "AUC live fire against fireworks, both band-limited to 6 kHz",
        "recordings",
        live_against_fireworks,
        bar=0.98,
        share=False,
    ),
)
AUDIBLE: Final = Measure(
    "low_area_audible",
    "AUC live fire that is audible against fireworks, both band-limited to 6 kHz",
    "recordings",
    partial(live_against_fireworks, audible=True),
    share=False,
)
CITY: Final = Measure(
    "city",
    "city sounds, fireworks among them, called gunfire",
    "pieces",
    city,
    higher=False,
    bar=0.01,
)
OURS_ALONE: Final = (
    Measure(
        "city_events",
        "events of city sounds, fireworks among them, called gunfire",
        "events",
        city_events,
        higher=False,
    ),
    Measure(
        "firework_events",
        "events in firework recordings called gunfire",
        "events",
        firework_events,
        higher=False,
        bar=0.03,
    ),
    Measure(
        "calibration",
        "expected calibration error of scores.gunfire",
        "pieces",
        calibration,
        higher=False,
        bar=0.03,
        share=False,
    ),
    Measure(
        "event_calibration",
        "expected calibration error of scores.gunfire, events",
        "events",
        event_calibration,
        higher=False,
        share=False,
    ),
)
SNR: Final = tuple(
    Measure(
        f"snr{number}",
        f"live fire heard, signal-to-noise ratio {_band_text(*band)}",
        "recordings",
        at_snr(*band),
    )
    for number, band in enumerate(BANDS_DB)
)
AGAINST_PEERS: Final = (*RECALL, *REJECTED, *RANKING)
EVERY: Final = (CITY, *RECALL, *SNR, *REJECTED, *RANKING, AUDIBLE, *OURS_ALONE)
"""In the order of the table."""
