from collections.abc import Iterator

import numpy as np
import pytest

from node.detect.order import EDGE, WAIT_S, ChannelOrder, _stands_out
from node.types import Block

RATE = 8000
BLOCK = 800
CHANNELS = 5
PULSE = 4


def blocks(
    seconds: float,
    *,
    pulses_on=(PULSE,),
    silent=(),
    rotated: int = 0,
    stream: int = 0,
    begin_s: float = 0.0,
    ppm: float = 0.0,
    width_s: float = 0.1,
    seed: int = 0,
    size: int = BLOCK,
    lost_s: float = 0.0,
    pulse_at_s: float = 0.25,
) -> Iterator[Block]:
    """Give noise with pulses on some channels, constants on others, all rotated by some places."""
    rng = np.random.default_rng(seed)
    first = round(begin_s * RATE)
    lost = round(lost_s * RATE)  # before the first of these blocks
    for begin in range(first, first + round(seconds * RATE), size):
        frames = (0.003 * rng.standard_normal((size, CHANNELS))).astype(np.float32)
        at_s = np.arange(begin, begin + size) / RATE / (1 + ppm * 1e-6)
        for channel in pulses_on:
            frames[:, channel] += 0.5 * ((at_s - pulse_at_s) % 1.0 < width_s)
        frames[:, list(silent)] = 0.0
        frames = np.roll(frames, rotated, axis=1)
        yield Block(begin, frames, RATE, lost_before=lost, stream=stream)
        lost = 0


def watch(order: ChannelOrder, heard: Iterator[Block]):
    for block in heard:
        order.observe(block)
    return order.state


def by_pulse() -> ChannelOrder:
    return ChannelOrder(CHANNELS, RATE, pps_channel=PULSE)


def by_silence(*silent: int) -> ChannelOrder:
    return ChannelOrder(CHANNELS, RATE, silent_channels=silent)


def by_word() -> ChannelOrder:
    return ChannelOrder(CHANNELS, RATE, fixed=True)


def test_nothing_is_proven_before_anything_is_heard():
    for order in (by_pulse(), by_silence(4), by_word(), ChannelOrder(CHANNELS, RATE)):
        assert order.state.proven is None


def test_without_a_marker_nothing_is_ever_proven():
    state = watch(ChannelOrder(CHANNELS, RATE), blocks(10))

    assert state.proven is None
    assert "timing.pps_channel" in state.reason


@pytest.mark.parametrize("ppm", [-250.0, 0.0, 250.0])
def test_a_pulse_on_its_channel_proves_the_order(ppm):
    assert watch(by_pulse(), blocks(5, ppm=ppm)).proven is True


def test_two_pulses_do_not_prove_it_yet():
    state = watch(by_pulse(), blocks(2))

    assert state.proven is None
    assert "waiting" in state.reason


@pytest.mark.parametrize("rotated", [1, 2, 3, 4])
def test_a_pulse_on_another_channel_shows_a_rotated_card(rotated):
    state = watch(by_pulse(), blocks(5, rotated=rotated))

    assert state.proven is False
    assert f"channel {(PULSE + rotated) % CHANNELS}," in state.reason


def test_a_pulse_that_leaks_into_microphones_proves_nothing():
    state = watch(by_pulse(), blocks(5, pulses_on=(PULSE, 2)))

    assert state.proven is None
    assert "channels 2 too" in state.reason


def test_no_pulse_is_told_after_a_while():
    assert "waiting" in watch(by_pulse(), blocks(WAIT_S - 1, pulses_on=())).reason

    state = watch(by_pulse(), blocks(WAIT_S + 1, pulses_on=()))

    assert state.proven is None
    assert "no pulse" in state.reason


def test_shots_at_any_time_are_no_pulse():
    order = by_pulse()
    rng = np.random.default_rng(3)
    for block in blocks(20, pulses_on=()):
        if rng.random() < 0.2:
            block.frames[rng.integers(BLOCK), :] += 0.8
        order.observe(block)

    assert order.state.proven is not True


@pytest.mark.parametrize("size", [80, 800, 8000])
@pytest.mark.parametrize("width_s", [0.1, 0.2])
def test_a_pulse_in_phase_with_the_blocks_proves_the_order(size, width_s):
    # Both of its edges lie between two blocks, or in blocks of a second the first one does.
    heard = blocks(6, size=size, pulse_at_s=0.0, width_s=width_s)

    assert watch(by_pulse(), heard).proven is True


def test_an_edge_across_lost_frames_is_no_edge():
    order = by_pulse()
    for second in range(8):
        frames = np.full((BLOCK, CHANNELS), 0.5 * (second % 2), dtype=np.float32)
        order.observe(Block(second * RATE, frames, RATE, lost_before=RATE - BLOCK))

    assert order.state.proven is None


@pytest.mark.parametrize("make", ["by_pulse", "by_silence", "by_word"])
def test_a_block_of_no_frames_says_nothing(make):
    order = {"by_pulse": by_pulse(), "by_silence": by_silence(3), "by_word": by_word()}[make]
    for block in blocks(6, silent=(3,)):
        order.observe(block)
        order.observe(Block(block.end_sample, block.frames[:0], RATE))

    assert order.state.proven is True


def test_an_order_that_is_proven_stays_so_while_a_receiver_is_without_satellites():
    order = by_pulse()
    watch(order, blocks(5))

    state = watch(order, blocks(120, pulses_on=(), begin_s=5))

    assert state.proven is True
    assert "was on channel 4" in state.reason


@pytest.mark.parametrize("lost_s", [0.01, 3.3])
def test_where_frames_were_lost_a_pulse_has_to_prove_the_order_anew(lost_s):
    order = by_pulse()
    watch(order, blocks(5))
    watch(order, blocks(55, pulses_on=(), begin_s=5))
    begin_s = 60 + lost_s

    state = watch(order, blocks(0.1, pulses_on=(), begin_s=begin_s, lost_s=lost_s))
    assert state.proven is None
    assert "frames were lost" in state.reason

    state = watch(order, blocks(60, pulses_on=(), begin_s=begin_s + 0.1))
    assert state.proven is None
    assert "no pulse" in state.reason

    assert watch(order, blocks(5, begin_s=begin_s + 60.1)).proven is True


@pytest.mark.parametrize("lost_s", [0.01, 0.5, 3.4])
def test_one_pulse_in_phase_with_those_before_the_loss_keeps_the_order_proven(lost_s):
    order = by_pulse()
    watch(order, blocks(5, ppm=250))
    begin_s = 5 + lost_s
    before_s = (0.25 - begin_s) % 1.0 - 0.1

    state = watch(order, blocks(before_s, begin_s=begin_s, lost_s=lost_s, ppm=250, size=80))
    assert state.proven is None

    watch(order, blocks(0.2, begin_s=begin_s + before_s, ppm=250, size=80))
    assert watch(order, blocks(60, pulses_on=(), begin_s=begin_s + before_s + 0.2)).proven is True


def test_after_lost_frames_a_pulse_in_another_phase_proves_nothing_before_its_third():
    order = by_pulse()
    watch(order, blocks(5))

    state = watch(order, blocks(1.5, begin_s=5.1, lost_s=0.1, pulse_at_s=0.65))
    assert state.proven is None

    assert watch(order, blocks(3, begin_s=6.6, pulse_at_s=0.65)).proven is True


def test_long_after_the_last_pulse_no_edge_is_in_phase_with_it():
    order = by_pulse()
    watch(order, blocks(5))
    watch(order, blocks(900, pulses_on=(), begin_s=5, size=8000))

    # 0.4 of a second out of phase: less than an oscillator may have gone meanwhile.
    state = watch(order, blocks(1, begin_s=906, lost_s=1, pulse_at_s=0.55))

    assert state.proven is None


@pytest.mark.parametrize("pulses_on", [(PULSE,), ()])
def test_a_card_that_rotates_where_frames_were_lost_is_never_taken_for_one_in_order(pulses_on):
    order = by_pulse()
    watch(order, blocks(5))

    told = []
    for block in blocks(40, begin_s=5.5, lost_s=0.5, rotated=1, pulses_on=pulses_on):
        order.observe(block)
        told.append(order.state.proven)

    assert True not in told
    assert told[-1] is (False if pulses_on else None)


def test_a_stream_that_is_opened_anew_has_to_be_proven_anew():
    order = by_pulse()
    assert watch(order, blocks(5)).proven is True

    order.observe(next(blocks(0.1, stream=1, begin_s=5)))
    assert order.state.proven is None

    assert watch(order, blocks(5, stream=1, begin_s=5.1, rotated=1)).proven is False
    assert watch(order, blocks(5, stream=2, begin_s=10.1)).proven is True


def test_channels_that_are_silent_by_design_prove_the_order():
    assert watch(by_silence(3, 4), blocks(3, pulses_on=(), silent=(3, 4))).proven is True


def test_silence_needs_two_seconds():
    assert watch(by_silence(3, 4), blocks(1, pulses_on=(), silent=(3, 4))).proven is None


@pytest.mark.parametrize("rotated", [1, 2, 3, 4])
def test_sound_on_a_silent_channel_shows_a_rotated_card(rotated):
    state = watch(by_silence(3, 4), blocks(3, pulses_on=(), silent=(3, 4), rotated=rotated))

    assert state.proven is False
    assert "rotated" in state.reason


def test_a_dead_microphone_beside_silent_channels_is_named():
    state = watch(by_silence(3, 4), blocks(3, pulses_on=(), silent=(1, 3, 4)))

    assert state.proven is None
    assert "channels 1 are silent too" in state.reason


def test_a_dead_microphone_does_not_hide_that_a_card_has_rotated():
    heard = blocks(3, pulses_on=(), silent=(1, 3, 4), rotated=1)

    assert watch(by_silence(3, 4), heard).proven is False


def test_a_dead_microphone_does_not_keep_a_pulse_from_proving_the_order():
    assert watch(by_pulse(), blocks(5, silent=(0,))).proven is True


def test_who_vouches_for_a_card_is_believed_once_it_is_heard():
    order = by_word()
    assert watch(order, blocks(1, pulses_on=(), silent=range(CHANNELS))).proven is None

    assert watch(order, blocks(1, pulses_on=(), begin_s=1)).proven is True


def test_two_channels_that_carry_the_same_are_not_believed():
    order = by_word()
    for block in blocks(1, pulses_on=()):
        block.frames[:, 2] = block.frames[:, 1]
        order.observe(block)

    assert order.state.proven is False
    assert "channels 1 and 2 carry the same" in order.state.reason


def test_dead_microphones_are_not_the_same_sound():
    assert watch(by_word(), blocks(1, pulses_on=(), silent=(1, 2))).proven is True


@pytest.mark.parametrize("size", [1, 2, 3, 100, 1023, 4096])
@pytest.mark.parametrize("largest", [0.0, 1e-6, 2e-6, 0.011, 0.0121, 0.02, 0.3])
def test_an_edge_stands_out_of_the_median_of_its_channels_differences(size, largest):
    rng = np.random.default_rng(size)
    for steps in (
        np.full(size, 0.001),
        np.zeros(size),
        np.abs(rng.standard_normal(size)) * 0.0015,
        np.abs(rng.standard_t(1.5, size)).clip(0, 5) * 0.001,
        np.where(np.arange(size) % 2, 0.0005, 0.0015),
    ):
        steps = steps.astype(np.float32).clip(0, largest)
        steps[size // 2] = largest
        expected = steps[size // 2] > EDGE * np.maximum(np.median(steps), 1e-7)
        assert _stands_out(steps, size // 2) == expected
