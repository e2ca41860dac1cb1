"""The card that plays a street as fast as it is read, and the host's clocks that go by it.

The card never waits, and so none of its samples is ever lost: how long the node kept it waiting is
told instead. Its crystal runs fast, its stamps are late by a little, a pulse stands in the channel
after the microphones. The host's monotonic clock shows the moment at which the newest block would
have come, so that all of the node that goes by it lives through every simulated second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final, Self

import numpy as np

from node.timing.host import FREE
from node.types import NS_PER_S, Block, ClockQuality, HostReading
from tests.hil.soak.library import PPM, Pcm
from tests.hil.soak.street import HOUR_S, Placed, Street, Trouble

BLOCK: Final = 16384
"""As where a machine does much else (`capture.block_frames`)."""
FADE_S: Final = 1.0
LATE_S: Final = 80e-6
"""Mean by which the host stamps a block late."""
TRANSFER_S: Final = 3e-3
"""From a block's end until the host has it."""
WIDTH_NS: Final = 200
BOOTED_NS: Final = 30 * NS_PER_S
"""CLOCK_MONOTONIC at the card's first sample."""
NTP: Final = ClockQuality("ntp", 2e-3, 6e-3)


def true_rate_hz(nominal_hz: int) -> float:
    """Give what the card's crystal makes of its rate."""
    return nominal_hz * (1 + PPM * 1e-6)


class StreetClock:
    """The host's clocks, read by the daemon; moved on by the card.

    Parameters
    ----------
    start_utc_ns
        UTC of the card's first sample: a whole second, since the pulse goes by it.
    troubles
        Of the street; its steps and the stretches in which nobody disciplines it are made here.
    """

    def __init__(self, start_utc_ns: int, troubles: list[Trouble]) -> None:
        self._offset_ns = start_utc_ns - BOOTED_NS
        self._steps = [t for t in troubles if t.kind == "clock stepped"]
        self._adrift = [t for t in troubles if t.kind == "clock adrift"]
        self.now_ns = BOOTED_NS

    def monotonic(self) -> float:
        """Give the time in s, as `time.monotonic` would."""
        return self.now_ns / NS_PER_S

    def read(self) -> HostReading:
        """Read both clocks and the discipline."""
        at_s = (self.now_ns - BOOTED_NS) / NS_PER_S
        off_s = sum(step.by_s for step in self._steps if step.at_s <= at_s < step.end_s)
        adrift = any(trouble.at_s <= at_s < trouble.end_s for trouble in self._adrift)
        return HostReading(
            self.now_ns,
            self._offset_ns + round(off_s * NS_PER_S),
            WIDTH_NS,
            FREE if adrift else NTP,
        )


class StreetCard:
    """The street as a source of blocks.

    Parameters
    ----------
    street
        What it plays.
    clock
        What it moves on.
    tell
        Told after each minute of the street: how many seconds were heard, and the longest that the
        node has kept the card waiting in it, in s of real time.
    """

    device_name = "a street"

    def __init__(
        self,
        street: Street,
        clock: StreetClock,
        tell: Callable[[float, float], None],
    ) -> None:
        self._street = street
        self._clock = clock
        self._tell = tell
        self._rate = street.library.sample_rate_hz
        self._rng = np.random.default_rng([street.seed, 4])
        self._pulses = street.library.open_pulses()
        self._without = [t for t in street.troubles() if t.kind == "pulse away"]
        self._closed = False

    @property
    def sample_rate_hz(self) -> int:
        return self._rate

    @property
    def channels(self) -> int:
        return self._street.library.microphones + 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End `blocks`."""
        self._closed = True

    def blocks(self) -> Iterator[Block]:
        """Yield the street."""
        rate_hz, told, waited_s = true_rate_hz(self._rate), 0, 0.0
        mixer = Mixer(self._street)
        for first in range(0, int(self._street.seconds * self._rate), BLOCK):
            if self._closed:
                break
            end = first + BLOCK
            frames = np.column_stack((mixer.frames(first, BLOCK), self._pulse(first)))
            late_ns = round(self._rng.exponential(LATE_S) * NS_PER_S)
            stamp_ns = BOOTED_NS + round(first * NS_PER_S / rate_hz) + late_ns
            self._clock.now_ns = BOOTED_NS + round((end / rate_hz + TRANSFER_S) * NS_PER_S)
            given_s = time.monotonic()
            yield Block(first, frames, self._rate, stamp_ns)
            waited_s = max(waited_s, time.monotonic() - given_s)
            if end // (60 * self._rate) > told:
                told = end // (60 * self._rate)
                self._tell(end / self._rate, waited_s)
                waited_s = 0.0
        mixer.close()
        self._pulses.close()

    def _pulse(self, first: int) -> Pcm:
        loop = self._street.library.pulse_frames
        pulses = self._pulses.read(first % loop, BLOCK)
        if len(pulses) < BLOCK:
            pulses = np.concatenate((pulses, self._pulses.read(0, BLOCK - len(pulses))))
        at_s = first / self._rate
        away = any(trouble.at_s <= at_s < trouble.end_s for trouble in self._without)
        return np.zeros_like(pulses) if away else pulses


class Mixer:
    """Puts a street's sound together, from its first sample on."""

    def __init__(self, street: Street) -> None:
        self._street = street
        self._library = street.library
        self._rate = street.library.sample_rate_hz
        self._file = street.library.open()
        self._hour = -1
        self._waiting: list[Placed] = []
        self._minute = -1
        self._bed = self._before = (0, 0)

    def close(self) -> None:
        """Close the library."""
        self._file.close()

    def frames(self, first: int, frames: int) -> Pcm:
        """Give the next frames, shape [n, microphones], 24 bits in the upper bits."""
        minute, hour = first // (60 * self._rate), first // (HOUR_S * self._rate)
        if minute != self._minute:
            self._before = self._bed
            self._minute, self._bed = minute, self._street.bed(minute)
        if hour != self._hour:
            self._hour = hour
            self._waiting += self._street.sounds(hour)
        gain = np.float32(10 ** (self._street.gain_db(first / self._rate) / 20))
        mixed = self._noise(first, frames) * gain
        self._add_sounds(mixed, first)
        # A converter of 24 bits: what is less than a step of it is not there.
        return np.clip(mixed, -(2.0**31), 2.0**31 - 256).astype(np.int32) & np.int32(-256)

    def _noise(self, first: int, frames: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        into = first - self._minute * 60 * self._rate
        noise = self._stretch(self._bed, into, frames)
        fade = round(FADE_S * self._rate)
        if self._minute and into < fade:
            # Of equal power: the two have nothing to do with each other.
            share = np.clip(np.arange(into, into + frames) / fade, 0, 1).astype(np.float32)[:, None]
            before = self._stretch(self._before, into + 60 * self._rate, frames)
            noise = noise * np.sqrt(share) + before * np.sqrt(1 - share)
        return noise

    def _stretch(
        self, bed: tuple[int, int], into: int, frames: int
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        number, start = bed
        at = self._library.beds[number].first + start + into
        return self._file.read(at, frames).astype(np.float32)

    def _add_sounds(
        self, mixed: np.ndarray[tuple[int, ...], np.dtype[np.float32]], first: int
    ) -> None:
        end = first + len(mixed)
        for placed in self._waiting:
            if placed.first >= end:
                break
            sound = self._library.sounds[placed.number]
            begin = max(first, placed.first)
            stop = min(end, placed.first + sound.frames)
            if stop > begin:
                part = self._file.read(sound.first + begin - placed.first, stop - begin)
                mixed[begin - first : stop - first] += part
        self._waiting = [
            placed
            for placed in self._waiting
            if placed.first + self._library.sounds[placed.number].frames > end
        ]
