"""Edges of a pulse: found to nanoseconds, the same in any blocks, and none where there is none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.timing.edge import Edge, EdgeFinder
from tests.timing.pps_wave import RATE_HZ, Input, Phase, PulseChannel, to_int16

SECONDS = 8


def leading(seed: int = 0, count: int = SECONDS - 1) -> np.ndarray:
    return np.arange(1, count + 1) * RATE_HZ + np.random.default_rng(seed).uniform(0, 1, count)


def heard(line: Input, at: np.ndarray, seed: int = 1) -> np.ndarray:
    channel = PulseChannel(at, np.random.default_rng(seed), line=line)
    seconds = range(int(at[-1]) // RATE_HZ + 1)
    pcm = np.concatenate([to_int16(channel.frames(s * RATE_HZ, RATE_HZ)) for s in seconds])
    return pcm.astype(np.float32) / np.float32(32_768)


def edges(x: np.ndarray, cuts: tuple[int, ...] = (), first: int = 0) -> list[Edge]:
    finder = EdgeFinder(RATE_HZ)
    found = []
    for part in np.split(x, sorted(cuts)):
        found += finder.push(first, part)
        first += len(part)
    return found


@pytest.mark.parametrize("phase", ["linear", "minimum"])
@pytest.mark.parametrize(("noise_db", "std_ns"), [(-70, 20), (-50, 150), (-40, 500)])
def test_an_edge_is_as_sharp_as_its_research_promised_and_says_so(
    phase: Phase, noise_db: int, std_ns: float
) -> None:
    at = leading()
    found = [
        e for e in edges(heard(Input(noise=10 ** (noise_db / 20), phase=phase), at)) if e.rises
    ]
    assert len(found) == len(at)
    off = np.array([e.sample for e in found]) - at
    spread_ns = 1e9 * np.std(off) / RATE_HZ
    told_ns = 1e9 * np.mean([e.sigma_samples for e in found]) / RATE_HZ
    assert spread_ns < std_ns
    assert spread_ns < 2.5 * told_ns
    if phase == "linear":
        assert abs(off.mean()) < 0.01 + 3 * spread_ns * 1e-9 * RATE_HZ


@given(cuts=st.lists(st.integers(1, 3 * RATE_HZ - 1), max_size=40))
@settings(max_examples=20)
def test_blocks_of_any_size_give_the_same_edges(cuts: list[int]) -> None:
    x = heard(Input(), leading(count=2))
    assert edges(x, tuple(cuts)) == edges(x)


def test_an_input_that_inverts_gives_falling_edges_at_the_same_place() -> None:
    at = leading()
    plain = edges(heard(Input(noise=1e-6), at))
    inverted = edges(heard(Input(noise=1e-6, inverted=True), at))
    assert [e.rises for e in inverted] == [not e.rises for e in plain]
    assert [e.sample for e in inverted] == pytest.approx([e.sample for e in plain], abs=1e-3)


def test_no_edge_is_made_of_samples_with_a_gap_between() -> None:
    finder = EdgeFinder(RATE_HZ)
    found = finder.push(0, np.zeros(RATE_HZ, np.float32))
    found += finder.push(2 * RATE_HZ, np.full(RATE_HZ, 0.5, np.float32))
    assert found == []


@pytest.mark.parametrize("amplitude", [0.01, 0.1, 0.9])
def test_a_pulse_of_any_height_is_found(amplitude: float) -> None:
    at = leading()
    rising = [e for e in edges(heard(Input(amplitude=amplitude), at)) if e.rises]
    assert [e.sample for e in rising] == pytest.approx(at, abs=0.05)


def test_silence_and_steady_noise_have_no_edges() -> None:
    rng = np.random.default_rng(3)
    assert edges(np.zeros(4 * RATE_HZ, np.float32)) == []
    assert edges(rng.normal(0, 0.05, 4 * RATE_HZ).astype(np.float32)) == []


def test_a_doubled_pulse_within_two_milliseconds_is_one() -> None:
    at = leading(count=3)
    both = np.sort(np.concatenate([at, at + 40]))
    rising = [e for e in edges(heard(Input(width_s=0.05), both)) if e.rises]
    assert len(rising) == 3
