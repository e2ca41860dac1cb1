"""The compiled arithmetic of the likelihood is what likelihood.py says that it is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from node.network.arrivals import ALL_TOLD, FloatArray, Pool, pool_of
from node.network.kernel import DETOUR_S, LATE_S, at_moments, distinct, promising
from node.network.likelihood import FIRED, PARAMETERS, C, Hypotheses, Likelihood
from node.network.medium import Medium

AIR = Medium(340.0, 3.0, (1.5, -2.0), 2.0)
CALM = Medium(340.0, 3.0, (0.0, 0.0), 2.0)
NODES_M = np.array(
    [[0, 0, 12], [420, 30, 25], [380, 400, 8], [-40, 360, 15], [200, -300, 6], [900, 900, 10.0]]
)
"""The last two hear nothing."""
PLACE_SIGMA_M = np.array([0.5, 1.0, 0.2, 2.0, 0.5, 0.5])
SHOT = np.array([150.0, 210.0, 1.0, 341.0, 2.0, -1.0, 0.3])


def arrivals(bearings: bool = True) -> Pool:
    """Give direct sounds, echoes and clutter at four of six nodes; some tell bearings."""
    rng = np.random.default_rng(7)
    node = np.array([0, 0, 1, 2, 2, 2, 3])
    way_m = SHOT[:3] - NODES_M[node]
    exact = SHOT[6] + np.linalg.norm(way_m, axis=1) / SHOT[3]
    time_s = exact + np.array([0.002, 0.11, -0.004, 0.001, 0.25, -0.4, 0.006])
    azimuth = np.arctan2(way_m[:, 0], way_m[:, 1]) + rng.normal(0, 0.04, 7)
    azimuth[[2, 5]] = np.nan
    return pool_of(
        NODES_M,
        PLACE_SIGMA_M,
        node,
        time_s,
        rng.uniform(1e-4, 3e-3, 7),
        azimuth_rad=azimuth if bearings else None,
        azimuth_sigma_rad=np.where(np.isnan(azimuth), np.inf, 0.05) if bearings else None,
        first=np.array([True, False, True, True, False, False, True]),
        clutter_per_s=rng.uniform(0.02, 1.0, 7),
        late_share=rng.uniform(0.05, 0.3, 7),
    )


def speed_m_s(state: FloatArray, node_m: FloatArray) -> float:
    """Give how fast sound goes from a shot to a node: with the wind that blows towards it."""
    way = node_m - state[:3]
    return float(state[3] + way[:2] @ state[4:6] / np.linalg.norm(way))


def lateness_s(pool: Pool, m: int, state: FloatArray) -> float:
    node_m = pool.place_m[pool.node[m]]
    away_m = float(np.linalg.norm(node_m - state[:3]))
    return float(pool.time_s[m] - state[6] - away_m / speed_m_s(state, node_m))


def normal(off: float, variance: float) -> float:
    return math.exp(-0.5 * off**2 / variance) / math.sqrt(2 * math.pi * variance)


def direct_density(pool: Pool, m: int, state: FloatArray, path_s: float) -> float:
    """Give the density of an arrival, if it is direct sound, in time and in bearing.

    The bearing's is against one that may come from anywhere, 1 / 2π.
    """
    node = int(pool.node[m])
    place_var = pool.place_sigma_m[node] ** 2
    variance = pool.sigma_s[m] ** 2 + path_s**2 + place_var / AIR.speed_m_s**2
    density = normal(lateness_s(pool, m, state), variance)
    if np.isfinite(pool.azimuth_rad[m]):
        way = state[:3] - pool.place_m[node]
        turn = pool.azimuth_rad[m] - math.atan2(way[0], way[1])
        turn = math.remainder(turn, 2 * math.pi)
        spread = pool.azimuth_sigma_rad[m] ** 2 + math.radians(2.2) ** 2
        spread += place_var / float(way @ way)
        own = normal(turn, spread) * 2 * math.pi
        density *= own if pool.first[m] else 0.3 + 0.7 * own
    return density


def told_share(pool: Pool, came_s: float) -> float:
    """Give the chance that a node's word of what came to it has come, too."""
    all_s, none_s = pool.told_s
    return min(max((none_s - came_s) / (none_s - all_s), 0.0), 1.0)


def heard_share(away_m: float) -> float:
    return 0.8 * math.exp(-((away_m / 900) ** 2))


def plain(
    pool: Pool, medium: Medium, state: FloatArray, path_s: float
) -> tuple[float, list[float]]:
    """Work out the stated log-likelihood, and which arrivals are direct sound, one by one."""
    log, direct = 0.0, [0.0] * len(pool)
    for node, place_m in enumerate(pool.place_m):
        mine = [m for m in range(len(pool)) if pool.node[m] == node]
        flat = place_m if mine else np.append(place_m[:2], state[2])
        away_m = float(np.linalg.norm(flat - state[:3]))
        reach = heard_share(away_m)
        c = speed_m_s(state, flat) if mine else float(state[3])
        odds = 1 - reach * told_share(pool, float(state[6]) + away_m / c)
        for m in mine:
            off, late = lateness_s(pool, m, state), pool.late_share[m]
            share = reach / pool.clutter_per_s[m]
            direct[m] = share * (1 - late) * direct_density(pool, m, state, path_s)
            echo = late / LATE_S * math.exp(-(off - DETOUR_S) / LATE_S) if off > DETOUR_S else 0.0
            odds += direct[m] + share * echo
        for m in mine:
            direct[m] /= odds
        log += math.log(odds)
    heard_m = pool.place_m[pool.heard]
    weights = 1 / (((heard_m[:, :2] - state[:2]) ** 2).sum(1) + 50.0**2)
    ground_m = float(weights @ heard_m[:, 2] / weights.sum()) - 8.0
    middle_m = heard_m.mean(0)
    log -= 0.5 * ((state[2] - ground_m) / 20.0) ** 2
    log -= 0.5 * float(((state[:2] - middle_m[:2]) ** 2).sum()) / 600.0**2
    log -= 0.5 * ((state[3] - medium.speed_m_s) / medium.speed_sigma_m_s) ** 2
    wind_off = state[4:6] - np.array(medium.wind_m_s)
    return log - 0.5 * float(wind_off @ wind_off) / medium.wind_sigma_m_s**2, direct


def states() -> FloatArray:
    """Give the shot, and others that are near it and far from it."""
    rng = np.random.default_rng(3)
    scale = np.array([40, 40, 10, 3, 2, 2, 0.05])
    return np.vstack([SHOT, SHOT + rng.normal(0, 1, (12, PARAMETERS)) * scale])


@pytest.mark.parametrize("told_s", [ALL_TOLD, (-9.0, -8.0), (0.9, 1.6), (1.0, 9.0)])
@pytest.mark.parametrize("bearings", [True, False])
def test_the_kernel_gives_the_stated_likelihood(
    bearings: bool, told_s: tuple[float, float]
) -> None:
    pool = replace(arrivals(bearings), told_s=told_s)
    all_states = states()
    paths_s = np.linspace(0.002, 0.03, len(all_states))
    weighed = Likelihood(pool, AIR).weigh(Hypotheses(all_states, paths_s))
    for s, state in enumerate(all_states):
        log, direct = plain(pool, AIR, state, paths_s[s])
        assert weighed.log_likelihood[s] == pytest.approx(log, rel=1e-9, abs=1e-9)
        assert weighed.direct[s] == pytest.approx(direct, rel=1e-9, abs=1e-12)
        late = [lateness_s(pool, m, state) for m in range(len(pool))]
        assert weighed.late_s[s] == pytest.approx(late, abs=1e-12)


def log_of_silence(told_s: tuple[float, float]) -> float:
    """Give what the silence of the two far nodes adds at the shot."""
    pool = replace(arrivals(), told_s=told_s)
    h = Hypotheses(SHOT[None], np.array([0.006]))
    with_them = Likelihood(pool, AIR).scores(h)
    near = replace(pool, place_m=pool.place_m[:4], place_sigma_m=pool.place_sigma_m[:4])
    return float((with_them - Likelihood(near, AIR).scores(h))[0])


def test_silence_counts_as_far_as_words_would_have_come_by_now() -> None:
    way_m = np.hypot(*(NODES_M[4:, :2] - SHOT[:2]).T)
    came_s = SHOT[FIRED] + way_m / SHOT[C]  # the nearer of them 0.8 s before the other
    shares = 0.8 * np.exp(-((way_m / 900) ** 2))
    first, last = came_s.min(), came_s.max()
    assert log_of_silence((last + 0.01, last + 1.0)) == pytest.approx(np.log(1 - shares).sum())
    assert log_of_silence((first - 1.0, first - 0.01)) == pytest.approx(0, abs=1e-12)
    assert log_of_silence((first + 0.01, last - 0.01)) == pytest.approx(
        np.log(1 - shares[came_s.argmin()])
    )
    assert log_of_silence((first - 1.0, first + 1.0 / 3)) == pytest.approx(
        np.log(1 - shares[came_s.argmin()] / 4)
    )


def test_what_a_node_heard_besides_says_nothing_while_its_word_may_be_under_way() -> None:
    pool = arrivals()
    later_s = np.where(pool.node == 3, pool.time_s + 5.0, pool.time_s)
    h = Hypotheses(SHOT[None], np.array([0.006]))
    away_m = np.linalg.norm(NODES_M - SHOT[:3], axis=1)
    came_s = [
        SHOT[FIRED] + away_m[node] / speed_m_s(SHOT, NODES_M[node]) for node in range(len(NODES_M))
    ]
    assert min(came_s) == came_s[3]

    def scored(all_s: float) -> float:
        told = replace(pool, time_s=later_s, told_s=(all_s, all_s + 0.01))
        return float(Likelihood(told, AIR).scores(h)[0])

    unheard = math.log(1 - heard_share(float(away_m[3])))
    assert scored(came_s[3] + 0.01) - scored(came_s[3] - 0.02) == pytest.approx(unheard, abs=1e-6)


def test_parts_of_a_pool_keep_up_to_when_all_is_told() -> None:
    pool = replace(arrivals(), told_s=(1.0, 2.0))
    assert pool.only(np.array([0, 3])).told_s == (1.0, 2.0)
    assert arrivals().told_s == ALL_TOLD


def expected_log(
    pool: Pool, medium: Medium, direct: FloatArray, at: FloatArray, path_s: float, state: FloatArray
) -> float:
    """Give what a step of expectation-maximisation improves, as it depends on `state`.

    Direct sounds' weights, the widths of bearings and the ground's height stay those at `at`.
    """
    total = 0.0
    for m, weight in enumerate(direct):
        node = int(pool.node[m])
        place_var = pool.place_sigma_m[node] ** 2
        variance = pool.sigma_s[m] ** 2 + path_s**2 + place_var / medium.speed_m_s**2
        total -= 0.5 * weight * lateness_s(pool, m, state) ** 2 / variance
        if np.isfinite(pool.azimuth_rad[m]) and pool.first[m]:
            way, was = state[:3] - pool.place_m[node], at[:3] - pool.place_m[node]
            turn = math.remainder(pool.azimuth_rad[m] - math.atan2(way[0], way[1]), 2 * math.pi)
            spread = pool.azimuth_sigma_rad[m] ** 2 + math.radians(2.2) ** 2
            spread += place_var / float(was @ was)
            total -= 0.5 * weight * turn**2 / spread
    heard_m = pool.place_m[pool.heard]
    weights = 1 / (((heard_m[:, :2] - at[:2]) ** 2).sum(1) + 50.0**2)
    mean = np.array([*heard_m.mean(0)[:2], weights @ heard_m[:, 2] / weights.sum() - 8.0])
    total -= 0.5 * float((((state[:3] - mean) / (600.0, 600.0, 20.0)) ** 2).sum())
    total -= 0.5 * ((state[3] - medium.speed_m_s) / medium.speed_sigma_m_s) ** 2
    wind_off = state[4:6] - np.array(medium.wind_m_s)
    return float(total - 0.5 * (wind_off @ wind_off) / medium.wind_sigma_m_s**2)


@pytest.mark.parametrize("bearings", [True, False])
def test_a_step_goes_up_the_gradient_that_finite_differences_give(bearings: bool) -> None:
    # Without wind: with it the kernel leaves out that the wind's share turns with the place, 1 %.
    pool, path_s, compared = arrivals(bearings), 0.006, 0
    for state in states()[:6]:
        state[4:6] = 0.0
        h = Hypotheses(state[None], np.array([path_s]))
        likelihood = Likelihood(pool, CALM)
        peak = likelihood.peak(h)
        information = np.linalg.inv(peak.covariance[0])
        step = likelihood.settle(h, 1).state[0] - state
        if np.hypot(*step[:2]) > 149:
            continue  # cut short
        compared += 1
        gradient = information @ step

        def improved(at: FloatArray, direct=peak.direct[0], was=state) -> float:  # type: ignore[no-untyped-def]
            return expected_log(pool, CALM, direct, was, path_s, at)

        differences = []
        for axis, width in enumerate((1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-7)):
            off = np.zeros(PARAMETERS)
            off[axis] = width
            differences.append((improved(state + off) - improved(state - off)) / (2 * width))
        scale = np.sqrt(np.diag(information))
        assert gradient / scale == pytest.approx(np.array(differences) / scale, abs=2e-3, rel=1e-3)
    assert compared >= 3


def test_covariance_is_symmetric_and_less_with_bearings() -> None:
    h = Hypotheses(SHOT[None], np.array([0.006]))
    with_bearings, without = (
        Likelihood(arrivals(bearings), AIR).peak(h).covariance[0] for bearings in (True, False)
    )
    for covariance in (with_bearings, without):
        assert covariance == pytest.approx(covariance.T)
        assert np.linalg.eigvalsh(covariance).min() > 0
    assert with_bearings[0, 0] < without[0, 0]


def test_a_peak_weighs_by_its_own_width() -> None:
    likelihood = Likelihood(arrivals(), AIR)
    peak = likelihood.peak(Hypotheses(states(), np.full(13, 0.006)))
    width = peak.evidence - peak.log_likelihood
    log_det = np.linalg.slogdet(peak.covariance)[1]
    assert width - width[0] == pytest.approx(0.5 * (log_det - log_det[0]), abs=1e-9)


def test_scores_are_what_weighing_gives() -> None:
    likelihood, h = Likelihood(arrivals(), AIR), Hypotheses(states(), np.full(13, 0.01))
    assert np.array_equal(likelihood.scores(h), likelihood.weigh(h).log_likelihood)


def test_no_step_is_longer_than_it_may_be() -> None:
    likelihood = Likelihood(arrivals(), AIR)
    far = SHOT + np.array([3000.0, 0, 0, 0, 0, 0, 0])
    after = likelihood.settle(Hypotheses(far[None], np.array([0.03])), 1).state[0]
    assert np.hypot(*(after - far)[:2]) <= 150.0 + 1e-6


def test_steps_do_not_change_the_hypotheses_that_they_start_from() -> None:
    h = Hypotheses(states(), np.full(13, 0.01))
    before = h.state.copy()
    Likelihood(arrivals(), AIR).settle(h, 3)
    assert np.array_equal(h.state, before)


def test_a_node_beside_the_shot_is_no_division_by_zero() -> None:
    at_node = SHOT.copy()
    at_node[:3] = NODES_M[0]
    peak = Likelihood(arrivals(), AIR).peak(Hypotheses(at_node[None], np.array([0.006])))
    assert np.isfinite(peak.evidence).all()
    assert np.isfinite(peak.covariance).all()


def test_of_hypotheses_that_are_one_the_first_in_order_stays() -> None:
    state = np.zeros((4, PARAMETERS))
    state[:, 0] = 0.0, 5.0, 100.0, 5.0
    state[:, 6] = 0.0, 0.0, 0.0, 1.0  # the last is as near, but was fired at another moment
    kept = distinct(state, np.array([1, 0, 2, 3]), 8, 20.0, 0.03)
    assert kept.tolist() == [1, 2, 3]
    assert distinct(state, np.array([1, 0, 2, 3]), 2, 20.0, 0.03).tolist() == [1, 2]


@pytest.mark.parametrize("bearings", [True, False])
def test_shots_of_one_place_at_each_arrivals_moment_are_weighed_as_hypotheses_are(
    bearings: bool,
) -> None:
    likelihood = Likelihood(arrivals(bearings), AIR)
    for state in states()[:4]:
        late_s, direct = at_moments(state, 0.006, likelihood.given)
        own = likelihood.weigh(Hypotheses(state[None], np.array([0.006])))
        assert late_s == pytest.approx(own.late_s[0], abs=1e-12)
        moved = np.repeat(state[None], len(late_s) + 1, axis=0)
        moved[1:, FIRED] += late_s
        weighed = likelihood.weigh(Hypotheses(moved, np.full(len(moved), 0.006)))
        assert direct == pytest.approx(weighed.direct, rel=1e-9, abs=1e-12)


def elsewhere(count: int) -> FloatArray:
    """Give states at places round the nodes, each fired such that one arrival is in time."""
    rng, pool = np.random.default_rng(5), arrivals()
    state = np.repeat(SHOT[None], count, axis=0)
    state[:, :2] = rng.uniform(-500, 900, (count, 2))
    of = rng.integers(0, len(pool), count)
    away_m = np.linalg.norm(pool.place_m[pool.node[of]] - state[:, :3], axis=1)
    state[:, FIRED] = pool.time_s[of] - away_m / state[:, C]
    return state


@pytest.mark.parametrize("bearings", [True, False])
def test_the_true_place_is_among_the_promising_of_many(bearings: bool) -> None:
    many = np.vstack([elsewhere(3000), SHOT])
    given = Likelihood(arrivals(bearings), AIR).given
    kept = promising(many, 0.03, given, 32)
    assert len(set(kept.tolist())) == 32
    assert len(many) - 1 in kept


def test_what_no_arrival_fits_is_less_promising_than_what_some_do() -> None:
    many = np.vstack([SHOT, SHOT, SHOT])
    many[0, FIRED] += 50.0
    many[2, :2] += 100.0
    many[2, FIRED] = SHOT[FIRED]
    kept = promising(many, 0.03, Likelihood(arrivals(), AIR).given, 2)
    assert kept[0] == 1
    assert len(promising(many, 0.03, Likelihood(arrivals(), AIR).given, 9)) == 3
