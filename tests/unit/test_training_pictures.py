"""What is done to a moment before it is carried anywhere: played again, in a series."""

import inspect

import numpy as np
import pytest

from models.training import surroundings
from models.training.moments import LEAD, SPAN
from models.training.pictures import in_series
from node.classify import features


def click():
    sound = np.zeros(SPAN)
    sound[LEAD : LEAD + 12] = 1.0
    return sound


def onsets(sound):
    loud = np.abs(sound) > 0.01
    rises = np.flatnonzero(np.diff(np.r_[False, loud].astype(np.int8)) == 1)
    return rises[np.diff(np.r_[-SPAN, rises]) > 12]


@pytest.mark.parametrize("seed", range(20))
def test_a_series_keeps_the_moment_in_place_and_adds_others_around_it(seed):
    series = in_series(click(), np.random.default_rng(seed))

    assert series.shape == (SPAN,)
    assert LEAD in onsets(series)
    gaps_s = np.diff(onsets(series)) / features.RATE_HZ
    assert (gaps_s > 0.02).all()


def test_a_series_has_two_to_eight_sounds_at_many_cadences():
    found = [onsets(in_series(click(), np.random.default_rng(seed))) for seed in range(200)]

    assert max(map(len, found)) == 8
    first_gaps_s = [np.diff(at)[0] / features.RATE_HZ for at in found if len(at) > 1]
    assert min(first_gaps_s) < 0.1
    assert max(first_gaps_s) > 0.7


def test_the_cadence_of_a_series_does_not_tell_the_class():
    assert not {"label", "clip", "group"} & set(inspect.signature(in_series).parameters)


def test_some_of_what_stays_in_place_is_heard_as_its_file_has_it():
    draw = np.random.default_rng(0)
    dry = draw.standard_normal(SPAN)
    hiss = draw.standard_normal(SPAN)

    heard = [
        surroundings.surround(dry, LEAD, hiss, np.random.default_rng(seed)) for seed in range(200)
    ]

    untouched = [np.allclose(h, dry / np.max(np.abs(dry))) for h in heard]
    assert 20 <= sum(untouched) <= 60
