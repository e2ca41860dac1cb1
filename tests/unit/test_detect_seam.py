"""Where frames were lost unseen two ends of sound meet: no shot, and a shot beside it is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from test_pipeline import RATE_HZ, Listener, pipeline

from node.detect.seam import AFTER_S, BEFORE_S, is_seam
from node.messages import Detection
from node.pipeline import Pipeline
from node.types import Block, Unplaced

BLOCK = 1024
LOST = 600
SEAM = 25 * BLOCK + 300  # within a block, which passes as punctual
HEARD_AT_ONCE = (0, 0, 0, 0)
PASSING = (0, 3, 5, 2)  # a plane wave over a tetrahedron of 200 mm, in frames at 12 kHz


def street(seconds: float = 5.0, channels: int = 4) -> npt.NDArray[np.float64]:
    """Make hiss, and the rumble that wind makes, shape [n, channels]."""
    rng = np.random.default_rng(4)
    n = np.arange(round(seconds * RATE_HZ))[:, None]
    phase = rng.uniform(-0.4, 0.4, channels)
    rumble = 3000 * np.cos(2 * np.pi * 10.0 * (n - SEAM) / RATE_HZ + phase)
    return rumble + rng.normal(0, 30, (len(n), channels))


def add_blast(
    sound: npt.NDArray[np.float64], at: int, delays: tuple[int, ...], smooth: int = 1
) -> None:
    n = np.arange(RATE_HZ // 10)
    noise = np.random.default_rng(2).normal(0, 1, len(n))
    blast = 9000 * np.exp(-n / 60) * np.convolve(noise, np.ones(smooth) / smooth, "same")
    for channel, delay in enumerate(delays[: sound.shape[1]]):
        sound[at + delay : at + delay + len(n), channel] += blast


def hear(sound: npt.NDArray[np.float64], *, told: bool) -> tuple[Pipeline, list[Detection]]:
    """Lose frames in the middle of a block, and have the next be told as late by them."""
    whole = sound.clip(-32768, 32767).astype(np.int16)
    heard = np.concatenate((whole[:SEAM], whole[SEAM + LOST :]))
    under_test = pipeline(Listener("gunfire"), channels=sound.shape[1])
    late = (SEAM // BLOCK + 1) * BLOCK
    detections = []
    for first in range(0, len(heard), BLOCK):
        counted = first + LOST * (first >= late)
        block = Block(counted, heard[first : first + BLOCK], RATE_HZ)
        if first == late:
            unplaced = Unplaced(LOST, late - BLOCK, counted + BLOCK) if told else None
            block = replace(block, lost_before=LOST, unplaced=unplaced)
        detections += under_test.push(block)
    return under_test, detections + under_test.flush()


@pytest.mark.parametrize("told", [True, False])
def test_a_seam_is_told_as_a_shot_only_where_nobody_knows_of_it(told: bool) -> None:
    under_test, heard = hear(street(), told=told)
    assert len(heard) == (0 if told else 1)
    misses = [miss for miss in under_test.near_misses() if miss.kind == "seam"]
    assert [abs(miss.sample - SEAM) < 0.001 * RATE_HZ for miss in misses] == [True] * told


@pytest.mark.parametrize(
    "after_s", [-0.3, -0.008, -0.004, 0.0, 0.002, 0.004, 0.009, 0.02, 0.2, 0.5]
)
def test_a_shot_beside_a_seam_is_told(after_s: float) -> None:
    sound = street()
    at = SEAM + round(after_s * RATE_HZ) + (LOST if after_s >= 0 else 0)
    add_blast(sound, at, PASSING)
    _, heard = hear(sound, told=True)
    assert len(heard) == 1


@pytest.mark.parametrize("smooth", [1, 8])
@pytest.mark.parametrize("lost_s", [0.0005, 0.002, 0.003, 0.005, 0.01])
def test_a_shot_whose_front_was_lost_is_told(lost_s: float, smooth: int) -> None:
    """What is left of it is dull, so that the seam stands out of it."""
    sound = street()
    add_blast(sound, SEAM + LOST - round(lost_s * RATE_HZ), PASSING, smooth)
    _, heard = hear(sound, told=True)
    assert len(heard) == 1


def test_one_microphone_alone_cannot_tell_a_seam() -> None:
    _, heard = hear(street(channels=1), told=True)
    assert len(heard) == 1


def around(sound: npt.NDArray[np.float64], at: int) -> npt.NDArray[np.float32]:
    window = slice(at - round(BEFORE_S * RATE_HZ), at + round(AFTER_S * RATE_HZ))
    return sound[window].astype(np.float32)


@pytest.mark.parametrize("delays", [HEARD_AT_ONCE, PASSING])
def test_a_blast_is_no_seam_even_from_where_all_hear_it_at_once(delays: tuple[int, ...]) -> None:
    sound = street()
    add_blast(sound, 9000, delays)
    assert not is_seam(around(sound, 9000))


def test_frames_that_were_not_heard_are_no_jump() -> None:
    sound = street()
    sound[9005:] = 0
    assert not is_seam(around(sound, 9000))
    assert not is_seam(np.zeros((156, 4), np.float32))


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_a_dead_microphone_hides_no_seam_but_two_do(dead: int) -> None:
    sound = street()
    heard = np.concatenate((sound[:SEAM], sound[SEAM + LOST :]))
    heard[:, :dead] = 0
    assert is_seam(around(heard, SEAM)) is (dead < 2)
