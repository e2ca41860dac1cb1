"""Air in the simulation: the standard's figures, nothing before its time, exact delays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.simulate_wave import delay_samples

from node.simulate.propagation import (
    Atmosphere,
    absorb,
    absorption_response,
    air_absorption_db_per_m,
    delay,
)

# ISO 9613-1:1993, table 1: temperature in C, humidity in %, third-octave band in steps of 1/10
# decade from 1 kHz (its exact mid-band frequency), attenuation in dB/km.
ISO_TABLE = [
    (-20, 10, -13, 0.589),
    (-20, 70, 0, 11.5),
    (-20, 100, 9, 41.1),
    (-10, 10, 9, 14.2),
    (-10, 70, 9, 86.2),
    (0, 10, -9, 1.30),
    (0, 15, 0, 18.3),
    (0, 70, 0, 4.64),
    (10, 20, 0, 11.0),
    (10, 70, 6, 32.8),
    (10, 10, 9, 69.4),
    (15, 70, 0, 4.08),
    (15, 10, 6, 87.3),
    (20, 80, -13, 0.0501),
    (20, 50, -9, 0.445),
    (20, 100, -7, 0.591),
    (20, 10, 0, 14.1),
    (20, 70, 0, 4.98),
    (20, 10, 6, 109.0),
    (20, 15, 8, 175.0),
    (30, 70, -9, 0.256),
    (30, 100, 6, 24.0),
    (50, 10, 9, 155.0),
    (50, 70, 9, 80.3),
]


@pytest.mark.parametrize(("temperature_c", "humidity_pct", "tenth", "db_per_km"), ISO_TABLE)
def test_absorption_is_the_standards_table_within_one_per_cent(
    temperature_c, humidity_pct, tenth, db_per_km
):
    air = Atmosphere(temperature_c=temperature_c, relative_humidity_pct=humidity_pct)
    ours = 1000 * air_absorption_db_per_m(1000 * 10 ** (tenth / 10), air)
    assert ours == pytest.approx(db_per_km, rel=0.01)


def test_absorption_at_20_degrees_and_half_humid_is_4_66_at_1_khz_and_105_at_8_khz():
    air = Atmosphere(temperature_c=20, relative_humidity_pct=50)
    ours = 1000 * air_absorption_db_per_m([1000, 8000], air)
    assert ours == pytest.approx([4.66, 105.3], rel=0.002)


def test_sound_is_faster_in_warm_and_in_humid_air():
    cold = Atmosphere(temperature_c=0, relative_humidity_pct=1).sound_speed_m_s
    warm = Atmosphere(temperature_c=30, relative_humidity_pct=1).sound_speed_m_s
    humid = Atmosphere(temperature_c=30, relative_humidity_pct=100).sound_speed_m_s
    assert cold == pytest.approx(331.3, abs=0.05)
    assert warm == pytest.approx(349.0, abs=0.2)
    assert 1.5 < humid - warm < 3.0


@pytest.mark.parametrize("rate", [12_000, 48_000, 96_000])
@pytest.mark.parametrize("distance_m", [20.0, 200.0, 1000.0])
def test_the_filter_loses_what_the_standard_says(rate, distance_m):
    air = Atmosphere()
    response = absorption_response(distance_m, rate, air)
    f = np.fft.rfftfreq(16 * len(response), 1 / rate)
    wanted_db = -air_absorption_db_per_m(f, air) * distance_m
    got_db = 20 * np.log10(np.abs(np.fft.rfft(response, 16 * len(response))))
    audible = wanted_db > -70
    assert got_db[audible] == pytest.approx(wanted_db[audible], abs=0.1)


def test_nothing_comes_out_of_the_air_before_the_front():
    x = np.zeros(2048)
    x[700] = 1.0
    y = absorb(x, 150.0, 48_000, Atmosphere())
    assert np.abs(y[:700]).max() < 1e-12 * np.abs(y).max()


def test_the_filter_is_minimum_phase_and_lengthens_the_rise_with_distance():
    # Of all filters with one magnitude, the minimum-phase one has most of its energy first.
    response = absorption_response(300.0, 48_000, Atmosphere())
    reversed_ = response[::-1]
    assert np.all(np.cumsum(response**2) >= np.cumsum(reversed_**2) - 1e-15)
    step = np.ones(4096)
    rises = []
    for distance_m in (10.0, 100.0, 1000.0):
        front = absorb(step, distance_m, 48_000, Atmosphere())
        rises.append(np.argmax(front > 0.8))
    assert rises == sorted(rises)
    assert rises[-1] > rises[0]


def test_channels_are_absorbed_each_by_itself():
    x = np.random.default_rng(1).standard_normal((3, 512))
    together = absorb(x, 80.0, 48_000, Atmosphere())
    assert together.shape == x.shape
    for alone, one in zip(together, x, strict=True):
        np.testing.assert_array_equal(alone, absorb(one, 80.0, 48_000, Atmosphere()))


@given(st.floats(0, 300, allow_nan=False))
def test_a_delay_is_exact_to_a_hundredth_of_a_microsecond_at_48_khz(samples):
    t = np.arange(256)
    x = np.exp(-(((t - 60) / 4.0) ** 2))
    y = delay(x, samples)
    assert len(y) == 256 + int(np.ceil(samples))
    assert delay_samples(y, x, below=0.15) == pytest.approx(samples, abs=5e-4)
    assert y.sum() == pytest.approx(x.sum(), rel=1e-9)


def test_a_whole_delay_moves_samples_unchanged_and_a_length_cuts_them():
    x = np.arange(1.0, 6.0)
    np.testing.assert_array_equal(delay(x, 3), [0, 0, 0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(delay(x, 3, length=5), [0, 0, 0, 1, 2])
