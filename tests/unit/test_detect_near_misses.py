"""Why it did not fire: what came close is kept and said, and changes nothing that is detected."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pytest
from detect_sounds import add_blast, street

from node.detect import Detector, NearMiss, PutDownToEcho, Rejected, ShortOfTrigger
from node.messages import Origin
from node.pipeline import Pipeline
from node.settings import DetectSettings
from node.timing import RecordingClock
from node.types import Block, ClockQuality, Event, Grade, Judgement, ModelIdentity, Scores

RATE = 48_000
ASKED_DB = DetectSettings().threshold_db
Sound = npt.NDArray[np.float64]


def hear(sound: Sound, settings: DetectSettings | None = None) -> tuple[Detector, list[Event]]:
    detector = Detector(settings or DetectSettings(), RATE, sound.shape[1])
    events: list[Event] = []
    for first in range(0, len(sound), 1024):
        frames = sound[first : first + 1024].astype(np.float32)
        events += detector.push(Block(first, frames, RATE))
    return detector, events + detector.flush()


def noise(seconds: float = 4.0, channels: int = 4) -> Sound:
    """Give steady noise of equal level on every channel."""
    rng = np.random.default_rng(1)
    return 0.001 * rng.standard_normal((round(seconds * RATE), channels))


def rise(sound: Sound, at_s: float, factor: float, channels: slice = slice(None)) -> None:
    """Raise some channels for 3 ms."""
    first = round(at_s * RATE)
    sound[first : first + round(0.003 * RATE), channels] *= factor


def test_a_rise_just_short_of_the_trigger_is_kept_with_what_it_reached_and_where() -> None:
    sound = noise()
    rise(sound, 2.0, 3.1)

    detector, events = hear(sound)

    assert events == []
    (miss,) = detector.near_misses
    assert miss.kind in ("rise", "contrast")
    assert miss.sample == pytest.approx(2.0 * RATE, abs=0.004 * RATE)
    assert -2 <= miss.margin_db < 0
    assert (miss.microphones, miss.needed) == (4, 3)
    assert "are asked, on 3 of 4 microphones" in miss.sentence


def test_what_it_reached_is_what_would_have_been_enough() -> None:
    sound = noise()
    rise(sound, 2.0, 3.1)
    (miss,) = hear(sound)[0].near_misses

    for more_db, fires in ((-0.05, True), (0.05, False)):
        settings = DetectSettings(
            threshold_db=miss.rise_db + more_db, contrast_db=miss.contrast_db - 0.05
        )
        assert bool(hear(sound, settings)[1]) is fires


def test_one_that_is_far_from_it_is_not_kept() -> None:
    sound = noise()
    rise(sound, 2.0, 2.0)

    assert hear(sound)[0].near_misses == ()


def test_what_fires_is_no_near_miss_and_neither_are_its_front_and_its_echoes() -> None:
    sound = noise()
    rise(sound, 1.99, 3.1)
    rise(sound, 2.0, 30)
    rise(sound, 2.2, 3.1)

    detector, events = hear(sound)

    assert len(events) == 1
    assert detector.near_misses == ()


def test_a_rise_on_too_few_microphones_says_how_many_must_agree() -> None:
    sound = noise()
    rise(sound, 2.0, 30, slice(0, 2))

    detector, events = hear(sound)

    assert events == []
    (miss,) = detector.near_misses
    assert miss.kind == "coincidence"
    assert miss.sentence == "rose enough on 2 of 4 microphones, where 3 must agree"


def test_a_swell_fails_by_its_contrast() -> None:
    sound = noise(channels=1)
    for step in range(40):
        rise(sound, 2.0 + 0.003 * step, 1 + 0.06 * step)
    rise(sound, 2.12, 7)

    (miss,) = hear(sound)[0].near_misses

    assert miss.kind == "contrast"
    assert miss.rise_db > ASKED_DB
    assert "over the 50 ms before where 10.0 are asked" in miss.sentence
    assert "microphones" not in miss.sentence


def test_a_flood_is_grouped_and_the_best_of_each_group_stays() -> None:
    sound = noise(60.0, channels=1)
    for at_s in np.arange(1.0, 59.0, 0.1):
        rise(sound, float(at_s), 2.9)

    misses = hear(sound)[0].near_misses

    assert 0 < len(misses) <= 30
    assert all(b.sample - a.sample >= RATE / 2 for a, b in itertools.pairwise(misses))


def test_one_that_crackles_does_not_drive_out_the_others() -> None:
    sound = noise(90.0)
    rise(sound, 1.0, 3.1)
    for at_s in np.arange(3.0, 89.0, 1.0):
        rise(sound, float(at_s), 30, slice(0, 1))

    kinds = [miss.kind for miss in hear(sound)[0].near_misses]

    assert kinds[0] != "coincidence"
    assert 1 < len(kinds) < 30


def test_what_falls_short_by_a_hair_does_not_look_as_if_it_had_reached_it() -> None:
    miss = ShortOfTrigger(0, "rise", 10.49, 10.5, 12.0, 10.0, 0, 3, 4)

    assert miss.sentence.startswith("rose 10.4 dB over the background where 10.5 are asked")


def test_another_stream_forgets_them() -> None:
    sound = noise()
    rise(sound, 2.0, 3.1)
    detector = Detector(DetectSettings(), RATE, 4)

    detector.push(Block(0, sound.astype(np.float32), RATE))
    assert detector.near_misses
    detector.push(Block(0, sound[:1024].astype(np.float32), RATE, stream=1))

    assert detector.near_misses == ()


class Judge:
    """A classifier that says what it is told to, one after the other."""

    identity = ModelIdentity("judge", "1", "0" * 64, 0.9, 0.55)

    def __init__(self, *judgements: Judgement) -> None:
        self.judgements = list(judgements)

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        return sample_rate_hz // 10, sample_rate_hz // 2

    def judge(self, windows: Iterable[npt.NDArray[np.float32]], sample_rate_hz: int) -> Judgement:
        return self.judgements.pop(0) if len(self.judgements) > 1 else self.judgements[0]

    def verdict(self, scores: Scores) -> Judgement:
        return self.judgements[0]


def judged(grade: Grade, gunfire: float, *, abstained: bool = False) -> Judgement:
    scores = Scores(gunfire, 1 - gunfire, 0.0, 0.0)
    return Judgement(scores, "other" if abstained else "fireworks", abstained, grade)


def through(sound: Sound, *judgements: Judgement, stream_after: bool = False) -> list[NearMiss]:
    pipeline = Pipeline(
        origin=Origin("site", "node", "00000000-0000-4000-8000-000000000000", "0"),
        settings=DetectSettings(),
        clock=RecordingClock(10**18, RATE, ClockQuality(source="free", sigma_s=0.001)),
        classifier=Judge(*judgements),
        sample_rate_hz=RATE,
        channels=sound.shape[1],
    )
    frames = sound.astype(np.float32)
    for first in range(0, len(frames), 4096):
        pipeline.push(Block(first, frames[first : first + 4096], RATE))
    if stream_after:
        pipeline.push(Block(0, frames[:4096], RATE, stream=1))
    else:
        pipeline.flush()
    return list(pipeline.near_misses())


def a_shot(seconds: float = 4.0, at_s: float = 1.0) -> Sound:
    sound = street(np.random.default_rng(2), RATE, seconds, 1, rms=0.001)
    add_blast(sound, RATE, at_s * RATE, 0.5)
    return sound


def test_an_event_that_was_rejected_says_its_score_beside_what_is_asked() -> None:
    (miss,) = through(a_shot(), judged("not_gunfire", 0.312))

    assert isinstance(miss, Rejected)
    assert miss.sentence == "heard, judged fireworks: gunfire 0.31 where 0.55 is asked"
    assert miss.sample == pytest.approx(RATE, abs=50)


def test_an_event_of_no_clear_kind_says_so() -> None:
    (miss,) = through(a_shot(), judged("not_gunfire", 0.549, abstained=True))

    assert miss.kind == "abstained"
    assert miss.sentence == "heard, of no clear kind: gunfire 0.54 where 0.55 is asked"


def test_gunfire_is_no_near_miss() -> None:
    assert through(a_shot(), judged("gunfire", 0.95)) == []


def test_one_that_a_later_round_makes_gunfire_is_taken_back() -> None:
    sound = a_shot()
    add_blast(sound, RATE, 1.8 * RATE, 0.5)

    assert through(sound, judged("not_gunfire", 0.3), judged("gunfire", 0.95)) == []


def test_a_late_echo_says_how_late_and_how_weak_it_was() -> None:
    sound = street(np.random.default_rng(2), RATE, 6.0, 1, rms=0.001)
    rng = np.random.default_rng(3)
    for at_s, peak in ((1.0, 0.5), (2.0, 0.1)):
        tail = np.exp(-np.arange(RATE // 10) / 800) * rng.standard_normal(RATE // 10)
        sound[round(at_s * RATE) :][: RATE // 10, 0] += peak * tail

    (miss,) = through(sound, judged("gunfire", 0.95))

    assert isinstance(miss, PutDownToEcho)
    assert miss.of_sample == pytest.approx(RATE, abs=50)
    assert miss.sentence.startswith("heard, taken for an echo: 1.0 s after a shot and 1")


def test_they_come_in_order_and_at_most_a_hundred() -> None:
    sound = street(np.random.default_rng(2), RATE, 120.0, 1, rms=0.001)
    for at_s in np.arange(1.0, 118.0, 2.0):
        add_blast(sound, RATE, float(at_s) * RATE, 0.5)

    misses = through(sound, judged("not_gunfire", 0.1))

    assert 50 < len(misses) <= 100
    assert [m.sample for m in misses] == sorted(m.sample for m in misses)
    assert misses[-1].sample > 115 * RATE


def test_what_was_rejected_is_forgotten_with_its_stream() -> None:
    assert through(a_shot(), judged("not_gunfire", 0.3), stream_after=True) == []
