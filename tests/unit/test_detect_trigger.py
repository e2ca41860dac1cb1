import numpy as np
import pytest
from detect_sounds import add_blast, hear, hum, impulses, street
from test_pipeline import RATE_HZ, Listener, pipeline

from node.capture import make_geometry
from node.detect import Detector
from node.detect.onset import LONGEST_TAIL_S
from node.pipeline import Array
from node.settings import DetectSettings
from node.types import Block

RATE = 16000
SHOTS = [20000 + 9000 * k for k in range(8)]


def four_channels(peak: float = 0.3) -> np.ndarray:
    """Six seconds of street at four microphones, and eight shots."""
    x = street(np.random.default_rng(7), RATE, 6.0, 4)
    for at in SHOTS:
        add_blast(x, RATE, at, peak, [0, 3, 5, 2])
    return x


def onsets(x: np.ndarray, rate: int = RATE) -> list[float]:
    return [impulse.onset_sample for impulse in impulses(hear(x, rate))]


def dead(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.zeros(len(x))


def stuck(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.full(len(x), -0.7)


def humming(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x[:, 0] + hum(RATE, len(x), 0.3)


def popping(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    y = x[:, 0].copy()
    for at in rng.integers(0, len(x) - 100, 60):
        y[at : at + 30] += rng.uniform(0.1, 0.8) * np.hanning(30)
    return y


def clipped(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(x[:, 0] * 500, -1, 1)


@pytest.mark.parametrize("fault", [dead, stuck, humming, popping, clipped])
@pytest.mark.parametrize("channel", [0, 2])
def test_one_bad_channel_of_four_neither_triggers_nor_blinds(fault, channel):
    x = four_channels()
    x[:, channel] = fault(x, np.random.default_rng(8))

    found = onsets(x)

    assert found == pytest.approx(SHOTS, abs=0.001 * RATE)


def test_one_channel_that_pops_triggers_nothing_in_an_hour_of_pops():
    rng = np.random.default_rng(9)
    x = street(rng, RATE, 60.0, 4)
    for at in rng.integers(0, len(x) - 100, 1200):
        x[at : at + 30, 1] += rng.uniform(0.1, 0.8) * np.hanning(30)

    assert onsets(x) == []


def test_a_channel_that_dies_and_comes_back_is_missed_by_nobody():
    x = four_channels()
    x[30000:60000, 0] = 0

    assert onsets(x) == pytest.approx(SHOTS, abs=0.001 * RATE)


def test_two_channels_must_agree_unless_one_is_dead():
    x = four_channels()[:, :2]
    x[1000:1030, 1] += 0.5
    assert onsets(x) == pytest.approx(SHOTS, abs=0.001 * RATE)

    x[:, 0] = 0
    assert onsets(x) == pytest.approx([1000, *(at + 3 for at in SHOTS)], abs=0.001 * RATE)


@pytest.mark.parametrize(("channels", "seconds"), [(1, 300), (4, 60)])
def test_steady_street_noise_triggers_nothing(channels, seconds):
    x = street(np.random.default_rng(10), RATE, seconds, channels)
    swell = 10 ** (0.25 * np.sin(2 * np.pi * np.arange(len(x)) / RATE / 23))

    assert onsets(x * swell[:, None]) == []


def test_every_blast_20_db_above_the_raw_noise_triggers():
    x = street(np.random.default_rng(11), 48000, 22.0, 4, rms=0.01)
    shots = [24000 + 24000 * k for k in range(40)]
    for at in shots:
        add_blast(x, 48000, at, 0.1, [0, 4, 9, 12])

    assert onsets(x, 48000) == pytest.approx(shots, abs=48)


def test_a_swell_is_no_impulse():
    x = street(np.random.default_rng(12), RATE, 6.0)
    x[40000:] *= 10.0
    x[32000:40000] *= np.geomspace(1, 10, 8000)[:, None]  # 20 dB in half a second

    assert onsets(x) == []


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 44100, 48000, 96000, 192000])
def test_shots_are_timed_at_any_rate(rate):
    x = street(np.random.default_rng(13), rate, 3.0)
    shots = [rate + 0.3, 2 * rate + 0.6]
    for at in shots:
        add_blast(x, rate, at, 0.5)

    assert onsets(x, rate) == pytest.approx(shots, abs=max(2.0, 3e-4 * rate))


@pytest.mark.parametrize("channels", [3, 5, 8, 64])
def test_shots_are_heard_on_any_number_of_channels(channels):
    x = street(np.random.default_rng(14), RATE, 2.0, channels)
    add_blast(x, RATE, 24000.5, 0.3, [0] * channels)

    assert onsets(x) == pytest.approx([24000.5], abs=0.0005 * RATE)


def test_a_recording_that_begins_loud_keeps_its_first_shot_and_owns_to_its_uncertainty():
    x = street(np.random.default_rng(15), RATE, 1.0)
    tail = np.exp(-np.arange(RATE) / (0.05 * RATE)) * np.random.default_rng(16).standard_normal(
        RATE
    )
    x[:, 0] += 0.5 * tail

    found = impulses(hear(x, RATE))

    assert found[0].onset_sample == pytest.approx(0, abs=0.001 * RATE)
    assert found[0].sigma_samples == pytest.approx(LONGEST_TAIL_S / np.sqrt(3) * RATE, rel=0.01)


def test_a_shot_in_the_first_tens_of_milliseconds_is_timed():
    x = street(np.random.default_rng(17), RATE, 1.0)
    add_blast(x, RATE, 400, 0.5)

    found = impulses(hear(x, RATE))

    assert found[0].onset_sample == pytest.approx(400, abs=4)
    assert found[0].sigma_samples < 0.001 * RATE


def test_a_shot_out_of_digital_silence_is_timed():
    x = np.zeros((RATE, 1))
    add_blast(x, RATE, 8000, 0.5)

    assert onsets(x)[0] == pytest.approx(8000, abs=4)


def test_shots_of_a_burst_are_told_apart_in_reverberation():
    rng = np.random.default_rng(18)
    x = street(rng, RATE, 3.0)
    shots = [16000 + 1600 * k for k in range(6)]  # 600 rounds a minute
    for at in shots:
        n = len(x) - at
        x[at:, 0] += 0.02 * np.exp(-np.arange(n) / (0.06 * RATE)) * rng.standard_normal(n)
        add_blast(x, RATE, at, 0.5)

    assert onsets(x) == pytest.approx(shots, abs=0.001 * RATE)


def ring(channels: int, across_m: float) -> np.ndarray:
    turn = 2 * np.pi * np.arange(channels) / channels
    return 0.5 * across_m * np.stack((np.sin(turn), np.cos(turn)), axis=1)


# 1.1 m is just more than the millisecond that any array is given; nothing larger than 3 m is taken.
@pytest.mark.parametrize("across_m", [0.4, 1.1, 2.0, 3.0])
@pytest.mark.parametrize("channels", [3, 4, 8])
def test_a_wide_array_hears_and_times_every_shot_from_all_round(channels, across_m):
    rate = 48000
    x = street(np.random.default_rng(19), rate, 10.0, channels, rms=0.001)
    truth = []
    for k in range(18):
        towards = np.deg2rad(20 * k)
        early = ring(channels, across_m) @ [np.sin(towards), np.cos(towards)] / 343
        late = np.round(-rate * early).astype(int)
        at = rate + 24005 * k
        add_blast(x, rate, at, 0.1, late)
        truth.append(at + late[0])
    detector = Detector(DetectSettings(), rate, channels, crossing_s=across_m / 330)

    found = impulses(detector.push(Block(0, x.astype(np.float32), rate)) + detector.flush())

    assert [i.onset_sample for i in found] == pytest.approx(truth, abs=5)


def test_a_pipeline_waits_for_as_long_as_its_own_array_is_wide():
    places_m = np.column_stack((ring(8, 2.0), np.zeros(8)))
    x = street(np.random.default_rng(20), RATE_HZ, 8.0, 8, rms=0.001)
    for k in range(6):
        towards = np.deg2rad(7 + 60 * k)
        early = ring(8, 2.0) @ [np.sin(towards), np.cos(towards)] / 343
        add_blast(x, RATE_HZ, (1 + k) * RATE_HZ, 0.1, np.round(-RATE_HZ * early).astype(int))
    array = Array.of(make_geometry("ring", places_m), RATE_HZ, settings=DetectSettings())
    wide = pipeline(Listener(), channels=8, array=array, settings=DetectSettings(gap_s=0.5))

    found = wide.push(Block(0, x.astype(np.float32), RATE_HZ)) + wide.flush()

    assert len(found) == 6


def test_an_array_is_never_given_less_than_a_millisecond():
    x = four_channels().astype(np.float32)
    detector = Detector(DetectSettings(), RATE, 4, crossing_s=0.0001)

    assert detector.push(Block(0, x, RATE)) + detector.flush() == hear(x, RATE)
