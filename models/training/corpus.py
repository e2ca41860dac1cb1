"""The recordings of a data folder, and the moments in them that are worth a picture.

A clip's label is for the file: its impulses are found here. Of the live-fire test, a moment is a
pulse that its own `.nlos-tuples.json` selected for that sensor; what lies away from every reported
pulse is that street at night, and serves as background.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile
from scipy import signal

from models.training.splits import fold_of
from node.classify import features

Sound = npt.NDArray[np.float32]

LIVE_FIRE: Final = "shotspotter_pittsburgh2018"
_APART_S: Final = 0.12
_RISE_DB: Final = 9.0
_BELOW_LOUDEST_DB: Final = 25.0
_AWAY_S: Final = 0.7
_FAINT_DB: Final = 2.0


@dataclass(frozen=True, slots=True)
class Clip:
    """One file of the manifest."""

    path: Path
    label: str
    sound: str
    source: str
    group: str
    tier: str
    licence: str
    seconds: float

    @property
    def fold(self) -> int:
        """Say in which fold the file is held out."""
        return fold_of(self.label, self.sound, self.source, self.group)


def read_manifest(data: Path, tiers: str) -> list[Clip]:
    """Read `manifest.csv`, keeping the licence tiers named in `tiers` (such as "AB")."""
    with (data / "manifest.csv").open(newline="") as rows:
        return [
            Clip(
                path=data / row["path"],
                label=row["label"],
                sound=row["sound"],
                source=row["source"],
                group=row["group"],
                tier=row["licence_tier"],
                licence=row["licence"],
                seconds=float(row["seconds"]),
            )
            for row in csv.DictReader(rows)
            if row["licence_tier"] in tiers
        ]


def version(data: Path, clips: list[Clip]) -> str:
    """Give a hash of the files in use: their names, sizes and descriptions.

    A name is the path within `data`, or the last three parts of one outside of it.
    """

    def name(clip: Clip) -> Path:
        inside = clip.path.is_relative_to(data)
        return clip.path.relative_to(data) if inside else Path(*clip.path.parts[-3:])

    digest = hashlib.sha256()
    for clip in sorted(clips, key=name):
        digest.update(f"{name(clip)} {clip.path.stat().st_size} ".encode())
        digest.update(f"{clip.label} {clip.sound} {clip.group}\n".encode())
    return digest.hexdigest()


def load(path: Path) -> Sound:
    """Read a file as the node hears it: one channel at the internal rate, shape [n]."""
    frames, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return features.resample(features.pick_channel(frames), rate_hz).astype(np.float32)


def impulses(sound: Sound) -> list[int]:
    """Find the onsets of the impulsive sounds in a clip, loudest first, as sample indices.

    An onset is where the level over 10 ms rises by `_RISE_DB` over the 100 ms before it, within
    `_BELOW_LOUDEST_DB` of the loudest in the file.
    """
    hop = features.HOP // 2
    if len(sound) < 4 * hop:
        return []
    brighter = signal.lfilter([1.0, -0.95], [1.0], sound)
    steps = len(brighter) // hop
    power = np.mean(brighter[: steps * hop].reshape(steps, hop) ** 2, axis=1) + 1e-12
    now_db = 10 * np.log10(signal.lfilter([0.5, 0.5], [1.0], power))
    lead = 25
    before = np.convolve(np.r_[np.full(lead, power.min()), power], np.ones(lead) / lead)
    rise_db = now_db - 10 * np.log10(before[lead - 1 : lead - 1 + steps])
    loud = now_db > now_db.max() - _BELOW_LOUDEST_DB
    peaks, _ = signal.find_peaks(
        np.r_[0.0, np.where(loud, rise_db, 0.0), 0.0],
        height=_RISE_DB,
        distance=round(_APART_S * features.RATE_HZ / hop),
    )
    found = sorted((int(p) - 1 for p in peaks), key=lambda step: -now_db[step])
    return [max(0, step * hop) for step in found]


@dataclass(frozen=True, slots=True)
class LiveFire:
    """One recording of the live-fire test: what was fired and reported, in samples from its start.

    `shots` are the pulses that the test's own analysts selected for this sensor. Where they
    selected none, the shot is fainter, but there: `expected` says when each shot of the test must
    have arrived on the straight way.
    """

    clip: Clip
    shots: tuple[int, ...]
    pulses: tuple[int, ...]
    expected: tuple[int, ...]

    @property
    def busy(self) -> tuple[int, ...]:
        """Give every time round which the street is not quiet."""
        return tuple(sorted({*self.pulses, *self.expected}))


def live_fire(clips: list[Clip]) -> Iterator[LiveFire]:
    """Give the pulses of the live-fire recordings among `clips`."""
    for clip in clips:
        if clip.source != LIVE_FIRE:
            continue
        test = clip.path.parent / clip.path.parent.name
        meta = json.loads(clip.path.with_suffix(".json").read_text())
        every = {
            pulse["pulse_uuid"]: pulse
            for pulse in json.loads(test.with_suffix(".allpulses.json").read_text())
        }
        rounds = json.loads(test.with_suffix(".nlos-tuples.json").read_text())
        start = datetime.fromisoformat(meta["timestamp"])

        def sample(time_s: float) -> int:
            return round(time_s * features.RATE_HZ)

        at_s = {
            uuid: (datetime.fromisoformat(pulse["arrival_time_utc"]) - start).total_seconds()
            for uuid, pulse in every.items()
        }
        mine = {u for u, p in every.items() if p["serial_number"] == meta["serial_number"]}
        selected = {uuid for shot in rounds for uuid in shot["pulse_uuids"]} & mine
        yield LiveFire(
            clip=clip,
            shots=tuple(sorted({sample(at_s[uuid]) for uuid in selected})),
            pulses=tuple(sorted(sample(at_s[uuid]) for uuid in mine)),
            expected=tuple(sample(t) for t in _expected_s(test, meta, every, rounds, at_s)),
        )


def _expected_s(
    test: Path,
    meta: dict[str, Any],
    every: dict[str, dict[str, Any]],
    rounds: list[dict[str, Any]],
    at_s: dict[str, float],
) -> list[float]:
    """Give when each round must have reached a sensor, from when it reached the others."""
    survey = json.loads(test.with_suffix(".survey.json").read_text())
    weather = json.loads(test.with_suffix(".weather.json").read_text())
    speed_m_s = 331.3 * math.sqrt(1 + float(weather["temperature"]) / 273.15)

    def way_s(place: dict[str, float]) -> float:
        shooter = survey["survey_location"]
        return math.dist(*([p[axis] for axis in "xyz"] for p in (place, shooter))) / speed_m_s

    expected = []
    for shot in rounds:
        fired_s = [
            at_s[uuid] - way_s(every[uuid]["location"])
            for uuid in shot["pulse_uuids"]
            if uuid in every
        ]
        if fired_s:
            # Round houses sound comes late, never early: the lower quarter is nearest the truth.
            expected.append(float(np.quantile(fired_s, 0.25)) + way_s(meta["location"]))
    return sorted(expected)


def audible_shots(record: LiveFire, sound: Sound) -> list[int]:
    """Give the shots that can be heard in a recording, as sample indices.

    Those that its sensor reported; where it reported none, the faint ones: what is louder (300 to
    3000 Hz, over 30 ms) when a shot must arrive than anything in the half second before, by
    `_FAINT_DB`.
    """
    if record.shots:
        return list(record.shots)
    step = features.RATE_HZ // 100
    band = signal.butter(4, [300, 3000], "band", fs=features.RATE_HZ, output="sos")
    heard = signal.sosfilt(band, sound)[: len(sound) // step * step] ** 2
    power = signal.lfilter(np.ones(3) / 3, [1.0], heard.reshape(-1, step).mean(axis=1))
    found = []
    for at in record.expected:
        now = power[max(0, at // step - 5) : at // step + 15]
        before = power[max(0, at // step - 50) : max(0, at // step - 6)]
        if len(now) and len(before) and now.max() > before.max() * 10 ** (_FAINT_DB / 10) > 0:
            found.append(at)
    return found


def quiet_stretches(sound: Sound, busy: tuple[int, ...], shortest_s: float) -> list[slice]:
    """Give the stretches away from every pulse and shot that hold sound and not redaction."""
    silent = np.abs(sound) == 0
    free = signal.lfilter(np.ones(240), [1.0], silent) < 239.5
    away = round(_AWAY_S * features.RATE_HZ)
    for pulse in busy:
        # Echoes and reverberation go on long after a pulse.
        free[max(0, pulse - away // 2) : pulse + 3 * away] = False
    edges = np.flatnonzero(np.diff(np.r_[False, free, False].astype(np.int8)))
    shortest = round(shortest_s * features.RATE_HZ)
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= shortest]
