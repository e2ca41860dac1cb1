"""Shots from one place are stacked into one arrival for each node and path."""

from __future__ import annotations

import numpy as np
import pytest

from node.network.arrivals import Pool, pool_of
from node.network.stack import single, stack

SHOTS_S = np.array([0.0, 0.31, 0.58])
DELAYS_S = np.array([0.9, 1.3, 0.4])  # from the place to each node
SIGMA_S = 3e-4


def pool_at(node: list[int], time_s: np.ndarray, first: np.ndarray | None = None) -> Pool:
    """Make a pool of a place in time alone: what stacking goes by."""
    count = len(node)
    nodes = max(node) + 1
    return pool_of(
        np.zeros((nodes, 3)),
        np.full(nodes, 0.5),
        np.array(node),
        time_s,
        np.full(count, SIGMA_S),
        azimuth_rad=np.arange(count, dtype=float),
        azimuth_sigma_rad=np.full(count, 0.05),
        first=first,
        clutter_per_s=0.02,
    )


def three_shots(extra: tuple[tuple[int, float], ...] = ()) -> tuple[Pool, np.ndarray]:
    """Give three shots at three nodes and what else came; and how late each is for the first."""
    heard = [(n, DELAYS_S[n] + at) for n in range(3) for at in SHOTS_S] + list(extra)
    pool = pool_at([n for n, _ in heard], np.array([at for _, at in heard]))
    return pool, pool.time_s - DELAYS_S[pool.node]


def test_three_shots_at_three_nodes_become_three_arrivals() -> None:
    pool, late_s = three_shots()
    stacked = stack(pool, late_s, SHOTS_S)
    assert len(stacked.pool) == 3
    assert stacked.pool.node.tolist() == [0, 1, 2]
    assert stacked.pool.time_s == pytest.approx(DELAYS_S)
    assert stacked.gaps_s == pytest.approx(SHOTS_S)
    assert stacked.shift_s == 0.0


def test_a_stack_is_surer_of_its_time_than_each_of_its_shots() -> None:
    pool, late_s = three_shots()
    stacked = stack(pool, late_s, SHOTS_S)
    assert stacked.pool.sigma_s == pytest.approx(SIGMA_S / np.sqrt(3))
    assert (stacked.pool.clutter_per_s < 0.02).all(), "chance repeats itself less often"


def test_each_arrival_is_in_one_stack_and_at_its_shot() -> None:
    pool, late_s = three_shots()
    members = stack(pool, late_s, SHOTS_S).members
    assert sorted(members.ravel()) == list(range(9))
    for path in members:
        assert pool.time_s[path] - DELAYS_S[pool.node[path]] == pytest.approx(SHOTS_S)


def test_an_echo_of_all_shots_is_a_path_of_its_own() -> None:
    echo = tuple((1, DELAYS_S[1] + at + 0.17) for at in SHOTS_S)
    pool, late_s = three_shots(echo)
    stacked = stack(pool, late_s, SHOTS_S)
    at_node_1 = stacked.pool.time_s[stacked.pool.node == 1]
    assert sorted(at_node_1) == pytest.approx([DELAYS_S[1], DELAYS_S[1] + 0.17])
    assert len(stacked.pool) == 4


def test_a_shot_that_one_node_missed_leaves_a_hole_there() -> None:
    pool, _ = three_shots()
    kept = np.flatnonzero(~np.isclose(pool.time_s, DELAYS_S[2] + SHOTS_S[1]))
    pool = pool.only(kept)
    stacked = stack(pool, pool.time_s - DELAYS_S[pool.node], SHOTS_S)
    (of_2,) = stacked.members[stacked.pool.node == 2]
    assert (of_2 >= 0).tolist() == [True, False, True]
    assert stacked.pool.time_s == pytest.approx(DELAYS_S)


def test_moments_that_are_off_by_a_little_are_settled_by_all_nodes() -> None:
    pool, late_s = three_shots()
    stacked = stack(pool, late_s, SHOTS_S + np.array([0.0, 0.004, -0.005]))
    assert stacked.gaps_s == pytest.approx(SHOTS_S, abs=1e-9)


def test_a_place_whose_own_shot_was_not_the_first_says_by_how_much() -> None:
    pool, late_s = three_shots()
    before = SHOTS_S - SHOTS_S[1]
    stacked = stack(pool, late_s - SHOTS_S[1], before)
    assert stacked.shift_s == pytest.approx(-SHOTS_S[1])
    assert stacked.gaps_s == pytest.approx(SHOTS_S)
    assert stacked.pool.time_s == pytest.approx(DELAYS_S)


def test_what_was_found_of_a_stack_goes_back_to_its_arrivals() -> None:
    pool, late_s = three_shots(((0, DELAYS_S[0] + 3.0),))  # nobody's
    stacked = stack(pool, late_s, SHOTS_S)
    direct, late = stacked.unstack(np.array([0.9, 0.2, 0.7]), np.array([1.0, 2.0, 3.0]), len(pool))
    assert direct.shape == late.shape == (3, 10)
    for shot in range(3):
        for arrival in range(10):
            node = pool.node[arrival]
            at = DELAYS_S[node] + SHOTS_S[shot]
            if np.isclose(pool.time_s[arrival], at):
                assert direct[shot, arrival] == (0.9, 0.2, 0.7)[node]
                assert late[shot, arrival] == node + 1
            else:
                assert direct[shot, arrival] == 0
                assert np.isnan(late[shot, arrival])


def test_one_shot_is_stacked_each_arrival_for_itself() -> None:
    pool, _ = three_shots()
    stacked = single(pool)
    assert stacked.pool is pool
    direct, _ = stacked.unstack(np.arange(9.0), np.zeros(9), 9)
    assert direct.tolist() == [list(range(9))]


def test_a_stack_has_the_bearing_of_the_arrival_that_has_its_own() -> None:
    first = np.tile([False, True, False], 3)
    pool, _ = three_shots()
    pool = pool_at(pool.node.tolist(), pool.time_s, first)
    stacked = stack(pool, pool.time_s - DELAYS_S[pool.node], SHOTS_S)
    assert stacked.pool.first.all()
    assert stacked.pool.azimuth_rad.tolist() == [1.0, 4.0, 7.0]
