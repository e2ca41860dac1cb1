"""What really happened in a scene: the `truth` line of the design, read by demo and tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict

from node.types import Label

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TruthSource(_Model):
    """A sound at its source: kind, UTC of its start, place in m, label."""

    kind: str
    utc: str
    x_m: float
    y_m: float
    z_m: float
    label: Label


class TruthArrival(_Model):
    """A sound's direct way to a node.

    `source` counts from 0 in `Truth.sources`. `sample` is where the pressure at channel 0's
    microphone first leaves zero, in fractional samples from the recording's first; `utc` is when.
    Azimuth (clockwise from north) and elevation lead from the node's place to the source.
    """

    source: int
    utc: str
    sample: float
    azimuth_deg: float
    elevation_deg: float


class TruthNode(_Model):
    """What reached a node while it recorded, by order of arrival."""

    node_id: str
    arrivals: tuple[TruthArrival, ...]


class Truth(_Model):
    """All sources and arrivals of a scene."""

    sources: tuple[TruthSource, ...]
    nodes: tuple[TruthNode, ...]


def utc_ns_of(moment: datetime) -> int:
    """Give a moment as ns since 1970, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
