"""The picture that the network sees: one shape and band for any card, blind to level and gaps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.classify import features


def knock(rate_hz: int, seconds: float = 1.3) -> np.ndarray:
    """Make a band-limited impulse over faint noise, the same sound at any rate."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz - 0.3
    noise = 1e-3 * np.sin(2 * np.pi * 440.0 * time_s)
    ring = np.where(time_s > 0, np.exp(-40 * time_s) * np.sin(2 * np.pi * 700 * time_s), 0.0)
    return noise + 0.5 * ring


def drawn(sound: np.ndarray, rate_hz: int = features.RATE_HZ) -> np.ndarray:
    at_rate = features.resample(features.pick_channel(sound), rate_hz)
    picture = features.picture(features.mel_power(at_rate[: features.WINDOW]))
    assert picture is not None
    return picture


def test_a_picture_has_one_shape_and_range():
    picture = drawn(knock(features.RATE_HZ))

    assert picture.shape == (features.FRAMES, features.BANDS)
    assert picture.dtype == np.float32
    assert picture.max() == pytest.approx(1.0, abs=1e-6)
    assert picture.min() >= 0.0


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 32_000, 44_100, 48_000, 47_999, 96_000])
def test_any_card_draws_nearly_the_same_picture(rate_hz):
    reference = drawn(knock(features.RATE_HZ))

    # The synthetic ring begins within a sample; a few frames differ by what lies above 6 kHz.
    assert np.mean(np.abs(drawn(knock(rate_hz), rate_hz) - reference)) < 0.03


@settings(max_examples=25)
@given(gain_db=st.floats(-60, 40))
def test_level_does_not_show(gain_db):
    sound = knock(features.RATE_HZ)

    assert np.allclose(drawn(sound * 10 ** (gain_db / 20)), drawn(sound), atol=1e-5)


def test_a_redacted_edge_looks_like_quiet_and_not_like_an_onset():
    draw = np.random.default_rng(1)
    sound = draw.standard_normal(features.WINDOW)
    redacted = sound.copy()
    redacted[: features.WINDOW // 3] = 0.0

    picture = drawn(redacted)
    loudness = picture.mean(axis=1)

    assert loudness.max() - loudness.min() < 0.3
    assert np.ptp(loudness[: features.FRAMES // 4]) < 1e-6


def test_digital_silence_draws_nothing():
    assert features.picture(features.mel_power(np.zeros(features.WINDOW))) is None


def test_neither_a_dead_channel_nor_a_popping_one_is_chosen():
    draw = np.random.default_rng(2)
    sound = knock(features.RATE_HZ)
    array = np.stack([sound + 1e-4 * draw.standard_normal(len(sound)) for _ in range(4)], axis=1)
    array[:, 0] = 0.0
    array[:, 3] = 0.0
    array[5000, 3] = 1.0

    chosen = features.pick_channel(array)

    assert any(np.array_equal(chosen, array[:, k]) for k in (1, 2))


def test_what_is_not_finite_counts_as_silence():
    sound = knock(features.RATE_HZ)
    sound[100], sound[200] = np.nan, np.inf

    assert np.isfinite(drawn(sound)).all()
