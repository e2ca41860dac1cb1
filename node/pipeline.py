"""The pure middle: blocks in, detections out; live, replay and the tests all run this very code.

No I/O, no threads, no wall clock. `push` hands a block to the clock and the detector, keeps the
last seconds of sound, and once the sound after an event's last impulse has arrived, has it judged
and builds the message. What comes out goes to the outbox (live) or to a line of JSON (replay).
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect import Detector
from node.messages import Detection, Origin, build_detection
from node.settings import DetectSettings
from node.types import Block, Classifier, Event, SampleClock

# An urban shot brings dozens of echoes. The strongest few tell what it was; judging them all would
# make the cost of an event depend on the street.
MAX_WINDOWS: Final = 6


class History:
    """The last seconds of sound, by sample index; frames that were lost read as zeros.

    Parameters
    ----------
    seconds
        How much to keep.
    sample_rate_hz, channels
        Of the stream.
    """

    def __init__(self, seconds: float, sample_rate_hz: int, channels: int) -> None:
        self._keep = math.ceil(seconds * sample_rate_hz)
        self._channels = channels
        self._blocks: deque[Block] = deque()

    @property
    def end_sample(self) -> int:
        """Index of the frame after the last one that was pushed."""
        return self._blocks[-1].end_sample if self._blocks else 0

    def push(self, block: Block) -> None:
        """Take a block in, and let go of what is too old."""
        self._blocks.append(block)
        oldest = block.end_sample - self._keep
        while self._blocks[0].end_sample <= oldest:
            self._blocks.popleft()

    def window(self, first_sample: int, end_sample: int) -> npt.NDArray[np.float32]:
        """Give frames [first_sample, end_sample) as float32, full scale 1, shape [n, channels]."""
        out = np.zeros((end_sample - first_sample, self._channels), dtype=np.float32)
        for block in self._blocks:
            begin = max(first_sample, block.first_sample)
            end = min(end_sample, block.end_sample)
            if begin < end:
                inside = slice(begin - block.first_sample, end - block.first_sample)
                out[begin - first_sample : end - first_sample] = block.samples(inside)
        return out


class Pipeline:
    """From blocks of sound to detections.

    Parameters
    ----------
    origin
        Who hears: site, node, boot, position.
    settings
        When a sound is an impulse and which impulses are one event.
    clock
        Maps the sample counter to UTC; it learns from every block that is pushed.
    classifier
        Judges the sound round each impulse.
    sample_rate_hz, channels
        Of the blocks to come.
    """

    def __init__(
        self,
        *,
        origin: Origin,
        settings: DetectSettings,
        clock: SampleClock,
        classifier: Classifier,
        sample_rate_hz: int,
        channels: int,
    ) -> None:
        self._origin = origin
        self._clock = clock
        self._classifier = classifier
        self._rate = sample_rate_hz
        self._channels = channels
        self._detector = Detector(settings, sample_rate_hz, channels)
        self._before, self._after = classifier.window(sample_rate_hz)
        window_s = (self._before + self._after) / sample_rate_hz
        # An event is handed on when its gap has passed, so the oldest frame still wanted is a
        # whole event, its gap and a window old; a second more for blocks and the detector's delay.
        kept_s = settings.event_s + settings.gap_s + 2 * window_s + 1.0
        self._history = History(kept_s, sample_rate_hz, channels)
        self._waiting: deque[Event] = deque()

    def push(self, block: Block) -> list[Detection]:
        """Take the next block; give the detections that it completes, in order of onset."""
        self._clock.observe_block(block)
        self._history.push(block)
        self._waiting.extend(self._detector.push(block))
        detections = []
        while self._waiting and self._heard_out(self._waiting[0]):
            detections.append(self._judge(self._waiting.popleft()))
        return detections

    def flush(self) -> list[Detection]:
        """Give what is still open; the stream has ended."""
        self._waiting.extend(self._detector.flush())
        detections = [self._judge(event) for event in self._waiting]
        self._waiting.clear()
        return detections

    def _heard_out(self, event: Event) -> bool:
        wanted = event.impulses[-1].onset_sample + self._after
        return self._history.end_sample >= wanted

    def _judge(self, event: Event) -> Detection:
        strongest = sorted(event.impulses, key=lambda impulse: -impulse.snr_db)[:MAX_WINDOWS]
        strongest.sort(key=lambda impulse: impulse.onset_sample)
        windows = []
        for impulse in strongest:
            onset = math.floor(impulse.onset_sample)
            windows.append(self._history.window(onset - self._before, onset + self._after))
        return build_detection(
            origin=self._origin,
            event=event,
            instants=[self._clock.at(impulse.onset_sample) for impulse in event.impulses],
            clock=self._clock.quality(),
            judgement=self._classifier.judge(windows, self._rate),
            model=self._classifier.identity,
            sample_rate_hz=self._rate,
            channels=self._channels,
        )
