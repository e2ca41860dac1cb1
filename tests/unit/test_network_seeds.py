"""Places and moments that a few arrivals settle: the truth is among them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

from node.network.arrivals import Pool, pool_of
from node.network.seeds import Seeds, seeds

C_M_S = 340.0
NODES_M = np.array([[0, 0, 0], [400, 50, 0], [350, 420, 0], [-30, 380, 0.0]])
FIRED_S = 2.5


def heard(
    shot_m: tuple[float, float],
    nodes: tuple[int, ...] = (0, 1, 2, 3),
    *,
    with_bearings: tuple[int, ...] = (),
    late_s: float = 0.0,
) -> Pool:
    """Give the arrivals of one shot on the ground; the last node's is late."""
    node = np.array(nodes)
    way_m = np.array([*shot_m, 0.0]) - NODES_M[node]
    time_s = FIRED_S + np.linalg.norm(way_m, axis=1) / C_M_S
    time_s[-1] += late_s
    azimuth = np.where(np.isin(node, with_bearings), np.arctan2(way_m[:, 0], way_m[:, 1]), np.nan)
    return pool_of(
        NODES_M,
        np.full(len(NODES_M), 0.5),
        node,
        time_s,
        np.full(len(node), 1e-4),
        azimuth_rad=azimuth,
        azimuth_sigma_rad=np.where(np.isnan(azimuth), np.inf, 0.05),
    )


def nearest_m(found: Seeds, shot_m: tuple[float, float]) -> float:
    """Give how far off the best seed is, moments counting as metres of sound."""
    places, moments = found
    off = np.column_stack([places - np.array(shot_m), C_M_S * (moments - FIRED_S)])
    return float(np.linalg.norm(off, axis=1).min())


@pytest.mark.parametrize("shot_m", [(150.0, 220.0), (-400.0, 200.0), (10.0, 5.0), (900.0, 900.0)])
def test_three_times_give_the_place_within_the_triangle_and_far_outside(
    shot_m: tuple[float, float],
) -> None:
    found = seeds(heard(shot_m, (0, 1, 2)), C_M_S, most=10)
    assert nearest_m(found, shot_m) < 0.01
    assert len(found[0]) <= 2, "a quadratic has two roots"


@pytest.mark.parametrize("shot_m", [(150.0, 220.0), (200.0, 25.0), (-150.0, -20.0), (3.0, 300.0)])
def test_two_times_and_a_bearing_give_the_place_also_between_the_nodes(
    shot_m: tuple[float, float],
) -> None:
    found = seeds(heard(shot_m, (0, 1), with_bearings=(0,)), C_M_S, most=10)
    assert nearest_m(found, shot_m) < 0.01


def test_two_times_without_a_bearing_give_nothing() -> None:
    places, moments = seeds(heard((150.0, 220.0), (0, 1)), C_M_S, most=10)
    assert places.shape == (0, 2)
    assert moments.shape == (0,)


def test_arrivals_that_no_sound_can_join_give_nothing() -> None:
    pool = heard((150.0, 220.0), (0, 1, 2), late_s=3.0)
    assert len(seeds(pool, C_M_S, most=10)[0]) == 0


def test_arrivals_of_one_node_are_never_joined() -> None:
    pool = heard((150.0, 220.0), (0, 0, 1), with_bearings=())
    assert len(seeds(pool, C_M_S, most=10)[0]) == 0


def test_nodes_in_a_line_give_finite_places() -> None:
    line_m = np.array([[0, 0, 0], [200, 0, 0], [400, 0, 0.0]])
    time_s = np.linalg.norm(np.array([150.0, 300.0, 0.0]) - line_m, axis=1) / C_M_S
    pool = pool_of(line_m, np.full(3, 0.5), np.arange(3), time_s, np.full(3, 1e-4))
    places, moments = seeds(pool, C_M_S, most=10)
    assert np.isfinite(places).all()
    assert np.isfinite(moments).all()


def test_only_seeds_that_a_given_arrival_has_part_in_are_made() -> None:
    pool = heard((150.0, 220.0), late_s=0.3)  # node 3's is an echo
    without = seeds(pool, C_M_S, most=99)
    with_it = seeds(pool, C_M_S, most=99, with_arrivals=np.array([3]))
    assert nearest_m(without, (150.0, 220.0)) < 0.01
    assert nearest_m(with_it, (150.0, 220.0)) > 5


def test_of_many_arrivals_a_sample_still_holds_the_truth() -> None:
    shot = heard((150.0, 220.0))
    rng = default_rng(4)
    clutter = rng.uniform(0, 5, 120)
    node = np.concatenate([shot.node, np.arange(120) % 4])
    pool = pool_of(
        NODES_M,
        np.full(4, 0.5),
        node,
        np.concatenate([shot.time_s, clutter]),
        np.full(124, 1e-4),
    )
    found = seeds(pool, C_M_S, most=3000)
    assert len(found[0]) <= 2 * 3000
    assert nearest_m(found, (150.0, 220.0)) < 20


def test_the_same_pool_gives_the_same_seeds() -> None:
    pool = heard((150.0, 220.0), with_bearings=(0, 2))
    one, other = (seeds(pool, C_M_S, most=3) for _ in range(2))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
