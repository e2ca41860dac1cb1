"""An incident in the making: what it predicts of a node, and whose echo it may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node.network.arrivals import pool_of
from node.network.medium import Weather, medium
from node.network.sources import find
from node.network.track import Track
from tests.field.city import Air, azimuths_rad

WIND_M_S = np.array([3.0, -4.0])
WEATHER = Weather(15.0, 5.0, float(np.degrees(np.arctan2(-3.0, 4.0))) % 360)
NODES_M = np.array(
    [[0, 0, 8], [400, 50, 8], [350, 420, 8], [-30, 380, 8], [180, -250, 8], [650, 250, 8.0]]
)
SHOT_M = np.array([150.0, 220.0, 0.0])
MEMORY_INDEX = np.array([3, 5, 8, 9, 11, 20])
"""Of these nodes in a larger town."""


def track(
    fired_s: tuple[float, ...] = (1.0,),
    place_m: np.ndarray = SHOT_M,
    by: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
    bearings: bool = False,
) -> Track:
    """Make an incident that some nodes hear exactly."""
    nodes_m = NODES_M[list(by)]
    air = medium(WEATHER)
    delays_s = Air(air.speed_m_s, WIND_M_S).delays_s(place_m, nodes_m)
    shots = len(fired_s)
    azimuth = np.repeat(azimuths_rad(place_m, nodes_m), shots)
    pool = pool_of(
        NODES_M,
        np.full(6, 0.1),
        np.repeat(np.array(by), shots),
        (delays_s[:, None] + np.array(fired_s)).ravel(),
        np.full(len(by) * shots, 1e-5),
        azimuth_rad=azimuth if bearings else None,
        azimuth_sigma_rad=np.full(len(azimuth), 0.05) if bearings else None,
        first=np.tile(np.arange(shots) == 0, len(by)),
        clutter_per_s=0.02,
    )
    (source,) = find(pool, air)
    return Track(1, "", source, pool, MEMORY_INDEX)


def fired(of: Track, *fired_s: float) -> Track:
    """Give an incident fired at other moments."""
    return replace(of, source=replace(of.source, fired_s=np.array(fired_s)))


def test_sound_is_late_by_nothing_where_it_was_predicted() -> None:
    one = track((1.0, 1.5))
    ways_s = Air(medium(WEATHER).speed_m_s, WIND_M_S).delays_s(SHOT_M, NODES_M)
    assert one.way_s(NODES_M) == pytest.approx(ways_s, abs=0.005)
    late_s = one.late_s(1.5 + ways_s, NODES_M)
    assert late_s[:, 0] == pytest.approx(np.full(6, 0.5), abs=0.005)
    assert late_s[:, 1] == pytest.approx(np.zeros(6), abs=0.005)


def test_a_place_that_is_not_well_known_predicts_no_node_well_but_within_bounds() -> None:
    sure = track()
    sigmas_s = np.full(6, 1e-5)
    unsure = replace(sure, source=replace(sure.source, covariance=400 * sure.source.covariance))
    lost = replace(sure, source=replace(sure.source, covariance=1e9 * sure.source.covariance))
    for node_m in NODES_M.astype(np.float64):
        due_s = 1.0 + float(sure.way_s(node_m[None])[0])
        off_s = due_s + np.array([0.035, -0.035, 0.2, -0.2, 0.41, -0.41])
        assert sure.hears(off_s, sigmas_s, node_m).tolist() == [True] * 2 + [False] * 4
        assert lost.hears(off_s, sigmas_s, node_m).tolist() == [True] * 4 + [False] * 2
        apart_s = due_s + np.linspace(0.0, 0.4, 50)
        sigma_s = np.full(50, 1e-5)
        assert (
            sure.hears(apart_s, sigma_s, node_m).sum()
            <= unsure.hears(apart_s, sigma_s, node_m).sum()
        )
    vague = np.full(6, 0.03)
    assert sure.hears(off_s, vague, node_m).tolist() == [True, True, False, False, False, False]
    assert sure.hears(due_s + np.full(6, 0.11), vague, node_m).all()


def test_nodes_agree_that_there_was_a_further_shot() -> None:
    one = track()
    ways_s = one.way_s(NODES_M)
    nodes = np.arange(6)
    later_s = 3.0 + ways_s
    assert one.agreed(later_s, NODES_M, nodes, 1, 6.0)
    later_s[1:3] += 0.1
    assert not one.agreed(later_s, NODES_M, nodes, 1, 5.0)
    assert one.agreed(later_s, NODES_M, nodes, 1, 4.0)
    assert not one.agreed(later_s, NODES_M, np.zeros(6, np.int64), 1, 2.0), (
        "one node, again and again"
    )


def test_nodes_are_told_as_the_memory_knows_them() -> None:
    assert track(by=(0, 2, 3, 5)).used_nodes.tolist() == [3, 8, 9, 20]


def test_each_node_crosses_with_one_bearing_however_many_shots_it_heard() -> None:
    assert track((1.0, 1.4), bearings=True).crossing == 6
    assert track((1.0, 1.4)).crossing == 0


def test_what_was_fired_at_the_moments_of_a_stronger_one_is_its_mirror() -> None:
    gun = track((1.0, 1.5))
    assert fired(track(by=(0, 1, 2)), 1.51).is_echo_of(gun)
    assert fired(track(by=(0, 1, 2)), 0.99, 1.51).is_echo_of(gun)
    assert not fired(track(by=(0, 1, 2)), 1.3).is_echo_of(gun)


def test_the_same_rhythm_a_little_later_is_an_echo_and_another_is_a_second_gun() -> None:
    gun = fired(track(), 1.0, 1.31, 1.58)
    few = track(by=(0, 1, 2))
    assert fired(few, 1.2, 1.51, 1.78).is_echo_of(gun)
    assert not fired(few, 1.2, 1.41, 1.86).is_echo_of(gun)


def test_the_same_rhythm_long_after_is_no_echo() -> None:
    gun = fired(track(), 1.0, 1.31, 1.58)
    assert not fired(track(by=(0, 1, 2)), 6.0, 6.31, 6.58).is_echo_of(gun)
