"""What makes an incident: the policy, stated, as settings of the subscriber's side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from node.messages import Detection
from node.messages.detection import Scores
from node.settings import Section
from node.types import Grade

GRADES: Final[tuple[Grade, ...]] = ("not_gunfire", "probable_gunfire", "gunfire")

# One node that is sure does not outvote the others.
_SUREST: Final = 0.01
# Below 10 dB nothing can be told apart; from 30 dB on all is heard.
_MUTE_DB: Final = 10.0
_CLEAR_DB: Final = 20.0
_LEAST_WEIGHT: Final = 0.1
_STAYS: Final = 0.5
# Where each node tells of a shot more rarely than once in two minutes, chance makes none of them.
_QUIET_PER_S: Final = 1 / 120


class LocateSettings(Section):
    """How detections become incidents: `[locate]` of the subscriber's settings."""

    nodes: int = Field(
        default=3,
        ge=3,
        le=20,
        description="So many nodes whose times agree make an incident.",
    )
    nodes_with_bearings: int = Field(
        default=2,
        ge=2,
        le=20,
        description="So many do, where times and bearings of at least two agree.",
    )
    graded_nodes: int = Field(
        default=2,
        ge=0,
        le=20,
        description="Of them, so many at least call it gunfire or probable gunfire by themselves.",
    )
    least_grade: Grade = Field(
        default="probable_gunfire",
        description="What their scores together must say: gunfire, probable_gunfire, or "
        "not_gunfire to locate whatever was heard.",
    )
    least_log_odds: float = Field(
        default=2.0,
        ge=0,
        le=100,
        description="Natural logarithm of the odds that one shot made these arrivals, and not "
        "chance, from which an incident is told.",
    )
    early_log_odds: float = Field(
        default=5.0,
        ge=0,
        le=100,
        description="The same, as long as nodes that should have heard it may still tell so.",
    )
    reach_m: float = Field(
        default=1500.0,
        gt=0,
        le=5000,
        description="No node hears a shot from farther off, metres.",
    )
    largest_ellipse_m: float = Field(
        default=1000.0,
        gt=0,
        le=10_000,
        description="A place whose ellipse has a longer half axis is not told: the geometry is "
        "hopeless, metres.",
    )
    gap_s: float = Field(
        default=5.0,
        gt=0.1,
        le=60,
        description="A shot from the same place so long after the last is of another incident, "
        "seconds.",
    )
    update_s: float = Field(
        default=0.5,
        gt=0,
        le=10,
        description="Time that an incident gathers further nodes before it is told anew, seconds.",
    )
    settle_s: float = Field(
        default=8.0,
        gt=0,
        le=60,
        description="When no more comes for so long, an incident is gone through once more, "
        "seconds.",
    )
    keep_s: float = Field(
        default=600.0,
        gt=10,
        le=86_400,
        description="What comes late, from a node that was cut off, is put to its incident for so "
        "long, seconds.",
    )
    reviewed: bool = Field(
        default=False, description="Whether a person looks at each incident before it counts."
    )


@dataclass(frozen=True, slots=True)
class Word:
    """What a detection says of what it was.

    Attributes
    ----------
    node_id
        Who says so.
    scores
        Of gunfire, fireworks, backfire and anything else.
    gunfire, probable
        From which score of gunfire on the node grades it so.
    snr_db
        Of its loudest round.
    """

    node_id: str
    grade: Grade
    scores: tuple[float, float, float, float]
    gunfire: float
    probable: float
    snr_db: float

    @classmethod
    def of(cls, detection: Detection) -> Word:
        """Give that of a message."""
        s = detection.scores
        return cls(
            detection.node_id,
            detection.grade,
            (s.gunfire, s.fireworks, s.backfire, s.other),
            detection.thresholds.gunfire,
            detection.thresholds.probable,
            max(one.snr_db for one in detection.rounds),
        )


def pooled(words: Sequence[Word]) -> Scores:
    """Combine the scores that several nodes gave one source.

    A weighted mean of their logarithms, to the power of the root of how many they amount to: nodes
    hear one sound, but through different streets, so that they are neither one witness nor as many.
    A node counts by its SNR, since far ones tell classes apart less well.
    """
    weights = [min(max((w.snr_db - _MUTE_DB) / _CLEAR_DB, _LEAST_WEIGHT), 1.0) for w in words]
    amount = sum(weights) ** 2 / sum(w * w for w in weights)
    logs = [0.0] * 4
    for word, weight in zip(words, weights, strict=True):
        for at, score in enumerate(word.scores):
            logs[at] += weight * math.log(max(score, _SUREST))
    sharp = [math.exp(math.sqrt(amount) * log / sum(weights)) for log in logs]
    gunfire, fireworks, backfire, other = (each / sum(sharp) for each in sharp)
    return Scores(gunfire=gunfire, fireworks=fireworks, backfire=backfire, other=other)


def grade_of(scores: Scores, words: Sequence[Word]) -> Grade:
    """Grade combined scores by the mean of the nodes' thresholds."""
    if scores.gunfire >= sum(word.gunfire for word in words) / len(words):
        return "gunfire"
    return "probable_gunfire" if scores.gunfire >= _probable(words) else "not_gunfire"


def asked_of_new(settings: LocateSettings, *, early: bool, per_node_s: float) -> float:
    """Give the log of the odds that a new incident needs.

    Parameters
    ----------
    early
        Whether words of nodes that should have heard it may still be under way.
    per_node_s
        How many shots a second each node round it tells of: what chance makes of a shot's words
        and others' grows with that.
    """
    least = settings.least_log_odds + math.log(max(per_node_s / _QUIET_PER_S, 1.0))
    return max(least, settings.early_log_odds) if early else least


def passes(
    settings: LocateSettings,
    *,
    log_odds: float,
    nodes: int,
    bearings: int,
    words: Sequence[Word],
    told: bool,
) -> bool:
    """Say whether a source is an incident.

    Parameters
    ----------
    nodes, bearings
        How many nodes' times agree on it, and how many bearings with them.
    words
        Of the detections that they rest on.
    told
        Whether it was published: it is not taken back for a grade that falls by a hair.
    """
    if log_odds < settings.least_log_odds or not words:
        return False
    if nodes < settings.nodes and bearings < settings.nodes_with_bearings:
        return False
    if len({w.node_id for w in words if w.grade != "not_gunfire"}) < settings.graded_nodes:
        return False
    if settings.least_grade == "not_gunfire":
        return True
    scores = pooled(words)
    if told and scores.gunfire >= _STAYS * _probable(words):
        return True
    return GRADES.index(grade_of(scores, words)) >= GRADES.index(settings.least_grade)


def _probable(words: Sequence[Word]) -> float:
    return sum(word.probable for word in words) / len(words)
