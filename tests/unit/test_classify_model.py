"""The shipped model's files, and what is said of files that are none."""

import json
import shutil

import numpy as np
import pytest

from node.classify import TfliteClassifier
from node.classify.classifier import shipped_model
from node.errors import ModelError


@pytest.fixture
def copy(tmp_path):
    """Copy the shipped model and its sidecar."""
    model = tmp_path / "gunfire.tflite"
    shutil.copy(shipped_model(), model)
    shutil.copy(shipped_model().with_suffix(".json"), model.with_suffix(".json"))
    return model


def change(model, **fields):
    sidecar = model.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | fields))


def refusal(model):
    with pytest.raises(ModelError) as caught:
        TfliteClassifier.load(model)
    message = str(caught.value)
    assert "\n" not in message
    assert model.stem in message
    return message


def test_the_shipped_model_loads_and_is_small():
    identity = TfliteClassifier.load().identity

    assert shipped_model().stat().st_size <= 300_000
    assert 0 < identity.probable_threshold <= identity.gunfire_threshold < 1


def test_a_missing_model_is_told(tmp_path):
    assert "belongs beside" in refusal(tmp_path / "none.tflite")


def test_a_model_of_another_release_is_told_by_its_hash(copy):
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")

    assert "SHA-256" in refusal(copy)


def test_a_file_that_is_no_model_is_told(copy):
    import hashlib

    copy.write_bytes(b"no flatbuffer")
    change(copy, sha256=hashlib.sha256(b"no flatbuffer").hexdigest())

    assert "no TFLite model" in refusal(copy)


def test_another_shape_than_described_is_told(copy):
    described = json.loads(copy.with_suffix(".json").read_text())
    change(copy, input=described["input"] | {"shape": [1, 96, 64, 1]})

    assert "(1, 96, 64, 1)" in refusal(copy)


def test_another_quantisation_than_described_is_told(copy):
    described = json.loads(copy.with_suffix(".json").read_text())
    change(copy, output=described["output"] | {"scale": 1.5})

    assert "quantised" in refusal(copy)


def test_other_features_than_this_release_has_are_told(copy):
    described = json.loads(copy.with_suffix(".json").read_text())
    change(copy, features=described["features"] | {"bands": 64})

    assert "features" in refusal(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "gunfire.model/1"}'])
def test_a_broken_sidecar_is_told(copy, text):
    copy.with_suffix(".json").write_text(text)

    refusal(copy)


def test_crossed_thresholds_are_told(copy):
    change(copy, thresholds={"gunfire": 0.2, "probable": 0.7})

    assert "thresholds" in refusal(copy)


def test_a_directory_in_place_of_a_model_is_told(tmp_path):
    folder = tmp_path / "gunfire.tflite"
    folder.mkdir()
    shutil.copy(shipped_model().with_suffix(".json"), folder.with_suffix(".json"))

    refusal(folder)


def test_the_first_inference_differs_in_nothing_from_later_ones():
    classifier = TfliteClassifier.load()
    draw = np.random.default_rng(0)
    before, after = classifier.window(16_000)
    window = draw.standard_normal((before + after, 1)).astype(np.float32)

    verdicts = {classifier.judge([window], 16_000) for _ in range(3)}

    assert len(verdicts) == 1
