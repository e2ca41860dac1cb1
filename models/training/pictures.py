"""Pictures to learn from: moments, carried through random surroundings, as the network sees them.

Made in shards under `models/cache/`, each of one fold alone: its sources, its streets, its
engines. A shard hangs on the data's hash, the seed and its own number, so that an interrupted run
goes on where it stopped, and every fold's model learns from the same pictures but its own fold's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from models.training.corpus import Clip
from models.training.moments import IMPULSIVE, LEAD, SPAN, Moments, gather
from models.training.surroundings import surround
from models.training.synthetic import simulated
from models.training.teacher import FAMILIES, Teacher
from node.classify import features
from node.types import LABELS, Label

SHARD: Final = 1000
ONSET_S: Final = (0.08, 0.34)
"""Where in a picture the onset falls; the node's own looks and stream steps lie within."""
SLACK: Final = 32
"""Frames that a cached picture is longer than the network's: the cut is drawn while learning."""

CLASS_SHARE: Final[dict[Label, float]] = {
    "gunfire": 0.33,
    "fireworks": 0.21,
    "backfire": 0.05,
    "other": 0.41,
}
SIMULATED_SHARE: Final[dict[Label, float]] = {
    "gunfire": 0.20,
    "fireworks": 0.20,
    "backfire": 0.90,
    "other": 0.20,
}
STREET_SHARE: Final = 0.15
"""Of `other`: nothing but background, so that a quiet street scores as one."""

SECOND_SHARE: Final = 0.25
"""Heard over two backgrounds at once."""
INDOORS_SHARE: Final = 0.06
"""Heard in a measured room or hall in place of a street."""
SERIES_SHARE: Final = 0.2
"""Of the recorded onsets: heard several times over, at a cadence drawn alike for every class."""
_TAUGHT_S: Final = 0.14
"""From the start of a picture's sound to the start of what the teacher hears: onset at 0.2 s."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures as the cache holds them (uint8, 255 the loudest), classes, what the teacher hears.

    Shapes [n, FRAMES + SLACK, BANDS], [n] and [n, len(teacher.FAMILIES)].
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    heard: npt.NDArray[np.uint8]


def shard(
    moments: Moments, teacher: Teacher, seed: int, fold: int, number: int, count: int = SHARD
) -> Pictures:
    """Draw one shard of pictures of a fold."""
    draw = np.random.default_rng([seed, fold, number])
    images = np.empty((count, features.FRAMES + SLACK, features.BANDS), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    heard = np.empty((count, len(FAMILIES)), dtype=np.uint8)
    shares = [CLASS_SHARE[label] for label in LABELS]
    for row in range(count):
        drawn = None
        while drawn is None:
            label = LABELS[int(draw.choice(len(LABELS), p=shares))]
            sound = _sound(moments, label, draw)
            drawn = features.picture(features.mel_power(sound))
        images[row] = np.rint(drawn * 255)
        labels[row] = LABELS.index(label)
        heard[row] = teacher.heard(sound[round(_TAUGHT_S * features.RATE_HZ) :])
    return Pictures(images, labels, heard)


def draw_shards(
    clips: list[Clip], yamnet: Path, folder: Path, seed: int, fold: int, numbers: range
) -> None:
    """Draw the shards of a fold that an earlier run has not: one process's part of the work."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [n for n in numbers if not shard_path(folder, seed, fold, n).exists()]
    if not wanted:
        return
    moments, teacher = gather(clips, fold), Teacher(yamnet)
    for number in wanted:
        made = shard(moments, teacher, seed, fold, number)
        path = shard_path(folder, seed, fold, number)
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez(file, images=made.images, labels=made.labels, heard=made.heard)
        partial.rename(path)


def shard_path(folder: Path, seed: int, fold: int, number: int) -> Path:
    """Name the file of a shard."""
    return folder / f"{seed}-{fold}-{number:04d}.npz"


def load(folder: Path, seed: int, folds: Iterable[int], shards: int) -> Pictures:
    """Read all shards of some folds back."""
    parts = []
    for fold in folds:
        for number in range(shards):
            with np.load(shard_path(folder, seed, fold, number)) as held:
                parts.append((held["images"], held["labels"], held["heard"]))
    return Pictures(*map(np.concatenate, zip(*parts, strict=True)))


def _sound(moments: Moments, label: Label, draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw the sound of a picture, the onset at `ONSET_S[1]` or a little off it."""
    background = moments.background(draw)
    recorded = True
    if label == "other" and draw.random() < STREET_SHARE:
        dry = moments.background(draw)
    elif draw.random() < SIMULATED_SHARE[label] or not moments.by_label[label]:
        dry, recorded = simulated(label, draw, moments.engines), False
    else:
        groups = moments.by_label[label]
        names = list(groups)
        weights = np.array([_weight(name, len(groups[name])) for name in names])
        group = groups[names[int(draw.choice(len(names), p=weights / weights.sum()))]]
        moment = group[int(draw.integers(len(group)))]
        dry = _at_speed(moments.dry(moment, draw), draw)
        if moment.index is not None and draw.random() < SERIES_SHARE:
            dry = in_series(dry, draw)
    indoors = moments.rooms and draw.random() < INDOORS_SHARE
    sound = surround(
        dry,
        LEAD,
        background,
        draw,
        recorded=recorded,
        response=moments.rooms[int(draw.integers(len(moments.rooms)))] if indoors else None,
        second_background=moments.background(draw) if draw.random() < SECOND_SHARE else None,
    )
    start = LEAD - round((ONSET_S[1] + draw.uniform(-0.004, 0.004)) * features.RATE_HZ)
    stop = start + features.WINDOW + SLACK * features.HOP
    return sound[start:stop]


def _at_speed(dry: npt.NDArray[np.float64], draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """Play a moment up to a fifth slower or faster: a larger or a smaller one of its kind."""
    if draw.random() < 0.4:
        return dry
    speed = Fraction(int(draw.integers(27, 40)), 33)
    played = resample_poly(dry, speed.denominator, speed.numerator)
    moved = np.zeros(SPAN)
    first = LEAD - round(LEAD / speed)
    piece = played[max(0, -first) : SPAN - first]
    moved[max(0, first) : max(0, first) + len(piece)] = piece
    return moved


def in_series(dry: npt.NDArray[np.float64], draw: np.random.Generator) -> npt.NDArray[np.float64]:
    """Let the sound at `LEAD` come two to eight times: an automatic's burst, a salvo, hammering.

    Parameters
    ----------
    dry
        A moment, shape [SPAN].
    draw
        Random numbers: 70 to 900 ms from sound to sound, even or uneven, each some dB off.
    """
    times = np.arange(SPAN) - LEAD
    fade_s = np.exp(draw.uniform(np.log(0.08), np.log(0.8)))
    one = dry * np.where(
        times < -24, 0.0, np.exp(-np.maximum(times, 0) / features.RATE_HZ / fade_s)
    )
    gap_s = np.exp(draw.uniform(np.log(0.07), np.log(0.9)))
    uneven, off_db = draw.choice([0.02, 0.1, 0.3]), draw.uniform(0.5, 5.0)
    gaps_s = gap_s * np.exp(uneven * draw.standard_normal(int(draw.integers(1, 8))))
    at = np.rint(np.cumsum(np.r_[0.0, gaps_s]) * features.RATE_HZ).astype(int)
    if draw.random() < 0.35:
        at -= at[int(draw.integers(len(at)))]
    series = dry.copy()
    for shift in at[(at != 0) & (np.abs(at) < SPAN)]:
        gain = 10 ** (off_db / 20 * draw.standard_normal())
        series[max(0, shift) : SPAN + min(0, shift)] += (
            gain * one[max(0, -shift) : SPAN - max(0, shift)]
        )
    return series


def _weight(group: str, moments: int) -> float:
    """Weigh a group between one vote each and one vote a moment.

    Live fire counts more, since it is what a node hears; so do sounds with an onset, since the
    trigger hands on little else.
    """
    factor = 1.6 if group.startswith("live/") else 3.0 if group in IMPULSIVE else 1.0
    return factor * float(np.sqrt(moments))
