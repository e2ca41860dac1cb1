"""From logits to a verdict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.classify.calibration import (
    BEST,
    as_scores,
    best_heard,
    grade,
    pooled,
    probabilities,
    verdict,
)
from node.classify.sidecar import Calibration, Thresholds
from node.types import Scores

IDENTITY = Calibration(scale=(1, 1, 1, 1), bias=(0, 0, 0, 0))
CUTS = Thresholds(gunfire=0.8, probable=0.3)

logits = st.lists(st.floats(-50, 50), min_size=4, max_size=4).map(np.array)
four = st.tuples(*[st.floats(0.1, 3)] * 4)


@given(logits, four, four)
def test_scores_sum_to_one_whatever_the_calibration(z, scale, bias):
    scores = as_scores(probabilities(z, Calibration(scale=scale, bias=bias)))

    total = scores.gunfire + scores.fireworks + scores.backfire + scores.other
    assert total == pytest.approx(1.0, abs=1e-9)


@given(logits, st.floats(-100, 100))
def test_a_constant_added_to_all_logits_changes_nothing(z, constant):
    strange = Calibration(scale=(0.5, 1.5, 1, 2), bias=(0.1, 0, -1, 0))

    assert np.allclose(probabilities(z, strange), probabilities(z + constant, strange))


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0.8, "gunfire"),
        (0.799, "probable_gunfire"),
        (0.3, "probable_gunfire"),
        (0.299, "not_gunfire"),
    ],
)
def test_the_grade_is_cut_at_the_two_thresholds_of_the_model(score, expected):
    assert grade(score, CUTS) == expected


def test_without_a_clear_class_the_node_abstains_and_says_other():
    judged = verdict(Scores(gunfire=0.4, fireworks=0.35, backfire=0.05, other=0.2), CUTS)

    assert judged.abstained
    assert judged.label == "other"
    assert judged.grade == "probable_gunfire"


def test_a_clear_class_gives_the_label():
    judged = verdict(Scores(gunfire=0.1, fireworks=0.7, backfire=0.1, other=0.1), CUTS)

    assert not judged.abstained
    assert judged.label == "fireworks"
    assert judged.grade == "not_gunfire"


def test_looks_at_the_street_do_not_dilute_one_clear_look_at_a_shot():
    street, shot = [-6.0, -6.0, -6.0, 6.0], [6.0, 0.0, -4.0, -4.0]

    scores = as_scores(probabilities(pooled(np.array([street] * 50 + [shot])), IDENTITY))

    assert scores.gunfire > 0.99


def test_one_burst_that_resembles_a_shot_does_not_speak_for_a_display():
    burst, shot = [-1.0, 4.0, -4.0, -4.0], [4.0, 1.0, -4.0, -4.0]

    scores = as_scores(probabilities(pooled(np.array([burst] * 9 + [shot])), IDENTITY))

    assert scores.fireworks > 0.9


@given(st.lists(logits, min_size=1, max_size=20).map(np.array))
def test_pooling_is_finite_and_does_not_hang_on_the_order(looks):
    assert np.isfinite(pooled(looks)).all()
    assert np.allclose(pooled(looks), pooled(looks[::-1]))
    assert np.isfinite(best_heard(looks)).all()


def test_a_recording_is_heard_by_the_looks_at_its_clearest_onset_and_not_by_one_alone():
    street, shot = [0.0, 0.0, 0.0, 6.0], [5.0, 0.0, 0.0, 0.0]

    silent, once, whole = (
        as_scores(probabilities(best_heard(np.array(looks)), IDENTITY))
        for looks in ([street] * 60, [street] * 59 + [shot], [street] * (60 - BEST) + [shot] * BEST)
    )

    assert silent.other > 0.9
    assert once.gunfire < 0.5
    assert whole.gunfire > 0.9
