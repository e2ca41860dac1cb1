"""Claims about the simulated sounds of a training set, measured in their waveforms."""

import numpy as np
import pytest
from scipy import signal

from models.training import synthetic, synthetic_engine, synthetic_guns
from models.training.moments import LEAD, SPAN
from models.training.synthetic_span import RATE, Span, any_air, ringing, series
from node.simulate.propagation import Atmosphere
from node.types import LABELS

NAMES = [name for kinds in synthetic.KINDS.values() for name, _ in kinds]
MS = RATE // 1000
SINGLE = ("single_shot", "shell_burst", "firecracker", "screamer", "tyre_burst", "sonic_boom")
"""Kinds before whose onset there is nothing, ever."""


def draws(name, count=20):
    draw = np.random.default_rng(7)
    return [synthetic.kind(name, draw) for _ in range(count)]


def centroid_hz(sound):
    power = np.abs(np.fft.rfft(sound[LEAD - MS : LEAD + 40 * MS], 4096)) ** 2
    return float(np.sum(power * np.fft.rfftfreq(4096, 1 / RATE)) / power.sum())


def strokes(sound, apart_s=0.03, below_db=18.0):
    """Find the strokes of a series: times in s and levels in dB."""
    power = signal.lfilter(np.ones(3 * MS), [1.0], sound**2)
    peaks, _ = signal.find_peaks(
        power, height=power.max() * 10 ** (-below_db / 10), distance=round(apart_s * RATE)
    )
    return peaks / RATE, 10 * np.log10(power[peaks])


def unevenness(sound):
    """Give the scatter of a series' intervals as a share of the middle one; None for too few."""
    gaps = np.diff(strokes(sound)[0])
    return None if len(gaps) < 4 else float(np.median(np.abs(gaps / np.median(gaps) - 1)))


def middle(values):
    return float(np.median([value for value in values if value is not None]))


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_is_a_sound_that_its_seed_alone_settles(name):
    for seed in range(5):
        sound = synthetic.kind(name, np.random.default_rng(seed))
        assert sound.shape == (SPAN,)
        assert np.isfinite(sound).all()
        assert np.max(np.abs(sound)) == pytest.approx(1.0)
        assert np.max(np.abs(sound[LEAD - MS :])) > 1e-3
    np.testing.assert_array_equal(sound, synthetic.kind(name, np.random.default_rng(4)))


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_sound_starts_at_the_lead(name):
    for sound in draws(name):
        heard = np.flatnonzero(np.abs(sound) > 1e-4 * np.max(np.abs(sound)))
        assert abs(heard[0] - LEAD) <= MS


@pytest.mark.parametrize("label", LABELS)
def test_every_class_has_kinds_whose_shares_make_a_whole(label):
    shares = dict(synthetic.KINDS[label])
    assert sum(shares.values()) == pytest.approx(1.0)
    assert len(set(NAMES)) == len(NAMES)
    sound = synthetic.simulated(label, np.random.default_rng(3))
    np.testing.assert_array_equal(sound, synthetic.simulated(label, np.random.default_rng(3)))


def test_most_gunfire_is_a_single_shot():
    shares = dict(synthetic.KINDS["gunfire"])
    assert shares["single_shot"] + shares["supersonic_shot"] == pytest.approx(0.6, abs=0.05)


def test_a_kind_that_nobody_knows_is_refused():
    with pytest.raises(KeyError):
        synthetic.kind("cough", np.random.default_rng(0))


def test_the_larger_the_charge_the_deeper_its_sound():
    """Blasts lengthen with the cube root of the charge: cracker, pistol, salute, shell."""
    cracker = middle(centroid_hz(sound) for sound in draws("firecracker", 40))
    draw = np.random.default_rng(1)
    pistol = middle(
        centroid_hz(synthetic_guns.gun(draw, synthetic_guns.HANDGUNS).fire(draw, [0.0]))
        for _ in range(40)
    )
    salute = middle(centroid_hz(sound) for sound in draws("flash_salute", 40))
    shell = middle(centroid_hz(sound) for sound in draws("shell_burst", 40))
    pop = middle(centroid_hz(sound) for sound in draws("backfire", 40))
    assert cracker > 1.15 * pistol
    assert pistol > 1.3 * salute
    assert salute > shell
    assert pistol > 1.5 * pop


def test_a_nail_gun_is_brighter_than_a_slam():
    nail = middle(centroid_hz(sound) for sound in draws("nail_gun"))
    assert nail > 2000
    assert middle(centroid_hz(sound) for sound in draws("car_door")) < 500


def test_a_pistol_s_blast_lasts_longer_than_a_cracker_s():
    draw = np.random.default_rng(2)
    phases = [
        synthetic_guns.gun(draw, synthetic_guns.HANDGUNS, 10.0).blast.positive_phase_s
        for _ in range(200)
    ]
    assert 0.3e-3 < np.median(phases) < 0.5e-3
    assert np.quantile(phases, 0.99) < 1e-3


def test_a_bullet_s_wave_leads_by_what_its_cone_says():
    air = Atmosphere(temperature_c=15.0)
    c = air.sound_speed_m_s
    bullet = synthetic_guns.Bullet(900.0, 1e-9, 5.7e-3, 21e-3)
    crack = synthetic_guns.crack_of(bullet, 200.0, 10.0, air)
    ahead_m, miss_m = 200 * np.cos(np.deg2rad(10)), 200 * np.sin(np.deg2rad(10))
    arrival_s = ahead_m / 900 + miss_m / c * np.sqrt(1 - (c / 900) ** 2)
    assert crack.lead_s == pytest.approx(200 / c - arrival_s, abs=2e-5)


def test_a_bullet_s_wave_has_whitham_s_strength_and_length():
    """Of a 5.56 mm bullet 10 m away, by hand: 177 Pa, 0.19 ms."""
    air = Atmosphere(temperature_c=15.0)
    bullet = synthetic_guns.BULLETS["5.56"]
    off_axis_deg = float(np.rad2deg(np.arctan2(10.0, 30.0)))
    crack = synthetic_guns.crack_of(bullet, float(np.hypot(10, 30)), off_axis_deg, air)
    assert crack.wave.peak_pa / crack.path_m == pytest.approx(177, rel=0.03)
    assert crack.wave.duration_s == pytest.approx(0.19e-3, rel=0.05)


@pytest.mark.parametrize("off_axis_deg", [80.0, 120.0, 180.0])
def test_a_bullet_that_flies_away_is_not_heard(off_axis_deg):
    bullet = synthetic_guns.BULLETS[".308"]
    assert synthetic_guns.crack_of(bullet, 300.0, off_axis_deg, Atmosphere()) is None


def test_the_bullet_is_heard_before_the_muzzle():
    draw = np.random.default_rng(4)
    for _ in range(20):
        weapon = synthetic_guns.supersonic_gun(draw)
        assert 0 < weapon.crack.lead_s <= synthetic_guns.LONGEST_LEAD_S
        sound = weapon.fire(draw, [weapon.crack.lead_s])
        first = np.flatnonzero(np.abs(sound) > 1e-3 * np.abs(sound[: LEAD + 3 * MS]).max())[0]
        assert abs(first - LEAD) <= MS
        blast = LEAD + round(weapon.crack.lead_s * RATE)
        assert np.max(np.abs(sound[blast : blast + 3 * MS])) > 0


def test_an_automatic_is_even_and_a_cracker_string_is_not():
    automatic = middle(unevenness(sound) for sound in draws("full_automatic"))
    assert automatic < 0.04
    assert middle(unevenness(sound) for sound in draws("jackhammer")) < 0.06
    assert middle(unevenness(sound) for sound in draws("cracker_string")) > 0.15
    assert middle(unevenness(sound) for sound in draws("backfire_series")) > 0.1


def test_an_automatic_fires_450_to_1200_rounds_a_minute():
    rates = []
    for sound in draws("full_automatic", 60):
        gaps = np.diff(strokes(sound)[0])
        if len(gaps) >= 4 and unevenness(sound) < 0.05:
            rates.append(60 / np.median(gaps))
    assert len(rates) > 20
    assert min(rates) > 430
    # Now and then a bullet's wave falls half-way between two rounds.
    assert np.quantile(rates, 0.9) < 1250


def test_rounds_of_one_gun_are_alike_and_crackers_are_not():
    draw = np.random.default_rng(6)
    rounds, crackers = [], []
    for _ in range(30):
        sound = synthetic_guns.gun(draw).fire(draw, np.arange(-0.5, 1.3, 0.2))
        rounds.append(np.std(strokes(sound)[1]))
    for sound in draws("cracker_string"):
        times, levels = strokes(sound, below_db=40)
        if len(times) > 5:
            crackers.append(np.std(levels))
    assert np.median(rounds) < 2
    assert np.median(crackers) > 4


def test_thunder_rolls_on():
    longest = []
    for sound in draws("thunder"):
        power = np.cumsum(sound[LEAD:] ** 2)
        longest.append(np.searchsorted(power, 0.9 * power[-1]) / RATE)
    assert np.median(longest) > 0.3


def test_pops_go_off_over_the_recorded_engine():
    """A hum of 440 Hz is given as engine; it is heard before the pop, up to a quarter off."""
    hum = np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)
    draw = np.random.default_rng(8)
    heard = 0
    for _ in range(20):
        before = synthetic.kind("backfire", draw, [hum])[: LEAD - MS]
        hertz = np.fft.rfftfreq(len(before), 1 / RATE)
        power = np.abs(np.fft.rfft(before * np.hanning(len(before)))) ** 2
        near = (hertz > 440 * 0.78) & (hertz < 440 * 1.28)
        heard += power[near].sum() > 0.9 * power.sum()
    assert 12 <= heard < 20


def test_a_silent_engine_gives_way_to_a_simulated_one():
    sound = synthetic.kind("backfire", np.random.default_rng(0), [np.zeros(RATE)])
    assert np.std(sound[: LEAD - MS]) > 0


def test_a_simulated_engine_hums_in_low_harmonics():
    for seed in range(10):
        running = synthetic_engine.engine(np.random.default_rng(seed))
        power = np.abs(np.fft.rfft(running)) ** 2
        low = np.fft.rfftfreq(SPAN, 1 / RATE) < 2000
        assert running.std() == pytest.approx(1.0)
        assert power[low].sum() > 0.5 * power.sum()


def test_a_series_always_has_one_sound_at_the_lead():
    draw = np.random.default_rng(9)
    inner = 0
    for _ in range(200):
        times = series(draw, [0.1, 0.2, 0.3])
        assert 0.0 in times
        inner += times[0] < 0
    assert 20 < inner < 90


def test_a_mode_rings_at_its_note_and_dies_by_its_time():
    blow = np.zeros(RATE)
    blow[0] = 1.0
    rung = ringing(blow, np.array([1000.0]), np.array([0.1]), np.array([1.0]))
    assert np.argmax(np.abs(np.fft.rfft(rung))) == pytest.approx(1000, abs=2)
    early, late = np.abs(rung[: RATE // 100]).max(), np.abs(rung[RATE // 10 :]).max()
    assert late / early == pytest.approx(np.exp(-1), rel=0.05)


def test_air_takes_the_top_of_a_distant_sound():
    near, far = (Span(np.random.default_rng(0), distance_m) for distance_m in (10.0, 1000.0))
    near.sound[LEAD] = far.sound[LEAD] = 1.0
    air = any_air(np.random.default_rng(0))
    ratio = np.abs(np.fft.rfft(far.heard(air))) / np.abs(np.fft.rfft(near.heard(air)))
    top = round(5000 / RATE * SPAN)
    assert ratio[top] < 0.1
    assert ratio[round(100 / RATE * SPAN)] > 0.9
