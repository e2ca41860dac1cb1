"""From what was found to an incident message."""

from __future__ import annotations

import math
import uuid
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from node.messages import parse_incident, to_json
from node.messages.detection import Local
from node.messages.incident import Witness
from node.network.arrivals import pool_of
from node.network.medium import medium
from node.network.plane import Plane
from node.network.policy import LocateSettings, Word
from node.network.sources import find
from node.network.telling import Told, cadence_rpm, ellipse, incident_name, tell
from node.network.track import Track
from node.utc import parse_utc_ns
from tests.field.detections import BEGIN_NS, FRAME, Sender, holds

EVENT = "3f0c5d2e-1111-5222-8333-444455556666"
NODES_M = np.array([[0, 0, 8], [400, 50, 8], [350, 420, 8], [-30, 380, 8.0]])


def covariance_of(major_m: float, minor_m: float, bearing_deg: float) -> np.ndarray:
    """Give the covariance whose axes are a standard deviation long, the longer at a bearing."""
    bearing = math.radians(bearing_deg)
    along = np.array([math.sin(bearing), math.cos(bearing)])  # east, north
    across = np.array([math.cos(bearing), -math.sin(bearing)])
    return major_m**2 * np.outer(along, along) + minor_m**2 * np.outer(across, across)


@pytest.mark.parametrize("bearing_deg", [0.0, 10.0, 45.0, 90.0, 135.0, 179.0])
def test_the_longer_axis_is_told_by_its_bearing_clockwise_from_north(bearing_deg: float) -> None:
    around = ellipse(covariance_of(20.0, 5.0, bearing_deg))
    off_deg = (around.bearing_deg - bearing_deg + 90) % 180 - 90
    assert off_deg == pytest.approx(0, abs=1e-3)
    assert around.major_m == pytest.approx(20 * math.sqrt(5.991), abs=1e-3)
    assert around.minor_m == pytest.approx(5 * math.sqrt(5.991), abs=1e-3)


def test_an_ellipse_longer_to_the_east_lies_at_ninety_degrees() -> None:
    assert ellipse(np.diag([100.0, 1.0])).bearing_deg == pytest.approx(90)


def test_the_ellipse_holds_ninety_five_of_a_hundred_draws() -> None:
    spread = covariance_of(30.0, 8.0, 25.0)
    drawn = np.random.default_rng(0).multivariate_normal([3, -7], spread, 4000)
    around = ellipse(spread)
    share = np.mean([holds(around, np.array([3.0, -7.0]), place) for place in drawn])
    assert share == pytest.approx(0.95, abs=0.01)


def test_a_covariance_that_rounding_made_negative_is_an_ellipse_all_the_same() -> None:
    around = ellipse(np.array([[1.0, 0.0], [0.0, -1e-15]]))
    assert around.minor_m == 0


def test_names_are_the_same_for_the_same_founder_and_differ_by_number() -> None:
    assert incident_name(EVENT, 0) == incident_name(EVENT, 0)
    assert incident_name(EVENT, 0) != incident_name(EVENT, 1)
    assert uuid.UUID(incident_name(EVENT, 0)).version == 5


@pytest.mark.parametrize(
    ("fired_s", "rpm"),
    [
        ([0.0], None),
        ([0.0, 0.1], None),
        ([0.0, 0.1, 0.2], 600),
        ([0.0, 0.5, 0.98, 1.5], 120),
        ([0.0, 0.1, 0.9], None),
    ],
)
def test_a_cadence_needs_three_shots_at_a_steady_rate(
    fired_s: list[float], rpm: float | None
) -> None:
    assert cadence_rpm(np.array(fired_s)) == (None if rpm is None else pytest.approx(rpm, rel=1e-6))


def track_of(shots: int = 1, spread_m2: np.ndarray | None = None) -> Track:
    """Make an incident of shots at (150, 220), every 0.2 s from 1 s on, that four nodes hear."""
    air = medium()
    fired = 1.0 + 0.2 * np.arange(shots)
    way_s = np.linalg.norm(np.array([150.0, 220.0, 0.0]) - NODES_M, axis=1) / air.speed_m_s
    pool = pool_of(
        NODES_M,
        np.full(4, 0.1),
        np.repeat(np.arange(4), shots),
        (way_s[:, None] + fired).ravel(),
        np.full(4 * shots, 1e-4),
        clutter_per_s=0.02,
    )
    (source,) = find(pool, air, least_evidence=2.0)
    track = Track(1, incident_name(EVENT, 0), source, pool, np.arange(4))
    track.spread_m2 = covariance_of(10.0, 4.0, 30.0) if spread_m2 is None else spread_m2
    return track


def told(**changed: Any) -> Told:
    place = Local(frame=FRAME, x_m=0.0, y_m=0.0, z_m=0.0, sigma_m=1.0)
    words = [Word.of(Sender(f"node-{at}", place).detection([1.5], 1e-4)) for at in range(4)]
    witness = Witness(node_id="node-0", event_id=EVENT, residual_s=0.0, used=True)
    given = Told("new", "city", BEGIN_NS, None, FRAME, words, (witness,), ("node-9",))
    return replace(given, **changed)


def test_a_message_says_where_when_how_many_and_who_should_have_heard_it() -> None:
    incident = tell(track_of(3), told(), LocateSettings())
    assert incident.local is not None
    assert (incident.local.x_m, incident.local.y_m) == pytest.approx((150, 220), abs=1)
    assert incident.position is None
    assert incident.round_count == len(incident.rounds) == 3
    assert incident.utc == incident.rounds[0].utc
    times_s = [(parse_utc_ns(one.utc) - BEGIN_NS) / 1e9 for one in incident.rounds]
    assert times_s == pytest.approx([1.0, 1.2, 1.4], abs=0.003)
    assert incident.cadence_rpm == pytest.approx(300, rel=1e-3)
    assert incident.grade == "gunfire"
    assert incident.silent_nodes == ("node-9",)
    assert incident.local.ellipse_95.bearing_deg == pytest.approx(30)


def test_a_message_is_one_by_its_contract() -> None:
    incident = tell(track_of(2), told(), LocateSettings())
    assert parse_incident(to_json(incident)) == incident


def test_on_earth_the_place_is_told_in_degrees() -> None:
    plane = Plane(40.4406, -79.9959)
    incident = tell(track_of(), told(plane=plane, frame=None), LocateSettings())
    assert incident.local is None
    assert incident.position is not None
    east_m, north_m = plane.metres(incident.position.lat_deg, incident.position.lon_deg)
    assert (east_m, north_m) == pytest.approx((150, 220), abs=1)
    assert incident.position.alt_m is None


def test_a_place_that_is_hopeless_is_not_told_and_the_message_says_why() -> None:
    settings = LocateSettings(largest_ellipse_m=100.0)
    incident = tell(track_of(spread_m2=covariance_of(300.0, 10.0, 0.0)), told(), settings)
    assert incident.local is None
    assert incident.position is None
    assert all(one.local is None for one in incident.rounds)
    assert incident.why is not None
    assert "no place, its ellipse would reach 734 m" in incident.why


def test_the_reason_tells_how_many_nodes_agree_and_by_how_much() -> None:
    incident = tell(track_of(), told(), LocateSettings())
    assert incident.why is not None
    assert "times of 4 nodes agree within 0.0 ms" in incident.why
    assert "bearings" not in incident.why


def test_revisions_rise_by_one() -> None:
    track = track_of()
    for revision in range(3):
        track.said = tell(track, told(), LocateSettings())
        assert track.said.revision == revision
        assert track.said.incident_id == track.name


def test_a_person_is_asked_where_the_settings_want_one() -> None:
    asked = tell(track_of(), told(), LocateSettings(reviewed=True))
    unasked = tell(track_of(), told(), LocateSettings())
    assert (asked.review, unasked.review) == ("pending", "not_required")
