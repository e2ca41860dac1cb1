"""The shipped model on every TFLite runtime that this Python has.

The development environment of Python 3.11 has both; elsewhere there is one, and the golden outputs
in the model's sidecar stand in for the other.
"""

import importlib.util

import numpy as np
import pytest

from node.classify import TfliteClassifier, features, sidecar
from node.classify.classifier import shipped_model
from node.classify.runner import RUNTIMES, Runner, golden_inputs

INSTALLED = [name for name in RUNTIMES if importlib.util.find_spec(name)]


def runner(name: str) -> Runner:
    model = shipped_model()
    return Runner(model, sidecar.read(model.with_suffix(".json")), name)


def test_a_runtime_is_installed():
    assert INSTALLED


@pytest.mark.parametrize("name", INSTALLED)
def test_each_runtime_gives_the_golden_outputs_bit_for_bit(name):
    assert runner(name).self_test() == 0


@pytest.mark.skipif(len(INSTALLED) < 2, reason=f"only {INSTALLED} has wheels for this Python")
def test_both_runtimes_give_the_same_bits_on_random_pictures():
    draw = np.random.default_rng(5)
    pictures = draw.integers(-128, 128, (50, features.FRAMES, features.BANDS)).astype(np.int8)

    first, second = (runner(name).run(pictures) for name in INSTALLED)

    assert np.array_equal(first, second)


@pytest.mark.skipif(len(INSTALLED) < 2, reason=f"only {INSTALLED} has wheels for this Python")
def test_both_runtimes_give_the_same_verdict():
    draw = np.random.default_rng(6)
    rate_hz = 48_000
    first, second = (TfliteClassifier.load(runtime_name=name) for name in INSTALLED)
    before, after = first.window(rate_hz)
    window = draw.standard_normal((before + after, 4)).astype(np.float32)
    window[before:] *= np.exp(-np.arange(after) / 2000)[:, None].astype(np.float32)

    assert first.judge([window], rate_hz) == second.judge([window], rate_hz)


def test_golden_inputs_are_many_different_pictures():
    stripes = golden_inputs((1, features.FRAMES, features.BANDS, 1))

    assert stripes.dtype == np.int8
    assert len(np.unique(stripes.reshape(len(stripes), -1), axis=0)) == len(stripes)
