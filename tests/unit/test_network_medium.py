"""The air before any shot, and the flat frame round a site."""

import math

import pytest
from pyproj import Geod

from node.network.medium import Weather, medium
from node.network.plane import Plane

GEOD = Geod(ellps="WGS84")
PLACES = [(40.4406, -79.9959), (-33.8688, 151.2093), (-16.8, 179.9955), (0.0, 0.0)]


@pytest.mark.parametrize(
    ("temperature_c", "speed_m_s"),
    [(0.0, 331.3), (20.0, 343.2), (-20, 318.9)],
)
def test_the_speed_of_sound_is_that_of_dry_air(temperature_c: float, speed_m_s: float) -> None:
    assert medium(Weather(temperature_c)).speed_m_s == pytest.approx(speed_m_s, abs=0.1)


def test_without_a_thermometer_sound_is_known_to_two_percent_and_with_one_much_better() -> None:
    unknown, known = medium(), medium(Weather(15.0))
    assert unknown.speed_m_s == known.speed_m_s
    assert 0.01 < unknown.speed_sigma_m_s / unknown.speed_m_s < 0.025
    assert known.speed_sigma_m_s < unknown.speed_sigma_m_s / 3


@pytest.mark.parametrize(
    ("from_deg", "towards"), [(0, (0, -5)), (90, (-5, 0)), (180, (0, 5)), (270, (5, 0))]
)
def test_wind_from_the_north_blows_to_the_south(
    from_deg: float, towards: tuple[float, float]
) -> None:
    air = medium(Weather(wind_m_s=5.0, wind_from_deg=from_deg))
    assert air.wind_m_s == pytest.approx(towards, abs=1e-9)


def test_a_wind_from_nowhere_is_no_wind_unless_it_is_calm() -> None:
    without_vane = medium(Weather(wind_m_s=8.0))
    calm = medium(Weather(wind_m_s=0.0))
    assert without_vane == medium()
    assert calm.wind_m_s == (0.0, 0.0)
    assert calm.wind_sigma_m_s < without_vane.wind_sigma_m_s


def test_a_storm_is_known_less_well_than_a_breeze() -> None:
    breeze, storm = (medium(Weather(wind_m_s=v, wind_from_deg=10.0)) for v in (1.0, 20.0))
    assert storm.wind_sigma_m_s > breeze.wind_sigma_m_s


@pytest.mark.parametrize(("lat_deg", "lon_deg"), PLACES)
def test_metres_on_the_plane_are_those_of_the_ellipsoid_by_length_and_bearing(
    lat_deg: float, lon_deg: float
) -> None:
    plane = Plane(lat_deg, lon_deg)
    for bearing_deg, length_m in ((0.0, 900.0), (60.0, 2500.0), (200.0, 10_000.0)):
        lon, lat, _ = GEOD.fwd(lon_deg, lat_deg, bearing_deg, length_m)
        east_m, north_m = plane.metres(lat, lon)
        assert math.hypot(east_m, north_m) == pytest.approx(length_m, rel=1e-5)
        assert math.degrees(math.atan2(east_m, north_m)) % 360 == pytest.approx(
            bearing_deg, abs=0.1
        )


@pytest.mark.parametrize(("lat_deg", "lon_deg"), PLACES)
def test_a_place_comes_back_from_the_plane_within_a_millimetre(
    lat_deg: float, lon_deg: float
) -> None:
    plane = Plane(lat_deg, lon_deg)
    assert plane.metres(lat_deg, lon_deg) == pytest.approx((0.0, 0.0), abs=1e-6)
    again = plane.metres(*plane.degrees(-1234.5, 678.9))
    assert again == pytest.approx((-1234.5, 678.9), abs=1e-3)


def test_the_other_side_of_earth_is_beyond_all_reach() -> None:
    assert math.hypot(*Plane(10.0, 20.0).metres(-10.0, -160.0)) > 1e7


def test_what_is_no_place_on_earth_is_not_a_number() -> None:
    east_m, north_m = Plane(10.0, 20.0).metres(91.0, 0.0)
    assert math.isnan(east_m)
    assert math.isnan(north_m)
