"""Whether each microphone works: what is told of a broken one, and what is not held against any."""

import itertools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from detect_sounds import add_blast, street

from node.detect import ChannelOrder, MicrophoneState, MicrophoneWatch
from node.types import Block

RATE = 16000
MICROPHONES = 4
Sound = npt.NDArray[np.float64]
Pcm = npt.NDArray[np.int32]


def a_street(seconds: float, seed: int = 1, microphones: int = MICROPHONES) -> Sound:
    return street(np.random.default_rng(seed), RATE, seconds, microphones)


def converted(sound: Sound) -> Pcm:
    """Quantise to 24 bits, in the upper bits of 32."""
    return np.asarray(
        np.clip(np.rint(sound * 2**23), -(2**23), 2**23 - 1).astype(np.int32) * 256, dtype=np.int32
    )


def push(watch: MicrophoneWatch, frames: npt.NDArray[np.int32], first: int = 0) -> None:
    for at in range(0, len(frames), 1000):
        watch.push(Block(first + at, frames[at : at + 1000], RATE))


def heard(sound: npt.NDArray[Any]) -> tuple[MicrophoneState, ...]:
    frames = sound if sound.dtype == np.int32 else converted(sound)
    watch = MicrophoneWatch(RATE, frames.shape[1])
    push(watch, frames)
    return watch.states


def verdicts(sound: npt.NDArray[Any]) -> list[str]:
    return [state.verdict for state in heard(sound)]


def loop_hum(seconds: float, mains_hz: float, rms: float) -> Sound:
    """Give what a loop through the ground carries: the mains and its odd multiples."""
    t = np.arange(round(seconds * RATE)) / RATE
    wave = sum(
        a * np.sin(2 * np.pi * k * mains_hz * t + k) for k, a in ((1, 1.0), (3, 0.5), (5, 0.3))
    )
    return np.asarray(wave / np.std(wave) * rms)


def constant(x: Pcm) -> None:
    x[:, 1] = 5 << 20


def zeros(x: Pcm) -> None:
    x[:, 1] = 0


def at_a_rail(x: Pcm) -> None:
    x[:, 1] = np.clip(x[:, 1].astype(np.int64) + (3 << 29), -(2**31), 2**31 - 1)


def two_values(x: Pcm) -> None:
    x[:, 1] = np.where(x[:, 1] > 0, 1 << 25, -1 << 25)


def latched_bit(x: Pcm) -> None:
    x[:, 1] |= 1 << 20


def dropped_bits(x: Pcm) -> None:
    x[:, 1] &= ~0xFFFF


def copied(x: Pcm) -> None:
    x[:, 1] = x[:, 3]


FAULTS = [
    (zeros, "silent"),
    (constant, "stuck"),
    (at_a_rail, "stuck"),
    (two_values, "stuck"),
    (latched_bit, "stuck"),
    (dropped_bits, "stuck"),
]


@pytest.mark.parametrize(("spoil", "verdict"), FAULTS)
def test_a_gross_fault_is_told_within_ten_seconds(
    spoil: Callable[[Pcm], None], verdict: str
) -> None:
    frames = converted(a_street(10))

    spoil(frames)

    assert verdicts(frames) == ["ok", verdict, "ok", "ok"]


@pytest.mark.parametrize(("spoil", "verdict"), FAULTS)
def test_it_recovers_by_itself_when_the_fault_goes(
    spoil: Callable[[Pcm], None], verdict: str
) -> None:
    frames = converted(a_street(30))
    spoil(frames[: 10 * RATE])
    watch = MicrophoneWatch(RATE, MICROPHONES)

    push(watch, frames[: 10 * RATE])
    assert watch.states[1].verdict == verdict
    push(watch, frames[10 * RATE :], 10 * RATE)

    assert [s.verdict for s in watch.states] == ["ok"] * 4


def test_a_quiet_and_a_loud_street_are_held_against_no_microphone() -> None:
    sound = a_street(20)

    for level in (0.003, 1.0, 20.0):
        assert verdicts(sound * level) == ["ok"] * 4


def test_nothing_is_known_before_some_seconds() -> None:
    assert verdicts(a_street(3)) == ["unknown"] * 4


def test_a_cable_that_is_off_hears_far_less_than_the_others() -> None:
    sound = a_street(12)
    sound[:, 2] = np.random.default_rng(3).standard_normal(len(sound)) * 10 ** (-95 / 20)

    states = heard(sound)

    assert states[2].verdict == "silent"
    assert "less than the others" in states[2].sentence
    assert states[2].over_others_db is not None
    assert states[2].over_others_db < -20


def test_shots_that_clip_are_not_held_against_a_microphone() -> None:
    sound = a_street(20)
    for shot in range(60):
        add_blast(sound, RATE, RATE * (1 + 0.3 * shot), 5.0, (0, 3, 6, 2))

    assert verdicts(sound) == ["ok"] * 4


def test_a_gain_that_is_far_too_high_is_told_as_clipping() -> None:
    sound = a_street(12)
    sound[:, 0] *= 60

    states = heard(sound)

    assert [s.verdict for s in states] == ["clipped", "ok", "ok", "ok"]
    assert states[0].full_scale_share is not None
    assert states[0].full_scale_share > 0.01


@pytest.mark.parametrize("mains_hz", [49.93, 60.02])
def test_a_ground_loop_is_told_on_one_microphone_and_on_all(mains_hz: float) -> None:
    sound, hum = a_street(12), loop_hum(12, mains_hz, 0.02)
    one, every = sound.copy(), sound + hum[:, None]
    one[:, 2] += hum

    assert verdicts(one) == ["ok", "ok", "humming", "ok"]
    assert verdicts(every) == ["humming"] * 4
    state = heard(one)[2]
    assert state.hum_hz == pytest.approx(mains_hz, abs=0.1)
    assert state.hum_db is not None
    assert state.hum_db > 0


def test_one_microphone_alone_is_told_to_hum() -> None:
    assert verdicts(a_street(12, microphones=1) + loop_hum(12, 50, 0.02)[:, None]) == ["humming"]


def test_a_transformer_near_by_is_no_ground_loop() -> None:
    t = np.arange(12 * RATE) / RATE
    hum = sum(a * np.sin(2 * np.pi * f * t) for f, a in ((100, 1.0), (200, 0.5), (300, 0.3)))

    assert verdicts(a_street(12) + 0.03 * np.asarray(hum)[:, None]) == ["ok"] * 4


def test_an_engine_that_passes_is_no_ground_loop() -> None:
    t = np.arange(20 * RATE) / RATE
    hertz = 50 + 1.5 * np.sin(2 * np.pi * t / 9)  # its revolutions wander about the mains
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    engine = sum(np.sin(k * phase) / k for k in range(1, 8))

    assert verdicts(a_street(20) + 0.05 * np.asarray(engine)[:, None]) == ["ok"] * 4


def test_two_microphones_that_carry_the_same_are_both_told() -> None:
    frames = converted(a_street(10))
    copied(frames)

    states = heard(frames)

    assert [s.verdict for s in states] == ["ok", "swapped", "ok", "swapped"]
    assert "microphone 3" in states[1].sentence
    assert states[1].most_like == 3


def test_a_copy_with_another_gain_is_a_copy() -> None:
    sound = a_street(10, microphones=2)
    sound[:, 1] = 0.7 * sound[:, 0]

    assert verdicts(sound) == ["swapped", "swapped"]


def test_a_loud_sound_from_broadside_makes_no_copies() -> None:
    sound = a_street(12)
    for shot in range(20):
        add_blast(sound, RATE, RATE * (1 + 0.5 * shot), 0.9, (0, 0, 0, 0))

    assert verdicts(sound) == ["ok"] * 4


def test_a_disproven_order_is_told_of_every_microphone() -> None:
    sound = a_street(10)
    order = ChannelOrder(5, RATE, silent_channels=[4])
    watch = MicrophoneWatch(RATE, 5, microphones=[0, 1, 2, 3], order=order)
    frames = converted(np.column_stack((np.zeros(len(sound)), sound)))[:, :5]

    order.observe(Block(0, frames, RATE))
    push(watch, frames)

    assert {s.verdict for s in watch.states[1:]} == {"swapped"}
    assert "rotated" in watch.states[1].sentence


def test_cracks_that_no_other_hears_are_a_loose_plug() -> None:
    sound = a_street(12)
    rng = np.random.default_rng(4)
    for at in rng.uniform(1, 11.9, 60):
        sound[int(at * RATE) :, 3][:20] += 0.5 * rng.standard_normal(20)

    assert verdicts(sound) == ["ok", "ok", "ok", "crackling"]


def test_rain_on_every_microphone_is_no_loose_plug() -> None:
    sound = a_street(20)
    rng = np.random.default_rng(4)
    for microphone in range(MICROPHONES):
        for at in rng.uniform(0, 19.9, 100):
            sound[int(at * RATE) :, microphone][:20] += 0.3 * rng.standard_normal(20)

    assert verdicts(sound) == ["ok"] * 4


def test_a_microphone_far_louder_than_the_others_is_noisy() -> None:
    sound = a_street(12)
    sound[:, 0] += 0.1 * np.random.default_rng(5).standard_normal(len(sound))

    assert verdicts(sound) == ["noisy", "ok", "ok", "ok"]


def test_a_dead_microphone_has_no_say_over_the_others() -> None:
    frames = converted(a_street(12))
    frames[:, 0] = 0
    frames[:, 1] = 0

    assert verdicts(frames) == ["silent", "silent", "ok", "ok"]


def test_a_fault_that_comes_and_goes_within_eight_seconds_does_not_flap() -> None:
    frames = converted(a_street(60))
    for start in range(5, 55, 6):
        frames[start * RATE : (start + 4) * RATE, 1] = 0
    watch = MicrophoneWatch(RATE, MICROPHONES)

    told = []
    for second in range(60):
        push(watch, frames[second * RATE : (second + 1) * RATE], second * RATE)
        told.append(watch.states[1].verdict)

    changes = sum(a != b for a, b in itertools.pairwise(told))
    assert changes <= 2


def test_a_gap_makes_no_verdict_and_another_stream_begins_anew() -> None:
    frames = converted(a_street(12))
    watch = MicrophoneWatch(RATE, MICROPHONES)

    for at in range(0, len(frames), 1000):
        lost = 700 if at % 16000 == 9000 else 0
        watch.push(Block(2 * at, frames[at : at + 1000], RATE, lost_before=lost))
    assert {s.verdict for s in watch.states} <= {"ok", "unknown"}
    watch.push(Block(0, frames[:1000], RATE, stream=1))

    assert {s.verdict for s in watch.states} == {"unknown"}


def test_it_takes_the_microphones_alone_as_floats() -> None:
    sound = a_street(10).astype(np.float32)
    sound[:, 1] = 0
    sound[5, 2] = np.nan
    watch = MicrophoneWatch(RATE, MICROPHONES)

    watch.push(sound)

    assert [s.verdict for s in watch.states] == ["ok", "silent", "ok", "ok"]
    assert watch.heard_s == 9


def test_the_same_verdicts_whatever_the_blocks() -> None:
    frames = converted(a_street(11))
    frames[:, 0] //= 100
    watches = [MicrophoneWatch(RATE, MICROPHONES) for _ in range(3)]

    for watch, size in zip(watches, (160, 4096, len(frames)), strict=True):
        for at in range(0, len(frames), size):
            watch.push(Block(at, frames[at : at + size], RATE))

    told = [[asdict(s) for s in watch.states] for watch in watches]
    assert told[0] == told[1] == told[2]


def by_the_hour(gain_db: Callable[[float], float], hours: float) -> list[str]:
    """Give what is told of microphone 1 minute by minute, whose gain changes."""
    rate, minute = 2000, 60
    sound = street(np.random.default_rng(6), rate, minute, MICROPHONES)
    watch = MicrophoneWatch(rate, MICROPHONES)
    told: list[str] = []
    for at in range(round(hours * 60)):
        spoiled = sound.copy()
        spoiled[:, 1] *= 10 ** (gain_db(at / 60) / 20)
        watch.push(spoiled.astype(np.float32))
        told.append(watch.states[1].verdict)
    return told


def test_a_membrane_that_drowns_is_told_within_hours_and_forgotten_when_dry() -> None:
    told = by_the_hour(lambda hour: -10.0 if 0.55 <= hour < 1.2 else 0.0, 1.9)

    assert "drifting" not in told[:33]
    assert "drifting" in told[33:72]
    assert told[-1] == "ok"


def test_a_decibel_or_two_is_no_drift() -> None:
    assert set(by_the_hour(lambda hour: float(2 * np.sin(5 * hour)), 1.2)) <= {"ok", "unknown"}


def test_one_channel_that_a_mixer_turns_down_does_not_break_the_others() -> None:
    """A volume in software leaves bits that no converter gave."""
    frames = converted(a_street(10))
    frames[:, 1] = (frames[:, 1] * 0.7).astype(np.int32)
    assert verdicts(frames) == ["ok"] * MICROPHONES


@pytest.mark.parametrize(("microphones", "turned_down"), [(2, (1,)), (4, (1, 2))])
def test_as_many_fine_channels_as_coarse_tell_of_no_stuck_bits(
    microphones: int, turned_down: tuple[int, ...]
) -> None:
    frames = converted(a_street(10, microphones=microphones))
    for channel in turned_down:
        frames[:, channel] = (frames[:, channel] * 0.7).astype(np.int32)
    assert verdicts(frames) == ["ok"] * microphones


def test_of_four_of_which_two_are_silent_one_turned_down_does_not_break_the_last() -> None:
    frames = converted(a_street(10))
    frames[:, :2] = 0
    frames[:, 2] = (frames[:, 2] * 0.7).astype(np.int32)
    assert verdicts(frames) == ["silent", "silent", "ok", "ok"]


@pytest.mark.parametrize("silent", [(), (0,)])
def test_of_stuck_low_bits_it_is_said_which(silent: tuple[int, ...]) -> None:
    frames = converted(a_street(10))
    dropped_bits(frames)
    frames[:, list(silent)] = 0
    state = heard(frames)[1]
    assert state.verdict == "stuck"
    assert "the lowest bits that most others do, from bit 16 on" in state.sentence


@pytest.mark.parametrize(
    ("until_s", "sentence"),
    [
        (10, "silent: -200 dBFS; see its plug and its supply"),
        (8, "was silent just now: see its plug and its supply"),
    ],
)
def test_of_one_that_fell_silent_no_figure_of_before_is_told(until_s: int, sentence: str) -> None:
    frames = converted(a_street(10))
    frames[4 * RATE : until_s * RATE, 1] = 0
    state = heard(frames)[1]
    assert state.verdict == "silent"
    assert state.sentence == sentence
