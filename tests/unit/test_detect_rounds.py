import numpy as np
import pytest
from detect_sounds import blast

from node.detect.rounds import (
    FASTEST_S,
    LEAD_S,
    TAIL_S,
    by_response,
    cadence_rpm,
    count_rounds,
)
from node.types import Direction, Impulse, Rounds

RATE = 48_000
NO_SOUND = np.zeros((1, 1), np.float32)
GUN, WALL, OTHER = 40.0, 200.0, 300.0


def impulse(at_s: float, level_db: float, azimuth_deg: float | None) -> Impulse:
    direction = None if azimuth_deg is None else Direction(azimuth_deg, None, 3.0)
    return Impulse((at_s + 1) * RATE, 5.0, level_db, level_db - 60, direction=direction)


def count(arrivals, sound=NO_SOUND) -> Rounds:
    """Count arrivals of (s, dB, azimuth or None), in order of time."""
    impulses = [impulse(*arrival) for arrival in sorted(arrivals, key=lambda arrival: arrival[0])]
    first = round((impulses[0].onset_sample / RATE - LEAD_S) * RATE)
    return count_rounds(impulses, sound, first, RATE)


def with_echoes(shots_s, azimuth_deg=GUN, level_db=40.0, walls=((0.11, 9.0, WALL),)):
    """Give shots of one gun, and what each wall makes of them: delay, loss, bearing."""
    arrivals = []
    for at_s in shots_s:
        arrivals.append((at_s, level_db, azimuth_deg))
        arrivals += [(at_s + late, level_db - loss, bearing) for late, loss, bearing in walls]
    return arrivals


def test_one_impulse_is_one_shot():
    assert count([(0.0, 30.0, None)]) == Rounds((0,), is_minimum=False)


def test_a_shot_with_echoes_from_elsewhere_is_one():
    walls = ((0.08, 6.0, WALL), (0.21, 9.0, 120.0), (0.4, 12.0, 290.0))

    assert count(with_echoes([0.0], walls=walls)) == Rounds((0,), is_minimum=False)


def test_an_echo_from_behind_the_gun_is_none_for_it_is_weaker():
    assert count(with_echoes([0.0], walls=((0.15, 9.0, GUN + 5),))).shots == (0,)


def test_a_burst_with_echoes_is_counted_and_its_cadence_told():
    shots_s = 0.08 * np.arange(5)

    rounds = count(with_echoes(shots_s, walls=((0.117, 8.0, WALL),)))

    assert len(rounds.shots) == 5
    assert not rounds.is_minimum
    assert rounds.cadence_rpm == pytest.approx(750, rel=0.01)


def test_an_echo_that_is_louder_than_the_shots_is_no_second_gun():
    # A wall may shield the gun itself; its echo follows every shot by the same delay.
    rounds = count(with_echoes(np.array([0.0, 0.4, 0.9, 1.5]), walls=((0.13, -2.0, WALL),)))

    assert rounds.shots == (0, 2, 4, 6)


def test_bearings_are_alike_over_north():
    arrivals = [(0.0, 40.0, 358.0), (0.4, 40.0, 3.0), (0.9, 39.0, 356.0)]

    assert count(arrivals).shots == (0, 1, 2)


def test_a_second_gun_as_loud_from_elsewhere_is_counted_as_a_minimum():
    first = with_echoes([0.0, 0.5, 1.0])
    second = [(0.23, 40.0, OTHER), (0.81, 39.5, OTHER), (1.17, 40.0, OTHER)]

    rounds = count(first + second)

    assert rounds.is_minimum
    assert len(rounds.shots) == 6


def test_a_second_gun_much_weaker_is_not_counted_but_hinted_at():
    second = [(0.23, 33.0, OTHER), (0.81, 33.0, OTHER), (1.17, 33.0, OTHER)]

    rounds = count([(0.0, 40.0, GUN), (0.5, 40.0, GUN), (1.0, 40.0, GUN), *second])

    assert (len(rounds.shots), rounds.is_minimum) == (3, True)


def test_a_second_gun_far_weaker_is_clutter():
    second = [(0.23, 27.0, OTHER), (0.81, 27.0, OTHER), (1.17, 27.0, OTHER)]

    rounds = count([(0.0, 40.0, GUN), (0.5, 40.0, GUN), (1.0, 40.0, GUN), *second])

    assert (len(rounds.shots), rounds.is_minimum) == (3, False)


def test_a_loud_impulse_of_unknown_direction_makes_the_count_a_minimum():
    arrivals = [(0.0, 40.0, GUN), (0.5, 40.0, GUN), (0.8, 40.0, None), (1.0, 40.0, GUN)]

    rounds = count(arrivals)

    assert (rounds.shots, rounds.is_minimum) == ((0, 1, 3), True)


def test_no_gun_fires_twice_within_forty_milliseconds():
    rounds = count([(0.0, 40.0, GUN), (0.9 * FASTEST_S, 39.0, GUN), (0.5, 40.0, GUN)])

    assert rounds.shots == (0, 2)


def test_the_first_arrival_is_a_shot_even_if_it_is_weak():
    rounds = count([(0.0, 30.0, GUN), (0.4, 40.0, GUN), (0.8, 40.0, GUN)])

    assert rounds.shots == (0, 1, 2)


def scattered(wave, seconds, rng):
    """Give what rough walls make of a wave: copies of either sign that die out, of peak 1."""
    count = round(seconds * RATE)
    rough = rng.standard_normal(count) * (rng.random(count) < 0.01)
    back = np.convolve(wave, rough * np.exp(-np.arange(count) / (count / 3)))
    return back / np.abs(back).max()


def responses(shots_s, walls, seed=1):
    """Give a street's sound for shots of one gun, its arrivals told without directions."""
    rng = np.random.default_rng(seed)
    sound = 1e-4 * rng.standard_normal(round((max(shots_s) + LEAD_S + TAIL_S + 0.6) * RATE))
    shot = blast(RATE)
    street = 0.7 * scattered(shot, 0.12, rng)  # too weak for the trigger, yet heard
    street[: len(shot)] += shot
    sent_back = [10 ** (-loss_db / 20) * scattered(shot, 0.06, rng) for _, loss_db in walls]
    arrivals = []
    for at_s in shots_s:
        _add(sound, at_s, street)
        arrivals.append((at_s, 40.0, None))
        for (late_s, loss_db), back in zip(walls, sent_back, strict=True):
            _add(sound, at_s + late_s, back)
            arrivals.append((at_s + late_s, 40.0 - loss_db, None))
    return arrivals, sound[:, None].astype(np.float32)


def _add(sound, at_s, wave):
    begin = round((at_s + LEAD_S) * RATE)
    sound[begin : begin + len(wave)] += wave


def test_one_microphone_counts_shots_by_the_street_s_response():
    arrivals, sound = responses([0.0, 0.61, 1.3], walls=((0.27, 8.0),))

    assert count(arrivals, sound).shots == (0, 2, 4)


def test_one_microphone_hears_one_shot_in_its_echoes():
    arrivals, sound = responses([0.0], walls=((0.2, 6.0), (0.37, 10.0)))

    assert count(arrivals, sound).shots == (0,)


def test_of_equal_groups_the_earliest_are_the_shots():
    # Shots and their echoes repeat each other alike: 0 and 2, 1 and 3.
    alike = np.eye(4)
    alike[0, 2] = alike[2, 0] = alike[1, 3] = alike[3, 1] = 0.9

    shots, is_minimum = by_response(np.array([0, 0.1, 0.5, 0.6]), np.full(4, 40.0), alike)

    assert (shots, is_minimum) == ([0, 2], False)


def test_what_resembles_a_shot_somewhat_makes_the_count_a_minimum():
    alike = np.eye(3)
    alike[0, 1] = alike[1, 0] = 0.8
    alike[0, 2] = alike[2, 0] = 0.5

    shots, is_minimum = by_response(np.array([0, 0.5, 1.0]), np.full(3, 40.0), alike)

    assert (shots, is_minimum) == ([0, 1], True)


def test_cadence_by_hand():
    assert cadence_rpm(np.array([0.0, 0.1, 0.2, 0.3])) == pytest.approx(600)
    assert cadence_rpm(np.array([0.0, 0.1])) is None
    assert cadence_rpm(np.array([0.0, 0.1, 0.9, 1.1, 2.8])) is None
