"""Street noise and the microphone's chain: level, colour, coherence, full scale."""

import numpy as np
import pytest
from scipy import signal

from node.simulate.microphone import Microphone
from node.simulate.noise import HOP_FRAMES, StreetNoise, a_weighting_db, traffic_density
from node.simulate.pulses import REFERENCE_PA

RATE = 48_000
PAIR_M = np.array([[0.0, 0, 0], [0.2, 0, 0]])


def street(seed: int = 1, **changed) -> StreetNoise:
    options = {
        "sample_rate_hz": RATE,
        "level_db_a": 60.0,
        "vehicles_per_minute": 0.0,
        "duration_s": 60.0,
        "sound_speed_m_s": 340.0,
        "seed": np.random.SeedSequence(seed),
    }
    return StreetNoise(PAIR_M, **(options | changed))


def listen(noise: StreetNoise, hops: int) -> np.ndarray:
    return np.concatenate([noise.hop(i) for i in range(hops)])


def level_db_a(pressure: np.ndarray) -> float:
    f, density = signal.welch(pressure, RATE, nperseg=8192)
    power = np.sum(density * 10 ** (a_weighting_db(f) / 10)) * f[1]
    return float(10 * np.log10(power / REFERENCE_PA**2))


def test_a_weighting_is_the_standards():
    assert a_weighting_db([100, 1000, 10_000]) == pytest.approx([-19.1, 0.0, -2.5], abs=0.1)


def test_the_traffic_spectrum_has_the_level_it_claims():
    f = np.arange(10, 20_000, 2.0)
    power = np.sum(traffic_density(f) * 10 ** (a_weighting_db(f) / 10)) * 2.0
    assert 10 * np.log10(power / REFERENCE_PA**2) == pytest.approx(0.0, abs=0.3)


def test_a_street_is_as_loud_as_asked_for():
    levels = [level_db_a(listen(street(seed), 40)[:, 0]) for seed in range(4)]
    assert np.mean(levels) == pytest.approx(60.0, abs=1.5)


def test_passing_vehicles_swell_and_fade():
    loud = listen(street(vehicles_per_minute=20.0), 120)[:, 0]
    quiet = listen(street(), 120)[:, 0]
    swell_db = [
        level_db_a(a) - level_db_a(b)
        for a, b in zip(np.array_split(loud, 40), np.array_split(quiet, 40), strict=True)
    ]
    assert min(swell_db) < 5 < max(swell_db) < 20


def test_microphones_agree_as_a_diffuse_field_does():
    pressure = listen(street(), 80)
    f, cross = signal.csd(*pressure.T, RATE, nperseg=2048)
    own = [signal.welch(one, RATE, nperseg=2048)[1] for one in pressure.T]
    coherence = (cross / np.sqrt(own[0] * own[1])).real
    for hz in (100, 300, 1000, 2000):
        i = np.argmin(np.abs(f - hz))
        assert coherence[i] == pytest.approx(np.sinc(2 * f[i] * 0.2 / 340), abs=0.06)


def test_noise_does_not_change_where_segments_join():
    pressure = np.concatenate([listen(street(seed), 12)[:, 0] for seed in range(6)])
    folded = pressure.reshape(-1, HOP_FRAMES // 8).std(axis=1).reshape(-1, 8)
    by_phase = np.sqrt((folded**2).mean(axis=0))
    assert by_phase.max() / by_phase.min() < 1.25


def test_any_stretch_is_the_same_whichever_was_asked_for_before():
    noise = street()
    np.testing.assert_array_equal(listen(street(), 4)[3 * HOP_FRAMES :], noise.hop(3))
    np.testing.assert_array_equal(street().hop(1), noise.hop(1))


def microphone(**changed) -> Microphone:
    options = {
        "sample_rate_hz": RATE,
        "full_scale_db_spl": 120.0,
        "bits": 24,
        "highpass_hz": 40.0,
        "self_noise_db_spl": -100.0,
        "rng": np.random.default_rng(1),
    }
    return Microphone(1, **(options | changed))


def tone(peak_db_spl: float) -> np.ndarray:
    t = np.arange(RATE) / RATE
    return REFERENCE_PA * 10 ** (peak_db_spl / 20) * np.sin(2 * np.pi * 1000 * t)[:, None]


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_peak_reads_its_level_less_full_scale(bits):
    pcm = microphone(bits=bits).record(tone(100.0))
    assert pcm.dtype == np.int32
    settled = pcm[RATE // 2 :] / 2**31
    peak_dbfs = 20 * np.log10(np.abs(settled).max())
    assert peak_dbfs == pytest.approx(-20.0, abs=0.05)
    assert np.all(pcm % 2 ** (32 - bits) == 0)
    assert np.any(pcm % 2 ** (33 - bits) != 0)


def test_what_is_too_loud_clips_on_both_sides():
    pcm = microphone().record(tone(130.0))
    assert pcm.max() == 2**31 - 2**8
    assert pcm.min() == -(2**31)


def test_capsules_hear_no_steady_pressure_and_keep_their_state():
    whole = microphone()
    steady = np.full((RATE, 1), 1.0)
    once = whole.record(steady)
    assert abs(once[-1, 0]) < 1e-6 * abs(once[0, 0])
    split = microphone()
    twice = np.concatenate([split.record(steady[:999]), split.record(steady[999:])])
    np.testing.assert_array_equal(once, twice)


def test_self_noise_has_its_level_and_differs_between_channels():
    mic = Microphone(
        2,
        sample_rate_hz=RATE,
        full_scale_db_spl=120.0,
        bits=24,
        highpass_hz=40.0,
        self_noise_db_spl=40.0,
        rng=np.random.default_rng(1),
    )
    pcm = mic.record(np.zeros((RATE, 2))) / 2**31
    assert 20 * np.log10(pcm.std(axis=0)) == pytest.approx([-80.0, -80.0], abs=0.1)
    assert abs(np.corrcoef(pcm.T)[0, 1]) < 0.02
