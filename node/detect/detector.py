"""The detector: blocks in, closed events out.

Samples are cut into steps of 0.1 s, counted from the first sample after a start or a gap, never
by blocks; so the answer is the same whatever the blocks were. A step is filtered as soon as it is
whole, and judged as soon as what comes just after it is known too.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect.events import LEAD_S, EventGrouper
from node.detect.floor import PRIME_S, Floor, to_db
from node.detect.levels import BIN_S, HighPass, Mask, Power, Samples, bin_frames, bin_power
from node.detect.onset import AFTER_S, BEFORE_S, pick_onset
from node.detect.trigger import PAST_BINS, coincident, level_power, past_power
from node.settings import DetectSettings
from node.types import Block, Event, Impulse

STEP_BINS: Final = round(0.1 / BIN_S)
PRIME_BINS: Final = round(PRIME_S / BIN_S)

# The peak of an impulse is sought for so long after its onset; the judgement waits for it.
PEAK_S: Final = 0.02
AHEAD_BINS: Final = round(0.03 / BIN_S)

# Firing bins closer than this are one impulse (signal.md §6).
MERGE_BINS: Final = round(0.01 / BIN_S)

# µ-law, common in surveillance recorders, ends at 0.98 of full scale.
RAIL: Final = 0.98


class Detector:
    """Finds impulses in a stream and groups them into events.

    Parameters
    ----------
    settings
        Thresholds and grouping.
    sample_rate_hz
        Rate of every block that will be pushed.
    channels
        Channels of every block that will be pushed.
    """

    def __init__(self, settings: DetectSettings, sample_rate_hz: int, channels: int) -> None:
        self._settings = settings
        self._rate = sample_rate_hz
        self._channels = channels
        self._bin = bin_frames(sample_rate_hz)
        self._high_pass = HighPass(sample_rate_hz, channels)
        self._floor = Floor(channels)
        self._events = EventGrouper(
            round(settings.gap_s * sample_rate_hz),
            round(settings.event_s * sample_rate_hz),
            round(LEAD_S * sample_rate_hz),
        )
        self._stream: int | None = None
        self._next_sample = 0
        self._start = 0  # index of _raw[0], a whole number of bins after the stretch's first
        self._raw: Samples
        self._filtered: Samples
        self._power: Power
        self._live: Mask
        self._begin(0)

    def push(self, block: Block) -> list[Event]:
        """Take the next block and give the events that it closed, in order.

        Raises
        ------
        ValueError
            The block has another rate or another number of channels than the detector.
        """
        if block.sample_rate_hz != self._rate or block.frames.shape[1:] != (self._channels,):
            raise ValueError(
                f"a detector for {self._channels} channels at {self._rate} Hz got a block of shape "
                f"{block.frames.shape} at {block.sample_rate_hz} Hz; make one for each format"
            )
        events = self._join(block)
        x = block.samples()
        if not np.isfinite(x).all():
            x = np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=-1.0)
        self._raw = np.concatenate((self._raw, x))
        self._next_sample = block.end_sample
        return events + self._work(ended=False)

    def flush(self) -> list[Event]:
        """End the stream: judge what is left and give the last events."""
        events = self._work(ended=True) + self._events.close()
        self._stream = None
        return events

    def _join(self, block: Block) -> list[Event]:
        """Say how a block follows the one before; end a stretch where it does not."""
        if self._stream is None:
            self._floor.forget()
            self._begin(block.first_sample)
            self._stream = block.stream
            return []
        missing = block.first_sample - self._next_sample
        if block.stream == self._stream and missing == 0 and block.lost_before == 0:
            return []
        events = self._work(ended=True)
        if block.stream != self._stream or missing < 0:
            events += self._events.close()
            self._floor.forget()
        lost = max(missing, block.lost_before)
        if lost > 0:
            self._events.lose(block.first_sample, lost)
        self._stream = block.stream
        self._begin(block.first_sample)
        return events

    def _begin(self, first_sample: int) -> None:
        """Begin a stretch of unbroken samples."""
        self._start = first_sample
        self._raw = np.zeros((0, self._channels), dtype=np.float32)
        self._filtered = np.zeros((0, self._channels), dtype=np.float32)
        self._power = np.zeros((0, self._channels))
        self._live = np.zeros((0, self._channels), dtype=bool)
        self._judged = 0  # bins of _power that are judged
        self._fired = -MERGE_BINS - 1  # the last bin that fired
        self._high_pass.reset()

    def _work(self, *, ended: bool) -> list[Event]:
        self._measure(ended=ended)
        events: list[Event] = []
        while self._judged < len(self._power):
            step = min(STEP_BINS, len(self._power) - self._judged)
            if not ended and len(self._power) < self._judged + STEP_BINS + self._wanted_ahead():
                break
            events += self._judge(self._judged, self._judged + step)
            events += self._events.advance(self._start + self._judged * self._bin)
            self._trim()
        return events

    def _measure(self, *, ended: bool) -> None:
        """Filter every whole step, and at the end of a stretch the rest."""
        step = STEP_BINS * self._bin
        at = len(self._filtered)
        parts: list[tuple[Samples, Power, Mask]] = []
        while True:
            left = len(self._raw) - at
            if left < step + self._high_pass.dead_frames:
                if not ended:
                    break
                step = min(step, left // self._bin * self._bin)
                if step == 0:
                    break
            y, dead = self._high_pass.filter(self._raw[at : at + step], self._raw[at + step :])
            parts.append((y, *bin_power(y, dead, self._bin)))
            at += step
        if parts:
            self._filtered = np.concatenate((self._filtered, *(part[0] for part in parts)))
            self._power = np.concatenate((self._power, *(part[1] for part in parts)))
            self._live = np.concatenate((self._live, *(part[2] for part in parts)))

    def _wanted_ahead(self) -> int:
        step = self._live[self._judged : self._judged + STEP_BINS]
        return PRIME_BINS if (step.any(axis=0) & ~self._floor.known).any() else AHEAD_BINS

    def _judge(self, first: int, end: int) -> list[Event]:
        seen = slice(first, end + PRIME_BINS)
        db = to_db(self._power[seen])
        if not self._floor.known.all() and self._live[first:end].any():
            self._floor.prime(db, self._live[seen])
        floor_db = self._floor.level_db
        # one more step of look-ahead, so that a neighbour's vote is in time at the seam
        stop = min(end + 4, len(self._power))
        begin = max(0, first - PAST_BINS - 4)
        inner = max(0, first - 4)
        power, live = self._power[begin:stop], self._live[begin:stop]
        level = to_db(level_power(power, live))[inner - begin :]
        past = to_db(past_power(power, live, 10 ** (floor_db / 10), inner - begin))
        margin = np.minimum(
            level - floor_db - self._settings.threshold_db,
            level - past - self._settings.contrast_db,
        )
        agreed = coincident(margin, live[inner - begin :] & self._floor.known)
        events: list[Event] = []
        fired = np.flatnonzero(agreed[first - inner : end - inner] >= 0) + first
        for i in fired.tolist():
            if i - self._fired > MERGE_BINS:
                events += self._events.add(self._impulse(i, margin[i - inner]))
            self._fired = i
        self._floor.learn(db[: end - first], self._live[first:end])
        self._judged = end
        return events

    def _impulse(self, fired: int, margin: npt.NDArray[np.float64]) -> Impulse:
        """Measure the impulse that fired at a bin."""
        channel = 0 if margin[0] >= 0 else int(np.argmax(margin))
        at = fired * self._bin
        first = max(0, at - round(BEFORE_S * self._rate), (self._fired + 1) * self._bin)
        last = min(len(self._filtered), at + round(AFTER_S * self._rate))
        window = self._filtered[first:last, channel]
        pick = pick_onset(window[: int(np.argmax(np.abs(window))) + 1])
        peak_end = min(len(self._filtered), at + round(PEAK_S * self._rate))
        loudest = float(np.abs(self._raw[first:peak_end]).max())
        in_band = float(np.abs(self._filtered[first:peak_end, channel]).max())
        return Impulse(
            onset_sample=self._start + first + pick.sample,
            sigma_samples=pick.sigma,
            snr_db=20 * float(np.log10(max(in_band, 1e-10))) - float(self._floor.level_db[channel]),
            peak_dbfs=20 * float(np.log10(max(loudest, 1e-10))),
            clipped=loudest >= RAIL,
        )

    def _trim(self) -> None:
        """Forget what no later judgement can ask for."""
        keep = PAST_BINS + STEP_BINS
        surplus = self._judged - keep
        if surplus < STEP_BINS:
            return
        frames = surplus * self._bin
        self._raw = self._raw[frames:]
        self._filtered = self._filtered[frames:]
        self._power = self._power[surplus:]
        self._live = self._live[surplus:]
        self._judged -= surplus
        self._fired = max(self._fired - surplus, -MERGE_BINS - 1)
        self._start += frames
