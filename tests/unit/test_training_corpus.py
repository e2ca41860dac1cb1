"""What training takes out of recordings, and what it keeps apart."""

from pathlib import Path

import numpy as np
import pytest

from models.training import corpus, splits
from models.training.moments import LEAD, SPAN, Moment, Moments, gather
from models.training.pictures import SLACK, shard
from models.training.teacher import Teacher
from node.classify import features

RATE = features.RATE_HZ
DATA = Path(__file__).parents[2].parent / "shared" / "data"
YAMNET = DATA.parent / "peers" / "yamnet.tflite"
needs_data = pytest.mark.skipif(
    not (DATA / "manifest.csv").exists(), reason=f"no recordings at {DATA}"
)


def knocks(at_s, seconds=4.0, level=0.5):
    draw = np.random.default_rng(0)
    sound = 1e-3 * draw.standard_normal(round(seconds * RATE))
    for second in at_s:
        start = round(second * RATE)
        ring = level * draw.standard_normal(600) * np.exp(-np.arange(600) / 120)
        sound[start : start + 600] += ring
    return sound.astype(np.float32)


def test_the_impulses_of_a_clip_are_found_where_they_are():
    planted = [0.5, 1.3, 3.2]

    found = sorted(corpus.impulses(knocks(planted)))

    assert np.allclose(np.array(found) / RATE, planted, atol=0.02)


def test_a_clip_cut_right_at_its_shot_has_an_impulse_at_its_start():
    found = corpus.impulses(knocks([0.0], seconds=1.0))

    assert found
    assert min(found) / RATE < 0.03


def test_steady_noise_has_no_impulses():
    draw = np.random.default_rng(1)

    assert corpus.impulses(draw.standard_normal(4 * RATE).astype(np.float32)) == []


def test_quiet_is_away_from_every_pulse_and_from_redaction():
    sound = knocks([5.0], seconds=10.0)
    sound[: 2 * RATE] = 0.0

    stretches = corpus.quiet_stretches(sound, (5 * RATE,), 0.8)

    assert stretches
    for stretch in stretches:
        assert stretch.start >= 2 * RATE - 240
        assert stretch.stop <= 4.7 * RATE or stretch.start >= 7 * RATE


def test_a_recording_is_in_one_fold_for_good():
    assert {splits.fold_of("gunfire", "gunshot", "any", "FP5") for _ in range(3)} == {4}
    assert splits.fold_of("other", "siren", splits.BY_RECORDING, "fsID7") == splits.fold_of(
        "other", "dog_bark", splits.BY_RECORDING, "fsID7"
    )


def test_a_kind_of_sound_is_held_out_whole():
    assert splits.fold_of("other", "anvil", "one", "a") == splits.fold_of(
        "other", "anvil", "b", "c"
    )


def test_unnamed_groups_fall_to_all_folds_alike():
    folds = [splits.fold_of("gunfire", "gunshot", "any", f"fsID{k}") for k in range(4000)]

    assert np.bincount(folds) / 4000 == pytest.approx(np.full(splits.FOLDS, 0.2), abs=0.03)


@needs_data
def test_every_fold_has_gunfire_near_and_far_fireworks_and_other():
    clips = corpus.read_manifest(DATA, "ABC")
    for fold in range(splits.FOLDS):
        mine = [clip for clip in clips if clip.fold == fold]
        assert {"gunfire", "fireworks", "other"} <= {clip.label for clip in mine}
        assert {clip.source == corpus.LIVE_FIRE for clip in mine if clip.label == "gunfire"} == {
            True,
            False,
        }


@needs_data
def test_no_group_of_gunfire_or_fireworks_is_in_two_folds():
    folds = {}
    for clip in corpus.read_manifest(DATA, "ABC"):
        if clip.label in ("gunfire", "fireworks", "backfire"):
            folds.setdefault(clip.group, set()).add(clip.fold)

    assert all(len(found) == 1 for found in folds.values())


@needs_data
def test_the_moments_of_a_fold_are_of_its_recordings_alone():
    clips = [c for c in corpus.read_manifest(DATA, "ABC") if c.source != corpus.LIVE_FIRE][::6]
    found = gather(clips, 2)

    used = {m.clip.fold for groups in found.by_label.values() for g in groups.values() for m in g}
    assert used == {2}


@needs_data
def test_licence_tiers_can_be_left_out():
    assert {clip.tier for clip in corpus.read_manifest(DATA, "A")} == {"A"}


@needs_data
def test_a_shot_arrives_when_the_other_sensors_say_that_it_must():
    clips = [c for c in corpus.read_manifest(DATA, "A") if c.group == "FP3"]

    late_s = [
        min((shot - expected for expected in record.expected), key=abs) / RATE
        for record in corpus.live_fire(clips)
        for shot in record.shots
    ]

    assert len(late_s) > 50
    assert np.abs(np.median(late_s)) < 0.02
    assert np.max(np.abs(late_s)) < 0.1


@needs_data
def test_a_street_is_not_quiet_when_a_shot_arrives_that_its_sensor_did_not_report():
    clips = [c for c in corpus.read_manifest(DATA, "A") if c.group == "FP2"]
    records = [record for record in corpus.live_fire(clips) if not record.pulses]

    assert len(records) > 10
    heard = 0
    for record in records:
        sound = corpus.load(record.clip.path)
        quiet = corpus.quiet_stretches(sound, record.busy, 0.8)
        assert not any(s.start <= at < s.stop for s in quiet for at in record.expected)
        heard += bool(corpus.audible_shots(record, sound))
    # Some sensors stood where nothing is left of a shot: no one could hear it in the recording.
    assert 0 < heard < len(records)


@needs_data
def test_selected_pulses_of_the_live_fire_lie_on_its_sound():
    clips = [c for c in corpus.read_manifest(DATA, "A") if c.group == "FP4"][:10]

    for record in corpus.live_fire(clips):
        sound = corpus.load(record.clip.path)
        assert set(record.shots) <= set(record.pulses)
        for shot in record.shots:
            after = np.abs(sound[shot : shot + 600]).max()
            before = np.abs(sound[shot - 1200 : shot - 240]).max()
            assert after > before


def test_a_moment_is_cut_with_its_onset_in_place():
    clip = corpus.Clip(Path("a"), "other", "knock", "s", "g", "A", "CC0", 4.0)
    sound = knocks([1.5])
    moments = Moments(sounds={"a": sound})

    dry = moments.dry(Moment(clip, round(1.5 * RATE)), np.random.default_rng(0))

    assert dry.shape == (SPAN,)
    assert abs(int(np.argmax(np.abs(dry))) - LEAD) < 0.02 * RATE


@pytest.mark.skipif(not YAMNET.exists(), reason=f"no teacher at {YAMNET}")
def test_a_shard_is_the_same_each_time_it_is_drawn():
    teacher = Teacher(YAMNET)
    first, second = (shard(Moments(), teacher, seed=7, fold=1, number=2, count=6) for _ in range(2))
    other = shard(Moments(), teacher, seed=7, fold=2, number=2, count=6)

    assert first.images.shape == (6, features.FRAMES + SLACK, features.BANDS)
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.heard, second.heard)
    assert not np.array_equal(first.images, other.images)


def test_a_fold_without_city_sounds_is_heard_over_the_quiet_of_its_live_fire():
    street = np.sin(np.arange(40_000, dtype=np.float32))
    heard = Moments(street=[street])

    drawn = [heard.background(np.random.default_rng(seed)) for seed in range(40)]

    assert all(np.isfinite(sound).all() and sound.any() for sound in drawn)
    assert sum(np.abs(sound).max() <= 1 for sound in drawn) > 20
