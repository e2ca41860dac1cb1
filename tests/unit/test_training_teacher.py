"""What the teacher is asked for: families of YAMNet's classes, at any level."""

import csv
from pathlib import Path

import numpy as np
import pytest

from models.training.teacher import FAMILIES, Teacher
from node.classify import features
from node.errors import ModelError

PEERS = Path(__file__).parents[3] / "shared" / "peers"
needs_yamnet = pytest.mark.skipif(
    not (PEERS / "yamnet.tflite").exists(), reason=f"no YAMNet in {PEERS}"
)


def classes():
    return [n for spans in FAMILIES.values() for a, b in spans for n in range(a, b + 1)]


def test_no_class_is_in_two_families_and_all_exist():
    assert len(classes()) == len(set(classes()))
    assert all(0 <= index < 521 for index in classes())
    assert all(first <= last for spans in FAMILIES.values() for first, last in spans)


@needs_yamnet
def test_families_are_what_the_class_map_calls_them():
    with (PEERS / "yamnet_class_map.csv").open(newline="") as file:
        names = {int(row["index"]): row["display_name"] for row in csv.DictReader(file)}

    for family, name in {
        "gunshot": "Gunshot, gunfire",
        "firecracker": "Firecracker",
        "bang": "Bang",
        "slam": "Slam",
        "jackhammer": "Jackhammer",
    }.items():
        ((first, last),) = FAMILIES[family]
        assert first == last
        assert names[first] == name


@needs_yamnet
def test_the_level_of_a_sound_makes_no_difference():
    teacher = Teacher(PEERS / "yamnet.tflite")
    draw = np.random.default_rng(0)
    sound = draw.standard_normal(features.RATE_HZ)

    loud, faint = (teacher.heard(gain * sound).astype(int) for gain in (1.0, 1e-3))

    assert loud.shape == (len(FAMILIES),)
    assert np.abs(loud - faint).max() <= 1
    assert loud[list(FAMILIES).index("noise")] > loud[list(FAMILIES).index("voice")]


def test_a_teacher_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ModelError, match="--teacher"):
        Teacher(tmp_path / "yamnet.tflite")
