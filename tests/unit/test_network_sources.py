"""Sources of shots in a pool of arrivals, and how far off their places may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from node.network.arrivals import FloatArray, IntArray, Pool, pool_of
from node.network.medium import Medium, Weather, medium
from node.network.region import covariance
from node.network.sources import Source, best, find, refine
from node.network.track import Track
from tests.field.city import Air, azimuths_rad

AIR = medium(Weather(15.0))
CALM = Air(AIR.speed_m_s, np.zeros(2))
NODES_M = np.array(
    [[0, 0, 8], [400, 50, 8], [350, 420, 8], [-30, 380, 8], [180, -250, 8], [650, 250, 8.0]]
)
FOUR = NODES_M[:4]
SHOT_M = np.array([150.0, 220.0, 0.0])
SURVEY_M = 0.05
CLOCK_S = 1e-5


class Heard:
    """Arrivals at nodes, gathered shot by shot."""

    def __init__(self, nodes_m: FloatArray, air: Air = CALM, survey_m: float = SURVEY_M) -> None:
        self.nodes_m, self.air, self.survey_m = nodes_m, air, survey_m
        self.node: list[int] = []
        self.time_s: list[float] = []
        self.azimuth_rad: list[float] = []

    def shot(
        self,
        place_m: FloatArray = SHOT_M,
        fired_s: float = 0.0,
        *,
        by: Sequence[int] | None = None,
        bearings: bool = False,
        late_s: FloatArray | float = 0.0,
    ) -> Heard:
        """Have nodes hear a shot."""
        by = range(len(self.nodes_m)) if by is None else by
        nodes_m = self.nodes_m[list(by)]
        self.node += by
        self.time_s += (fired_s + self.air.delays_s(place_m, nodes_m) + late_s).tolist()
        nan = np.full(len(nodes_m), np.nan)
        self.azimuth_rad += (azimuths_rad(place_m, nodes_m) if bearings else nan).tolist()
        return self

    @property
    def pool(self) -> Pool:
        """What was heard."""
        azimuth = np.array(self.azimuth_rad)
        return pool_of(
            self.nodes_m,
            np.full(len(self.nodes_m), self.survey_m),
            np.array(self.node),
            np.array(self.time_s),
            np.full(len(self.node), CLOCK_S),
            azimuth_rad=azimuth,
            azimuth_sigma_rad=np.where(np.isnan(azimuth), np.inf, np.radians(3.0)),
            clutter_per_s=0.02,
        )


def only(pool: Pool, air: Medium = AIR) -> Source:
    """Give the one source that there is."""
    (source,) = find(pool, air, least_evidence=2.0)
    return source


def off_m(source: Source, place_m: FloatArray = SHOT_M) -> float:
    return float(np.hypot(*(source.place_m - place_m[:2])))


def half_axes_m(spread: FloatArray) -> tuple[float, float]:
    """Give the half axes of the ellipse of 95 %, the longer first."""
    minor, major = np.sqrt(5.991 * np.linalg.eigvalsh(spread[:2, :2]))
    return float(major), float(minor)


def sigmas_off(source: Source, place_m: FloatArray = SHOT_M) -> float:
    off = source.place_m - place_m[:2]
    return float(np.sqrt(off @ np.linalg.solve(source.covariance[:2, :2], off)))


@pytest.mark.parametrize(
    "place_m", [(150, 220, 0), (20, 30, 0), (300, 380, 0), (-90, 200, 0), (420, 500, 0)]
)
def test_exact_times_of_four_nodes_place_a_shot_to_decimetres(place_m: tuple[float, ...]) -> None:
    shot_m = np.array(place_m, float)
    source = only(Heard(FOUR).shot(shot_m, 3.0).pool)
    assert off_m(source, shot_m) < 0.5
    assert source.fired_s == pytest.approx([3.0], abs=0.002)


def test_more_nodes_make_a_place_surer() -> None:
    four, six = (only(Heard(nodes_m).shot().pool) for nodes_m in (FOUR, NODES_M))
    assert half_axes_m(six.covariance)[0] < half_axes_m(four.covariance)[0]
    assert off_m(six) < 0.2


@pytest.mark.parametrize("of_c", [-0.01, 0.01])
def test_sound_that_is_one_percent_off_moves_a_place_by_no_more_than_its_sigma(
    of_c: float,
) -> None:
    air = Air(AIR.speed_m_s * (1 + of_c), np.zeros(2))
    source = only(Heard(NODES_M, air).shot().pool, medium())
    assert sigmas_off(source) < 1
    assert off_m(source) < 1.5
    assert abs(source.state[3] - air.speed_m_s) < 2 * np.sqrt(source.covariance[3, 3])


def test_wind_that_nobody_measured_moves_a_place_by_no_more_than_its_sigma() -> None:
    blown = Heard(NODES_M, Air(AIR.speed_m_s, np.array([4.0, -3.0]))).shot().pool
    source = only(blown)
    assert sigmas_off(source) < 1.5
    assert off_m(source) < 4


def test_wind_that_was_measured_moves_it_less() -> None:
    blown = Heard(NODES_M, Air(AIR.speed_m_s, np.array([4.0, -3.0]))).shot().pool
    weather = Weather(15.0, 5.0, float(np.degrees(np.arctan2(-4.0, 3.0))) % 360)
    assert off_m(only(blown, medium(weather))) < off_m(only(blown))


@pytest.mark.parametrize("by_s", [-1.0, 1.0])
def test_a_node_that_is_off_by_a_second_does_not_move_a_place(by_s: float) -> None:
    off_s = np.array([0, 0, by_s, 0, 0, 0])
    source = only(Heard(NODES_M).shot(late_s=off_s).pool)
    assert off_m(source) < 0.5
    assert 2 not in source.nodes(Heard(NODES_M).shot(late_s=off_s).pool)


def test_an_echo_alone_at_one_node_is_not_used() -> None:
    pool = Heard(NODES_M).shot(late_s=np.array([0, 0.18, 0, 0, 0, 0])).pool
    source = only(pool)
    assert off_m(source) < 0.5
    assert source.nodes(pool).tolist() == [0, 2, 3, 4, 5]


@pytest.mark.parametrize("place_m", [(150, 220, 0), (200, 25, 0), (260, -180, 0)])
def test_two_nodes_with_bearings_place_a_shot_also_between_them(place_m: tuple[float, ...]) -> None:
    shot_m = np.array(place_m, float)
    source = only(Heard(NODES_M[:2]).shot(shot_m, bearings=True).pool)
    assert off_m(source, shot_m) < 8
    assert sigmas_off(source, shot_m) < 2


def test_two_nodes_without_bearings_place_nothing() -> None:
    assert find(Heard(NODES_M[:2]).shot().pool, AIR) == []


def test_nodes_in_a_line_place_nothing_or_own_up_to_both_sides() -> None:
    line_m = np.array([[0, 0, 8], [150, 0, 8], [300, 0, 8], [450, 0, 8.0]])
    shot_m = np.array([200.0, 240.0, 0.0])
    for source in find(Heard(line_m).shot(shot_m).pool, AIR):
        major_m, minor_m = half_axes_m(covariance(source, AIR))
        assert major_m > 300, "it may as well be on the other side, 480 m away"
        assert abs(source.place_m[0] - 200) < 5
        assert minor_m < 60


def test_three_nodes_alone_are_told_with_a_wider_ellipse_than_their_peak() -> None:
    source = only(Heard(NODES_M[:3]).shot().pool)
    assert half_axes_m(covariance(source, AIR))[0] >= half_axes_m(source.covariance)[0]
    assert off_m(source) < 1


def test_many_nodes_or_bearings_need_no_wider_ellipse() -> None:
    for pool in (
        Heard(NODES_M).shot().pool,
        Heard(NODES_M[:3]).shot(bearings=True).pool,
    ):
        source = only(pool)
        assert np.array_equal(covariance(source, AIR), source.covariance[:2, :2])


def test_bearings_make_a_place_of_three_nodes_surer() -> None:
    without, with_them = (
        covariance(only(Heard(NODES_M[:3]).shot(bearings=b).pool), AIR) for b in (False, True)
    )
    assert half_axes_m(with_them)[0] < half_axes_m(without)[0]


def test_nodes_on_roofs_thirty_metres_up_do_not_shift_a_shot_sixty_metres_away() -> None:
    # Slant ways are up to 7 m longer than flat ones; the nodes farther off tell how high it is.
    roofs_m = NODES_M + np.array([0.0, 0.0, 30.0])
    shot_m = np.array([48.0, 36.0, 8.0])
    source = only(Heard(roofs_m).shot(shot_m).pool)
    assert np.hypot(48.0, 36.0) == 60
    assert off_m(source, shot_m) < 2
    assert sigmas_off(source, shot_m) < 1


def test_three_shots_at_an_even_cadence_are_one_source_of_three() -> None:
    heard = Heard(FOUR)
    for fired_s in (1.0, 1.25, 1.5):
        heard.shot(fired_s=fired_s)
    source = only(heard.pool)
    assert source.fired_s == pytest.approx([1.0, 1.25, 1.5], abs=0.003)
    assert off_m(source) < 1
    assert source.used.all()
    assert (source.direct > 0.5).sum() == 12, "each arrival is of one shot"


def test_echo_families_do_not_move_a_source_and_keep_its_rhythm() -> None:
    heard = Heard(NODES_M)
    for fired_s in (1.0, 1.3, 1.6):
        heard.shot(fired_s=fired_s)
        for node, late_s in ((0, 0.21), (1, 0.13), (2, 0.32)):
            heard.shot(fired_s=fired_s, by=[node], late_s=late_s)
    pool = heard.pool
    source, *more = find(pool, AIR, least_evidence=2.0)
    assert source.fired_s == pytest.approx([1.0, 1.3, 1.6], abs=0.003)
    assert off_m(source) < 1
    shot = Track(0, "", source, pool, pool.heard)
    assert all(Track(1, "", other, pool, pool.heard).is_echo_of(shot) for other in more)


def test_the_mirror_of_a_source_in_a_wall_is_no_further_source() -> None:
    # A long wall at x = 500 gives every node an echo from one and the same mirrored place.
    mirror_m = np.array([2 * 500 - SHOT_M[0], SHOT_M[1], 0.0])
    heard = Heard(NODES_M).shot(fired_s=1.0)
    heard.shot(mirror_m, 1.0, by=[0, 1, 2, 4])
    source = only(heard.pool)
    assert off_m(source) < 1


def test_a_second_gun_elsewhere_is_a_second_source() -> None:
    other_m = np.array([330.0, 80.0, 0.0])
    heard = Heard(NODES_M).shot(fired_s=1.0).shot(fired_s=1.6).shot(other_m, 1.35)
    sources = find(heard.pool, AIR, least_evidence=2.0)
    assert len(sources) == 2
    first, second = sorted(sources, key=lambda source: -len(source.fired_s))
    assert off_m(first) < 1
    assert first.fired_s == pytest.approx([1.0, 1.6], abs=0.003)
    assert off_m(second, other_m) < 1
    assert not (first.used & second.used).any()


def test_arrivals_by_chance_at_the_rate_that_is_said_of_them_are_no_source() -> None:
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(40):
        heard = Heard(NODES_M)
        heard.node, heard.time_s = list(range(6)), rng.uniform(0, 4, 6).tolist()
        heard.azimuth_rad = [np.nan] * 6
        pool = replace(heard.pool, clutter_per_s=np.full(6, 1 / 4))
        found += len(find(pool, AIR, least_evidence=2.0))
    assert found <= 1


def test_the_same_pool_gives_the_same_source() -> None:
    pool = Heard(NODES_M).shot(late_s=np.array([0, 0, 1.0, 0, 0.2, 0])).pool
    one, other = only(pool), only(pool)
    assert np.array_equal(one.state, other.state)
    assert np.array_equal(one.covariance, other.covariance)


def test_a_fourth_node_refines_what_three_had_placed() -> None:
    three = Heard(FOUR).shot(by=[0, 1, 2]).pool
    source = best(three, AIR)
    assert source is not None
    four = Heard(FOUR).shot().pool
    again = refine(four, AIR, source)
    assert again is not None
    assert off_m(again) < 0.5
    assert again.nodes(four).tolist() == [0, 1, 2, 3]
    assert half_axes_m(again.covariance)[0] < half_axes_m(source.covariance)[0]


def test_a_source_is_sought_only_with_the_arrivals_that_are_to_have_part_in_it() -> None:
    pool = Heard(NODES_M).shot(late_s=np.array([0, 0, 1.0, 0, 0, 0])).pool
    source = best(pool, AIR, with_arrivals=np.array([2]))
    assert source is None or source.evidence < only(pool).evidence


@pytest.mark.parametrize("towards_deg", [0.0, 30.0, 90.0, 140.0])
def test_a_far_shot_is_least_known_along_the_way_to_it(towards_deg: float) -> None:
    along = np.array([np.sin(np.radians(towards_deg)), np.cos(np.radians(towards_deg))])
    shot_m = np.array([*(NODES_M[:, :2].mean(0) + 1100 * along), 0.0])
    source = only(Heard(NODES_M).shot(shot_m).pool)
    _, vectors = np.linalg.eigh(source.covariance[:2, :2])
    assert abs(vectors[:, 1] @ along) > np.cos(np.radians(15))


def test_errors_are_as_large_as_is_said() -> None:
    rng = np.random.default_rng(11)
    inside = []
    for _ in range(60):
        nodes_m = NODES_M + rng.normal(0, 0.7, NODES_M.shape)
        air = Air(AIR.speed_m_s + rng.normal(0, 1.5), rng.normal(0, 3, 2))
        shot_m = np.array([*rng.uniform(0, 400, 2), 0.0])
        heard = Heard(nodes_m, air, 0.7).shot(shot_m, late_s=rng.normal(0, 0.004, 6))
        heard.nodes_m = NODES_M
        inside.append(sigmas_off(only(heard.pool), shot_m) ** 2 < 5.991)
    assert 0.88 <= np.mean(inside) <= 1.0


def test_arrivals_come_sorted_by_node_and_time_and_known_by_where_they_stood() -> None:
    order: IntArray = np.array([2, 0, 1])
    pool = pool_of(
        FOUR, np.full(4, 0.5), np.array([1, 1, 0]), np.array([5.0, 4.0, 9.0]), np.ones(3)
    )
    assert pool.node.tolist() == [0, 1, 1]
    assert pool.time_s.tolist() == [9.0, 4.0, 5.0]
    assert pool.key.tolist() == [2, 1, 0]
    assert pool.heard.tolist() == [0, 1]
    some = pool.only(order)
    assert some.time_s.tolist() == [5.0, 9.0, 4.0]
    assert len(some.place_m) == 4
