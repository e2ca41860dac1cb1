"""What training takes out of recordings, and what it keeps apart."""

from pathlib import Path

import numpy as np
import pytest

from models.training import corpus, splits
from models.training.moments import LEAD, SPAN, Moments, simulated
from models.training.pictures import shard
from node.classify import features
from node.types import LABELS

RATE = features.RATE_HZ
DATA = Path(__file__).parents[2].parent / "shared" / "data"
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


def test_a_group_is_in_one_part_for_good():
    assert {splits.part_of("FP5") for _ in range(3)} == {"test"}
    assert splits.part_of("fsID102305") == splits.part_of("fsID102305")


def test_unnamed_groups_fall_to_all_parts_in_the_shares_meant():
    parts = [splits.part_of(f"fsID{k}") for k in range(4000)]

    assert parts.count("test") / 4000 == pytest.approx(0.20, abs=0.03)
    assert parts.count("calibrate") / 4000 == pytest.approx(0.15, abs=0.03)


@needs_data
def test_every_part_has_gunfire_near_and_far_fireworks_and_other():
    clips = corpus.read_manifest(DATA, "ABC")
    for part in ("train", "calibrate", "test"):
        mine = [clip for clip in clips if clip.part == part]
        assert {"gunfire", "fireworks", "other"} <= {clip.label for clip in mine}
        assert {clip.source == corpus.LIVE_FIRE for clip in mine if clip.label == "gunfire"} == {
            True,
            False,
        }


@needs_data
def test_licence_tiers_can_be_left_out():
    assert {clip.tier for clip in corpus.read_manifest(DATA, "A")} == {"A"}


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


@pytest.mark.parametrize("label", LABELS)
def test_every_class_can_be_simulated_with_nothing_before_its_onset(label):
    draw = np.random.default_rng(3)

    for _ in range(10):
        sound = simulated(label, draw)
        assert sound.shape == (SPAN,)
        assert np.abs(sound[: LEAD - 4]).max() == 0.0
        assert np.abs(sound[LEAD:]).max() > 0.0


def test_a_shard_is_the_same_each_time_it_is_drawn():
    first, second = (shard(Moments(), seed=7, number=2, count=6) for _ in range(2))

    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)
