"""An incident in the making: what it predicts of a node, and whose echo it may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from node.network.arrivals import FloatArray, pool_of
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
    place_m: FloatArray = SHOT_M,
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


def test_of_arrivals_in_time_the_first_is_heard_only_from_where_its_bearing_leads() -> None:
    one = track((1.0, 1.5))
    node_m = NODES_M[3].astype(np.float64)
    due_s = float(one.way_s(node_m[None])[0]) + np.array([1.0, 1.5])
    there_rad = float(azimuths_rad(SHOT_M, NODES_M)[3])

    def hears(off_deg: float, sigma_deg: float = 0.5) -> list[bool]:
        turned = there_rad + np.radians(off_deg)
        heard = one.hears(due_s, np.full(2, 1e-5), node_m, turned, float(np.radians(sigma_deg)))
        return [bool(each) for each in heard]

    assert hears(0) == hears(10) == hears(-10) == hears(360) == [True, True]
    assert hears(20) == hears(-90) == hears(180) == [False, True]
    assert hears(20, 10.0) == [True, True]


def test_a_bearing_makes_nothing_heard_that_is_not_in_time() -> None:
    one = track()
    node_m = NODES_M[3].astype(np.float64)
    due_s = float(one.way_s(node_m[None])[0]) + np.array([1.5, 1.0])
    there_rad = float(azimuths_rad(SHOT_M, NODES_M)[3])
    assert one.hears(due_s, np.full(2, 1e-5), node_m, there_rad, 0.05).tolist() == [False, True]


def dims(one: Track, late_s: float, away_m: float, clutter_per_s: float = 0.02) -> float:
    """Give what an arrival so late counts for at a place so far to the north of the shot."""
    place_m = one.source.state[None, :3] + np.array([0.0, away_m, 0.0])
    time_s = one.begins_s + one.way_s(place_m) + late_s
    return float(one.dimmed(np.array([clutter_per_s]), time_s, place_m)[0])


def test_what_comes_within_a_second_after_a_shot_counts_for_less() -> None:
    one = track()
    assert dims(one, 0.01, 300.0) == dims(one, 0.99, 300.0) == 1.0
    assert dims(one, -0.01, 300.0) == dims(one, 1.01, 300.0) == 0.02
    assert dims(one, 0.5, 300.0, 3.0) == 3.0, "it was likelier clutter than an echo"


def test_after_each_of_several_shots_there_are_echoes() -> None:
    one = track((1.0, 3.0))
    assert dims(one, 0.5, 300.0) == dims(one, 2.5, 300.0) == 1.0
    assert dims(one, 1.5, 300.0) == 0.02


def test_echoes_are_heard_hardly_farther_off_than_the_shots() -> None:
    near = track()  # heard 500 m off: 800 m at the least
    far = track(place_m=np.array([-400.0, 220.0, 0.0]))  # heard 1050 m off
    for one, within_m, beyond_m in ((near, 770.0, 830.0), (far, 1320.0, 1410.0)):
        assert dims(one, 0.5, within_m) == 1.0
        assert dims(one, 0.5, beyond_m) == 0.02
        off_m = np.array([[within_m, 0.0, 0.0], [0.0, -beyond_m, 0.0]])
        assert one.is_in_earshot(one.source.state[:3] + off_m).tolist() == [True, False]


@pytest.mark.parametrize(
    ("early_s", "late_s", "reaches"),
    [
        (0.0, 0.1, True),
        (-9.0, -0.7, False),
        (-9.0, -0.5, True),
        (1.5, 9.0, True),
        (1.7, 9.0, False),
    ],
)
def test_a_span_of_time_is_reached_from_a_little_before_the_shot_to_after_its_echoes(
    early_s: float, late_s: float, reaches: bool
) -> None:
    one = track()
    way_s = 300.0 / float(one.source.state[3])
    east_m, north_m = one.source.place_m.tolist()
    due_s = one.begins_s + way_s
    assert one.may_reach(east_m, north_m + 300.0, due_s + early_s, due_s + late_s) is reaches


@pytest.mark.parametrize(("away_m", "reaches"), [(0.0, True), (790.0, True), (810.0, False)])
def test_nothing_reaches_beyond_earshot(away_m: float, reaches: bool) -> None:
    one = track()  # heard 500 m off: 800 m at the least
    east_m, north_m = one.source.place_m.tolist()
    due_s = one.begins_s + away_m / float(one.source.state[3])
    assert one.may_reach(east_m + away_m, north_m, due_s, due_s) is reaches


def test_shots_that_each_of_two_walls_returns_whole_are_an_echo_where_few_nodes_hear_them() -> None:
    shots_s = np.array([1.0, 1.31, 1.58])
    gun = fired(track(), *shots_s)
    both = np.sort(np.concatenate([shots_s + 0.3, shots_s + 0.8]))
    assert fired(track(by=(0, 1, 2)), *both).is_echo_of(gun)
    assert not fired(track(), *both).is_echo_of(gun)


def test_what_a_second_wall_returns_only_in_part_is_no_echo_of_two_walls() -> None:
    gun = fired(track(), 1.0, 1.31, 1.58)
    few = track(by=(0, 1, 2))
    assert not fired(few, 1.3, 1.61, 1.8, 1.88, 2.25).is_echo_of(gun)


def test_what_nodes_hear_before_a_guns_sound_reaches_them_is_no_echo_of_it() -> None:
    gun = track()
    nearer = track(place_m=np.array([200.0, -100.0, 0.0]), by=(0, 1, 4))
    mirrored = track(place_m=np.array([850.0, 220.0, 0.0]), by=(0, 1, 4))
    assert len(nearer.used_nodes) == len(mirrored.used_nodes) == 3
    nearer, mirrored = fired(nearer, 1.0), fired(mirrored, 1.0)
    assert mirrored.is_echo_of(gun)
    assert not nearer.is_echo_of(gun)
