"""The detector: blocks in, closed events out.

Sound is judged in steps of 0.1 s, counted from the first sample after a start or a gap, never by
blocks; so the answer is the same whatever the blocks were. A step is judged as soon as it is
whole and the little is known that must be known of what comes after it.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect.events import LEAD_S, EventGrouper
from node.detect.floor import PRIME_S, Floor, to_db
from node.detect.levels import BIN_S, HighPass, Mask, Power, bin_frames
from node.detect.near import NEAR_DB, ShortOfTrigger, ShortRises
from node.detect.onset import (
    AFTER_S,
    BEFORE_S,
    CROSSING_S,
    Pick,
    choose_pick,
    onset_sigma_s,
    pick_onset,
    unheard_onset_sigma_s,
)
from node.detect.stretch import Stretch
from node.detect.trigger import (
    LEVEL_BINS,
    PAST_BINS,
    coincident,
    history_bins,
    level_power,
    past_power,
    spread_bins,
)
from node.settings import DetectSettings
from node.types import Block, Event, Impulse

STEP_BINS: Final = round(0.1 / BIN_S)
PRIME_BINS: Final = round(PRIME_S / BIN_S)

# The peak of an impulse is sought for so long after the bin that fired.
PEAK_S: Final = 0.02
AHEAD_BINS: Final = round((PEAK_S + 0.005) / BIN_S)

# Firing bins closer than this are one impulse (signal.md §6).
MERGE_S: Final = 0.01

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
    crossing_s
        How long sound takes across the array; less than `CROSSING_S` is taken for that.
    """

    def __init__(
        self,
        settings: DetectSettings,
        sample_rate_hz: int,
        channels: int,
        *,
        crossing_s: float = CROSSING_S,
    ) -> None:
        self._settings = settings
        self._rate = sample_rate_hz
        self._channels = channels
        self._crossing_s = max(CROSSING_S, crossing_s)
        self._spread = spread_bins(self._crossing_s)
        self._history = history_bins(self._spread)
        # The first bin that fires may come before the first arrival, and the last one after it, by
        # a crossing each.
        self._longer_s = 2 * (self._crossing_s - CROSSING_S)
        self._ahead = AHEAD_BINS + math.ceil(self._longer_s / BIN_S)
        self._bin = bin_frames(sample_rate_hz)
        self._high_pass = HighPass(sample_rate_hz, channels)
        self._floor = Floor(channels)
        self._events = EventGrouper(
            round(settings.gap_s * sample_rate_hz),
            round(settings.event_s * sample_rate_hz),
            round(LEAD_S * sample_rate_hz),
        )
        self._short = ShortRises(settings, sample_rate_hz)
        self._stretch: Stretch | None = None
        self._stream = 0
        self._next_sample = 0
        self._fired_sample: int | None = None  # where the last bin that fired begins

    @property
    def floor_dbfs(self) -> tuple[float | None, ...]:
        """The background of each channel in the trigger band; None where none is known."""
        levels = zip(self._floor.level_db.tolist(), self._floor.known.tolist(), strict=True)
        return tuple(level if known else None for level, known in levels)

    @property
    def near_misses(self) -> tuple[ShortOfTrigger, ...]:
        """The latest rises that fell short of the trigger, the newest last."""
        return self._short.latest

    @property
    def open_since(self) -> float | None:
        """The first onset, in samples, of the event that is still open; None where none is."""
        return self._events.first_onset

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
        stretch, events = self._follow(block)
        x = block.samples()
        if not np.isfinite(x).all():
            x = np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=-1.0)
        stretch.append(x)
        self._next_sample = block.end_sample
        stretch.measure(STEP_BINS)
        while self._can_judge(stretch):
            events += self._judge(stretch, STEP_BINS)
        return events

    def flush(self) -> list[Event]:
        """End the stream: judge what is left and give the last events."""
        return self._restart()

    def _follow(self, block: Block) -> tuple[Stretch, list[Event]]:
        """Say which stretch a block belongs to; end the one before where it does not follow."""
        missing = block.first_sample - self._next_sample
        lost = max(missing, block.lost_before)
        if self._stretch is None:
            return self._begin(block, np.zeros(self._channels)), []
        if block.stream != self._stream or missing < 0:
            events = self._restart()
            self._short.forget()
            if block.lost_before > 0:
                self._events.lose(block.first_sample, block.lost_before)
            return self._begin(block, np.zeros(self._channels)), events
        if lost == 0:
            return self._stretch, []
        events = self._end_stretch()
        self._events.lose(block.first_sample, lost)
        return self._begin(block, self._stretch.recent_power(), lost), events

    def _begin(
        self, block: Block, past: npt.NDArray[np.float64], unheard: float = math.inf
    ) -> Stretch:
        """Begin a stretch after so many frames that were not heard."""
        self._stream = block.stream
        self._stretch = Stretch(
            block.first_sample, self._bin, self._high_pass, past, self._history, unheard
        )
        return self._stretch

    def _restart(self) -> list[Event]:
        """Close all: what comes next has nothing to do with what was."""
        events = self._end_stretch() + self._events.restart()
        self._floor.forget()
        self._stretch = None
        self._fired_sample = None
        return events

    def _end_stretch(self) -> list[Event]:
        """Judge what is left of a stretch."""
        events: list[Event] = []
        if self._stretch is not None:
            self._stretch.measure_rest()
            while self._stretch.judged < len(self._stretch.power):
                left = len(self._stretch.power) - self._stretch.judged
                events += self._judge(self._stretch, min(STEP_BINS, left))
        return events

    def _can_judge(self, stretch: Stretch) -> bool:
        end = stretch.judged + STEP_BINS
        if len(stretch.power) < end + self._ahead:
            return False
        unheard = self._unheard(stretch, end).any()
        return not unheard or len(stretch.power) >= end + PRIME_BINS

    def _unheard(self, stretch: Stretch, end: int) -> npt.NDArray[np.bool_]:
        """Say which channels come alive in the bins to be judged, and have no floor yet."""
        return np.asarray(~self._floor.known & stretch.live[stretch.judged : end].any(axis=0))

    def _judge(self, stretch: Stretch, bins: int) -> list[Event]:
        """Judge the next bins, against the floor as it was before them."""
        first = stretch.judged
        end = first + bins
        unheard = self._unheard(stretch, end)
        if unheard.any():
            seen = slice(first, end + PRIME_BINS)
            self._floor.prime(stretch.power[seen], stretch.live[seen] & unheard)
        # A vote may come a crossing earlier or later than the others; and the first bin that fires
        # is as early as the votes of the majority allow, so that who hears last, which may be
        # channel 0, fires up to as long again after it.
        spread = self._spread
        begin, stop = first - spread, min(len(stretch.power), end + 2 * spread)
        seen = slice(begin, stop + LEVEL_BINS - 1)
        level, alive = level_power(stretch.power[seen], stretch.live[seen])
        level_db = to_db(level[: stop - begin])
        alive = alive[: stop - begin] & self._floor.known
        rise = level_db - self._floor.level_db - self._settings.threshold_db
        inner = slice(first - begin, end - begin)
        events: list[Event] = []
        # Seldom; what follows is most of the work. What falls just short is told if asked for.
        least_db = 0.0 if self._events.first_onset is not None else -NEAR_DB
        if (rise >= least_db).any():
            contrast = self._contrast(stretch, level_db, begin)
            margin = np.minimum(rise, contrast)
            agreed = coincident(margin, alive, spread)
            fired = np.flatnonzero(agreed[inner] >= 0) + spread
            for i in fired.tolist():
                near = slice(i - spread, i + 2 * spread + 1)
                firing = ((margin[near] >= 0) & alive[near]).any(axis=0)
                events += self._fire(stretch, begin + i, firing)
            if self._events.first_onset is None:  # else it is part of an event
                near = slice(0, inner.stop + spread)
                at = stretch.start + begin * self._bin
                self._short.look(
                    rise[near], contrast[near], alive[near], agreed[near], spread, at, self._bin
                )
        self._floor.learn(level_db[inner], alive[inner])
        stretch.judged = end
        events += self._events.advance(stretch.start + end * self._bin)
        stretch.forget(keep_bins=self._history + STEP_BINS)
        return events

    def _contrast(self, stretch: Stretch, level_db: Power, begin: int) -> Power:
        """Give by how much levels from bin `begin` on exceed the contrast asked for."""
        seen = slice(begin - PAST_BINS, begin + len(level_db))
        floor_power = 10 ** (self._floor.level_db / 10)
        past = past_power(stretch.power[seen], stretch.live[seen], floor_power)
        return np.asarray(level_db - to_db(past) - self._settings.contrast_db)

    def _fire(self, stretch: Stretch, fired: int, firing: Mask) -> list[Event]:
        """Take a bin that fired on some channels: the next impulse, or still the one before."""
        at_sample = stretch.start + fired * self._bin
        before = self._fired_sample
        self._fired_sample = at_sample
        self._short.fired(at_sample)
        if before is not None and at_sample - before <= MERGE_S * self._rate:
            return []
        oldest = 0 if before is None else before + self._bin - stretch.start
        return self._events.add(self._impulse(stretch, fired, max(0, oldest), firing))

    def _impulse(self, stretch: Stretch, fired: int, oldest: int, firing: Mask) -> Impulse:
        """Measure the impulse that fired at a bin on some channels, begun not before `oldest`."""
        at = fired * self._bin
        first = max(oldest, stretch.heard_from, at - round(BEFORE_S * self._rate))
        pick = Pick(0.0, BEFORE_S * self._rate)  # it was there when we began to listen
        if at > stretch.heard_from:
            window = stretch.filtered[
                first : at + round((AFTER_S + self._longer_s) * self._rate), firing
            ]
            picks = [pick_onset(y, self._rate) for y in window.T]
            pick = choose_pick(picks, bool(firing[0]), self._crossing_s * self._rate)
        onset = first + pick.sample
        after = slice(int(onset), at + round((PEAK_S + self._longer_s) * self._rate))
        loudest = float(np.abs(stretch.raw[after]).max())
        in_band = np.abs(stretch.filtered[after, firing]).max(axis=0)
        snr_db = float((2 * to_db(in_band) - self._floor.level_db[firing]).max())
        sigma_s = onset_sigma_s(pick.sigma / self._rate, snr_db)
        if first == stretch.heard_from:
            sigma_s = math.hypot(sigma_s, unheard_onset_sigma_s(stretch.unheard / self._rate))
        return Impulse(
            onset_sample=stretch.start + onset,
            sigma_samples=sigma_s * self._rate,
            snr_db=snr_db,
            peak_dbfs=20 * math.log10(max(loudest, 1e-10)),
            clipped=loudest >= RAIL,
        )
