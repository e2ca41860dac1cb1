import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from node.capture.geometry import load_geometry
from node.detect import calibrate
from node.detect.arrival import Arrival
from node.detect.calibrate import FEWEST_IMPULSES
from node.errors import CalibrationError, GunfireNodeError

SOUND_M_S = 343.0
NOMINAL_M = load_geometry("tetrahedron_200mm", 4).positions_m
PYRAMID_M = np.array([[0.1, 0.1, 0], [-0.1, 0.1, 0], [-0.1, -0.1, 0], [0.1, -0.1, 0], [0, 0, 0.12]])
ALL_ROUND = (-20.0, 70.0)


def built(nominal_m, seed=0, place_m=3e-3, delay_s=5e-6):
    """Put an array together clumsily; give it in the axes that fit the nominal one best."""
    rng = np.random.default_rng(seed)
    middle_m = nominal_m.mean(axis=0)
    places_m = nominal_m + rng.normal(0, place_m, nominal_m.shape)
    places_m = places_m - places_m.mean(axis=0)
    turn, _ = Rotation.align_vectors(nominal_m - middle_m, places_m)
    late_s = rng.normal(0, delay_s, len(nominal_m))
    return turn.apply(places_m) + middle_m, late_s - late_s.mean()


def arrivals(
    places_m,
    late_s,
    count,
    *,
    elevations_deg=ALL_ROUND,
    azimuths_deg=(0.0, 360.0),
    sigma_s=0.5e-6,
    speed_sigma=0.003,
    seed=1,
):
    """Give arrivals of plane waves, by hand: early by place · direction / speed, late by delay."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        azimuth, elevation = np.deg2rad([rng.uniform(*azimuths_deg), rng.uniform(*elevations_deg)])
        flat = np.cos(elevation)
        u = np.array([flat * np.sin(azimuth), flat * np.cos(azimuth), np.sin(elevation)])
        speed_m_s = SOUND_M_S * (1 + speed_sigma * rng.standard_normal())
        delays_s = late_s - places_m @ u / speed_m_s + rng.normal(0, sigma_s, len(places_m))
        found.append(arrival(delays_s - delays_s.mean(), sigma_s))
    return found


def arrival(delays_s, sigma_s=0.5e-6, coherence=0.95):
    used = tuple(np.flatnonzero(np.isfinite(delays_s)).tolist())
    return Arrival(delays_s, sigma_s, 0.0, coherence, used, ())


def rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@pytest.mark.parametrize("nominal_m", [NOMINAL_M, PYRAMID_M], ids=["tetrahedron", "pyramid"])
@pytest.mark.parametrize("seed", range(4))
def test_places_and_delays_are_found(nominal_m, seed):
    places_m, late_s = built(nominal_m, seed)

    told = calibrate(nominal_m, arrivals(places_m, late_s, 200, seed=100 + seed))

    assert rms(told.positions_m - places_m) < 0.3 * rms(nominal_m - places_m)
    assert rms(told.positions_m - places_m) <= 2 * told.position_sigma_m
    assert rms(told.delays_s - late_s) <= 2 * told.delay_sigma_s
    assert told.position_sigma_m < 0.6e-3
    assert len(told.used) == 200
    assert told.residual_s < 1e-6 < told.nominal_residual_s


def test_an_array_that_is_as_it_was_meant_stays_so():
    told = calibrate(NOMINAL_M, arrivals(NOMINAL_M, np.zeros(4), 200))

    assert np.abs(told.positions_m - NOMINAL_M).max() < 0.7e-3
    assert np.abs(told.delays_s).max() < 2e-6


def test_more_impulses_tell_more():
    places_m, late_s = built(NOMINAL_M)
    few, many = (calibrate(NOMINAL_M, arrivals(places_m, late_s, n)) for n in (80, 400))

    assert many.position_sigma_m < few.position_sigma_m
    assert many.timing_sigma_s < few.timing_sigma_s


def test_what_no_impulse_tells_stays_as_it_was():
    # Turned by a degree and moved: heard alike, but for where north is.
    shift_m = np.array([3.0, -2.0, 5.0])
    turned_m = Rotation.from_euler("z", 1.0, degrees=True).apply(NOMINAL_M.copy())

    told = calibrate(NOMINAL_M + shift_m, arrivals(turned_m, np.full(4, 7e-6), 200))

    assert np.abs(told.positions_m - NOMINAL_M - shift_m).max() < 0.8e-3
    assert told.delays_s.mean() == pytest.approx(0.0, abs=1e-12)


def test_timing_is_known_as_well_as_it_is_told():
    places_m, late_s = built(NOMINAL_M, 9)
    heard = arrivals(places_m, late_s, 200, speed_sigma=0.01)
    told = calibrate(NOMINAL_M, heard)
    wrong_s = []
    for azimuth in np.linspace(0, 2 * np.pi, 24):
        u = np.array([np.sin(azimuth), np.cos(azimuth), 0.4]) / np.hypot(1, 0.4)
        off_s = told.delays_s - late_s - (told.positions_m - places_m) @ u / SOUND_M_S
        wrong_s.append(off_s - off_s.mean())

    assert rms(wrong_s) <= 2 * told.timing_sigma_s
    assert told.timing_sigma_s < np.hypot(told.delay_sigma_s, told.position_sigma_m / SOUND_M_S)


def test_dead_channels_of_some_impulses_do_not_hurt():
    places_m, late_s = built(PYRAMID_M)
    heard = arrivals(places_m, late_s, 240)
    for index in range(0, 240, 3):
        heard[index].delays_s[index % 5] = np.nan
        heard[index] = arrival(heard[index].delays_s)

    told = calibrate(PYRAMID_M, heard)

    assert rms(told.positions_m - places_m) < 0.7e-3


def test_impulses_that_were_no_plane_waves_are_left_out():
    places_m, late_s = built(PYRAMID_M)
    heard = arrivals(places_m, late_s, 200)
    rng = np.random.default_rng(5)
    wild = set(range(0, 200, 10))
    for index in wild:
        heard[index] = arrival(rng.normal(0, 200e-6, 5))

    told = calibrate(PYRAMID_M, heard)

    assert not wild & set(told.used)
    assert len(told.used) >= 175
    assert rms(told.positions_m - places_m) < 0.7e-3


def test_impulses_in_doubt_do_not_count():
    places_m, late_s = built(NOMINAL_M)
    good = arrivals(places_m, late_s, FEWEST_IMPULSES - 1)
    doubtful = [
        arrival(good[0].delays_s, sigma_s=np.inf),
        arrival(good[1].delays_s, coherence=0.3),
        arrival(np.array([0.0, 1e-5, np.nan, np.nan])),
    ]

    with pytest.raises(CalibrationError, match=f"{FEWEST_IMPULSES - 1} of {len(good) + 3}"):
        calibrate(NOMINAL_M, good + doubtful)


def test_no_impulses_are_too_few():
    with pytest.raises(GunfireNodeError, match="0 of 0"):
        calibrate(NOMINAL_M, [])


@pytest.mark.parametrize(
    "sides",
    [
        {"elevations_deg": (0.0, 1.0)},
        {"elevations_deg": (30.0, 31.0)},
        {"azimuths_deg": (0.0, 60.0), "elevations_deg": (0.0, 20.0)},
    ],
    ids=["horizon", "one elevation", "one side"],
)
def test_impulses_from_too_few_sides_calibrate_nothing(sides):
    places_m, late_s = built(NOMINAL_M)

    with pytest.raises(CalibrationError, match="too few sides"):
        calibrate(NOMINAL_M, arrivals(places_m, late_s, 200, **sides))


@pytest.mark.parametrize("seed", range(3))
def test_the_horizon_is_enough_for_an_array_that_is_tilted_between(seed):
    places_m, late_s = built(NOMINAL_M, seed)
    heard = []
    for number, (axis, tilt_deg) in enumerate([("x", 0), ("x", 45), ("y", 45)]):
        stood_m = Rotation.from_euler(axis, tilt_deg, degrees=True).apply(places_m)
        heard += arrivals(stood_m, late_s, 20, elevations_deg=(-5, 15), seed=10 * seed + number)

    told = calibrate(NOMINAL_M, heard)

    assert rms(told.positions_m - places_m) < 0.3 * rms(NOMINAL_M - places_m)


def test_another_array_than_the_nominal_one_is_refused():
    with pytest.raises(CalibrationError):
        calibrate(PYRAMID_M, arrivals(2 * PYRAMID_M, np.zeros(5), 100))


def test_channels_in_another_order_are_refused():
    with pytest.raises(CalibrationError, match="order of"):
        calibrate(PYRAMID_M, arrivals(PYRAMID_M[[1, 0, 2, 3, 4]], np.zeros(5), 100))


@pytest.mark.parametrize(
    ("positions_m", "reason"),
    [
        (NOMINAL_M[:3], "3 microphones"),
        (load_geometry("square_65mm", 4).positions_m, "in a plane"),
        (np.zeros((4, 3)), "in a plane"),
        (np.full((4, 3), np.nan), "finite"),
        (NOMINAL_M[:, :2], "place"),
    ],
)
def test_arrays_that_cannot_be_calibrated_are_refused(positions_m, reason):
    with pytest.raises(CalibrationError, match=reason):
        calibrate(positions_m, [])


def test_arrivals_of_another_array_are_refused():
    heard = arrivals(PYRAMID_M, np.zeros(5), 50)

    with pytest.raises(CalibrationError, match="5 channels, the array 4"):
        calibrate(NOMINAL_M, heard)
