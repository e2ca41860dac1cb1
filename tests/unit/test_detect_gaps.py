import numpy as np
import pytest
from detect_sounds import add_blast, hear, impulses, street

from node.detect import Detector
from node.detect.onset import BEFORE_S
from node.settings import DetectSettings
from node.types import Block, Event

RATE = 16000


def with_loss(
    x: np.ndarray, at: int, frames: int, *, told: bool = True, stream: int = 0
) -> list[Event]:
    """Hear a recording of which `frames` were lost at `at`; the counter counts them in."""
    y = x.astype(np.float32)
    detector = Detector(DetectSettings(), RATE, x.shape[1])
    events = detector.push(Block(0, y[:at], RATE))
    after = Block(
        at + frames, y[at + frames :], RATE, lost_before=frames if told else 0, stream=stream
    )
    return events + detector.push(after) + detector.flush()


@pytest.mark.parametrize("told", [True, False])
def test_lost_frames_move_no_later_onset_and_trigger_nothing(told):
    x = street(np.random.default_rng(1), RATE, 4.0, 4)
    add_blast(x, RATE, 50000.5, 0.3, [0] * 4)

    found = impulses(with_loss(x, 30000, 500, told=told))

    assert [i.onset_sample for i in found] == pytest.approx([50000.5], abs=4)


@pytest.mark.parametrize(("loss_at", "told"), [(47000, 500), (52000, 500), (30000, 0), (61000, 0)])
def test_an_event_tells_the_frames_lost_just_before_within_and_just_after_it(loss_at, told):
    x = street(np.random.default_rng(2), RATE, 4.0)
    add_blast(x, RATE, 50000, 0.3)

    events = with_loss(x, loss_at, 500)

    assert [event.lost_samples for event in events] == [told]


@pytest.mark.parametrize("lost", [160, 2700, 16000])
@pytest.mark.parametrize("into", [0.05, 0.5, 0.95])
def test_a_shot_that_began_among_lost_frames_owns_to_when_it_may_have_begun(lost, into):
    x = street(np.random.default_rng(10), RATE, 4.0)
    tail = np.random.default_rng(11).normal(size=2 * RATE) * 10 ** (-np.arange(2 * RATE) / RATE)
    x[30000 : 30000 + len(tail), 0] += 0.3 * tail

    (shot, *_) = impulses(with_loss(x, 30000 - round((1 - into) * lost), lost))

    late = shot.onset_sample - 30000
    assert late == pytest.approx(into * lost, abs=BEFORE_S * RATE)
    assert abs(late) <= 3 * shot.sigma_samples
    assert shot.sigma_samples < lost + BEFORE_S * RATE


def test_a_shot_after_a_loss_and_some_quiet_is_as_sure_as_any():
    x = street(np.random.default_rng(12), RATE, 4.0)
    add_blast(x, RATE, 30000, 0.3)

    sure, after = (impulses(with_loss(x, at, 2000))[0] for at in (10000, 27800))

    assert after.onset_sample == pytest.approx(30000, abs=4)
    assert after.sigma_samples == pytest.approx(sure.sigma_samples, rel=0.2)


def test_a_loss_in_the_middle_of_a_burst_does_not_split_the_event():
    x = street(np.random.default_rng(3), RATE, 4.0)
    for at in (30000, 34000, 38000):
        add_blast(x, RATE, at, 0.3)

    (event,) = with_loss(x, 35000, 700)

    assert len(event.impulses) == 3
    assert event.lost_samples == 700


def test_losses_in_a_street_full_of_reverberation_trigger_nothing():
    rng = np.random.default_rng(4)
    x = street(rng, RATE, 4.0)
    tail = np.exp(-np.arange(40000) / (0.5 * RATE)) * rng.standard_normal(40000)
    x[24000:, 0] += 0.3 * tail

    onsets = [
        i.onset_sample for at in (27000, 31000, 35000) for i in impulses(with_loss(x, at, 500))
    ]

    assert onsets == pytest.approx([24000] * 3, abs=16)


def test_another_stream_closes_the_event_and_learns_its_background_anew():
    x = street(np.random.default_rng(5), RATE, 4.0)
    x[40000:] *= 30  # the device came back with another gain
    add_blast(x, RATE, 39000, 0.3)

    events = with_loss(x, 40000, 0, stream=1)

    assert [i.onset_sample for i in impulses(events)] == pytest.approx([39000], abs=4)


def test_frames_lost_while_a_device_was_opened_again_are_told_by_the_next_event():
    x = street(np.random.default_rng(9), RATE, 4.0)
    add_blast(x, RATE, 42000, 0.3)

    (event,) = with_loss(x, 40000, 800, stream=1)

    assert event.lost_samples == 800


def test_a_counter_that_runs_backwards_starts_anew():
    x = street(np.random.default_rng(6), RATE, 2.0).astype(np.float32)
    add_blast(x, RATE, 30000, 0.3)
    detector = Detector(DetectSettings(), RATE, 1)

    events = detector.push(Block(100_000, x, RATE)) + detector.push(Block(0, x, RATE))
    events += detector.flush()

    assert [i.onset_sample for i in impulses(events)] == pytest.approx([130_000, 30_000], abs=4)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("frames", [100, 1600, 20000])
def test_a_redaction_triggers_on_neither_edge_and_does_not_lower_the_floor(channels, frames):
    rng = np.random.default_rng(7)
    rumble = 0.3 * np.sin(2 * np.pi * 30 * np.arange(5 * RATE) / RATE)
    x = street(rng, RATE, 5.0, channels) + rumble[:, None]
    add_blast(x, RATE, 70000, 0.3, [0] * channels)
    for at in (20000, 44000):
        x[at : at + frames] = 0

    onsets = [i.onset_sample for i in impulses(hear(x, RATE))]

    assert onsets == pytest.approx([70000], abs=8)


def test_a_recording_that_begins_with_a_second_of_zeros_is_heard_from_then_on():
    x = street(np.random.default_rng(8), RATE, 4.0) + 0.2
    x[:RATE] = 0
    add_blast(x, RATE, 18000, 0.3)

    onsets = [i.onset_sample for i in impulses(hear(x, RATE))]

    assert onsets == pytest.approx([18000], abs=4)
