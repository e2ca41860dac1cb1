"""What makes an incident: scores combined, grades, and the policy."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from node.messages import Detection
from node.messages.detection import Local, Scores
from node.network import policy
from node.network.policy import LocateSettings, Word, asked_of_new, passes
from node.types import Grade
from tests.field.detections import THRESHOLDS, Sender

SETTINGS = LocateSettings()
QUIET_PER_S = 1 / 120
"""A node tells of a shot once in two minutes."""


def detection(node: str, grade: Grade = "gunfire", snr_db: float = 25.0) -> Detection:
    """Make what a node says of one round."""
    place = Local(frame="f", x_m=0.0, y_m=0.0, z_m=0.0, sigma_m=1.0)
    made = Sender(node, place).detection([1.0], 1e-4, grade=grade)
    (one,) = made.rounds
    return made.model_copy(update={"rounds": (one.model_copy(update={"snr_db": snr_db}),)})


def many(*grades: Grade) -> list[Detection]:
    return [detection(f"node-{at}", grade) for at, grade in enumerate(grades)]


def alike(grade: Grade, count: int) -> list[Detection]:
    return many(*[grade] * count)


def words(detections: list[Detection]) -> list[Word]:
    return [Word.of(one) for one in detections]


def pooled(detections: list[Detection]) -> Scores:
    return policy.pooled(words(detections))


def grade_of(scores: Scores, detections: list[Detection]) -> Grade:
    return policy.grade_of(scores, words(detections))


def asked(detections: list[Detection], **changed: Any) -> bool:
    """Ask whether three nodes' source is an incident, with something changed."""
    given = {"log_odds": 12.0, "nodes": len(detections), "bearings": 0, "told": False}
    settings = changed.pop("settings", SETTINGS)
    return passes(settings, words=words(detections), **(given | changed))


def test_one_node_alone_keeps_its_scores() -> None:
    (alone,) = many("probable_gunfire")
    assert pooled([alone]).gunfire == pytest.approx(alone.scores.gunfire, abs=1e-6)


def test_combined_scores_sum_to_one() -> None:
    scores = pooled(many("gunfire", "probable_gunfire", "not_gunfire"))
    total = scores.gunfire + scores.fireworks + scores.backfire + scores.other
    assert total == pytest.approx(1)


def test_nodes_that_agree_are_surer_than_one_but_not_as_sure_as_if_they_were_independent() -> None:
    four = alike("gunfire", 4)
    one, together = four[0].scores, pooled(four)
    assert together.gunfire > one.gunfire
    odds = together.gunfire / together.fireworks
    alone = one.gunfire / one.fireworks
    assert odds == pytest.approx(alone**2, rel=1e-3), "of four nodes as of two witnesses"


def test_the_order_of_nodes_does_not_matter() -> None:
    one = many("gunfire", "probable_gunfire", "not_gunfire")
    assert pooled(one).gunfire == pytest.approx(pooled(one[::-1]).gunfire)


def test_a_far_node_counts_for_less_than_a_near_one() -> None:
    near_says_shot = [detection("a", "gunfire", 35.0), detection("b", "not_gunfire", 12.0)]
    far_says_shot = [detection("a", "gunfire", 12.0), detection("b", "not_gunfire", 35.0)]
    assert pooled(near_says_shot).gunfire > 0.5 > pooled(far_says_shot).gunfire


def test_one_node_that_is_sure_does_not_outvote_three_others() -> None:
    sure = detection("a").model_copy(
        update={"scores": Scores(gunfire=0.0, fireworks=1.0, backfire=0.0, other=0.0)}
    )
    scores = pooled([sure, *many("gunfire", "gunfire", "gunfire")])
    assert scores.gunfire > scores.fireworks


@pytest.mark.parametrize(
    ("gunfire", "grade"),
    [
        (0.7, "gunfire"),
        (0.699, "probable_gunfire"),
        (0.35, "probable_gunfire"),
        (0.349, "not_gunfire"),
    ],
)
def test_grades_go_by_the_nodes_thresholds(gunfire: float, grade: Grade) -> None:
    assert (THRESHOLDS.gunfire, THRESHOLDS.probable) == (0.7, 0.35)
    scores = Scores(gunfire=gunfire, fireworks=1 - gunfire, backfire=0.0, other=0.0)
    assert grade_of(scores, many("gunfire", "gunfire")) == grade


def test_thresholds_of_different_models_are_averaged() -> None:
    strict = detection("a").model_copy(
        update={"thresholds": THRESHOLDS.model_copy(update={"gunfire": 0.9})}
    )
    scores = Scores(gunfire=0.75, fireworks=0.25, backfire=0.0, other=0.0)
    assert grade_of(scores, [strict, detection("b")]) == "probable_gunfire"
    assert grade_of(scores, [detection("b")]) == "gunfire"


def test_three_nodes_that_call_it_gunfire_make_an_incident() -> None:
    assert asked(many("gunfire", "gunfire", "gunfire"))


def test_two_nodes_make_one_only_with_two_bearings() -> None:
    two = many("gunfire", "gunfire")
    assert not asked(two)
    assert not asked(two, bearings=1)
    assert asked(two, bearings=2)


def test_odds_below_the_least_make_none() -> None:
    three = many("gunfire", "gunfire", "gunfire")
    assert asked(three, log_odds=SETTINGS.least_log_odds)
    assert not asked(three, log_odds=SETTINGS.least_log_odds - 0.01)


def test_nothing_to_rest_on_makes_none() -> None:
    assert not asked([], nodes=3)


def test_one_node_alone_that_calls_it_gunfire_makes_none() -> None:
    assert not asked(many("gunfire", "not_gunfire", "not_gunfire"))


def test_two_detections_of_one_node_are_one_node_that_calls_it_gunfire() -> None:
    twice = [detection("a"), detection("a"), detection("b", "not_gunfire")]
    assert not asked(twice, settings=SETTINGS.model_copy(update={"least_grade": "not_gunfire"}))


def test_what_the_nodes_together_call_no_gunfire_makes_none() -> None:
    outvoted = alike("probable_gunfire", 2) + alike("not_gunfire", 4)
    assert grade_of(pooled(outvoted), outvoted) == "not_gunfire"
    assert not asked(outvoted)


def test_whatever_was_heard_is_told_where_that_is_asked_for() -> None:
    everything = LocateSettings(graded_nodes=0, least_grade="not_gunfire")
    assert asked(alike("not_gunfire", 3), settings=everything)


def test_only_gunfire_is_told_where_that_is_asked_for() -> None:
    strict = LocateSettings(least_grade="gunfire")
    probable = many("probable_gunfire", "probable_gunfire", "gunfire")
    probable = [one.model_copy(update={"scores": probable[0].scores}) for one in probable]
    assert asked(probable)
    assert not asked(probable, settings=strict)
    assert asked(alike("gunfire", 3), settings=strict)


def test_an_incident_that_was_told_is_not_taken_back_for_a_grade_that_falls_by_a_hair() -> None:
    weak = Scores(gunfire=0.33, fireworks=0.33, backfire=0.1, other=0.24)
    three = [one.model_copy(update={"scores": weak}) for one in alike("probable_gunfire", 3)]
    assert pooled(three).gunfire > 0.175
    below = [
        one.model_copy(update={"thresholds": THRESHOLDS.model_copy(update={"probable": 0.5})})
        for one in three
    ]
    assert grade_of(pooled(below), below) == "not_gunfire"
    assert not asked(below)
    assert asked(below, told=True)


@pytest.mark.parametrize(
    ("early", "of_quiet", "log_odds"),
    [
        (False, 0.0, 2.0),
        (False, 1.0, 2.0),
        (False, 10.0, 2.0 + math.log(10)),
        (False, 100.0, 2.0 + math.log(100)),
        (True, 0.0, 5.0),
        (True, 10.0, 5.0),
        (True, 100.0, 2.0 + math.log(100)),
    ],
)
def test_a_new_incident_needs_more_as_long_as_not_all_have_told_and_where_much_is_told(
    early: bool, of_quiet: float, log_odds: float
) -> None:
    asked = asked_of_new(SETTINGS, early=early, per_node_s=of_quiet * QUIET_PER_S)
    assert asked == pytest.approx(log_odds)


def test_what_is_needed_early_is_never_less_than_later() -> None:
    hasty = LocateSettings(early_log_odds=0.0)
    assert asked_of_new(hasty, early=True, per_node_s=0.0) == hasty.least_log_odds


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodes": 2},
        {"reach_m": 0},
        {"least_log_odds": float("nan")},
        {"early_log_odds": -1.0},
        {"early_log_odds": 101.0},
        {"radius_m": 5},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LocateSettings(**wrong)
