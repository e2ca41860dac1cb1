"""Signal processing without scipy: the same as scipy's, which is the reference here."""

from __future__ import annotations

import subprocess
import sys
from math import gcd

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import fft, signal

from node import dsp

RATES = st.integers(16_000, 96_000)
SEEDS = st.integers(0, 2**32 - 1)
AT_LEISURE = settings(max_examples=50)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def designs(rate_hz: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Give the filters that the node uses, by us and by scipy."""
    bands = ((200.0, min(3000.0, 0.4 * rate_hz)), (300.0, min(8000.0, 0.42 * rate_hz)))
    return [
        (dsp.high_pass(500.0, rate_hz), signal.butter(2, 500.0, "high", fs=rate_hz, output="sos"))
    ] + [
        (
            dsp.band_pass(*band, rate_hz),
            signal.butter(2, band, "band", fs=rate_hz, output="sos"),
        )
        for band in bands
    ]


def test_what_the_node_hears_with_loads_no_scipy() -> None:
    told = "import sys, node.cli.run; print(sorted(m for m in sys.modules if m[:5] == 'scipy'))"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True)

    assert done.stdout.strip() == "[]"


@AT_LEISURE
@given(RATES)
def test_filters_are_designed_as_by_scipy_at_any_rate(rate_hz: int) -> None:
    for ours, reference in designs(rate_hz):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-12)


@AT_LEISURE
@given(st.floats(0.001, 0.49), st.floats(0.001, 0.49))
def test_any_band_is_designed_as_by_scipy(one: float, other: float) -> None:
    low, high = sorted((one, other))
    if high - low < 1e-3:
        high = low + 1e-3
    reference = signal.butter(2, (low, high), "band", fs=1.0, output="sos")

    response = [
        signal.freqz_sos(sos, worN=np.linspace(0, np.pi, 65))[1]
        for sos in (dsp.band_pass(low, high, 1.0), reference)
    ]

    np.testing.assert_allclose(*response, rtol=0, atol=1e-9)


@AT_LEISURE
@given(RATES)
def test_a_filter_rests_in_the_state_that_scipy_tells(rate_hz: int) -> None:
    for ours, reference in designs(rate_hz):
        state = signal.sosfilt_zi(reference).ravel()
        np.testing.assert_allclose(dsp.Cascade(ours).rest, state, rtol=0, atol=1e-11)


@AT_LEISURE
@given(
    SEEDS,
    RATES,
    st.integers(1, 6),
    st.lists(st.integers(1, 3 * dsp.PIECE // 2), min_size=1, max_size=4),
    st.sampled_from((np.float32, np.float64)),
)
def test_sound_is_filtered_as_by_scipy_however_it_is_cut(
    seed: int, rate_hz: int, channels: int, cuts: list[int], kind: type
) -> None:
    x = noise(seed, sum(cuts), channels).astype(kind)
    for sections, reference in designs(rate_hz):
        cascade = dsp.Cascade(sections)
        state = np.outer(cascade.rest, noise(seed + 1, channels))
        zi = state.reshape(-1, 2, channels)
        expected, last = signal.sosfilt(reference, x.astype(np.float64), axis=0, zi=zi)

        parts = []
        for part in np.split(x, np.cumsum(cuts)[:-1]):
            y, state = cascade.run(part, state)
            parts.append(y)

        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=0, atol=1e-10)
        np.testing.assert_allclose(state.reshape(last.shape), last, rtol=0, atol=1e-10)


@AT_LEISURE
@given(SEEDS, st.integers(1, 5), st.integers(1, 5000))
def test_a_channel_is_filtered_the_same_whichever_others_there_are(
    seed: int, channels: int, frames: int
) -> None:
    cascade = dsp.Cascade(dsp.band_pass(200.0, 3000.0, 48_000))
    x = noise(seed, frames, channels)

    together, _ = cascade.run(x, cascade.silence(channels))

    for c in range(channels):
        alone, _ = cascade.run(x[:, c : c + 1], cascade.silence(1))
        assert np.array_equal(alone[:, 0], together[:, c])


@AT_LEISURE
@given(SEEDS, st.integers(0, 12_000), st.integers(0, 12_000), st.integers(1, 12))
def test_thinned_sound_is_every_so_manieth_frame_of_the_whole(
    seed: int, frames: int, first: int, step: int
) -> None:
    cascade = dsp.Cascade(dsp.band_pass(200.0, 3000.0, 48_000))
    x = noise(seed, frames, 2).astype(np.float32)

    whole, _ = cascade.run(x, cascade.silence(2))

    assert np.array_equal(cascade.thinned(x, first, step), whole[first::step])


@AT_LEISURE
@given(SEEDS, st.integers(1, 400), st.integers(1, 120), st.integers(1, 12))
def test_sound_is_interpolated_as_by_scipy(seed: int, frames: int, taps: int, up: int) -> None:
    x, kernel = noise(seed, frames).astype(np.float32), noise(seed + 1, taps)

    expected = signal.upfirdn(kernel, x.astype(np.float64), up=up)

    np.testing.assert_allclose(dsp.interpolate(x, kernel, up), expected, rtol=0, atol=1e-11)


@AT_LEISURE
@given(SEEDS, st.integers(1, 3000), st.integers(1, 512), st.integers(1, 512))
@example(0, 48_000, 1, 4)
@example(0, 44_100, 40, 147)
@example(0, 96_000, 1, 8)
@example(0, 1, 512, 1)
def test_sound_is_resampled_as_by_scipy(seed: int, frames: int, up: int, down: int) -> None:
    x = noise(seed, frames)
    up, down = up // gcd(up, down), down // gcd(up, down)

    expected = signal.resample_poly(x, up, down)

    np.testing.assert_allclose(dsp.resample(x, up, down), expected, rtol=0, atol=1e-11)


@AT_LEISURE
@given(st.lists(st.integers(-3, 9), min_size=1, max_size=80), st.floats(-2, 8))
def test_flat_tops_are_found_as_by_scipy(levels: list[int], height: float) -> None:
    x = np.array(levels, dtype=float)

    expected, _ = signal.find_peaks(x, height=height)

    assert dsp.find_peaks(x, height, 1) == expected.tolist()


@AT_LEISURE
@given(SEEDS, st.integers(1, 200), st.floats(-1, 2), st.integers(1, 40))
def test_the_highest_of_near_peaks_are_found_as_by_scipy(
    seed: int, n: int, height: float, distance: int
) -> None:
    x = noise(seed, n)

    expected, _ = signal.find_peaks(x, height=height, distance=distance)

    assert dsp.find_peaks(x, height, distance) == expected.tolist()


@AT_LEISURE
@given(st.integers(1, 10_000_000))
def test_fast_lengths_are_those_of_scipy(n: int) -> None:
    assert dsp.fast_length(n) == fft.next_fast_len(n, real=True)


@pytest.mark.parametrize("n", range(1, 300))
def test_every_short_fast_length_is_that_of_scipy(n: int) -> None:
    assert dsp.fast_length(n) == fft.next_fast_len(n, real=True)
