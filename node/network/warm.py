"""Compile all that locating has compiled, before the first shot: seconds, once for each version."""

from __future__ import annotations

import math
import uuid
from typing import Final

from node.messages import Detection
from node.messages.detection import (
    DETECTION_SCHEMA,
    Audio,
    Clock,
    Direction,
    Local,
    Model,
    Round,
    Scores,
    Thresholds,
)
from node.network.incidents import Locator
from node.types import NS_PER_S
from node.utc import utc_text

_PLACES_M: Final = ((0.0, 0.0), (400.0, 10.0), (20.0, 500.0), (450.0, 480.0), (-300.0, 200.0))
# Two guns among nodes that tell bearings, and one among four that do not: the nodes' offset to the
# east, the shot's place among them, and whether there are bearings.
_GUNS: Final = (
    (0.0, (150.0, 220.0), True),
    (0.0, (-100.0, 400.0), True),
    (5000.0, (150.0, 220.0), False),
)
_APART_S: Final = 1.5
_ROUNDS_S: Final = (0.0, 0.4)
_ECHO_S: Final = 0.3
_BEGIN_NS: Final = 1_700_000_000 * NS_PER_S


def warm() -> None:
    """Locate guns that fire twice; two nodes hear an echo, too."""
    locator = Locator()
    for gun, (offset_m, shot_m, bearings) in enumerate(_GUNS):
        fired_ns = _BEGIN_NS + round(gun * _APART_S * NS_PER_S)
        for number, (east_m, north_m) in enumerate(_PLACES_M if bearings else _PLACES_M[1:]):
            east, north = shot_m[0] - east_m, shot_m[1] - north_m
            onsets_s = [math.hypot(east, north) / 340 + round_s for round_s in _ROUNDS_S]
            if number == 1 and bearings:
                onsets_s.append(onsets_s[-1] + _ECHO_S)
            said = _heard(
                f"{offset_m:.0f}-{number}",
                gun,
                Local(frame="warm", x_m=offset_m + east_m, y_m=north_m, z_m=10.0, sigma_m=1.0),
                [fired_ns + round(at_s * NS_PER_S) for at_s in onsets_s],
                math.degrees(math.atan2(east, north)) % 360 if bearings else None,
            )
            locator.push(said, fired_ns + 2 * NS_PER_S)
    locator.finish()


def _heard(
    node_id: str, gun: int, place: Local, onsets_ns: list[int], azimuth_deg: float | None
) -> Detection:
    name = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{node_id}/{gun}"))
    return Detection(
        schema=DETECTION_SCHEMA,
        event_id=name,
        revision=0,
        type="new",
        site="warm",
        node_id=node_id,
        boot_id=name,
        seq=1 + gun,
        onset_utc=utc_text(onsets_ns[0]),
        rounds=tuple(
            Round(utc=utc_text(at_ns), sigma_s=1e-4, snr_db=25.0, peak_dbfs=-9.0, peak_db_spl=None)
            for at_ns in onsets_ns
        ),
        round_count=len(onsets_ns),
        round_count_is_minimum=False,
        cadence_rpm=None,
        label="gunfire",
        abstained=False,
        grade="gunfire",
        scores=Scores(gunfire=0.9, fireworks=0.05, backfire=0.03, other=0.02),
        thresholds=Thresholds(gunfire=0.7, probable=0.35),
        clock=Clock(
            source="pps", sigma_s=1e-6, bound_s=5e-6, second_confirmed=True, holdover_s=0.0
        ),
        position=None,
        local=place,
        direction=None
        if azimuth_deg is None
        else Direction(
            azimuth_deg=azimuth_deg, elevation_deg=None, sigma_deg=3.0, airborne_probability=None
        ),
        audio=Audio(sample_rate_hz=48_000, channels=4, lost_samples=0, clipped=False),
        model=Model(name="none", version="0", sha256="0" * 64),
        firmware="0",
        snippet=None,
    )
