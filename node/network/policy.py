"""What makes an incident: the policy, stated, as settings of the subscriber's side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from node.messages.detection import Scores, Thresholds
from node.types import Grade

GRADES: Final[tuple[Grade, ...]] = ("not_gunfire", "probable_gunfire", "gunfire")

# One node that is sure does not outvote the others.
_SUREST: Final = 0.01


class LocateSettings(BaseModel):
    """How detections become incidents: `[locate]` of the subscriber's settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
        description="What their scores together must say: gunfire, probable_gunfire, or not_gunfire "
        "to locate whatever was heard.",
    )
    least_log_odds: float = Field(
        default=3.0,
        ge=0,
        le=100,
        description="Natural logarithm of the odds that one shot made these arrivals, and not "
        "chance, from which an incident is told.",
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


def pooled(each: Sequence[Scores]) -> Scores:
    """Combine several nodes' scores: their geometric mean, in which no node is wholly sure."""
    logs = [
        [math.log(max(score, _SUREST)) for score in (s.gunfire, s.fireworks, s.backfire, s.other)]
        for s in each
    ]
    means = [math.exp(sum(column) / len(each)) for column in zip(*logs, strict=True)]
    shares = [mean / sum(means) for mean in means]
    return Scores(
        gunfire=shares[0], fireworks=shares[1], backfire=shares[2], other=1 - sum(shares[:3])
    )


def grade_of(scores: Scores, thresholds: Sequence[Thresholds]) -> Grade:
    """Grade combined scores by the mean of the nodes' thresholds."""
    gunfire = sum(t.gunfire for t in thresholds) / len(thresholds)
    probable = sum(t.probable for t in thresholds) / len(thresholds)
    if scores.gunfire >= gunfire:
        return "gunfire"
    return "probable_gunfire" if scores.gunfire >= probable else "not_gunfire"
