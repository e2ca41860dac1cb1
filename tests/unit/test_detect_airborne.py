import itertools

import pytest

from node.detect.airborne import (
    GROUND_FIREWORKS,
    MOST_WEIGHT,
    SitePrior,
    airborne_probability,
    weigh_elevation,
)
from node.types import Scores

SITE = SitePrior()


def test_what_is_high_was_in_the_air_and_what_is_level_was_not():
    assert airborne_probability(40.0, 1.0, SITE) > 0.95
    assert airborne_probability(0.0, 1.0, SITE) < 0.05


def test_probability_grows_with_elevation():
    told = [airborne_probability(e, 1.0, SITE) for e in (0.0, 4.0, 6.0, 8.0, 10.0, 12.0, 18.0)]

    assert told == sorted(told)


@pytest.mark.parametrize("elevation_deg", [20.0, 45.0, 70.0, 80.0, 90.0])
def test_whatever_is_far_above_the_roofs_was_in_the_air_overhead_too(elevation_deg):
    assert airborne_probability(elevation_deg, 1.0, SITE) > 0.7


@pytest.mark.parametrize("elevation_deg", [-90.0, -30.0, 0.0, 45.0, 90.0])
@pytest.mark.parametrize("sigma_deg", [0.1, 1.0, 30.0])
def test_no_reading_is_certain(elevation_deg, sigma_deg):
    assert 0.0 < airborne_probability(elevation_deg, sigma_deg, SITE) < 1.0


def test_a_reading_that_says_little_moves_little():
    sure, vague = (airborne_probability(25.0, sigma, SITE) for sigma in (1.0, 30.0))

    assert sure > 0.9
    assert vague < 0.5


def test_between_tall_buildings_a_high_shot_is_less_surely_airborne():
    low, high = (
        airborne_probability(8.0, 1.0, SitePrior(building_height_m=height_m))
        for height_m in (10.0, 60.0)
    )

    assert high < 0.6 * low


def test_a_sensor_on_a_tower_sees_the_street_below_it():
    # From 60 m, a burst 60 m up is level; from the street it is high.
    tower = SitePrior(building_height_m=20.0, sensor_height_m=60.0)

    assert airborne_probability(0.0, 1.0, tower) > 5 * airborne_probability(0.0, 1.0, SITE)


@pytest.mark.parametrize("airborne", [0.0, 1e-9, 0.08, 0.5, 0.999999, 1.0])
def test_elevation_is_no_veto_either_way(airborne):
    shares = (0.001, 0.05, 0.3, 0.5, 0.9)
    for gunfire, fireworks in itertools.product(shares, shares):
        if gunfire + fireworks > 0.99:
            continue
        rest = 1 - gunfire - fireworks
        before = Scores(gunfire, fireworks, 0.25 * rest, 0.75 * rest)

        after = weigh_elevation(before, airborne)

        odds = (after.fireworks / after.gunfire) / (before.fireworks / before.gunfire)
        assert GROUND_FIREWORKS - 1e-9 <= odds <= MOST_WEIGHT + 1e-9
        total = after.gunfire + after.fireworks + after.backfire + after.other
        assert total == pytest.approx(1.0)
        assert after.gunfire / after.other == pytest.approx(before.gunfire / before.other)


def test_a_sound_that_is_surely_a_shot_stays_one_from_a_tower():
    after = weigh_elevation(Scores(0.95, 0.03, 0.01, 0.01), 1.0)

    assert after.gunfire > 0.8


def test_a_sound_that_could_be_either_is_a_burst_if_it_came_from_the_air():
    after = weigh_elevation(Scores(0.45, 0.45, 0.05, 0.05), 0.99)

    assert after.fireworks > 0.7


def test_weights_by_hand():
    # Beyond the bound, five times the fireworks: 0.4 : 2.0 : 0.2, so 0.4 / 2.6.
    after = weigh_elevation(Scores(0.4, 0.4, 0.1, 0.1), 1.0)

    assert after.gunfire == pytest.approx(0.4 / 2.6)
    assert after.fireworks == pytest.approx(2.0 / 2.6)
