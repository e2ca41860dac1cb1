"""What the street and the recorder of the training set do to a sound."""

import inspect

import numpy as np
import pytest

from models.training import place, recorder
from models.training.moments import LEAD, SPAN
from models.training.place import HERTZ
from models.training.surroundings import carried, over, surround
from node.classify import features
from node.simulate.propagation import Atmosphere

RATE = features.RATE_HZ


def blast(decay_s=0.004, seed=1):
    sound = np.zeros(SPAN)
    time_s = np.arange(SPAN - LEAD) / RATE
    noise = np.random.default_rng(seed).standard_normal(SPAN - LEAD)
    sound[LEAD:] = noise * np.exp(-time_s / decay_s)
    return sound


def hiss(level=1.0, seed=2):
    return level * np.random.default_rng(seed).standard_normal(SPAN)


def at(gain_db, hertz):
    return float(np.interp(hertz, HERTZ, gain_db))


def rise(sound, share=0.2):
    power = np.convolve(sound**2, np.ones(24) / 24)[: len(sound)]
    return int(np.argmax(power > share * power.max()))


def power(sound, start_s, stop_s):
    return float(np.mean(sound[LEAD + int(start_s * RATE) : LEAD + int(stop_s * RATE)] ** 2))


def test_the_same_draw_gives_the_same_bytes():
    for seed in range(40):
        one, again = (
            surround(blast(), LEAD, hiss(), np.random.default_rng(seed)).tobytes() for _ in range(2)
        )
        assert one == again


def test_no_class_goes_in_and_every_sound_meets_the_same_place_and_device():
    assert not {"label", "sound", "kind", "group"} & set(inspect.signature(surround).parameters)
    one, other = np.random.default_rng(3), np.random.default_rng(3)

    surround(blast(seed=4), LEAD, hiss(), one)
    surround(hiss(seed=5), LEAD, hiss(), other)

    assert one.random() == other.random()


def test_any_draw_gives_a_finite_sound_within_full_scale():
    for seed in range(150):
        sound = surround(blast(), LEAD, hiss(), np.random.default_rng(seed), recorded=seed % 3 > 0)
        assert sound.shape == (SPAN,)
        assert np.isfinite(sound).all()
        assert 0 < np.abs(sound).max() <= 1.0


def test_silence_and_a_silent_street_survive():
    for seed in range(30):
        draw = np.random.default_rng(seed)
        nothing = surround(np.zeros(SPAN), LEAD, np.zeros(SPAN), draw)
        assert not nothing.any()
        assert np.isfinite(surround(np.zeros(SPAN), LEAD, hiss(), draw)).all()
        assert np.isfinite(surround(blast(), LEAD, np.zeros(SPAN), draw)).all()


def test_the_picture_hangs_on_the_draw_and_not_on_the_level():
    for seed in range(20):
        soft = surround(blast(), LEAD, hiss(), np.random.default_rng(seed))
        loud = surround(100 * blast(), LEAD, hiss(0.3), np.random.default_rng(seed))
        assert np.mean(np.abs(soft - loud)) < 0.01 * np.abs(soft).max()


def test_the_onset_stays_within_a_hop_in_a_place_of_any_kind():
    for seed in range(60):
        response = place.place(np.random.default_rng(seed))
        heard = carried(blast(), response)
        assert np.abs(heard[: LEAD - 2]).max() < 1e-9 * np.abs(heard).max()
        assert rise(heard, 0.05) - rise(blast(), 0.05) <= features.HOP


def test_reflections_never_hold_more_than_twice_the_energy_of_the_direct_sound():
    for seed in range(60):
        response = place.place(np.random.default_rng(seed), air=False)
        shot = carried(blast(0.002), response)
        assert power(shot, 0.0, 0.02) > 0.3 * power(shot, 0.02, 1.0)


def test_air_takes_the_treble_of_a_kilometre_as_the_standard_says():
    weather = Atmosphere(temperature_c=20.0, relative_humidity_pct=50.0)

    lost = place.air_db(1000.0, weather)

    assert at(lost, 1000) == pytest.approx(-4.66, abs=0.05)
    assert at(lost, 4000) < -20.0
    assert at(place.air_db(20.0, weather), 4000) > -1.0


def test_a_shock_gets_longer_with_distance_and_so_duller_and_a_voice_does_not():
    assert np.abs(place.lengthening_db(1000.0, 0.0)).max() == 0.0
    near, far = place.lengthening_db(50.0, 1.0), place.lengthening_db(1000.0, 1.0)
    assert at(far, 4000) < at(near, 4000) < 0.0
    assert at(far, 4000) - at(far, 20) == pytest.approx(
        -20 * np.log10(1 + 0.18 * np.log(100)), abs=0.1
    )


def test_a_meadow_has_its_dip_where_asphalt_still_doubles_the_pressure():
    meadow = place.ground_db(200.0, 1.5, 4.0, 1e5, 1e-7)
    asphalt = place.ground_db(200.0, 1.5, 4.0, 2e7, 1e-7)

    assert at(meadow, 400) < -3.0
    assert at(asphalt, 400) > 4.0
    assert at(meadow, 20) > 3.0


def test_turbulence_fills_the_dips_of_the_ground():
    calm = place.ground_db(600.0, 1.5, 8.0, 2e7, 1e-8)
    rough = place.ground_db(600.0, 1.5, 8.0, 2e7, 1e-4)

    assert np.ptp(rough[HERTZ > 2000]) < 3.0 < np.ptp(calm[HERTZ > 2000])


def test_an_edge_takes_what_maekawa_says():
    lost = place.diffraction_db(0.17)

    assert at(lost, 1000) == pytest.approx(-10 * np.log10(23), abs=0.1)
    assert at(lost, 30) > -6.5
    assert lost.min() >= -25.0


def test_a_measured_response_takes_the_place_of_the_street():
    room = np.zeros(3000)
    room[40], room[40 + 1200] = 1.0, 0.5

    heard = place.place(np.random.default_rng(8), air=False, measured=room)

    assert np.abs(heard[1190:1400]).max() > 20 * np.abs(heard[600:1190]).max()


def test_the_ratio_over_the_street_is_the_one_asked_for():
    shot = blast(0.1)

    mixed = over(shot, LEAD, hiss(), 10.0)

    street = np.mean((mixed - shot) ** 2)
    loudest = np.convolve(shot**2, np.ones(360) / 360, "valid").max()
    assert 10 * np.log10(loudest / street) == pytest.approx(10.0, abs=0.1)


def test_an_overdriven_shot_clips_and_its_street_does_not():
    shot = blast(0.05) / np.abs(blast(0.05)).max() + hiss(0.001)
    clipped = 0
    for seed in range(100):
        sound = recorder.converted(shot, np.random.default_rng(seed))
        flat = np.abs(sound) >= 0.999
        clipped += flat.sum() > 20
        assert not flat[: LEAD - 100].any()
    assert 8 <= clipped <= 40


def test_few_bits_leave_few_levels_but_never_fewer_than_the_shot_needs():
    shot = blast(0.05) / np.abs(blast(0.05)).max()
    levels = [
        len(np.unique(recorder.converted(shot, np.random.default_rng(seed)))) for seed in range(100)
    ]
    assert 6 <= min(levels) < 100 < max(levels)


def test_a_gain_control_ducks_what_follows_a_shot_and_recovers():
    sound = hiss(0.01)
    sound[LEAD : LEAD + 240] += np.random.default_rng(9).standard_normal(240)
    how = {"threshold": 0.1, "ratio": 8.0, "attack_s": 0.002, "release_s": 0.2}

    ducked = recorder.levelled(sound, **how)

    gain = [
        power(ducked, *when) / power(sound, *when) for when in ((-0.2, 0), (0.03, 0.08), (1, 1.3))
    ]
    assert gain[1] < 0.3 < 0.8 < min(gain[0], gain[2])


def test_a_gate_turns_down_the_street_and_leaves_the_shot():
    sound = blast(0.02) + hiss(0.002)

    gated = recorder.gated(sound, 0.05)

    assert power(gated, -0.4, -0.1) < 0.1 * power(sound, -0.4, -0.1)
    assert power(gated, 0.0, 0.02) > 0.9 * power(sound, 0.0, 0.02)


@pytest.mark.parametrize("codec", ["vorbis", "mp3"])
@pytest.mark.parametrize("coarseness", [0.0, 1.0])
def test_a_codec_alters_the_sound_and_leaves_it_where_it_was(codec, coarseness):
    sound = blast(0.05) / np.abs(blast(0.05)).max() + hiss(0.003)

    decoded = recorder.coded(sound, codec, coarseness)

    assert decoded.shape == sound.shape
    lag = np.fft.irfft(np.conj(np.fft.rfft(sound, 2 * SPAN)) * np.fft.rfft(decoded, 2 * SPAN))
    place_of_best = int(np.argmax(lag))
    assert min(place_of_best, 2 * SPAN - place_of_best) <= 2
    assert 0.005 < np.sum((decoded - sound) ** 2) / np.sum(sound**2) < 0.8


def test_a_lower_rate_leaves_nothing_of_the_treble():
    stepped = recorder.at_rate(hiss(), 8000)

    spectrum = np.abs(np.fft.rfft(stepped)) ** 2
    hertz = np.fft.rfftfreq(SPAN, 1 / RATE)
    assert spectrum[hertz > 4500].mean() < 0.05 * spectrum[(hertz > 500) & (hertz < 2000)].mean()


def test_a_recorder_leaves_the_onset_within_a_hop():
    sound = blast(0.05) + hiss(0.003)
    before = rise(sound)
    for seed in range(80):
        kept = recorder.record(sound, np.random.default_rng(seed))
        if kept[LEAD : LEAD + 1200].any():
            assert abs(rise(kept) - before) <= features.HOP
