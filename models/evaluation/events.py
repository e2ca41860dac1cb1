"""Stage one, the node's way: every recording through the whole pipeline, as `replay` runs it.

Recordings and the networks of a fold come in; rows for `events-*.csv` go out: first one for the
stretch that was listened to (event 0, with its seconds), then one for each event in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from rich.progress import track

from models.evaluation.judges import Judges
from models.evaluation.predictions import ABOUT, about
from models.evaluation.recordings import Frames, with_pulses
from models.evaluation.table import OURS, Row, log_names
from models.training import corpus
from models.training.corpus import Clip
from models.training.moments import STEADY
from node.capture import RecordingSource
from node.classify import features
from node.replay import Replay
from node.settings import DetectSettings
from node.types import NS_PER_S, Judgement, ModelIdentity, Scores
from node.utc import parse_utc_ns

EVENTS: Final = (
    *("path", "event", *ABOUT[1:], "what", "seconds", "onset_s", "impulses", "snr_db"),
    *(name for which in OURS for name in log_names(which)),
)
SHORTEST_S: Final = 1.5
"""Quiet between pulses that is worth listening to: an event's sound must fit in."""
_NEAR_S: Final = 0.05


@dataclass
class Listener:
    """A classifier for the pipeline that keeps the evidence of every event; `node.types`."""

    judges: Judges
    heard: list[dict[str, float]] = field(default_factory=list)

    @property
    def identity(self) -> ModelIdentity:
        """Which model judges."""
        return self.judges.int8.identity

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        """Give the frames wanted before and after an onset, at a rate."""
        return self.judges.int8.window(sample_rate_hz)

    def judge(self, windows: Iterable[Frames], sample_rate_hz: int) -> Judgement:
        """Judge as the node would, and keep what that went by."""
        heard = list(windows)
        self.heard.append(self.judges.event(heard, sample_rate_hz))
        return self.judges.int8.judge(heard, sample_rate_hz)

    def verdict(self, scores: Scores) -> Judgement:
        """Say what scores amount to, as the node would."""
        return self.judges.int8.verdict(scores)


def of_events(data: Path, clips: list[Clip], fold: int, judges: Judges) -> Iterator[Row]:
    """Put every recording through the pipeline; tell a live-fire test's shots from its quiet."""
    pulses = {record.clip.path: record for record in with_pulses(clips)}
    for clip in track(clips, f"fold {fold}, through the pipeline", disable=not clips):
        facts = about(data, clip, fold)
        found = list(_heard(clip.path, judges))
        if clip.path in pulses:
            yield from _live(facts, found, pulses[clip.path], judges)
        else:
            steady = clip.label == "other" and clip.sound in STEADY
            what = "background" if steady else clip.label
            yield from _rows({**facts, "what": what}, clip.seconds, found)


def _heard(path: Path, judges: Judges) -> Iterator[tuple[list[float], dict[str, float]]]:
    """Give the onsets of each event in s, and its evidence."""
    listener = Listener(judges)
    start_ns = RecordingSource(path).identity.start_utc_ns or 0
    # Each event by itself: a burst that goes on would be judged twice.
    replay = Replay(classifier=listener, detect=DetectSettings(burst_s=0))
    detections = list(replay.detections(path))
    for detection, evidence in zip(detections, listener.heard, strict=True):
        onsets = [(parse_utc_ns(r.utc) - start_ns) / NS_PER_S for r in detection.rounds]
        loudest = max(r.snr_db for r in detection.rounds)
        yield onsets, {**evidence, "snr_db": loudest}


def _live(
    facts: dict[str, str | int],
    found: list[tuple[list[float], dict[str, float]]],
    record: corpus.LiveFire,
    judges: Judges,
) -> Iterator[Row]:
    """Sort a live-fire recording's events: at a shot, or in the quiet; others are left out.

    What is neither is an echo, or one of the many pulses that nobody has put a name to.
    """
    rate = features.RATE_HZ
    sound = corpus.load(record.clip.path)
    _, after = judges.int8.window(rate)
    quiet = [
        (stretch.start / rate, (stretch.stop - after) / rate)
        for stretch in corpus.quiet_stretches(sound, record.busy, SHORTEST_S)
    ]
    shots = np.array(record.shots) / rate
    at_shot = [e for e in found if _near(e[0], shots)]
    in_quiet = [e for e in found if any(a <= e[0][0] and e[0][-1] <= b for a, b in quiet)]
    yield from _rows({**facts, "what": "gunfire"}, len(sound) / rate, at_shot)
    seconds = sum(b - a for a, b in quiet)
    yield from _rows({**facts, "label": "other", "what": "background"}, seconds, in_quiet)


def _near(onsets: list[float], shots: np.ndarray[tuple[int], np.dtype[np.float64]]) -> bool:
    apart = np.abs(np.subtract.outer(np.array(onsets), shots))
    return bool(apart.size and apart.min() <= _NEAR_S)


def _rows(
    facts: dict[str, str | int],
    seconds: float,
    found: list[tuple[list[float], dict[str, float]]],
) -> Iterator[Row]:
    yield {**facts, "event": 0, "seconds": seconds, "impulses": 0}
    for number, (onsets, evidence) in enumerate(found, 1):
        more = {"event": number, "onset_s": onsets[0], "impulses": len(onsets)}
        yield {**facts, **more, **evidence}
