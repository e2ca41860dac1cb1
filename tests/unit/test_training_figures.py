"""The figures that the model is judged by, against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation.figures import area_under_roc, calibration_error, threshold_at
from models.training.calibrate import FALSE_ALARMS, FIREWORKS, fit_scaling, freeze, gunfire_scores
from node.classify.calibration import probabilities
from node.classify.sidecar import Calibration

scores = st.lists(st.floats(0, 1), min_size=1, max_size=200).map(np.array)


@given(scores, st.sampled_from([0.0, 0.01, 0.05, 0.5]))
def test_a_threshold_never_raises_more_false_alarms_than_allowed(city, rate):
    assert (city >= threshold_at(city, rate)).mean() <= rate


def test_a_threshold_is_as_low_as_the_budget_lets_it_be():
    city = np.linspace(0.0, 0.99, 100)

    assert (city >= threshold_at(city, 0.05)).sum() == 5


def test_the_area_under_the_curve_counts_ties_half():
    assert area_under_roc(np.array([0.9, 0.8]), np.array([0.1])) == 1.0
    assert area_under_roc(np.array([0.5]), np.array([0.5])) == 0.5
    assert area_under_roc(np.array([0.2, 0.6]), np.array([0.4])) == 0.5
    assert np.isnan(area_under_roc(np.array([]), np.array([0.4])))


def test_honest_confidence_has_no_calibration_error_and_boasting_has():
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.5, 1.0, 20_000)
    correct = draw.random(20_000) < confidence

    assert calibration_error(confidence, correct) < 0.02
    assert calibration_error(np.ones(20_000), correct) == pytest.approx(0.25, abs=0.02)


def test_scaling_undoes_overconfidence():
    draw = np.random.default_rng(1)
    truth = draw.normal(0, 1.5, (4000, 4))
    chances = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    labels = np.array([draw.choice(4, p=row) for row in chances])

    fitted = Calibration(**fit_scaling(4 * truth, labels))

    mended = probabilities(4 * truth, fitted)
    assert calibration_error(mended.max(axis=1), mended.argmax(axis=1) == labels) < 0.04


def test_frozen_thresholds_hold_the_budgets_of_recordings_of_events_and_of_bursts():
    draw = np.random.default_rng(2)
    labels = draw.choice(4, 4000, p=[0.4, 0.1, 0.05, 0.45])
    logs = draw.normal(0, 1, (4000, 4)) + 3 * np.eye(4)[labels]
    events = logs + [2.0, 0.0, 0.0, 0.0] * (labels == 1)[:, None]

    frozen = freeze(logs, labels, events, labels)

    cuts = frozen["thresholds"]
    files = gunfire_scores(logs, frozen["stream_calibration"])
    heard = gunfire_scores(events, frozen["calibration"])
    city = labels != 0
    assert (files[city] >= cuts["gunfire"]).mean() == pytest.approx(
        FALSE_ALARMS["gunfire"], abs=1e-3
    )
    assert (heard[city] >= cuts["probable"]).mean() <= FALSE_ALARMS["probable"] + 1e-3
    assert (heard[labels == 1] >= cuts["gunfire"]).mean() == pytest.approx(FIREWORKS, abs=3e-3)


def test_thresholds_can_be_frozen_where_no_fireworks_were_heard():
    draw = np.random.default_rng(3)
    labels = draw.choice([0, 3], 2000)
    logs = draw.normal(0, 1, (2000, 4)) + 3 * np.eye(4)[labels]

    frozen = freeze(logs, labels, logs, labels)

    city = gunfire_scores(logs, frozen["calibration"])[labels == 3]
    share = (city >= frozen["thresholds"]["probable"]).mean()
    assert share == pytest.approx(FALSE_ALARMS["probable"], abs=2e-3)
