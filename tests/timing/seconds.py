"""`make timing`: 24 h of faults, and not one whole second published wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from node.timing.leap import LeapTable
from node.timing.pps import PpsSampleClock
from node.timing.sample_clock import HostSampleClock
from node.types import NS_PER_S, Block, HostReading, ReceiverReading
from tests.evidence import Claim, Detail
from tests.parts import Part, Tell
from tests.timing.pps_wave import (
    RATE_HZ,
    START_UTC_S,
    Crystal,
    HostStamps,
    PulseChannel,
    a_message,
    a_reading,
    glimpses,
    receiver_pulses,
)

SEED: Final = 8301
HOURS: Final = 24
MINUTE: Final = 60
HOUR: Final = 3600
WRONG_LABELS: Final = 0.05
ROLLED_OVER_S: Final = -1024 * 7 * 86_400
LEAP_AT: Final = 20 * HOUR  # the run's second that begins when the leap second is over
# When a receiver wakes up cold: it says so until it has the leap seconds, or (at 13 h) does not.
COLD: Final = ((0, 750), (14 * HOUR + 1800, 14 * HOUR + 2700))
COLD_AND_SURE: Final = (13 * HOUR, 13 * HOUR + 750)
ROLLED_OVER: Final = (4 * HOUR, 4 * HOUR + 1800)
SILENT: Final = (7 * HOUR, 11 * HOUR)
NO_PULSE: Final = (12 * HOUR + 0.5, 12 * HOUR + 2400.5)
# The host before it found its servers, an hour off; and after it had lost them.
HOST_FREE: Final = ((0, 1200), (14 * HOUR, 16 * HOUR))
HOST_STEPS: Final = (
    (2 * HOUR, 2 * HOUR + 600, 1.0),
    (3 * HOUR, 3 * HOUR + 1200, 3600.0),
    (8 * HOUR, 8 * HOUR + 1200, -1.0),
)
REOPENED: Final = (5 * HOUR, 5 * HOUR + 1200, 5 * HOUR + 2400, 13 * HOUR, 14 * HOUR + 1800)
UNCOUNTED: Final = (4800, 7, 20_640, 337, 14_400)  # one each 5 min from 6 h on
AT_RANDOM: Final = (16 * HOUR, HOURS * HOUR)  # something each 10 min
WHOLE_SECONDS: Final = (48_000, 96_000, 24_001, 480_000)
"""Frames lost and not counted that no node would miss: how long until the second is right again."""


@dataclass
class Day:
    """What was published, each second."""

    hour: list[float]
    source: list[str]
    wrong: list[bool]


def measure(tell: Tell) -> Part:
    """Measure a day of faults."""
    tell("24 h of faults")
    day = _a_day()
    wrong = sum(day.wrong)
    early = [s for s, h in zip(day.source, day.hour, strict=True) if h * HOUR < COLD[0][1]]
    known = 100 * sum(s != "free" for s in day.source) / len(day.source)
    tell("seconds lost and not counted")
    back_s = max(_back_after_s(frames) for frames in WHOLE_SECONDS)
    published = sum(s != "free" for s in early)
    faults = "24 h of faults (below)"
    claims = (
        Claim(f"whole seconds published wrongly in {faults}", wrong, "", "0", wrong == 0),
        Claim(
            "seconds published before host or receiver was valid", published, "", "0",
            published == 0,
        ),
        Claim(f"seconds of {faults} that were known", known, "%", ">= 90", known >= 90),
        Claim(
            "0.5 to 10 s of frames lost and not counted by anyone: the second is right again after",
            back_s, "s", "<= 20", back_s <= 20,
        ),
    )  # fmt: skip
    order = ("free", "ntp", "pps")

    def draw(axes: Any) -> None:
        axes.plot(day.hour, [order.index(s) for s in day.source], ".", ms=2)
        at = [
            (h, order.index(s))
            for h, s, w in zip(day.hour, day.source, day.wrong, strict=True)
            if w
        ]
        if at:
            axes.plot(*zip(*at, strict=True), "rx", label="wrong")
            axes.legend()
        axes.set(
            yticks=range(len(order)),
            yticklabels=("unknown", "host", "pulse"),
            xlabel="hours",
            title=f"A day of faults: {wrong} whole seconds wrong",
        )

    return Part(claims, (_faults(),), draw)


def _faults() -> Detail:
    rows = (
        ("always", "5 % of messages name the second before or after; 5 % of pulses are missing"),
        ("0:00", "host an hour off and free for 20 min; receiver cold and 2 s off for 750 s"),
        ("2:00, 3:00", "host stepped by 1 s for 10 min, by 1 h for 20 min, and still believed"),
        ("4:00", "receiver's weeks roll over (1024 weeks back) for 30 min"),
        ("5:00", "stream opened again, three times"),
        ("6:00", "7 to 20,640 frames lost and not counted, five times"),
        ("7:00", "receiver silent for 4 h; within it, host stepped by -1 s for 20 min"),
        ("12:00", "no pulse for 40 min"),
        ("13:00", "stream opened again; receiver is 2 s off for 750 s and says it is valid"),
        ("14:00", "host free for 2 h; stream opened again while the receiver is cold"),
        ("16:00", "each 10 min a stream opened again, or up to 20,000 frames not counted"),
        ("20:00", "a leap second"),
        ("always", "all but 24 ms of each second lost, and counted"),
    )  # fmt: skip
    return Detail("A day of faults", ("when", "what"), rows)


def _a_day() -> Day:
    rng = np.random.default_rng(SEED)
    seconds = HOURS * HOUR
    crystal = Crystal(seconds, rng)
    leaps = LeapTable((*LeapTable().changes, (START_UTC_S + LEAP_AT - 1, 38)))
    clock = PpsSampleClock(RATE_HZ, 0, HostSampleClock(RATE_HZ), leaps=leaps)
    reopened = set(REOPENED)
    uncounted = {6 * HOUR + 300 * i: frames for i, frames in enumerate(UNCOUNTED)}
    for at in range(*AT_RANDOM, 600):
        if rng.random() < 0.5:
            reopened.add(at)
        else:
            uncounted[at] = int(rng.integers(-20_000, 20_000))
    day = Day([], [], [])
    for block, true in _stream(crystal, rng, seconds, reopened, uncounted, (NO_PULSE,)):
        clock.observe_block(block)
        now_s = float(crystal.time_s(true + len(block.frames)))
        second = int(now_s)
        clock.observe_host(_host(second))
        if second >= 1 and not _within(second, (SILENT,)):
            clock.observe_receiver(_receiver(second, rng))
        instant = clock.at(block.end_sample)
        off_s = (instant.utc_ns - START_UTC_S * NS_PER_S) / NS_PER_S - now_s
        source = clock.quality().source
        # POSIX gives the leap second the number of the one after it; Linux that of the one before.
        allowed = {-1.0 if now_s >= LEAP_AT else 0.0}
        if LEAP_AT - 1 <= now_s < LEAP_AT:
            allowed = {0.0, -1.0}
        wrong = source != "free" and min(abs(off_s - a) for a in allowed) > 0.5
        day.hour.append(now_s / HOUR)
        day.source.append(source)
        day.wrong.append(wrong)
    return day


def _back_after_s(frames: int) -> float:
    """Lose frames that nobody counts; say for how long the second published is wrong."""
    rng = np.random.default_rng(SEED + frames)
    crystal = Crystal(400, rng)
    clock = PpsSampleClock(RATE_HZ, 0, HostSampleClock(RATE_HZ))
    wrong_s = [0.0]
    for block, true in _stream(crystal, rng, 400, set(), {200: frames}, ()):
        clock.observe_block(block)
        now_s = float(crystal.time_s(true + len(block.frames)))
        clock.observe_host(a_reading(int(now_s)))
        clock.observe_receiver(a_message(int(now_s)))
        off_s = (clock.at(block.end_sample).utc_ns - START_UTC_S * NS_PER_S) / NS_PER_S - now_s
        if abs(off_s) > 0.4:
            wrong_s.append(now_s - 200)
    return max(wrong_s)


def _stream(
    crystal: Crystal,
    rng: np.random.Generator,
    seconds: int,
    reopened: set[int],
    uncounted: dict[int, int],
    absent: tuple[tuple[float, float], ...],
) -> Iterator[tuple[Block, int]]:
    """Give 24 ms round each second's pulse; with the true sample that each begins at."""
    pulses = receiver_pulses(seconds, rng, absent=absent, first_s=1.0)
    channel = PulseChannel(np.asarray(crystal.sample(pulses.time_s)), rng)
    centres = np.asarray(crystal.sample(np.arange(1.0, seconds)))
    stream = missed = 0
    for second, (block, true) in enumerate(
        glimpses(channel, centres, host=HostStamps(crystal, rng)), 1
    ):
        missed += uncounted.get(second, 0)
        stream += second in reopened
        yield replace(block, first_sample=block.first_sample - missed, stream=stream), true


def _host(second: int) -> HostReading:
    stepped_s = sum(by_s for begin, end, by_s in HOST_STEPS if begin <= second < end)
    stepped_s -= 1.0 if second >= LEAP_AT else 0.0
    if _within(second, HOST_FREE):
        off_s = 3600.0 if second < 2 * HOUR else 0.0
        return a_reading(second, source="free", sigma_s=3600.0, stepped_s=off_s)
    return a_reading(second, stepped_s=stepped_s)


def _receiver(second: int, rng: np.random.Generator) -> ReceiverReading:
    wrong_s = -1 if second >= LEAP_AT else 0
    if rng.random() < WRONG_LABELS:
        wrong_s += int(rng.choice([-1, 1]))
    if _within(second, (ROLLED_OVER,)):
        wrong_s += ROLLED_OVER_S
    if _within(second, (*COLD, COLD_AND_SURE)):
        wrong_s += 2
    late_s = float(rng.uniform(0.05, 0.4))
    return a_message(second, wrong_s=wrong_s, valid=not _within(second, COLD), late_s=late_s)


def _within(second: int, stretches: tuple[tuple[int, int], ...]) -> bool:
    return any(begin <= second < end for begin, end in stretches)
