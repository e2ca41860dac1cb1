"""Stage one: what ours and the peers say of every piece, saved before any calibration.

Recordings and the networks of a fold come in; rows for `recordings-*.csv` and `backfires-*.csv` go
out. Calibration, thresholds and figures need no sound after that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from rich.progress import track

from models.evaluation.judges import Judges
from models.evaluation.peers import PEERS, Scores
from models.evaluation.recordings import (
    band_limited,
    is_live,
    pieces,
    range_m,
    snr_db,
    with_pulses,
)
from models.evaluation.table import OURS, Row, log_names
from models.training import corpus
from models.training.corpus import LIVE_FIRE, Clip
from models.training.moments import LEAD, Moments, gather
from models.training.surroundings import surround
from models.training.synthetic import KINDS, kind
from node.classify import features

LOW: Final = "low_"
"""What was said of the copy without anything above 6 kHz."""
ABOUT: Final = ("path", "label", "sound", "source", "group", "tier", "fold")
_JUDGED: Final = (*(name for which in OURS for name in log_names(which)), *PEERS)
RECORDINGS: Final = (
    *("path", "piece", *ABOUT[1:], "live", "audible", "seconds", "range_m", "snr_db"),
    *(*_JUDGED, *(LOW + name for name in _JUDGED)),
)
BACKFIRES: Final = ("sound", "fold", "number", *_JUDGED)
SIMULATED: Final = 200
"""Backfires simulated a fold."""
_SEED: Final = 20_181_219


def about(data: Path, clip: Clip, fold: int) -> dict[str, str | int]:
    """Give the columns that say what a recording is."""
    path = clip.path.relative_to(data).as_posix()
    values = (path, clip.label, clip.sound, clip.source, clip.group, clip.tier, fold)
    return dict(zip(ABOUT, values, strict=True))


def of_recordings(
    data: Path, clips: list[Clip], fold: int, judges: Judges, peers: Scores
) -> Iterator[Row]:
    """Judge every piece; live fire and fireworks band-limited to 6 kHz as well.

    `audible` is 0 for live fire of which nothing is left at the sensor (`corpus.audible_shots`).
    """
    stated = {record.clip.path: record for record in with_pulses(clips)}
    for clip in track(clips, f"fold {fold}, recordings", disable=not clips):
        facts = about(data, clip, fold)
        live = is_live(clip)
        far = range_m(clip) if live else float("nan")
        record = stated.get(clip.path)
        audible = record is None or corpus.audible_shots(record, corpus.load(clip.path))
        for piece in pieces(clip):
            row: dict[str, str | int | float] = {
                **facts,
                "piece": piece.number,
                "live": int(live),
                "audible": int(bool(audible)),
                "seconds": len(piece.frames) / piece.rate_hz,
                "range_m": far,
                "snr_db": snr_db(piece),
                **judges.stream("", piece.frames, piece.rate_hz),
                **peers.of(piece.frames, piece.rate_hz),
            }
            if live or clip.label == "fireworks":
                low = band_limited(piece)
                row |= judges.stream(LOW, low.frames, low.rate_hz)
                heard = peers.of(low.frames, low.rate_hz)
                row |= {LOW + peer: score for peer, score in heard.items()}
            yield row


def of_backfires(
    clips: list[Clip], fold: int, judges: Judges, peers: Scores, count: int = SIMULATED
) -> Iterator[Row]:
    """Judge simulated backfires over the engines and in the streets of a fold.

    Nobody recorded backfires in numbers: engines and streets are held out, the simulation is not.
    """
    moments = _streets(clips)
    if not moments.engines:
        return
    names, weights = zip(*KINDS["backfire"], strict=True)
    shares = np.array(weights) / np.sum(weights)
    for number in track(range(count), f"fold {fold}, simulated backfires"):
        draw = np.random.default_rng([_SEED, fold, number])
        name = str(names[int(draw.choice(len(names), p=shares))])
        dry = kind(name, draw, moments.engines)
        sound = surround(dry, LEAD, moments.background(draw), draw, recorded=False)
        heard = sound.astype(np.float32)[:, None]
        yield {
            "sound": name,
            "fold": fold,
            "number": number,
            **judges.stream("", heard, features.RATE_HZ),
            **peers.of(heard, features.RATE_HZ),
        }


def _streets(clips: list[Clip]) -> Moments:
    """Gather the engines and the quiet streets among recordings, of whatever folds."""
    stated = {record.clip.path for record in with_pulses(clips)}
    usable = [c for c in clips if c.source != LIVE_FIRE or c.path in stated]
    every = Moments()
    for fold in sorted({clip.fold for clip in usable}):
        found = gather(usable, fold)
        every.engines += found.engines
        every.street += found.street
        every.backgrounds += found.backgrounds
    return every
