import math

import numpy as np
import pytest

from node.capture.geometry import load_geometry
from node.detect.arrival import FirstArrival
from node.detect.direction import DirectionFinder, Explanation
from tests.timing.array_scene import Ground, Mismatch, hear, towards

RATE = 48_000
SOUND_M_S = 343.0
EXACT = Mismatch(gain_db=0.0, delay_s=0.0, place_m=0.0)
TETRAHEDRON = load_geometry("tetrahedron_200mm", 4).positions_m
SQUARE = load_geometry("square_65mm", 4).positions_m
# Arrays of other sizes, none regular: five round a mast, six, a cube without two corners, eight.
PYRAMID = np.array([[0.1, 0.1, 0], [-0.1, 0.1, 0], [-0.1, -0.1, 0], [0.1, -0.1, 0], [0, 0, 0.12]])
OCTAHEDRON = 0.1 * np.concatenate((np.eye(3), -np.eye(3)))
CUBE = 0.1 * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
TRIANGLE = np.array([[0, 0.1, 0], [-0.0866, -0.05, 0], [0.0866, -0.05, 0]])
LINE = np.array([[0.1 * k, 0.0, 0.0] for k in range(4)])


def heard_from(positions_m, azimuth_deg, elevation_deg, snr_db=30.0, seed=0, **scene):
    scene = {"calibre": "9mm", "range_m": 150.0, "mismatch": EXACT, **scene}
    u = towards(azimuth_deg, elevation_deg)
    return hear(positions_m, u, snr_db, np.random.default_rng(seed), rate_hz=RATE, **scene)


def explain(positions_m, heard, sound=None, **finder) -> Explanation:
    finder = DirectionFinder(positions_m, RATE, **finder)
    before, after = finder.window()
    at = int(heard.onset)
    sound = heard.sound if sound is None else sound
    return finder.explain(sound[at - before : at + after], before + heard.onset - at)


def off_deg(direction, heard) -> float:
    """Give the angle to the truth; of azimuths where no elevation is told."""
    if direction.elevation_deg is None:
        return abs((direction.azimuth_deg - heard.azimuth_deg + 180) % 360 - 180)
    u = towards(direction.azimuth_deg, direction.elevation_deg)
    return math.degrees(math.acos(min(1.0, float(u @ heard.u))))


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg"), [(0, 0), (90, 10), (200, 35), (359, 60), (45, -10)]
)
def test_a_tetrahedron_tells_where_a_shot_came_from(azimuth_deg, elevation_deg):
    heard = heard_from(TETRAHEDRON, azimuth_deg, elevation_deg, snr_db=40.0)

    told = explain(TETRAHEDRON, heard)

    assert told.reason == ""
    assert off_deg(told.direction, heard) <= 0.6
    assert told.speed_m_s == pytest.approx(SOUND_M_S, rel=0.01)
    assert told.used == (0, 1, 2, 3)


@pytest.mark.parametrize("quarter", range(4))
def test_azimuth_runs_from_north_over_east(quarter):
    # By hand: microphone 0 of a cross stands north, 1 east; from the east it comes to 1 first.
    cross = 0.1 * np.array([[0, 1, 0], [1, 0, 0], [0, -1, 0], [-1, 0, 0]], float)
    heard = heard_from(cross, 90 * quarter, 0, snr_db=40.0)

    told = explain(cross, heard)

    assert np.argmin(told.arrival.delays_s) == quarter
    assert off_deg(told.direction, heard) <= 1.0


@pytest.mark.parametrize(
    "positions_m",
    [TETRAHEDRON, PYRAMID, OCTAHEDRON, OCTAHEDRON[[0, 1, 2, 3, 5]], CUBE[1:], CUBE],
    ids=["4", "5", "6", "5 of 6", "7", "8"],
)
def test_arrays_of_four_to_eight_microphones_in_space_tell_azimuth_and_elevation(positions_m):
    errors_deg = []
    for seed in range(6):
        heard = heard_from(positions_m, 61.0 * seed, 12.0 * seed, seed=seed)
        errors_deg.append(off_deg(explain(positions_m, heard).direction, heard))

    assert np.median(errors_deg) <= 0.7
    assert np.max(errors_deg) <= 2.0


@pytest.mark.parametrize("positions_m", [TRIANGLE, SQUARE], ids=["3", "4"])
def test_a_level_planar_array_tells_azimuth_alone_near_the_horizon(positions_m):
    for seed in range(5):
        heard = heard_from(positions_m, 71.0 * seed, 5.0, snr_db=35.0, seed=seed)

        direction = explain(positions_m, heard).direction

        assert direction.elevation_deg is None
        assert direction.airborne_probability is None
        assert off_deg(direction, heard) <= 3.0


def test_a_level_planar_array_tells_elevation_high_up():
    heard = heard_from(SQUARE, 130.0, 55.0, snr_db=40.0)

    direction = explain(SQUARE, heard).direction

    assert direction.elevation_deg == pytest.approx(55.0, abs=2.45 * direction.sigma_deg)
    assert direction.sigma_deg < 5


def test_a_tilted_planar_array_tells_nothing_where_two_directions_fit():
    tilted = SQUARE[:, [0, 2, 1]]  # on a wall that faces north
    heard = heard_from(tilted, 20.0, 5.0, snr_db=40.0)

    told = explain(tilted, heard)

    assert told.direction is None
    assert "two directions fit" in told.reason


def test_microphones_in_a_line_tell_nothing():
    told = explain(LINE, heard_from(LINE, 30.0, 5.0, snr_db=40.0))

    assert told.direction is None
    assert "in a line" in told.reason


def test_noise_alone_has_no_direction():
    refused = 0
    for seed in range(20):
        heard = heard_from(TETRAHEDRON, 10.0, 10.0, snr_db=-20.0, seed=seed)
        refused += explain(TETRAHEDRON, heard).direction is None

    assert refused >= 17


def test_what_is_told_at_a_low_level_is_told_with_its_error():
    found = []
    for seed in range(40):
        heard = heard_from(TETRAHEDRON, 9.0 * seed, 15.0, snr_db=12.0, seed=seed)
        direction = explain(TETRAHEDRON, heard).direction
        if direction is not None:
            found.append(off_deg(direction, heard) / direction.sigma_deg)

    assert np.mean(np.array(found) <= 4.0) >= 0.9


def test_silence_has_no_direction():
    heard = heard_from(TETRAHEDRON, 10.0, 10.0)

    told = explain(TETRAHEDRON, heard, np.zeros_like(heard.sound))

    assert (told.direction, told.reason) == (None, "nothing is heard")


@pytest.mark.parametrize("dead", ["silent", "hissing", "stuck"])
def test_a_dead_microphone_of_five_is_left_out(dead):
    heard = heard_from(PYRAMID, 75.0, 25.0)
    sound = heard.sound.copy()
    hiss = 0.05 * np.random.default_rng(1).standard_normal(len(sound))
    sound[:, 2] = {"silent": 0.0, "hissing": hiss, "stuck": 0.7}[dead]

    told = explain(PYRAMID, heard, sound)

    assert told.used == (0, 1, 3, 4)
    assert off_deg(told.direction, heard) <= 1.5


def test_a_tetrahedron_with_a_dead_microphone_tells_at_most_what_three_can():
    for dead in range(4):
        heard = heard_from(TETRAHEDRON, 75.0, 25.0)
        sound = heard.sound.copy()
        sound[:, dead] = 0.0

        told = explain(TETRAHEDRON, heard, sound)

        assert dead not in told.used
        # Three below on a level are a planar array; any other three are a tilted one.
        assert told.direction is None or off_deg(told.direction, heard) <= 3.0


def test_two_microphones_that_hear_are_too_few():
    heard = heard_from(TETRAHEDRON, 75.0, 25.0)
    sound = heard.sound.copy()
    sound[:, 1:3] = 0.0

    told = explain(TETRAHEDRON, heard, sound)

    assert told.direction is None
    assert told.reason == "2 microphones hear the same sound"


@pytest.mark.parametrize("inverted", range(4))
def test_a_microphone_of_wrong_polarity_is_found_and_turned_round(inverted):
    heard = heard_from(TETRAHEDRON, 160.0, 20.0)
    sound = heard.sound.copy()
    sound[:, inverted] *= -1

    told = explain(TETRAHEDRON, heard, sound)

    assert told.inverted == (inverted,)
    assert off_deg(told.direction, heard) <= 1.5


@pytest.mark.parametrize("inverted", [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("positions_m", [TETRAHEDRON, SQUARE], ids=["tetrahedron", "square"])
def test_two_microphones_of_four_that_are_inverted_turn_no_direction(positions_m, inverted):
    heard = heard_from(positions_m, 160.0, 10.0)
    sound = heard.sound.copy()
    sound[:, inverted] *= -1

    told = explain(positions_m, heard, sound)

    # Which pair is upright cannot be told, and need not be: what it is against channel 0.
    others = tuple(sorted({0, 1, 2, 3} - {*inverted}))
    assert told.inverted == (others if 0 in inverted else inverted)
    assert off_deg(told.direction, heard) <= 3.0


def test_swapped_microphones_of_an_array_with_one_to_spare_fit_no_plane_wave():
    refused = 0
    for azimuth_deg in range(0, 360, 20):
        heard = heard_from(PYRAMID, azimuth_deg, 15.0)
        sound = heard.sound[:, [1, 0, 2, 3, 4]]
        refused += explain(PYRAMID, heard, sound).direction is None

    # Sound that comes along the line between both cannot tell them apart by more than it is off.
    assert refused >= 14


def test_a_clipping_microphone_does_not_turn_the_direction():
    heard = heard_from(TETRAHEDRON, 222.0, 18.0, snr_db=35.0)
    sound = heard.sound.copy()
    sound[:, 1] = np.clip(4 * sound[:, 1], -0.999, 0.999)

    direction = explain(TETRAHEDRON, heard, sound).direction

    assert direction is None or off_deg(direction, heard) <= 3.0


def test_delays_of_channels_are_taken_off():
    late_s = np.array([0.0, 40e-6, -30e-6, 16e-6])
    heard = heard_from(TETRAHEDRON, 300.0, 12.0, delays_s=late_s)

    with_delays = explain(TETRAHEDRON, heard, delays_s=late_s).direction
    without = explain(TETRAHEDRON, heard, position_sigma_m=10e-3).direction

    assert off_deg(with_delays, heard) <= 1.0
    assert off_deg(without, heard) >= 2.0


def test_three_early_echoes_do_not_turn_the_direction():
    errors_deg = []
    for seed in range(15):
        heard = heard_from(TETRAHEDRON, 24.0 * seed, 10.0, seed=seed, echoes=3)
        direction = explain(TETRAHEDRON, heard).direction
        errors_deg.append(90.0 if direction is None else off_deg(direction, heard))

    assert np.median(errors_deg) <= 0.7
    assert np.percentile(errors_deg, 90) <= 1.5


# From a street under a mast of 6 m, and one of 3 m, the ground answers after 0.04 to 2 ms.
@pytest.mark.parametrize("sensor_m", [3.0, 6.0])
@pytest.mark.parametrize("range_m", [30.0, 50.0, 100.0, 200.0, 400.0])
def test_the_ground_pulls_no_shot_from_the_street_down(sensor_m, range_m):
    ground = Ground(sensor_m=sensor_m, source_m=1.5, reflection=0.7)
    elevation_deg = ground.elevation_deg(range_m)
    off = []
    for seed in range(8):
        scene = {"range_m": range_m, "ground": ground, "seed": seed}
        heard = heard_from(TETRAHEDRON, 45.0 * seed, elevation_deg, snr_db=35.0, **scene)
        direction = explain(TETRAHEDRON, heard).direction
        assert off_deg(direction, heard) <= 2.45 * direction.sigma_deg
        off.append(direction.elevation_deg - elevation_deg)

    assert abs(np.mean(off)) <= 0.25


def test_a_warm_day_turns_no_direction_of_a_tetrahedron():
    heard = heard_from(TETRAHEDRON, 100.0, 30.0, snr_db=40.0, speed_m_s=353.0)

    told = explain(TETRAHEDRON, heard)

    assert told.speed_m_s == pytest.approx(353.0, rel=0.01)
    assert off_deg(told.direction, heard) <= 0.6


def test_a_source_beside_the_array_is_no_plane_wave():
    # A tap 10 cm from microphone 0: delays of a sphere, by hand, as whole samples of one click.
    at_m = TETRAHEDRON[0] + np.array([0.0, 0.1, 0.0])
    late = np.linalg.norm(TETRAHEDRON - at_m, axis=1) / SOUND_M_S * RATE
    heard = heard_from(TETRAHEDRON, 0.0, 0.0, snr_db=40.0)
    sound = np.stack(
        [np.roll(heard.sound[:, 0], round(one - late[0])) for one in late.tolist()], axis=1
    )

    told = explain(TETRAHEDRON, heard, sound)

    if told.direction is not None:
        assert off_deg(told.direction, heard) <= 4 * told.direction.sigma_deg
    assert told.speed_m_s != pytest.approx(SOUND_M_S, rel=0.01)


def test_the_error_told_grows_as_the_sound_fades():
    sigmas_deg = [
        explain(TETRAHEDRON, heard_from(TETRAHEDRON, 50.0, 20.0, snr_db=snr_db)).direction.sigma_deg
        for snr_db in (40.0, 25.0, 15.0)
    ]

    assert sigmas_deg == sorted(sigmas_deg)
    assert sigmas_deg[2] > 1.5 * sigmas_deg[0]


def test_the_time_across_an_array_is_that_of_its_two_farthest_microphones_on_a_cold_day():
    apart_m = np.linalg.norm(LINE[:, None] - LINE[None], axis=-1)

    crossing_s = FirstArrival(RATE, apart_m / SOUND_M_S).crossing_s

    assert crossing_s == pytest.approx(0.3 / 330, rel=0.01)
