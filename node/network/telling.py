"""From what was found to an incident message: where, when, how many, how sure, and why."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from node.messages import Incident
from node.messages.identity import NAMESPACE
from node.messages.incident import (
    INCIDENT_SCHEMA,
    Ellipse,
    IncidentRound,
    SourceLocal,
    SourcePosition,
    Witness,
)
from node.network.arrivals import FloatArray
from node.network.likelihood import FIRED
from node.network.plane import Plane
from node.network.policy import LocateSettings, Word, grade_of, pooled
from node.network.sources import DIRECT
from node.network.track import Track
from node.types import NS_PER_S, Grade
from node.utc import utc_text

# Of two Gaussian axes, the square of the radius that holds 95 %.
_CHI2_95: Final = 5.991
_STEADY: Final = 0.2


def incident_name(founder: str, number: int) -> str:
    """Name an incident by the event that founded it, and which of its incidents this is."""
    return str(uuid.uuid5(NAMESPACE, f"incident/{founder}/{number}"))


def ellipse(covariance: FloatArray) -> Ellipse:
    """Give the ellipse that holds 95 % of a Gaussian with a covariance [2, 2] of (east, north)."""
    values, vectors = np.linalg.eigh(covariance)
    minor, major = np.sqrt(np.maximum(values, 0.0) * _CHI2_95)
    east, north = vectors[:, 1]
    return Ellipse(
        major_m=float(major),
        minor_m=float(minor),
        bearing_deg=float(np.degrees(np.arctan2(east, north)) % 180),
    )


def cadence_rpm(fired_s: FloatArray) -> float | None:
    """Give shots a minute; None below three, or without a steady rate."""
    gaps = np.diff(fired_s)
    if len(gaps) < 2 or gaps.std() > _STEADY * gaps.mean():
        return None
    return float(60 / gaps.mean())


@dataclass(frozen=True)
class Told:
    """What a message says beside what was found.

    Attributes
    ----------
    plane, frame
        What metres mean: a plane on Earth, or a surveyed frame's name.
    words
        Of the detections that the source rests on.
    witnesses, silent
        Nodes that heard it, and that should have.
    """

    kind: Literal["new", "update"]
    site: str
    epoch_ns: int
    plane: Plane | None
    frame: str | None
    words: Sequence[Word]
    witnesses: tuple[Witness, ...]
    silent: tuple[str, ...]


def tell(track: Track, told: Told, settings: LocateSettings) -> Incident:
    """Make the message of an incident."""
    source = track.source
    around = ellipse(track.spread_m2)
    placed = around.major_m <= settings.largest_ellipse_m
    east, north = (float(v) for v in source.place_m)
    position = local = None
    if placed and told.plane is not None:
        lat_deg, lon_deg = told.plane.degrees(east, north)
        position = SourcePosition(lat_deg=lat_deg, lon_deg=lon_deg, alt_m=None, ellipse_95=around)
    elif placed and told.frame is not None:
        local = SourceLocal(frame=told.frame, x_m=east, y_m=north, z_m=None, ellipse_95=around)
    times = [utc_text(told.epoch_ns + round(float(at) * NS_PER_S)) for at in source.fired_s]
    scores = pooled(told.words)
    grade = grade_of(scores, told.words)
    return Incident(
        schema=INCIDENT_SCHEMA,
        incident_id=track.name,
        revision=0 if track.said is None else track.said.revision + 1,
        type=told.kind,
        site=told.site,
        utc=times[0],
        sigma_s=float(np.sqrt(source.covariance[FIRED, FIRED])),
        position=position,
        local=local,
        round_count=len(times),
        rounds=tuple(IncidentRound(utc=utc, position=position, local=local) for utc in times),
        cadence_rpm=cadence_rpm(source.fired_s),
        grade=grade,
        scores=scores,
        nodes=told.witnesses,
        silent_nodes=told.silent,
        why=_why(track, grade, scores.gunfire, around, placed),
        review="pending" if settings.reviewed else "not_required",
    )


def _why(track: Track, grade: Grade, gunfire: float, around: Ellipse, placed: bool) -> str:
    nodes = len(track.used_nodes)
    bearings = track.crossing
    late = track.source.late_s[track.source.direct > DIRECT]
    rms_ms = 1e3 * float(np.sqrt(np.mean(late**2))) if len(late) else 0.0
    times = f"times of {nodes} nodes agree within {rms_ms:.1f} ms"
    if bearings:
        times += f", bearings of {bearings} with them"
    place = "" if placed else f"; no place, its ellipse would reach {around.major_m:.0f} m"
    odds = track.source.evidence / np.log(10)
    said = grade.replace("_", " ")
    return f"{times}, 10^{odds:.1f} to 1 against chance{place}; {said}, {gunfire:.2f} over them"
