"""The pulse of a receiver in a channel of its own, and a converter that runs fast or slow."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import soundfile

from node.simulate.noise import HOP_FRAMES
from node.simulate.render import RenderedNode, render, write
from node.simulate.scene import Scene, SceneNode, SceneSource, Street

QUIET = Street(noise_db_a=-20, vehicles_per_minute=0, ground_reflection=0, tail=False)
MONO = {"mono": np.zeros((1, 3))}
# The converter's minimum-phase filter and the edge's own rise, in samples.
FILTER_SAMPLES = 2.6


def listen(start_s: float = 0.0, seconds: float = 3.0, **node: object) -> RenderedNode:
    shot = SceneSource.model_validate(
        {"kind": "muzzle_blast", "calibre": "9mm", "time_s": 0.5, "x_m": 100.0, "y_m": 0.0}
    )
    listener = SceneNode(**({"id": "a", "x_m": 0, "y_m": 0, "array": "mono"} | node))
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=start_s)
    scene = Scene(
        duration_s=seconds, start_utc=start, street=QUIET, sources=(shot,), nodes=(listener,)
    )
    return render(scene, MONO).nodes[0]


def half_way(pulse: np.ndarray) -> np.ndarray:
    """Where a channel rises through half of its largest sample, in fractional samples."""
    x = pulse / np.abs(pulse.astype(float)).max() - 0.5
    at = np.flatnonzero((x[:-1] < 0) & (x[1:] >= 0))
    return at - x[at] / (x[at + 1] - x[at])


@pytest.mark.parametrize(("start_s", "first_s"), [(0.0, 0.0), (0.25, 0.75)])
@pytest.mark.parametrize("ppm", [0.0, 35.0, -200.0])
def test_the_pulse_rises_on_each_whole_second_of_utc_by_the_true_rate(start_s, first_s, ppm):
    node = listen(start_s, pps=True, clock_ppm=ppm)
    edges = half_way(node.frames()[:, 1])
    due = (first_s + np.arange(4)) * 48_000 * (1 + ppm * 1e-6)
    assert edges == pytest.approx(due[: len(edges)], abs=FILTER_SAMPLES)
    assert np.diff(edges) == pytest.approx(48_000 * (1 + ppm * 1e-6), abs=0.3)


def test_the_pulse_is_a_channel_after_the_microphones_whatever_the_hops():
    node = listen(pps=True)
    assert node.channels == 2
    assert all(len(hop) <= HOP_FRAMES and hop.shape[1] == 2 for hop in node.hops())
    assert np.array_equal(node.frames()[:, 0], listen().frames()[:, 0])


def test_a_fast_converter_counts_more_samples_to_the_same_moment():
    true, fast = listen().arrivals()[0], listen(clock_ppm=100.0).arrivals()[0]
    assert fast.sample == pytest.approx(true.sample * (1 + 100e-6), abs=1e-6)
    assert fast.utc == true.utc


def test_the_file_beside_the_recording_says_which_channel_carries_the_pulse(tmp_path: Path):
    node = listen(pps=True)
    write(render(node.scene, MONO), tmp_path)
    assert json.loads((tmp_path / "a.json").read_text())["pps_channel"] == 1
    assert soundfile.info(tmp_path / "a.wav").channels == 2
