"""The moments that a model learns from: what is heard, where it sets in, and what it is.

The recordings of one fold (`corpus`) come in; dry stretches of `SPAN` samples with their onset at
`LEAD` go out to `surroundings`. What is simulated comes from `synthetic`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from models.training.corpus import (
    LIVE_FIRE,
    Clip,
    audible_shots,
    impulses,
    live_fire,
    load,
    quiet_stretches,
)
from node.classify import features
from node.types import LABELS, Label

LEAD: Final = round(0.6 * features.RATE_HZ)
SPAN: Final = round(2.0 * features.RATE_HZ)
IMPULSIVE: Final = frozenset(
    {"drum", "billiard_impact", "thunder", "HammerMetal", "DroppingStones", "CoinDrop"}
    | {"ClankingDishes", "NailsFromBox", "clapping", "clapping_crowd", "dog_bark", "Shovel"}
    | {"jackhammer", "drilling", "fire_crackling", "Ratchet", "typing", "clock_tick"}
)
STEADY: Final = frozenset(
    {"air_conditioner", "engine_idling", "children_playing", "street_ambience", "rain", "engine"}
    | {"sea_waves", "helicopter", "jet", "street_music", "voice", "mower", "siren"}
)
ENGINES: Final = frozenset({"engine_idling", "engine", "mower", "chainsaw"})


@dataclass(frozen=True, slots=True)
class Moment:
    """An onset in a recording, by sample; `index` is None for a place anywhere in it."""

    clip: Clip
    index: int | None


@dataclass
class Moments:
    """All moments of one fold, and the sound they are in."""

    sounds: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    by_label: dict[Label, dict[str, list[Moment]]] = field(
        default_factory=lambda: {label: defaultdict(list) for label in LABELS}
    )
    backgrounds: list[npt.NDArray[np.float32]] = field(default_factory=list)
    street: list[npt.NDArray[np.float32]] = field(default_factory=list)
    engines: list[npt.NDArray[np.float32]] = field(default_factory=list)
    rooms: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def dry(self, moment: Moment, draw: np.random.Generator) -> npt.NDArray[np.float64]:
        """Cut a moment out of its recording, with silence beyond its ends: shape [SPAN]."""
        sound = self.sounds[str(moment.clip.path)]
        index = moment.index
        if index is None:
            index = self._anywhere(sound, draw)
        cut = np.zeros(SPAN)
        first = index - LEAD
        piece = sound[max(0, first) : max(0, first + SPAN)]
        cut[max(0, -first) : max(0, -first) + len(piece)] = piece
        return cut

    @staticmethod
    def _anywhere(sound: npt.NDArray[np.float32], draw: np.random.Generator) -> int:
        """Draw a place: the loudest of a few, since a node is asked about little else."""
        places = draw.integers(0, max(1, len(sound) - LEAD), 3)
        return int(max(places, key=lambda at: float(np.sum(sound[at : at + LEAD] ** 2))))

    def background(self, draw: np.random.Generator) -> npt.NDArray[np.float64]:
        """Draw `SPAN` samples of a street without the sound in question."""
        choice = draw.random()
        if choice < 0.2 or not (self.street or self.backgrounds):
            return _noise(draw)
        street = self.street and (choice < 0.65 or not self.backgrounds)
        pool = self.street if street else self.backgrounds
        source = pool[int(draw.integers(len(pool)))]
        start = int(draw.integers(0, len(source)))
        return np.take(source, np.arange(start, start + SPAN), mode="wrap").astype(np.float64)


def gather(clips: list[Clip], fold: int) -> Moments:
    """Find every moment in the recordings of one fold."""
    found = Moments()
    mine = [clip for clip in clips if clip.fold == fold]
    for record in live_fire(mine):
        sound = load(record.clip.path)
        found.sounds[str(record.clip.path)] = sound
        group = f"live/{record.clip.group}"
        for shot in audible_shots(record, sound):
            if 0 < shot < len(sound):
                found.by_label["gunfire"][group].append(Moment(record.clip, shot))
        found.street += [sound[quiet] for quiet in quiet_stretches(sound, record.busy, 0.8)]
    # Rooms are no sounds to judge: every fold has them all.
    found.rooms = [load(clip.path) for clip in clips if clip.label == "impulse_response"]
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
            moments = moments[:4]
        if label != "gunfire":
            # A stream is looked at everywhere, and not at onsets alone.
            moments += [Moment(clip, None)] * max(1, round(clip.seconds / 2))
        found.by_label[label][group] += moments
        if clip.sound in STEADY:
            found.backgrounds.append(sound)
        if clip.sound in ENGINES:
            found.engines.append(sound)
    return found


def _noise(draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw noise whose spectrum falls by 0 to 9 dB an octave."""
    spectrum = np.fft.rfft(draw.standard_normal(SPAN))
    hertz = np.maximum(np.fft.rfftfreq(SPAN, 1 / features.RATE_HZ), 20.0)
    return np.fft.irfft(spectrum * hertz ** -draw.uniform(0.0, 1.5), SPAN)
