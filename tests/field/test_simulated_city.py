"""The simulated cities of `make field` in small, and that what judges them judges rightly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares

from node.messages import Detection, Incident, parse_detection, to_json
from node.messages.detection import Position
from node.messages.incident import (
    INCIDENT_SCHEMA,
    Ellipse,
    IncidentRound,
    SourceLocal,
    SourcePosition,
    Witness,
)
from node.network.medium import Weather
from node.types import NS_PER_S
from node.utc import utc_text
from tests.field import association, city, liars, load
from tests.field.broker_load import first_told
from tests.field.detections import (
    BEGIN_NS,
    GROUNDS,
    SITE,
    Delivery,
    Ground,
    Sender,
    feed,
    holds,
)
from tests.field.stream import Fired, Stream

GROUND = Ground()


class Silent:
    """A locator that finds nothing."""

    doubts: dict[tuple[str, str], str] = {}  # noqa: RUF012

    def place(self, site: str, node_id: str, place: object) -> None: ...

    def up(self, site: str, node_id: str, up: bool) -> None: ...

    def weather(self, site: str, weather: Weather) -> None: ...

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        return []

    def tick(self, now_ns: int) -> list[Incident]:
        return []

    def finish(self) -> list[Incident]:
        return []


class Scripted(Silent):
    """A locator that says what it was given to say, a list at each push."""

    def __init__(self, *said: list[Incident]) -> None:
        self.said = list(said)
        self.ticks: list[int] = []
        self.pushes: list[int] = []

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        self.pushes.append(now_ns)
        return self.said.pop(0)

    def tick(self, now_ns: int) -> list[Incident]:
        self.ticks.append(now_ns)
        return []


def incident(
    place_m: tuple[float, float] | None, at_s: float, name: int = 0, **changes: Any
) -> Incident:
    local = None
    if place_m is not None:
        ellipse = Ellipse(major_m=20.0, minor_m=10.0, bearing_deg=0.0)
        local = SourceLocal(
            frame="survey", x_m=place_m[0], y_m=place_m[1], z_m=None, ellipse_95=ellipse
        )
    utc = utc_text(BEGIN_NS + round(at_s * NS_PER_S))
    shot = IncidentRound(utc=utc, position=None, local=local)
    event_id = "00000000-0000-5000-8000-000000000000"
    fields: dict[str, Any] = {
        "schema": INCIDENT_SCHEMA,
        "incident_id": f"00000000-0000-5000-8000-{name:012x}",
        "revision": 0,
        "type": "new",
        "site": SITE,
        "utc": utc,
        "sigma_s": 0.01,
        "position": None,
        "local": local,
        "round_count": 1,
        "rounds": (shot,),
        "grade": "gunfire",
        "nodes": (Witness(node_id="node-0000", event_id=event_id, residual_s=0.0, used=True),),
        "silent_nodes": (),
        "review": "pending",
    }
    return Incident(**{**fields, **changes})


def sender(ground: Ground = GROUND) -> Sender:
    return Sender("node-0001", ground.place(np.array([30.0, 40.0, 5.0]), 0.7))


@pytest.mark.parametrize("ground", list(dict.fromkeys(GROUNDS)), ids=str)
def test_a_simulated_detection_is_a_valid_message_of_the_contract(ground: Ground) -> None:
    said = sender(ground).detection([1.5, 1.0], 1e-4, azimuth_rad=-0.5, azimuth_sigma_deg=2.0)
    assert parse_detection(to_json(said)) == said
    assert said.onset_utc == "2027-01-01T00:00:01.000000000Z"
    assert said.direction is not None
    assert said.direction.azimuth_deg == pytest.approx(360 - np.rad2deg(0.5), abs=0.01)


def test_a_later_revision_has_the_name_of_its_event_and_a_new_number() -> None:
    node = sender()
    first = node.detection([1.0], 1e-4)
    again = node.detection([1.0, 1.4], 1e-4, again=first)
    assert (again.event_id, again.revision, again.type) == (first.event_id, 1, "update")
    assert again.seq == first.seq + 1
    assert node.detection([3.0], 1e-4).event_id != first.event_id


@pytest.mark.parametrize("ground", list(dict.fromkeys(GROUNDS)), ids=str)
def test_a_place_in_a_message_is_the_place_in_the_city(ground: Ground) -> None:
    place = ground.place(np.array([812.0, 455.0, 1.5]), 0.7)
    ellipse = Ellipse(major_m=1.0, minor_m=1.0, bearing_deg=0.0)
    if isinstance(place, Position):
        position = SourcePosition(
            lat_deg=place.lat_deg, lon_deg=place.lon_deg, alt_m=place.alt_m, ellipse_95=ellipse
        )
        told = incident(None, 1.0, position=position)
    else:
        told = incident((812.0, 455.0), 1.0)
    assert ground.metres(told) == pytest.approx([812.0, 455.0], abs=0.02)


def test_an_ellipse_is_long_along_its_bearing() -> None:
    ellipse = Ellipse(major_m=20.0, minor_m=5.0, bearing_deg=30.0)
    along = np.array([np.sin(np.pi / 6), np.cos(np.pi / 6)])
    across = np.array([along[1], -along[0]])
    centre = np.array([100.0, 200.0])
    assert holds(ellipse, centre, centre + 19.9 * along)
    assert not holds(ellipse, centre, centre + 20.1 * along)
    assert holds(ellipse, centre, centre - 4.9 * across)
    assert not holds(ellipse, centre, centre - 5.1 * across)


def test_what_stands_in_the_end_is_the_highest_revision_unless_it_was_taken_back() -> None:
    node = sender()
    better = incident((1.0, 1.0), 1.0, revision=1, type="update")
    said = [[better, incident((9.0, 9.0), 1.0)], [incident((5.0, 5.0), 2.0, name=1)]]
    said.append([incident((5.0, 5.0), 2.0, name=1, revision=1, type="cancel")])
    locator = Scripted(*said)
    deliveries = [Delivery(at_s, node.detection([at_s], 1e-4)) for at_s in (3.0, 1.0, 2.0)]
    assert feed(locator, deliveries) == [better]
    assert locator.pushes == sorted(locator.pushes)
    assert len(locator.ticks) == 8  # four a second, between the first and the last


def test_the_bound_is_what_least_squares_reaches_that_knows_the_echoes() -> None:
    rng = np.random.default_rng(5)
    conditions = city.Conditions(8)
    nodes_m, shot_m = city.layout(rng, 8), city.shot(rng)
    direct = np.arange(8) > 1
    covariance = city.bound(shot_m, nodes_m, conditions, direct)
    errors_m = np.array([_least_squares(rng, shot_m, nodes_m, direct) for _ in range(150)])
    assert np.sqrt(np.mean(errors_m**2)) == pytest.approx(np.sqrt(np.trace(covariance)), rel=0.15)


def _least_squares(rng: np.random.Generator, shot_m: Any, nodes_m: Any, direct: Any) -> float:
    """Place a shot of the bound's own model: normal delays, and priors that are right."""
    air = city.Air.of(rng, 0.01, 3.0)
    sigma_s = np.hypot(0.003, 0.7 / city.C_M_S)
    time_s = air.delays_s(shot_m, nodes_m) + rng.normal(0, sigma_s, len(nodes_m))
    azimuth = city.azimuths_rad(shot_m, nodes_m) + rng.normal(0, np.deg2rad(3), len(nodes_m))

    def residuals(x: Any) -> Any:
        at_m = np.array([x[0], x[1], city.SHOT_HEIGHT_M])
        guess = city.Air(city.C_M_S + x[3], x[4:6])
        late = (x[2] + guess.delays_s(at_m, nodes_m) - time_s)[direct] / sigma_s
        turned = (city.azimuths_rad(at_m, nodes_m) - azimuth)[direct]
        turned = (turned + np.pi) % (2 * np.pi) - np.pi
        return np.concatenate([late, turned / np.deg2rad(3), [x[3] / 3.43, x[4] / 3, x[5] / 3]])

    start = np.array([*shot_m[:2], 0.0, 0.0, 0.0, 0.0])
    scale = [10, 10, 0.03, 1, 1, 1]
    found = least_squares(residuals, start, x_scale=scale).x
    return float(np.hypot(*(found[:2] - shot_m[:2])))


def test_errors_as_large_as_the_bound_allows_count_as_the_bound_and_are_covered() -> None:
    rng = np.random.default_rng(6)
    covariance = np.array([[9.0, 3.0], [3.0, 4.0]])
    draws = rng.multivariate_normal(np.zeros(2), covariance, (2000, 2))
    inside = np.einsum("ni,ij,nj->n", draws[:, 0], np.linalg.inv(covariance), draws[:, 0]) < 5.991
    figures = city.Figures.of(
        [
            city.Outcome(
                float(np.hypot(*error)), np.hypot(*bound[None].T), 13**0.5, bool(held), 0.0, 0
            )
            for (error, bound), held in zip(draws, inside, strict=True)
        ]
    )
    assert figures.of_bound == pytest.approx(1, abs=0.08)
    assert figures.rms_m == pytest.approx(figures.bound_rms_m, rel=0.05)
    assert figures.covered == pytest.approx(95, abs=1.5)


def test_a_shot_that_nobody_placed_counts_as_far_off() -> None:
    figures = city.Figures.of(city.shots(city.Conditions(6), 4, locator=Silent))
    assert figures.placed == 0
    assert figures.median_m == city.NOWHERE_M


def test_each_shot_is_found_by_one_incident_and_the_rest_are_false() -> None:
    shooters = [
        association.Shooter(np.array([100.0, 100.0, 1.5]), (10.0,)),
        association.Shooter(np.array([500.0, 100.0, 1.5]), (10.5, 11.0)),
    ]
    pool = association.City(GROUND, [], shooters, [])
    right = [
        incident((110.0, 100.0), 10.01, 1),
        incident((505.0, 100.0), 10.5, 2, round_count=2),
    ]
    told = association.judge(pool, right)
    assert (told.found, told.false, told.right_rounds, told.apart) == (2, 0, 2, True)
    twice = association.judge(pool, [*right, incident((100.0, 100.0), 10.0, 3)])
    assert (twice.found, twice.false, twice.apart) == (2, 1, False)
    assert twice.errors_m[0] == 0  # the nearer of the two is the one that found it
    late = association.judge(pool, [incident((100.0, 100.0), 10.4, 1)])
    assert (late.found, late.false) == (0, 1)
    far = association.judge(pool, [incident((130.0, 100.0), 10.0, 1), incident(None, 10.5, 2)])
    assert (far.found, far.false) == (0, 2)


def test_nodes_tell_a_burst_as_one_event_and_go_on_with_it_in_a_revision() -> None:
    rng = np.random.default_rng(7)
    heard = [
        association.Heard(0, at_s, bearing)
        for at_s, bearing in ((10.0, 0.1), (10.4, 2.0), (11.3, 0.12), (13.5, 0.1))
    ]
    said = [one.detection for one in association.by_event(rng, [sender()], heard)]
    assert [(one.round_count, one.revision) for one in said] == [(2, 0), (3, 1), (1, 0)]
    assert said[0].event_id == said[1].event_id != said[2].event_id


def test_the_power_that_cost_grows_with_is_read_off() -> None:
    one = load.Borne(1, 1, 10.0, 1.0, 0.0, 0, 0, 0, 0)
    sizes = [replace(one, nodes=n, cost_s=0.01 * n**1.3, seconds=2.0) for n in (100, 1000, 10_000)]
    assert load.slope_of(sizes) == pytest.approx(1.3)


def test_a_stream_comes_in_order_at_its_rate_half_of_it_shots() -> None:
    stream = Stream(300, 1, per_s=100)
    deliveries = [one for ready in stream.slices(20) for one in ready]
    assert [one.at_s for one in deliveries] == sorted(one.at_s for one in deliveries)
    # The first second and a half has little: what begins then is told later.
    assert len(deliveries) / 18.5 == pytest.approx(100, rel=0.15)
    heard = [event for one in stream.fired for event in one.direct]
    assert len(heard) / (0.8 * 20) == pytest.approx(50, rel=0.2)
    assert {one.detection.event_id for one in deliveries} & set(heard)


def test_an_incident_tells_of_a_shot_if_it_uses_two_nodes_that_heard_it() -> None:
    events = [f"00000000-0000-5000-8000-{i:012x}" for i in range(4)]
    shots = [Fired(np.zeros(2), 1.0, tuple(events[:3])), Fired(np.zeros(2), 2.0, (events[3],))]

    def told(at_s: float, used: list[int], unused: list[int]) -> tuple[float, bytes]:
        nodes = tuple(
            Witness(node_id="n", event_id=events[i], residual_s=0.0, used=i in used)
            for i in [*used, *unused]
        )
        return at_s, to_json(incident((0.0, 0.0), 1.0, nodes=nodes))

    came = [told(1.0, [0, 3], [1, 2]), told(2.0, [0, 1], [3]), told(3.0, [0, 1, 2], [])]
    assert first_told(came, shots) == {0: 2.0}


# What follows runs the locator itself, in small; the bars are wide, since shots are few.


def test_shots_in_a_simulated_city_are_placed() -> None:
    figures = city.Figures.of(city.shots(city.Conditions(8), 24))
    assert figures.placed == 100
    assert figures.median_m <= 6
    assert figures.covered >= 80
    assert figures.others_per_shot <= 0.1


def test_several_shots_at_once_are_found_each_with_little_besides() -> None:
    figures = association.Figures.of(
        association.pools(association.shots_at_once, association.one_by_one, ("gunfire",), 8)
    )
    assert figures.recall >= 90
    assert figures.false_per_shot <= 10


def test_a_clock_a_second_off_moves_no_place() -> None:
    compared = liars.compare(np.random.default_rng(8), GROUND, "clock a second off")
    for before, after in zip(compared.without.shots, compared.with_it.shots, strict=True):
        assert before.found_m is not None
        assert after.found_m is not None
        assert not after.used
        assert np.hypot(*(after.found_m - before.found_m)) <= 10


def test_a_stream_of_a_town_is_placed() -> None:
    borne = load.bear(100, 9.0, per_s=20, warm_s=1.0)
    assert borne.shots >= 3
    assert borne.found / borne.shots >= 0.7
    assert borne.false <= 0.2 * borne.incidents
