"""The sample counter's way to UTC by a receiver's pulse in a channel of the same card.

Stands where `HostSampleClock` stands, and rests on it (or on a recording's stated start) for what
a pulse cannot tell: roughly when it is, and so which second a pulse marks. Sound and pulse share
one converter, so nothing of the host, its load or its bus is in between: what is left is the
pulse's own jitter (signal.md §1.2). Pure.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from node.timing.clock_filter import ClockFilter
from node.timing.edge import Edge, EdgeFinder
from node.timing.leap import OLDEST_UTC_S, LeapTable
from node.timing.misplaced import Misplaced
from node.timing.seconds import SecondVote
from node.types import (
    NS_PER_S,
    Block,
    ClockQuality,
    HostReading,
    Instant,
    ReceiverReading,
    SampleClock,
)

log = logging.getLogger(__name__)

# So many pulses in a row before the clock is believed, and again after its count had jumped.
LOCK: Final = 4
# What jitters by more than this between neighbours is no pulse of a receiver.
REGULAR_S: Final = 300e-6
# A receiver's message comes after the pulse whose second it names, by so much.
MESSAGE_S: Final = (0.0, 0.98)
# A clock that is surer than this tells which of two edges is on the second.
TELLS_EDGE_S: Final = 0.02
TELLS_SECOND_S: Final = 0.15
# Edges of a pulse whose width lies so near to half a second cannot be told apart.
HALF_S: Final = 0.49
# A pulse that is off the second by more than this is not trusted, whoever is right.
OFF_SECOND_S: Final = 0.2
# The pulse is believed over the coarse clock for as long as it is surer; a host's reference in
# the same way.
LONGEST_HOLDOVER_S: Final = 3600.0
SIGMAS_IN_BOUND: Final = 6.0
# Some pulses in a row may be missed; after so long they do not come any more, and that is told,
# however well the time is held meanwhile.
AWAY_S: Final = 10.0
# A pulse that reaches so much of full scale is cut off, and tells its edge less well.
CLIPPED: Final = 0.999


class CoarseClock(SampleClock, Protocol):
    """A clock that knows roughly when it is, and at which sample it was when."""

    def sample_at_monotonic(self, monotonic_ns: int) -> float | None:
        """Give the sample converted at a moment of CLOCK_MONOTONIC; None if that is not known."""


@dataclass(frozen=True, slots=True)
class PulseState:
    """How the pulse does, for health and `check`.

    Attributes
    ----------
    pulses, refused, missed
        Pulses that were taken; edges that did not fit; seconds without one.
    rate_ppm, rate_sigma_ppm
        By how much the card runs fast; None before it is known.
    rises
        Whether the edge on the second rises; None before it is known.
    reason
        Why the pulse is not used; empty where it is.
    ticks
        Whether it comes, regularly: then the reason is that its second is not known.
    warning
        What is wrong with a pulse that is used all the same; empty where nothing is.
    """

    pulses: int
    refused: int
    missed: int
    rate_ppm: float | None
    rate_sigma_ppm: float | None
    rises: bool | None
    reason: str
    ticks: bool
    warning: str = ""


class PpsSampleClock:
    """Sample counter → UTC by a pulse a second.

    Parameters
    ----------
    sample_rate_hz
        Nominal rate.
    channel
        Which channel of the blocks carries the pulse.
    coarse
        Says roughly when it is; it is handed all that this clock is handed.
    trust_coarse
        Take the coarse clock's second though nothing disciplines it: a recording's stated start.
    leaps
        Leap seconds.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        channel: int,
        coarse: CoarseClock,
        *,
        trust_coarse: bool = False,
        leaps: LeapTable | None = None,
    ) -> None:
        self._rate = sample_rate_hz
        self._channel = channel
        self._coarse = coarse
        self._trust_coarse = trust_coarse
        self._leaps = leaps or LeapTable()
        self._stream: int | None = None
        self._misplaced = Misplaced(sample_rate_hz)
        self._begin()

    @property
    def state(self) -> PulseState:
        """How the pulse does."""
        rate = self._filter.rate_ppm
        return PulseState(
            pulses=self._filter.taken,
            refused=self._filter.refused,
            missed=self._filter.missed,
            rate_ppm=None if rate is None else rate[0],
            rate_sigma_ppm=None if rate is None else rate[1],
            rises=self._rises,
            reason=self._reason(),
            ticks=not self._silence(),
            warning=self._warning(),
        )

    def observe_block(self, block: Block) -> None:
        """Learn from a block; another stream begins from nothing."""
        self._coarse.observe_block(block)
        self._misplaced.observe(block)
        if block.stream != self._stream:
            self._stream = block.stream
            self._begin()
        self._now = block.end_sample
        x = block.samples()[:, self._channel]
        if np.max(np.abs(x), initial=0.0) >= CLIPPED:
            self._clipped_until = block.end_sample + round(AWAY_S * self._rate)
        for edge in self._finder.push(block.first_sample, x):
            self._edge(edge)

    def observe_host(self, reading: HostReading) -> None:
        """Hand the reading to the coarse clock."""
        self._coarse.observe_host(reading)

    def observe_receiver(self, reading: ReceiverReading) -> None:
        """Let the receiver vote for the second that its last pulse marked."""
        self._coarse.observe_receiver(reading)
        whole = reading.utc_ns % NS_PER_S == 0
        if not reading.valid or not whole or reading.utc_ns < OLDEST_UTC_S * NS_PER_S:
            return
        came = self._coarse.sample_at_monotonic(reading.monotonic_ns)
        for sample, count in reversed(self._pulses):
            if came is None or sample > came:
                continue
            late_s = (came - sample) / self._rate
            if MESSAGE_S[0] <= late_s <= MESSAGE_S[1]:
                tai_s = self._leaps.tai_s(reading.utc_ns // NS_PER_S)
                self._second.vote("receiver", count, tai_s)
            return

    def at(self, sample: float) -> Instant:
        """Give the UTC of a (fractional) sample index of the stream observed last."""
        pulse = self._by_pulse(sample)
        coarse = self._coarse.at(sample)
        coarse = replace(coarse, sigma_s=math.hypot(coarse.sigma_s, self._doubt_s()))
        if pulse is not None:
            off_s = self._misplaced.sigma_s(sample)
            pulse = replace(pulse, sigma_s=math.hypot(pulse.sigma_s, off_s))
        return coarse if pulse is None or pulse.sigma_s >= coarse.sigma_s else pulse

    def quality(self) -> ClockQuality:
        """Say what disciplines the clock, with the error of the newest sample's time."""
        coarse = self._coarse_quality()
        pulse = self._by_pulse(self._now)
        if pulse is None or pulse.sigma_s >= coarse.sigma_s:
            return coarse
        last = self._filter.last_sample or 0.0
        return ClockQuality(
            source="pps",
            sigma_s=pulse.sigma_s,
            bound_s=SIGMAS_IN_BOUND * pulse.sigma_s,
            second_confirmed=self._second.confirmed or self._confirmed_by(coarse, pulse),
            holdover_s=max(0.0, (self._now - last) / self._rate),
        )

    def _confirmed_by(self, coarse: ClockQuality, pulse: Instant) -> bool:
        """Whether the coarse clock's second was confirmed, and is the pulse's."""
        if not coarse.second_confirmed:
            return False
        return abs(self._coarse.at(self._now).utc_ns - pulse.utc_ns) < NS_PER_S // 2

    def _coarse_quality(self) -> ClockQuality:
        quality = self._coarse.quality()
        if self._contradicted:
            # A receiver says another second, and which of them is right nobody knows.
            quality = replace(quality, source="free", bound_s=None, second_confirmed=False)
        doubt_s = self._doubt_s()
        if quality.bound_s is not None:
            quality = replace(quality, bound_s=quality.bound_s + doubt_s)
        return replace(quality, sigma_s=math.hypot(quality.sigma_s, doubt_s))

    @property
    def _contradicted(self) -> bool:
        return self._second.difference is None and self._second.apart_s > 0

    def _doubt_s(self) -> float:
        """Say by how much the samples may be counted wrongly, or the second may be another.

        Both clocks rest on the count of samples. Where the pulse tells that it has jumped, it takes
        the host's time stamps longer to tell by how much: until a pulse shows that they have.
        """
        doubt_s = self._filter.suspicion_s(self._now)
        if self._reason():
            apart_s = self._second.apart_s if self._contradicted else 0
            doubt_s = math.hypot(doubt_s, self._jump_s, apart_s, self._misfit_s)
        return doubt_s

    def _begin(self) -> None:
        self._now = 0
        self._finder = EdgeFinder(self._rate)
        self._filter = ClockFilter(self._rate)
        self._second = SecondVote()
        self._misfit_s = 0.0  # by so much it is off the coarse clock's second, if too much
        self._jump_s = 0.0  # by so much the coarse clock may miss that the count has jumped
        self._rises: bool | None = None
        self._waiting: deque[Edge] = deque(maxlen=64)
        self._pulses: deque[tuple[float, int]] = deque(maxlen=8)
        self._why = ""
        self._clipped_until = 0

    def _by_pulse(self, sample: float) -> Instant | None:
        """Give UTC by the pulse; None where it is not to be believed."""
        if self._reason():
            return None
        count = self._filter.at(sample)
        difference = self._second.difference
        assert difference is not None  # noqa: S101
        tai_ns = (count.seconds + difference) * NS_PER_S + round(count.rest_s * NS_PER_S)
        return Instant(self._leaps.utc_ns(tai_ns), math.hypot(count.sigma_s, self._doubt_s()))

    def _reason(self) -> str:
        """Say why the pulse is not used: itself, or its second."""
        if silence := self._silence():
            return silence
        if self._contradicted:
            return "receiver and host do not agree on the second"
        if self._second.difference is None:
            return "which second a pulse marks is not known yet"
        return ""

    def _warning(self) -> str:
        last = self._filter.last_sample
        if self._reason() or last is None:
            return ""
        if (self._now - last) / self._rate > AWAY_S:
            return (
                f"no pulse on channel {self._channel} for more than {AWAY_S:g} s, the time is "
                "held meanwhile: see the receiver and the pulse's cable"
            )
        if self._now < self._clipped_until:
            return f"the pulse on channel {self._channel} is at full scale: attenuate it more"
        if self._second.apart_s:
            return (
                f"receiver and host are {self._second.apart_s} s apart on the second: what both "
                "had said is held"
            )
        return ""

    def _silence(self) -> str:
        last = self._filter.last_sample
        if last is None:
            return self._why or f"no pulse on channel {self._channel} yet"
        if self._filter.since_moved < LOCK:
            return "the pulse is not regular yet"
        if (self._now - last) / self._rate > LONGEST_HOLDOVER_S:
            return "the pulse has been away for too long"
        return ""

    def _edge(self, edge: Edge) -> None:
        if self._rises is None:
            self._waiting.append(edge)
            self._choose()
            return
        if edge.rises != self._rises:
            return
        if self._filter.last_sample is not None:
            late_s = (edge.sample - self._filter.last_sample) / self._rate
            if self._filter.since_begun < LOCK and abs(late_s - round(late_s)) > REGULAR_S:
                # Not a train yet: whichever edge is regular will begin one.
                self._forget()
                self._filter.refused += 1
                self._rises = None
                self._waiting.append(edge)
                return
            if late_s > LONGEST_HOLDOVER_S or not self._filter.counts(edge.sample):
                log.info("the pulse is back after %.0f s; its count begins anew", late_s)
                self._forget()
                self._filter.missed += round(late_s) - 1
        verdict, count = self._filter.pulse(edge.sample, edge.sigma_samples)
        if verdict == "moved":
            # Samples were counted wrongly by an unknown amount: the second has to be told anew.
            self._second = SecondVote()
            self._jump_s = abs(self._filter.jump_s)
            log.warning("the count of samples has jumped by %+.6f s", self._filter.jump_s)
        if verdict != "refused":
            self._pulses.append((edge.sample, count))
            self._host_votes(edge.sample, count)
            self._compare(edge.sample)

    def _compare(self, sample: float) -> None:
        """Let the pulse, once it is believed again, tell how far off the coarse clock still is."""
        pulse = self._by_pulse(sample) if self._jump_s else None
        if pulse is not None:
            off_ns = self._coarse.at(sample).utc_ns - pulse.utc_ns
            self._jump_s = min(self._jump_s, abs(off_ns) / NS_PER_S)

    def _forget(self) -> None:
        """Let count and vote begin anew."""
        self._filter.forget()
        self._second = SecondVote()
        self._pulses.clear()

    def _host_votes(self, sample: float, count: int) -> None:
        second = self._coarse_second(sample)
        if second is not None:
            # A host that was not confirmed may follow the very receiver whose pulse this is.
            vouches = self._coarse.quality().second_confirmed
            self._second.vote("host", count, self._leaps.tai_s(second), vouches=vouches)

    def _coarse_second(self, sample: float) -> int | None:
        """Give the whole UTC second that an edge marks by the coarse clock, if it knows."""
        quality = self._coarse.quality()
        instant = self._coarse.at(sample)
        trusted = self._trust_coarse or quality.source != "free"
        if not trusted or instant.sigma_s > TELLS_SECOND_S:
            return None
        second = round(instant.utc_ns / NS_PER_S)
        off_s = (instant.utc_ns - second * NS_PER_S) / NS_PER_S
        self._misfit_s = abs(off_s) if abs(off_s) > OFF_SECOND_S else 0.0
        return second if abs(off_s) <= OFF_SECOND_S else None

    def _choose(self) -> None:
        """Find which edge of the pulse is on the second, once three of a train are there."""
        trains = {rises: self._train(rises) for rises in (True, False)}
        regular = [rises for rises, train in trains.items() if len(train) >= 3]
        if not regular:
            self._why = "edges, but none a second apart" if len(self._waiting) > 8 else ""
            return
        chosen = regular[0] if len(regular) == 1 else self._leading(trains)
        off_s = {rises: self._off_second_s(trains[rises]) for rises in regular}
        on = [rises for rises in regular if (off := off_s[rises]) is not None and off < 0]
        known = any(off is not None for off in off_s.values())
        if known:
            # A clock that is sure enough decides, against the pulse's own shape if need be.
            if len(on) == 1:
                (chosen,) = on
            elif not self._trust_coarse or len(regular) < len(trains):
                self._why = "the pulse is not on the second by the host's clock: see its settings"
                return
            else:
                log.warning("the pulse is not on the second by the recording's start: it is taken")
        if chosen is None:
            self._why = "the pulse is half a second wide: which edge is on the second is not known"
            return
        if len(regular) == 1 and not known and len(self._train(chosen)) < LOCK:
            return  # the other edge may only have been missed
        self._rises = chosen
        self._why = ""
        waiting, self._waiting = self._train(chosen), deque(maxlen=64)
        for edge in waiting:
            self._edge(edge)

    def _train(self, rises: bool) -> list[Edge]:
        """Give the edges of a kind that lie whole seconds before the newest of it."""
        edges = [edge for edge in self._waiting if edge.rises == rises]
        if not edges:
            return []
        newest = edges[-1].sample
        train = []
        for edge in edges:
            seconds = (newest - edge.sample) / self._rate
            if abs(seconds - round(seconds)) <= REGULAR_S:
                train.append(edge)
        return train

    def _leading(self, trains: dict[bool, list[Edge]]) -> bool | None:
        """Give the edge that begins a pulse: the other one follows within less than half."""
        width_s = ((trains[False][-1].sample - trains[True][-1].sample) / self._rate) % 1.0
        if min(width_s, 1 - width_s) > HALF_S:
            return None
        return width_s < 1 - width_s

    def _off_second_s(self, train: list[Edge]) -> float | None:
        """Say how far a train is off the whole second beyond what the coarse clock allows.

        None where that clock is not sure enough to tell.
        """
        quality = self._coarse.quality()
        instant = self._coarse.at(train[-1].sample)
        trusted = self._trust_coarse or quality.source != "free"
        if not trusted or instant.sigma_s > TELLS_EDGE_S:
            return None
        off_ns = (instant.utc_ns + NS_PER_S // 2) % NS_PER_S - NS_PER_S // 2
        return abs(off_ns) / NS_PER_S - max(5 * instant.sigma_s, 0.001)
