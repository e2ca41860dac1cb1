"""Growth is told where it is, not where it is not, and never for certain of a little."""

import math

import numpy as np
import numpy.typing as npt
import pytest

from tests.hil.soak.slope import DAY_S, rise, slope

HOUR_S = 3600.0
LOOK_S = 120.0
Floats = npt.NDArray[np.float64]


def wandering(seed: int, hours: float, sigma: float, correlation: float) -> tuple[Floats, Floats]:
    """Give times in s, and values about 65 that wander as memory does."""
    rng = np.random.default_rng(seed)
    at_s = np.arange(LOOK_S, hours * HOUR_S, LOOK_S)
    noise = rng.normal(0, sigma * math.sqrt(1 - correlation**2), len(at_s))
    value = np.zeros(len(at_s))
    for i in range(1, len(at_s)):
        value[i] = correlation * value[i - 1] + noise[i]
    return at_s, 65 + value


def test_three_days_without_growth_are_flat():
    at_s, value = wandering(1, 72, sigma=0.3, correlation=0.9)

    grown = slope(at_s, value, 6 * HOUR_S)

    assert grown.low < 0 < grown.high
    assert grown.verdict(1.0) == "flat"


@pytest.mark.parametrize("seed", range(5))
def test_two_megabytes_a_day_are_found_in_three_days(seed: int):
    at_s, value = wandering(seed, 72, sigma=0.3, correlation=0.9)

    grown = slope(at_s, value + 2 * at_s / DAY_S, 6 * HOUR_S)

    assert grown.per_day == pytest.approx(2, abs=0.3)
    assert grown.verdict(1.0) == "grows"


def test_growth_that_comes_in_steps_is_found():
    at_s, value = wandering(3, 72, sigma=0.1, correlation=0.5)

    grown = slope(at_s, value + np.floor(at_s / DAY_S * 2), 6 * HOUR_S)

    assert grown.verdict(1.0) == "grows"


def test_a_warm_up_is_no_growth():
    at_s, value = wandering(4, 72, sigma=0.1, correlation=0.5)
    warming = -20 * np.exp(-at_s / HOUR_S)

    assert slope(at_s, value + warming, 6 * HOUR_S).verdict(1.0) == "flat"


def test_one_outlier_is_no_growth():
    at_s, value = wandering(5, 72, sigma=0.1, correlation=0.5)
    value[-40:] += 50

    assert slope(at_s, value, 6 * HOUR_S).verdict(1.0) == "flat"


def test_of_a_few_samples_nothing_is_told():
    at_s, value = wandering(6, 0.5, sigma=0.1, correlation=0.5)

    grown = slope(at_s, value, 0.0)

    assert grown.stretches == 0
    assert grown.verdict(1.0) == "not told"


def test_the_interval_holds_the_truth_as_often_as_it_says_though_samples_are_correlated():
    held = 0
    for seed in range(60):
        at_s, value = wandering(100 + seed, 72, sigma=0.5, correlation=0.97)
        grown = slope(at_s, value + 0.7 * at_s / DAY_S, 6 * HOUR_S)
        held += grown.low <= 0.7 <= grown.high

    assert held >= 0.9 * 60


def test_a_descriptor_an_hour_is_a_rise():
    at_s = np.arange(LOOK_S, 72 * HOUR_S, LOOK_S)

    assert rise(at_s, 10 + at_s // HOUR_S, 6 * HOUR_S) > 50


def test_one_thread_that_stays_is_a_rise():
    at_s = np.arange(LOOK_S, 72 * HOUR_S, LOOK_S)

    assert rise(at_s, 2.0 + (at_s > 36 * HOUR_S), 6 * HOUR_S) == 1


def test_what_is_opened_and_closed_again_is_no_rise():
    at_s = np.arange(LOOK_S, 72 * HOUR_S, LOOK_S)
    open_for_a_while = (at_s % (7 * HOUR_S) < HOUR_S).astype(float)

    assert rise(at_s, 10 + open_for_a_while, 6 * HOUR_S) == 0


def test_of_no_samples_no_rise_is_told():
    assert math.isnan(rise([], [], 0.0))
