import pytest
from field.onsets import DATA, Figures, measure

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (DATA / "pittsburgh").is_dir(), reason=f"the live-fire recordings are not at {DATA}"
    ),
]


@pytest.fixture(scope="module")
def live_fire() -> Figures:
    return measure(DATA)


def test_shots_are_found_in_95_of_100_recordings_that_hold_one(live_fire):
    assert live_fire.recordings == 522
    assert live_fire.with_pulse == 484
    assert live_fire.any_pulse >= 0.95


def test_the_first_shot_is_found_and_an_event_begins_with_it(live_fire):
    assert live_fire.first_pulse >= 0.95
    assert live_fire.event_begins >= 0.95


def test_each_shot_of_a_burst_is_found_among_the_echoes(live_fire):
    assert live_fire.every_pulse >= 0.95


def test_onsets_agree_with_the_sensors_to_1_ms(live_fire):
    assert live_fire.median_ms <= 1.0


def test_a_street_at_night_makes_no_more_than_six_events_a_minute(live_fire):
    assert live_fire.away_per_minute <= 6.0
