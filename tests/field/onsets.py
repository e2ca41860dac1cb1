"""What the detector makes of the recorded live fire, in figures.

`python tests/field/onsets.py [FP1 FP2 ...]` prints them; tests/field/test_live_fire_onsets.py
holds them. The recordings lie beside the project in ../shared/data/pittsburgh (its README says
where they come from); `nlos-tuples.json` names the pulses that ShotSpotter's own analysts took for
each shot, `allpulses.json` their sensor and time, to 1 ms.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from node.detect import Detector
from node.settings import DetectSettings
from node.types import Block, Event

PITTSBURGH = Path(__file__).parents[3] / "shared" / "data" / "pittsburgh"
FIRING_POINTS = ("FP1", "FP2", "FP3", "FP4", "FP5", "FP6")
NEAR_S = 0.02

# An event that begins so long before or after a pulse is put down to its shot, its echoes among
# them; any other counts as away from shots.
SHOT_S = (-0.05, 2.0)


@dataclass(frozen=True)
class Heard:
    """A recording, the pulses placed in it and the events found; times in s from its start.

    `selected` are the pulses that were used to locate a shot, `reported` all that the sensor
    reported.
    """

    selected: npt.NDArray[np.float64]
    reported: npt.NDArray[np.float64]
    events: list[list[float]]
    seconds: float

    @property
    def onsets(self) -> npt.NDArray[np.float64]:
        """All onsets."""
        return np.array([onset for event in self.events for onset in event])

    @property
    def first_onsets(self) -> npt.NDArray[np.float64]:
        """The first onset of each event."""
        return np.array([event[0] for event in self.events])


@dataclass(frozen=True)
class Figures:
    """What was reached; rates are fractions, times ms, events per minute of recording."""

    recordings: int
    with_pulse: int
    any_pulse: float
    first_pulse: float
    every_pulse: float
    event_begins: float
    median_ms: float
    p90_ms: float
    away_per_minute: float
    away_of_reported_per_minute: float
    events_per_minute: float
    impulses_per_minute: float
    times_real_time: float

    def __str__(self) -> str:
        """Give a line for a report."""
        return (
            f"{self.recordings} recordings, {self.with_pulse} with a pulse: onset within 20 ms of "
            f"a pulse {self.any_pulse:.3f}, of the first {self.first_pulse:.3f}, of each "
            f"{self.every_pulse:.3f}, an event's first onset {self.event_begins:.3f}; error median "
            f"{self.median_ms:.2f} ms, p90 {self.p90_ms:.2f} ms; events a minute away from "
            f"selected pulses {self.away_per_minute:.2f}, from any reported pulse "
            f"{self.away_of_reported_per_minute:.2f}, in all {self.events_per_minute:.1f}; "
            f"impulses a minute {self.impulses_per_minute:.1f}; {self.times_real_time:.0f} x real "
            "time"
        )


def recordings(root: Path, firing_points: Iterable[str]) -> Iterator[Path]:
    """Give the recordings of some firing points, in order."""
    for point in firing_points:
        yield from sorted((root / point).glob("test_*/*.flac"))


def pulses(recording: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give the selected and the reported pulses of a recording's sensor, in s from its start."""
    test = recording.parent
    meta = json.loads(recording.with_suffix(".json").read_text())
    reported = {
        pulse["pulse_uuid"]: _utc_s(pulse["arrival_time_utc"]) - _utc_s(meta["timestamp"])
        for pulse in json.loads((test / f"{test.name}.allpulses.json").read_text())
        if pulse["serial_number"] == meta["serial_number"]
    }
    shots = json.loads((test / f"{test.name}.nlos-tuples.json").read_text())
    used = {pulse for shot in shots for pulse in shot["pulse_uuids"]}
    selected = sorted(at for pulse, at in reported.items() if pulse in used)
    return np.array(selected), np.array(sorted(reported.values()))


def detect(path: Path) -> tuple[list[Event], int, float, float]:
    """Give a recording's events, its rate in Hz, its length in s and the CPU seconds taken."""
    frames, rate = soundfile.read(path, dtype="int16", always_2d=True)
    begun = time.process_time()
    detector = Detector(DetectSettings(), rate, frames.shape[1])
    events: list[Event] = []
    for first in range(0, len(frames), 4096):
        events += detector.push(Block(first, frames[first : first + 4096], rate))
    events += detector.flush()
    return events, rate, len(frames) / rate, time.process_time() - begun


def hear(path: Path) -> tuple[Heard, float]:
    """Put a recording's pulses and events side by side; the CPU seconds taken come with it."""
    events, rate, seconds, spent_s = detect(path)
    found = [[impulse.onset_sample / rate for impulse in event.impulses] for event in events]
    return Heard(*pulses(path), found, seconds), spent_s


def measure(root: Path, firing_points: Iterable[str]) -> Figures:
    """Hear all recordings of some firing points."""
    heard, spent_s = zip(*(hear(path) for path in recordings(root, firing_points)), strict=True)
    seconds = sum(h.seconds for h in heard)
    shot = [h for h in heard if len(h.selected)]
    misses = [_nearest(h.onsets, h.selected) for h in shot]
    begins = [_nearest(h.first_onsets, h.selected) for h in shot]
    each = np.concatenate(misses)
    hits_ms = 1e3 * each[each <= NEAR_S]
    minutes = seconds / 60
    return Figures(
        recordings=len(heard),
        with_pulse=len(shot),
        any_pulse=float(np.mean([miss.min() <= NEAR_S for miss in misses])),
        first_pulse=float(np.mean([miss[0] <= NEAR_S for miss in misses])),
        every_pulse=float(np.mean(each <= NEAR_S)),
        event_begins=float(np.mean([miss.min() <= NEAR_S for miss in begins])),
        median_ms=float(np.median(hits_ms)),
        p90_ms=float(np.percentile(hits_ms, 90)),
        away_per_minute=sum(_away(h.first_onsets, h.selected) for h in heard) / minutes,
        away_of_reported_per_minute=sum(_away(h.first_onsets, h.reported) for h in heard) / minutes,
        events_per_minute=sum(len(h.events) for h in heard) / minutes,
        impulses_per_minute=sum(len(h.onsets) for h in heard) / minutes,
        times_real_time=seconds / sum(spent_s),
    )


def _nearest(
    onsets: npt.NDArray[np.float64], pulse_s: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    if not len(onsets):
        return np.full(len(pulse_s), np.inf)
    return np.abs(onsets[None, :] - pulse_s[:, None]).min(axis=1)


def _away(onsets: npt.NDArray[np.float64], pulse_s: npt.NDArray[np.float64]) -> int:
    after_s = onsets[:, None] - pulse_s[None, :]
    return int((~((after_s >= SHOT_S[0]) & (after_s <= SHOT_S[1])).any(axis=1)).sum())


def _utc_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    print(measure(PITTSBURGH, sys.argv[1:] or FIRING_POINTS))
