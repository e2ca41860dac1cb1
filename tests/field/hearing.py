"""What the pipeline hears of the recorded live fire, as `gunfire-node replay` runs it."""

from __future__ import annotations

from itertools import count

from tests.evidence import Claim, Detail
from tests.field.city import at_least, at_most
from tests.field.onsets import measure as measure_onsets
from tests.field.onsets import recordings
from tests.parts import Part, Tell, recordings_folder

_HOW = (
    "An onset is right within 20 ms of a pulse that the set's own analysts selected for that "
    "sensor; the set gives times to 1 ms",
    "A detection is away from shots if none of them lies from 2 s before it to 0.05 s after it",
    "The trigger was tuned on FP1, FP3 and FP5; the shipped model learnt from these recordings: "
    "what it calls them is told by `make evaluate`, by models that did not",
)


def measure(tell: Tell) -> Part:
    """Replay every recording."""
    data = recordings_folder()
    total, done = sum(1 for _ in recordings(data)), count(1)
    if total == 0:
        raise SystemExit(f"{data}: holds no pittsburgh/FP*/test_*/*.flac; name it by --data")
    f = measure_onsets(data, progress=lambda: tell(f"recording {next(done)} of {total}"))
    of = "% of recordings"
    return Part(
        (
            Claim("recordings", f.recordings, ""),
            Claim("recordings in which a pulse of their sensor is placed", f.with_pulse, ""),
            at_least("an onset within 20 ms of such a pulse", 100 * f.any_pulse, of, 95),
            at_least("an onset within 20 ms of the first", 100 * f.first_pulse, of, 95),
            at_least("an onset within 20 ms, of each", 100 * f.every_pulse, "% of pulses", 95),
            Claim("`onset_utc` itself within 20 ms of a pulse", 100 * f.event_begins, of),
            at_most("onset error, median", f.median_ms, "ms", 1),
            Claim("onset error, 90th percentile", f.p90_ms, "ms"),
            at_most("detections away from shots", f.away_per_minute, "per minute", 6),
            Claim("detections in all", f.events_per_minute, "per minute"),
            at_least("speed on one core, model and all", f.times_real_time, "× real time", 100),
        ),
        (Detail("How it was judged", ("rule",), tuple((line,) for line in _HOW)),),
    )
