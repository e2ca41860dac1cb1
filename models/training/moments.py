"""The moments that a model learns from: what is heard, where it sets in, and what it is.

Recordings (`corpus`) and simulated sources (`node.simulate.sources`) come in; dry stretches of
`SPAN` samples with their onset at `LEAD` go out to `surroundings`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from models.training.corpus import LIVE_FIRE, Clip, impulses, live_fire, load, quiet_stretches
from models.training.splits import Part
from node.classify import features
from node.simulate.propagation import Atmosphere, absorb
from node.simulate.sources import emit
from node.types import LABELS, Label

LEAD: Final = round(0.6 * features.RATE_HZ)
SPAN: Final = round(2.0 * features.RATE_HZ)
_TEMPERATURES_C: Final = (-5.0, 5.0, 15.0, 25.0)
IMPULSIVE: Final = frozenset(
    {"drum", "billiard_impact", "thunder", "HammerMetal", "DroppingStones", "CoinDrop"}
    | {"ClankingDishes", "NailsFromBox", "clapping", "clapping_crowd", "dog_bark", "Shovel"}
    | {"jackhammer", "drilling", "fire_crackling", "Ratchet", "typing", "clock_tick"}
)
STEADY: Final = frozenset(
    {"air_conditioner", "engine_idling", "children_playing", "street_ambience", "rain", "engine"}
    | {"sea_waves", "helicopter", "jet", "street_music", "voice", "mower", "siren"}
)
SIMULATED: Final[dict[Label, tuple[str, ...]]] = {
    "gunfire": ("muzzle_blast",),
    "fireworks": ("shell_burst", "shell", "firecracker", "firecracker", "lift_charge", "crackle"),
    "backfire": ("backfire",),
    "other": ("door_slam", "hammer"),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """An onset in a recording, by sample; `index` is None for a place anywhere in it."""

    clip: Clip
    index: int | None


@dataclass
class Moments:
    """All moments of one part of the split, and the sound they are in."""

    sounds: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    by_label: dict[Label, dict[str, list[Moment]]] = field(
        default_factory=lambda: {label: defaultdict(list) for label in LABELS}
    )
    backgrounds: list[npt.NDArray[np.float32]] = field(default_factory=list)
    street: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def dry(self, moment: Moment, draw: np.random.Generator) -> npt.NDArray[np.float64]:
        """Cut a moment out of its recording, with silence beyond its ends: shape [SPAN]."""
        sound = self.sounds[str(moment.clip.path)]
        index = moment.index
        if index is None:
            index = int(draw.integers(0, max(1, len(sound) - LEAD)))
        cut = np.zeros(SPAN)
        first = index - LEAD
        piece = sound[max(0, first) : max(0, first + SPAN)]
        cut[max(0, -first) : max(0, -first) + len(piece)] = piece
        return cut

    def background(self, draw: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draw `SPAN` samples of a street without the sound in question."""
        choice = draw.random()
        if choice < 0.2 or not (self.street or self.backgrounds):
            return _noise(draw)
        pool = self.street if choice < 0.65 and self.street else self.backgrounds
        source = pool[int(draw.integers(len(pool)))]
        start = int(draw.integers(0, len(source)))
        return np.take(source, np.arange(start, start + SPAN), mode="wrap").astype(np.float64)


def gather(clips: list[Clip], part: Part) -> Moments:
    """Find every moment in the recordings of one part."""
    found = Moments()
    mine = [clip for clip in clips if clip.part == part]
    for record in live_fire(mine):
        sound = load(record.clip.path)
        found.sounds[str(record.clip.path)] = sound
        group = f"live/{record.clip.group}"
        for shot in record.shots:
            if 0 < shot < len(sound):
                found.by_label["gunfire"][group].append(Moment(record.clip, shot))
        found.street += [sound[quiet] for quiet in quiet_stretches(sound, record.pulses, 0.8)]
    for clip in mine:
        if clip.label not in LABELS or clip.source == LIVE_FIRE:
            continue
        sound = load(clip.path)
        found.sounds[str(clip.path)] = sound
        label: Label = clip.label
        group = clip.group if label != "other" else clip.sound
        onsets = impulses(sound)
        if label == "gunfire":
            onsets = onsets[: max(1, round(2 * clip.seconds))]
        moments = [Moment(clip, onset) for onset in onsets]
        if label == "other" and clip.sound not in IMPULSIVE:
            moments = [*moments[:4], *[Moment(clip, None)] * max(1, round(clip.seconds))]
        found.by_label[label][group] += moments
        if clip.sound in STEADY:
            found.backgrounds.append(sound)
    return found


def simulated(label: Label, draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """Simulate a moment of a class: shape [SPAN], onset at `LEAD`."""
    kinds = SIMULATED[label]
    kind = kinds[int(draw.integers(len(kinds)))]
    distance_m = round(float(np.exp(draw.uniform(np.log(10.0), np.log(600.0)))))
    if kind == "shell":
        span = _emitted("shell_burst", distance_m, draw)
        for _ in range(int(draw.integers(10, 80))):
            place = int(draw.uniform(0.05, 1.2) * features.RATE_HZ)
            pop = _emitted("firecracker", distance_m, draw)[LEAD:]
            span[LEAD + place :] += pop[: len(pop) - place] * draw.uniform(0.02, 0.5)
        return span
    if kind == "crackle" or (kind == "firecracker" and draw.random() < 0.6):
        return _emitted("firecracker", distance_m, draw, count=int(draw.integers(5, 40)))
    if kind == "muzzle_blast" and draw.random() < 0.3:
        return _burst(distance_m, draw)
    if kind == "hammer":
        return _emitted(kind, distance_m, draw, strokes=int(draw.integers(1, 4)))
    return _emitted(kind, distance_m, draw)


def _burst(distance_m: int, draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """Fire again and again from one place: alike, and at even intervals."""
    one = _emitted("muzzle_blast", distance_m, draw)
    interval_s = draw.uniform(0.06, 0.14) if draw.random() < 0.5 else draw.uniform(0.2, 0.8)
    burst = one.copy()
    for shot in range(1, int(draw.integers(2, 8))):
        place = round(shot * interval_s * features.RATE_HZ * draw.uniform(0.97, 1.03))
        if LEAD + place >= SPAN:
            break
        burst[LEAD + place :] += one[LEAD : SPAN - place] * draw.uniform(0.8, 1.2)
    return burst


def _emitted(
    kind: str, distance_m: int, draw: np.random.Generator, **parameters: int
) -> npt.NDArray[np.float64]:
    pressure = emit(
        kind, distance_m=distance_m, sample_rate_hz=features.RATE_HZ, rng=draw, **parameters
    ).pressure_pa
    air = Atmosphere(temperature_c=float(draw.choice(_TEMPERATURES_C)))
    span = np.zeros(SPAN)
    span[LEAD : LEAD + len(pressure)] = pressure[: SPAN - LEAD]
    span[LEAD:] = absorb(span[LEAD:], distance_m, features.RATE_HZ, air)
    return span


def _noise(draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw noise whose spectrum falls by 0 to 9 dB an octave."""
    spectrum = np.fft.rfft(draw.standard_normal(SPAN))
    hertz = np.maximum(np.fft.rfftfreq(SPAN, 1 / features.RATE_HZ), 20.0)
    return np.fft.irfft(spectrum * hertz ** -draw.uniform(0.0, 1.5), SPAN)
