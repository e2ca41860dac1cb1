"""Whole recordings and bare windows: odd lengths, silence, many channels, long files."""

import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.classify import TfliteClassifier

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def classifier():
    return TfliteClassifier.load()


def noise(seconds, seed=0, channels=1):
    draw = np.random.default_rng(seed)
    return (0.01 * draw.standard_normal((round(seconds * RATE_HZ), channels))).astype(np.float32)


@pytest.mark.parametrize("frames", [0, 1, 2, 100, 4_000, 16_500])
def test_recordings_shorter_than_a_window_are_judged_and_are_no_gunfire(classifier, frames):
    heard = classifier.classify_stream([noise(2)[:frames]], RATE_HZ)

    assert heard.judgement.grade != "gunfire"
    assert heard.seconds == frames / RATE_HZ


@pytest.mark.parametrize("channels", [1, 2, 4, 300])
def test_digital_silence_is_other_without_doubt(classifier, channels):
    zeros = np.zeros((3 * RATE_HZ, channels), dtype=np.float32)

    heard = classifier.classify_stream([zeros], RATE_HZ)

    assert heard.judgement.label == "other"
    assert heard.judgement.grade == "not_gunfire"
    assert heard.events == 0
    assert classifier.judge([zeros], RATE_HZ).scores == heard.judgement.scores


def test_nothing_at_all_is_other(classifier):
    assert classifier.classify_stream([], RATE_HZ).judgement.label == "other"
    assert classifier.judge([], RATE_HZ).label == "other"


def test_not_a_number_does_not_reach_the_scores(classifier):
    broken = noise(2)
    broken[5_000:6_000] = np.nan
    broken[9_000] = np.inf

    scores = classifier.classify_stream([broken], RATE_HZ).judgement.scores

    assert 0.0 <= scores.gunfire <= 1.0


@settings(max_examples=8)
@given(cuts=st.lists(st.integers(1, 20 * RATE_HZ - 1), max_size=6).map(sorted))
def test_how_a_recording_is_cut_into_blocks_makes_no_difference(classifier, cuts):
    sound = noise(20, seed=3)
    sound[5 * RATE_HZ : 5 * RATE_HZ + 400] += 0.8

    whole = classifier.classify_stream([sound], RATE_HZ)

    assert classifier.classify_stream(np.split(sound, cuts), RATE_HZ) == whole


@pytest.mark.parametrize("seed", range(1, 7))
def test_noise_alone_is_next_to_no_event(classifier, seed):
    heard = classifier.classify_stream([noise(30, seed=seed)], RATE_HZ)

    assert heard.seconds == 30.0
    assert heard.events <= 1


def test_a_blast_among_noise_counts_once_though_many_windows_hold_it(classifier):
    sound = noise(30, seed=4)
    seconds = np.arange(RATE_HZ // 100) / RATE_HZ
    blast = 0.9 * (1 - seconds / 4e-4) * np.exp(-seconds / 4e-4)
    quiet = classifier.classify_stream([sound], RATE_HZ).events
    sound[15 * RATE_HZ :][: len(blast), 0] += blast.astype(np.float32)

    assert classifier.classify_stream([sound], RATE_HZ).events == quiet + 1


def test_memory_stays_flat_over_a_long_recording(classifier):
    block = noise(60, seed=2)
    classifier.classify_stream([block], RATE_HZ)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    heard = classifier.classify_stream((block for _ in range(20)), RATE_HZ)

    assert heard.seconds == 1200.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 40_000


@pytest.mark.parametrize("rate_hz", [12_000, 16_000, 44_100, 48_000, 96_000])
def test_an_event_is_judged_at_any_rate(classifier, rate_hz):
    before, after = classifier.window(rate_hz)
    draw = np.random.default_rng(4)
    window = (0.01 * draw.standard_normal((before + after, 4))).astype(np.float32)

    scores = classifier.judge([window, window[: before // 2], window[:0]], rate_hz).scores

    total = scores.gunfire + scores.fireworks + scores.backfire + scores.other
    assert total == pytest.approx(1.0, abs=1e-6)
