"""Echoes in the simulation: images where geometry puts them, a tail of the energy asked for."""

import numpy as np
import pytest

from node.simulate.echoes import Tail, Wall, paths, random_street
from node.simulate.propagation import Atmosphere

NORTH = np.array([0.0, 1.0, 0.0])
EAST_WALL = Wall(x1_m=30, y1_m=-50, x2_m=30, y2_m=50, height_m=10, reflection=0.5)


def ways(source, listener, walls=(), **options):
    return paths(np.array(source, float), NORTH, np.array(listener, float), walls, **options)


def test_the_first_way_is_the_direct_one_and_the_ground_mirrors_it():
    direct, ground = ways([0, 0, 2], [100, 0, 5], ground_reflection=0.6)
    np.testing.assert_array_equal(direct.image_m, [0, 0, 2])
    np.testing.assert_array_equal(ground.image_m, [0, 0, -2])
    assert (direct.gain, ground.gain) == (1.0, 0.6)


def test_a_wall_mirrors_place_and_front():
    north_wall = Wall(x1_m=-50, y1_m=40, x2_m=50, y2_m=40, reflection=0.8)
    _, echo = ways([0, 0, 2], [10, 0, 2], [north_wall], ground_reflection=0)
    assert echo.image_m == pytest.approx([0, 80, 2])
    assert echo.front == pytest.approx([0, -1, 0])
    assert echo.gain == 0.8


@pytest.mark.parametrize(
    "wall",
    [
        EAST_WALL.model_copy(update={"y1_m": 20.0}),  # beside the point of reflection
        EAST_WALL.model_copy(update={"height_m": 1.0}),  # below it
        EAST_WALL.model_copy(update={"x1_m": 5.0, "x2_m": 5.0}),  # between the two
    ],
)
def test_a_wall_that_the_way_misses_gives_no_echo(wall):
    assert len(ways([0, 0, 2], [10, 0, 2], [EAST_WALL], ground_reflection=0)) == 2
    assert len(ways([0, 0, 2], [10, 0, 2], [wall], ground_reflection=0)) == 1


def test_a_corner_returns_a_sound_by_both_walls():
    north_wall = Wall(x1_m=-50, y1_m=30, x2_m=30, y2_m=30, reflection=0.5)
    found = ways([0, 0, 2], [5, 0, 2], [EAST_WALL, north_wall], ground_reflection=0)
    corner = [way for way in found if way.gain == 0.25]
    # Both orders lead through the corner's image; only the one that geometry allows remains.
    assert len(found) == 4
    assert corner[0].image_m == pytest.approx([60, 60, 2])


def test_echoes_can_be_limited_in_order():
    opposite = EAST_WALL.model_copy(update={"x1_m": -30.0, "x2_m": -30.0})
    counts = [
        len(ways([0, 0, 2], [5, 3, 2], [EAST_WALL, opposite], ground_reflection=0, order=n))
        for n in range(4)
    ]
    assert counts == [1, 3, 5, 7]


def test_a_random_street_is_settled_by_its_seed_and_lies_round_its_middle():
    first = random_street(np.random.default_rng(3), (100.0, -20.0), 6)
    assert first == random_street(np.random.default_rng(3), (100.0, -20.0), 6)
    assert len(first) == 6
    assert all(np.hypot(w.x1_m - 100, w.y1_m + 20) < 250 for w in first)


def test_the_tail_carries_the_energy_asked_for_and_comes_after_the_direct_sound():
    microphones_m = np.array([[0, 0, 0], [0.2, 0, 0], [0, 0.2, 0.1]])
    tail = Tail(level_db=-10.0, decay_s=0.5)
    air = Atmosphere()
    response = tail.response(np.random.default_rng(1), microphones_m, 48_000, air)
    # Its highs are lost to the air, so the energy is that below 2 kHz, of a flat direct sound.
    spectrum = np.abs(np.fft.rfft(response)) ** 2
    f = np.fft.rfftfreq(response.shape[1], 1 / 48_000)
    energy_db = 10 * np.log10(spectrum[:, (f > 50) & (f < 500)].mean(axis=1))
    assert energy_db == pytest.approx(-10.0, abs=1.5)
    # 5 ms: the earliest arrival, less the way over the array and half an interpolation kernel.
    assert np.abs(response[:, : int(0.005 * 48_000)]).max() < 1e-15
    later = (response[:, 12_000:14_000] ** 2).sum() / (response[:, 2_000:4_000] ** 2).sum()
    assert later == pytest.approx(10 ** (-60 * (10_000 / 48_000) / 0.5 / 10), rel=0.8)


def test_the_tail_agrees_between_microphones_at_low_frequencies_only():
    microphones_m = np.array([[0, 0, 0], [0.2, 0, 0]])
    response = Tail(0.0, 0.8).response(
        np.random.default_rng(1), microphones_m, 48_000, Atmosphere()
    )
    spectrum = np.fft.rfft(response)
    f = np.fft.rfftfreq(response.shape[1], 1 / 48_000)

    def agreement(low: float, high: float) -> float:
        a, b = spectrum[:, (f > low) & (f < high)]
        return float(np.abs(np.vdot(a, b)) / np.linalg.norm(a) / np.linalg.norm(b))

    assert agreement(30, 150) > 0.9
    assert agreement(3000, 5000) < 0.3
