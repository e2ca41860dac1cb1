import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from detect_sounds import add_blast, hear, impulses, street
from hypothesis import given, settings
from hypothesis import strategies as st

from node.detect import Detector
from node.settings import DetectSettings
from node.types import Block, Event

RATE = 12000


def noisy_street(channels: int) -> np.ndarray:
    """Six seconds with shots, echoes, a redaction on all channels and one on the last."""
    rng = np.random.default_rng(4)
    x = street(rng, RATE, 6.0, channels)
    for at, peak in ((3000.4, 0.5), (4300.0, 0.2), (27000.7, 0.1), (50000.0, 0.3), (71000, 0.9)):
        add_blast(x, RATE, at, peak, [0] * channels)
    x[30000:42000] = 0
    x[44000:44100, -1] = 0
    x[60000:, -1] = 0
    return x


@given(data=st.data(), channels=st.sampled_from([1, 4]))
@settings(max_examples=25)
def test_events_are_the_same_to_the_bit_whatever_the_blocks(data, channels):
    x = noisy_street(channels)
    cuts = sorted(
        data.draw(st.lists(st.integers(0, len(x)), max_size=12, unique=True), label="cuts")
    )

    assert hear(x, RATE, cuts=cuts) == hear(x, RATE)


def test_single_frames_make_the_same_events_as_one_block():
    x = noisy_street(1)[:9000]

    assert hear(x, RATE, cuts=range(1, len(x))) == hear(x, RATE, cuts=[])


def test_an_event_is_given_as_soon_as_its_gap_of_quiet_is_known():
    rng = np.random.default_rng(1)
    x = street(rng, RATE, 4.0).astype(np.float32)
    add_blast(x, RATE, 12000, 0.5)
    detector = Detector(DetectSettings(gap_s=0.5), RATE, 1)

    for first in range(0, len(x), 120):
        if detector.push(Block(first, x[first : first + 120], RATE)):
            break

    closed_s = (first + 120 - 12000) / RATE
    assert 0.5 <= closed_s <= 0.65


def test_a_burst_longer_than_event_s_goes_on_as_the_next_event():
    rng = np.random.default_rng(2)
    x = street(rng, RATE, 8.0)
    for k in range(20):
        add_blast(x, RATE, 12000 + 3600 * k, 0.5)

    events = hear(x, RATE, settings=DetectSettings(event_s=2.0))

    assert [len(event.impulses) for event in events] == [7, 7, 6]


def test_flush_gives_the_open_event_and_leaves_the_detector_ready_for_another_stream():
    rng = np.random.default_rng(3)
    x = street(rng, RATE, 1.0).astype(np.float32)
    add_blast(x, RATE, 11000, 0.5)
    detector = Detector(DetectSettings(), RATE, 1)

    def once() -> list[Event]:
        return detector.push(Block(0, x, RATE)) + detector.flush()

    first = once()
    assert len(first) == 1
    assert once() == first


def test_pcm_of_16_bits_gives_the_onsets_of_the_same_samples_as_floats():
    pcm = np.round(noisy_street(1) * 32767).astype(np.int16)

    assert hear(pcm, RATE) == hear(pcm.astype(np.float32) / 32768, RATE)


def test_memory_stays_flat_over_a_long_stream():
    rng = np.random.default_rng(5)
    x = street(rng, RATE, 10.0, 4).astype(np.float32)
    for k in range(12):  # an impulse each 0.8 s: events all along
        add_blast(x, RATE, 9600 * k + 2000, 0.5, [0] * 4)
    detector = Detector(DetectSettings(gap_s=1.0), RATE, 4)

    def play(turns: range) -> int:
        for turn in turns:
            for first in range(0, len(x), 4000):
                block = Block(turn * len(x) + first, x[first : first + 4000], RATE)
                detector.push(block if first else replace(block, lost_before=0))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        early = play(range(3))
        late = play(range(3, 30))
    finally:
        tracemalloc.stop()
    assert late - early < 20_000


@pytest.mark.parametrize(
    "block",
    [
        Block(0, np.zeros((100, 1), dtype=np.float32), RATE),
        Block(0, np.zeros((100, 2), dtype=np.float32), 48000),
        Block(0, np.zeros(100, dtype=np.float32), RATE),
    ],
)
def test_a_block_of_another_format_is_refused(block):
    with pytest.raises(ValueError, match="2 channels at 12000 Hz"):
        Detector(DetectSettings(), RATE, 2).push(block)


@pytest.mark.parametrize("frames", [0, 1, 2, 59, 61, 400])
def test_a_stream_of_a_few_frames_is_quiet(frames):
    assert hear(np.full((frames, 1), 0.3), RATE) == []


def test_samples_that_are_no_numbers_neither_trigger_nor_deafen():
    rng = np.random.default_rng(6)
    x = street(rng, RATE, 4.0)
    add_blast(x, RATE, 36000, 0.5)
    x[12000:12500] = np.nan
    x[20000] = np.inf

    found = [impulse.onset_sample for impulse in impulses(hear(x, RATE))]

    assert [onset for onset in found if onset > 21000] == pytest.approx([36000], abs=2)
    assert not [onset for onset in found if onset < 19900]
