"""The demo's judgement of itself: truth beside what arrived."""

from dataclasses import replace

import pytest

from node.demo import Outcome, Street, compare
from node.messages import Detection, Origin, build_detection
from node.types import (
    NS_PER_S,
    ClockQuality,
    Event,
    Grade,
    Impulse,
    Instant,
    Judgement,
    ModelIdentity,
    Rounds,
    Scores,
)

T0 = 10**18
MODEL = ModelIdentity("m", "1", "0" * 64, 0.9, 0.5)


@pytest.fixture(scope="module")
def street() -> Street:
    return Street.load()


def heard(street: Street, arrival: int, grade: Grade, late_ms: float = 0.0) -> Detection:
    sample = street.truth.nodes[0].arrivals[arrival].sample
    utc = T0 + round(sample / 48_000 * NS_PER_S) + round(late_ms * 1e6)
    return build_detection(
        Origin("demo", "street-1", "00000000-0000-4000-8000-000000000000", "0"),
        Event((Impulse(sample, 1.0, 20.0, -20.0),)),
        Rounds((0,), is_minimum=False),
        [Instant(utc, 1e-3)],
        Judgement(Scores(0.7, 0.1, 0.1, 0.1), "gunfire", False, grade),
        ClockQuality(source="free", sigma_s=1e-3),
        MODEL,
        direction=None,
        sample_rate_hz=48_000,
        channels=4,
    )


def shots(street: Street) -> list[int]:
    arrivals = street.truth.nodes[0].arrivals
    return [i for i, a in enumerate(arrivals) if street.truth.sources[a.source].label == "gunfire"]


def test_the_street_has_three_shots_and_look_alikes_of_every_kind(street: Street) -> None:
    assert len(shots(street)) == 3
    assert {s.label for s in street.truth.sources} == {"gunfire", "fireworks", "backfire", "other"}


def test_a_shot_holds_only_if_it_was_graded_gunfire_within_a_millisecond(street: Street) -> None:
    def outcome(grade: Grade, late_ms: float) -> Outcome:
        shot = shots(street)[0]
        return compare(street, [heard(street, shot, grade, late_ms)], T0)[shot]

    assert outcome("gunfire", 0.9).holds
    assert outcome("probable_gunfire", -0.9).holds
    assert not outcome("not_gunfire", 0.0).holds
    assert not outcome("gunfire", 1.1).holds
    assert outcome("gunfire", 0.9).onset_error_s == pytest.approx(0.9e-3, abs=1e-8)


def test_what_was_not_received_does_not_hold_look_alikes_included(street: Street) -> None:
    assert not any(outcome.holds for outcome in compare(street, [], T0))


def test_a_detection_that_no_sound_explains_is_shown_and_must_not_be_gunfire(
    street: Street,
) -> None:
    stray = heard(street, 0, "gunfire", late_ms=900.0)
    assert not compare(street, [stray], T0)[-1].holds
    calm = stray.model_copy(update={"grade": "not_gunfire"})
    assert compare(street, [calm], T0)[-1].holds
    assert compare(street, [calm], T0)[-1].source is None


def test_a_look_alike_called_gunfire_does_not_hold(street: Street) -> None:
    quiet = next(i for i in range(8) if i not in shots(street))
    outcome = compare(street, [heard(street, quiet, "probable_gunfire")], T0)[quiet]
    assert not outcome.holds
    calm = compare(street, [heard(street, quiet, "not_gunfire")], T0)[quiet]
    assert calm.holds
    assert not replace(calm, detection=None).holds
