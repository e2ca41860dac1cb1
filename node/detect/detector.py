"""The detector: blocks in, closed events out.

Samples are cut into steps of 0.1 s, counted from the first sample after a start or a gap, never
by blocks; so the answer is the same whatever the blocks were. A step is filtered as soon as it is
whole, and judged as soon as what comes just after it is known too.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect.events import LEAD_S, EventGrouper
from node.detect.floor import PRIME_S, Floor, to_db
from node.detect.levels import BIN_S, HighPass, Mask, Power, Samples, bin_frames, bin_power
from node.detect.onset import AFTER_S, BEFORE_S, onset_sigma_s, pick_onset
from node.detect.trigger import (
    LEVEL_BINS,
    PAST_BINS,
    SPREAD_BINS,
    coincident,
    level_power,
    past_power,
)
from node.settings import DetectSettings
from node.types import Block, Event, Impulse

STEP_BINS: Final = round(0.1 / BIN_S)
PRIME_BINS: Final = round(PRIME_S / BIN_S)

# The peak of an impulse is sought for so long after its onset; the judgement waits for it.
PEAK_S: Final = 0.02
AHEAD_BINS: Final = round(0.03 / BIN_S)

# Firing bins closer than this are one impulse (signal.md §6).
MERGE_BINS: Final = round(0.01 / BIN_S)

# Channels of one array hear an arrival within so long; one whose pick is further off than that from
# the others' median heard something else.
CROSSING_S: Final = 0.001

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
        events = self._work(ended=True) + self._events.restart()
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
            events += self._events.restart()
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
        self._fresh = True  # _raw[0] is the first sample of the stretch
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
        """Filter every whole step, and at the end of a stretch every whole bin."""
        at = len(self._filtered)
        whole = self._bin if ended else STEP_BINS * self._bin
        left = len(self._raw) - at - (0 if ended else self._high_pass.dead_frames)
        end = at + max(0, left) // whole * whole
        if end == at:
            return
        y, dead = self._high_pass.filter(self._raw[at:end], self._raw[end:])
        power, live = bin_power(y, dead, self._bin)
        self._filtered = np.concatenate((self._filtered, y))
        self._power = np.concatenate((self._power, power))
        self._live = np.concatenate((self._live, live))

    def _wanted_ahead(self) -> int:
        unheard = self._unheard(self._judged, self._judged + STEP_BINS)
        return PRIME_BINS if unheard.any() else AHEAD_BINS

    def _unheard(self, first: int, end: int) -> npt.NDArray[np.bool_]:
        """Say which channels come alive in these bins and have no floor yet."""
        return np.asarray(~self._floor.known & self._live[first:end].any(axis=0))

    def _judge(self, first: int, end: int) -> list[Event]:
        """Judge the bins from `first` to `end` against the floor as it was before them."""
        unheard = self._unheard(first, end)
        if unheard.any():
            seen = slice(first, end + PRIME_BINS)
            self._floor.prime(self._power[seen], self._live[seen] & unheard)
        begin, stop = max(0, first - SPREAD_BINS), min(len(self._power), end + SPREAD_BINS)
        seen = slice(begin, stop + LEVEL_BINS - 1)
        level, alive = level_power(self._power[seen], self._live[seen])
        level_db = to_db(level[: stop - begin])
        alive = alive[: stop - begin] & self._floor.known
        rise = level_db - self._floor.level_db - self._settings.threshold_db
        events: list[Event] = []
        if (rise >= 0).any():  # seldom; the rest of the work is for these steps alone
            margin = np.minimum(rise, self._contrast(level_db, begin))
            fired = np.flatnonzero(coincident(margin, alive)[first - begin : end - begin] >= 0)
            for i in (fired + first - begin).tolist():
                near = slice(max(0, i - SPREAD_BINS), i + SPREAD_BINS + 1)
                firing = ((margin[near] >= 0) & alive[near]).any(axis=0)
                events += self._fire(begin + i, firing)
        self._floor.learn(level_db[first - begin : end - begin], alive[first - begin : end - begin])
        self._judged = end
        return events

    def _contrast(self, level_db: Power, begin: int) -> Power:
        """Give by how much levels from bin `begin` on exceed the contrast asked for."""
        oldest = max(0, begin - PAST_BINS)
        seen = slice(oldest, begin + len(level_db))
        floor_power = 10 ** (self._floor.level_db / 10)
        past = past_power(self._power[seen], self._live[seen], floor_power, begin - oldest)
        return np.asarray(level_db - to_db(past) - self._settings.contrast_db)

    def _fire(self, fired: int, firing: npt.NDArray[np.bool_]) -> list[Event]:
        """Take a bin that fired on some channels: the next impulse, or still the one before."""
        events: list[Event] = []
        if fired - self._fired > MERGE_BINS:
            events = self._events.add(self._impulse(fired, firing))
        self._fired = fired
        return events

    def _impulse(self, fired: int, firing: npt.NDArray[np.bool_]) -> Impulse:
        """Measure the impulse that fired at a bin, on some of the channels."""
        at = fired * self._bin
        first = max(0, at - round(BEFORE_S * self._rate), (self._fired + 1) * self._bin)
        last = at + round(AFTER_S * self._rate)
        channels = np.flatnonzero(firing).tolist()
        picks = [pick_onset(self._filtered[first:last, channel]) for channel in channels]
        middle = float(np.median([pick.sample for pick in picks]))
        sample, sigma_s = middle, CROSSING_S / 2
        if channels[0] == 0 and abs(picks[0].sample - middle) <= CROSSING_S * self._rate:
            sample, sigma_s = picks[0].sample, picks[0].sigma / self._rate
        onset = first + sample
        after = slice(int(onset), at + round(PEAK_S * self._rate))
        loudest = float(np.abs(self._raw[after]).max())
        snr_db = max(
            _decibels(float(np.abs(self._filtered[after, channel]).max()))
            - float(self._floor.level_db[channel])
            for channel in channels
        )
        sigma_s = onset_sigma_s(sigma_s, snr_db)
        if onset < self._bin and self._fresh:
            sigma_s = max(sigma_s, BEFORE_S)  # it may have begun before we listened
        return Impulse(
            onset_sample=self._start + onset,
            sigma_samples=sigma_s * self._rate,
            snr_db=snr_db,
            peak_dbfs=_decibels(loudest),
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
        self._fresh = False


def _decibels(amplitude: float) -> float:
    return 20 * math.log10(max(amplitude, 1e-10))
