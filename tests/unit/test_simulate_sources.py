"""Simulated sources: exact onsets, honest levels, the same bytes from the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.simulate_wave import delay_samples

from node.errors import SceneError
from node.simulate import SOURCE_KINDS, Atmosphere, absorb, emit
from node.simulate.filters import minimum_phase
from node.simulate.pulses import REFERENCE_PA, Blast, Ring, peak_pa, sample_pulse
from node.simulate.sounds import CALIBRES
from node.simulate.sources import draw
from node.types import LABELS


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def level_db(pressure: np.ndarray) -> float:
    return 20 * np.log10(np.abs(pressure).max() / REFERENCE_PA)


def burgers_blast() -> Blast:
    """Give the blast of 500 Pa and 400 us at 10 m of which Burgers' equation was solved."""
    return Blast(peak_pa=9298.93, positive_phase_s=400e-6)


def test_kinds_carry_the_labels_of_what_they_are():
    assert SOURCE_KINDS["muzzle_blast"] == "gunfire"
    assert {"shell_burst", "lift_charge", "firecracker"} == {
        kind for kind, label in SOURCE_KINDS.items() if label == "fireworks"
    }
    assert SOURCE_KINDS["backfire"] == "backfire"
    assert set(SOURCE_KINDS.values()) == set(LABELS)


@pytest.mark.parametrize("kind", SOURCE_KINDS)
@given(onset=st.floats(0, 500), rate=st.sampled_from([8_000, 16_000, 44_100, 48_000, 96_000]))
@settings(max_examples=15)
def test_pressure_is_exactly_zero_before_the_onset_and_not_after(kind, onset, rate):
    heard = emit(kind, distance_m=50.0, sample_rate_hz=rate, rng=rng(), onset_sample=onset)
    after = int(np.ceil(onset))
    assert heard.onset_sample == onset
    assert heard.label == SOURCE_KINDS[kind]
    assert np.all(heard.pressure_pa[:after] == 0)
    assert np.all(heard.pressure_pa[after + 1 : after + 3] != 0)
    assert np.all(np.isfinite(heard.pressure_pa))


@pytest.mark.parametrize(
    "pulse", [Blast(2000.0, 350e-6), Blast(4000.0, 2e-3, 100e-6), Ring(100.0, 300.0, 450.0)]
)
@given(onset=st.floats(0, 40))
@settings(max_examples=40)
def test_a_fractional_onset_is_exact_to_a_tenth_of_a_microsecond(pulse, onset):
    def sampled(at: float) -> np.ndarray:
        return sample_pulse(pulse, distance_m=100.0, sample_rate_hz=48_000, onset_sample=at)

    error_us = (delay_samples(sampled(onset), sampled(0.0)) - onset) / 48_000 * 1e6
    assert abs(error_us) < 0.1


def test_rates_agree_on_what_both_can_carry():
    pulse = Blast(2000.0, 350e-6)
    spectra = []
    for rate in (16_000, 48_000):
        x = sample_pulse(pulse, distance_m=50.0, sample_rate_hz=rate, onset_sample=3.7)
        f = np.arange(200, 6000, 200)
        at = np.arange(len(x)) / rate
        spectra.append(np.abs(np.exp(-2j * np.pi * np.outer(f, at)) @ x) / rate)
    assert spectra[0] == pytest.approx(spectra[1], rel=0.005)


def test_a_weak_shock_weakens_and_lengthens_as_burgers_equation_has_it():
    blast, air = burgers_blast(), Atmosphere(temperature_c=20, relative_humidity_pct=50)
    assert blast.peak_at_pa(10.0) == pytest.approx(500, rel=1e-4)
    x = sample_pulse(blast, distance_m=100.0, sample_rate_hz=768_000, onset_sample=0.0)
    heard = absorb(x, 90.0, 768_000, air)
    assert heard.max() == pytest.approx(28.7, rel=0.03)
    assert blast.positive_phase_at_s(100.0) == pytest.approx(534e-6, rel=0.05)


@pytest.mark.parametrize(("distance_m", "research_db"), [(300.0, 102.0), (1000.0, 88.0)])
def test_a_9_mm_shot_reaches_as_far_as_research_says(distance_m, research_db):
    shot = emit(
        "muzzle_blast",
        distance_m=distance_m,
        sample_rate_hz=48_000,
        rng=rng(),
        off_axis_deg=90.0,
        calibre="9mm",
        peak_db_spl_1m=160.0,
        positive_phase_s=350e-6,
    )
    air = Atmosphere(temperature_c=20, relative_humidity_pct=50)
    heard = absorb(shot.pressure_pa, distance_m, 48_000, air)
    assert level_db(heard) == pytest.approx(research_db, abs=1.0)


@pytest.mark.parametrize("calibre", CALIBRES)
def test_calibres_keep_to_their_measured_ranges(calibre):
    low, high, phase_s = CALIBRES[calibre]
    for seed in range(30):
        (_, blast), *_ = draw("muzzle_blast", rng(seed), calibre=calibre).pulses
        assert peak_pa(low) <= blast.peak_pa <= peak_pa(high)
        assert blast.positive_phase_s == pytest.approx(phase_s, rel=0.5)


def test_a_shot_is_weaker_behind_the_gun_by_what_was_asked_for():
    def level(off_axis_deg: float) -> float:
        shot = emit(
            "muzzle_blast",
            distance_m=20.0,
            sample_rate_hz=48_000,
            rng=rng(),
            off_axis_deg=off_axis_deg,
            rear_attenuation_db=14.0,
        )
        return level_db(shot.pressure_pa)

    assert level(0.0) - level(180.0) == pytest.approx(14.0)
    assert level(0.0) - level(90.0) == pytest.approx(7.0)


def test_weak_sounds_only_spread():
    near, far = (
        emit("backfire", distance_m=r, sample_rate_hz=48_000, rng=rng()).pressure_pa
        for r in (10.0, 100.0)
    )
    assert near == pytest.approx(10 * far, rel=1e-9)


def test_a_ring_peaks_where_it_was_told():
    x = sample_pulse(
        Ring(50.0, 300.0, 450.0), distance_m=1.0, sample_rate_hz=96_000, onset_sample=0
    )
    assert np.abs(x).max() == pytest.approx(50.0, rel=0.01)


def test_a_blast_leaves_no_net_push():
    for blast in (Blast(2000.0, 350e-6), Blast(4000.0, 2e-3, 100e-6)):
        push = blast.integral_pa_s(np.array([blast.length_s(10.0)]), 10.0)[0]
        most = blast.peak_at_pa(10.0) * blast.positive_phase_s
        assert abs(push) < 0.15 * most
        x = sample_pulse(blast, distance_m=10.0, sample_rate_hz=48_000, onset_sample=0.5)
        assert np.abs(x[-50:]).max() < 1e-3 * np.abs(x).max()


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    def sound(seed: int) -> bytes:
        heard = emit("hammer", distance_m=30.0, sample_rate_hz=48_000, rng=rng(seed))
        return heard.pressure_pa.tobytes()

    assert sound(4) == sound(4)
    assert sound(4) != sound(5)


def test_what_is_given_changes_nothing_of_what_is_drawn():
    drawn = draw("muzzle_blast", rng(3), calibre="9mm")
    told = draw("muzzle_blast", rng(3), calibre="9mm", peak_db_spl_1m=150.0)
    assert told.pulses[0][1].positive_phase_s == drawn.pulses[0][1].positive_phase_s
    assert told.rear_attenuation_db == drawn.rear_attenuation_db
    assert told.pulses[0][1].peak_pa == pytest.approx(peak_pa(150.0))


def test_a_string_of_crackers_is_irregular_in_time_and_charge():
    pulses = draw("firecracker", rng(), count=40, rate_hz=20.0).pulses
    starts = np.array([start for start, _ in pulses])
    peaks = np.array([blast.peak_pa for _, blast in pulses])
    assert starts[0] == 0
    assert np.mean(np.diff(starts)) == pytest.approx(1 / 20, rel=0.4)
    assert np.std(np.diff(starts)) > 0.01
    assert 1.0 < np.std(20 * np.log10(peaks)) < 5.0


@pytest.mark.parametrize(
    ("kind", "parameters", "said"),
    [
        ("mortar", {}, r"kind 'mortar' is not known; it must be one of 'muzzle_blast', "),
        ("muzzle_blast", {"calibre": "10mm"}, r"calibre is '10mm', but it should be '\.22LR', "),
        ("muzzle_blast", {"caliber": "9mm"}, r"caliber is not a key"),
        ("backfire", {"pops": 0}, r"pops is 0, but it should be greater than or equal to 1"),
        ("firecracker", {"peak_db_spl_1m": float("nan")}, r"peak_db_spl_1m is nan, but"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_allowed(kind, parameters, said):
    with pytest.raises(SceneError, match=said) as error:
        emit(kind, distance_m=10.0, sample_rate_hz=48_000, rng=rng(), **parameters)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong", [{"distance_m": 0.0}, {"sample_rate_hz": 0}, {"onset_sample": -0.1}]
)
def test_a_source_needs_a_distance_a_rate_and_an_onset_in_sight(wrong):
    with pytest.raises(SceneError, match="must be above 0"):
        emit("hammer", **({"distance_m": 5.0, "sample_rate_hz": 48_000, "rng": rng()} | wrong))


def test_minimum_phase_keeps_the_magnitude():
    f = np.linspace(0, 0.5, 2049)
    magnitude = 1 / np.sqrt(1 + (f / 0.1) ** 4)
    response = minimum_phase(magnitude)
    assert np.abs(np.fft.rfft(response)) == pytest.approx(magnitude, rel=1e-6)
    assert np.sum(response[:64] ** 2) > 0.9999 * np.sum(response**2)
