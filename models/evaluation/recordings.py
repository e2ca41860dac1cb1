"""The recordings to judge by: the held-out groups of a data folder, long ones cut in pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile

from models.training.corpus import LIVE_FIRE, Clip, read_manifest
from node.types import LABELS

PIECE_S: Final = 5.0
"""A display of a minute is many city sounds: about what one clip of UrbanSound8K holds."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One sound to judge, at the file's own rate and channel count."""

    clip: Clip
    frames: npt.NDArray[np.float32]
    rate_hz: int

    @property
    def live(self) -> bool:
        """Say whether it is of the live-fire test."""
        return self.clip.source == LIVE_FIRE


def held_out(data: Path, groups: dict[str, list[str]], part: str) -> list[Clip]:
    """List the recordings of one part.

    Parameters
    ----------
    data
        A folder laid out as `../shared/data`.
    groups
        What the model's sidecar says it learnt from: groups by part.
    part
        "test" for every group that the model neither learnt from nor was calibrated on, so that
        a folder with groups of its own is used whole; "calibrate" or "train" for those; "all".
    """
    seen = {group: name for name in ("train", "calibrate") for group in groups[name]}
    clips = [clip for clip in read_manifest(data, "ABC") if clip.label in LABELS]
    return [clip for clip in clips if part in (seen.get(clip.group, "test"), "all")]


def pieces(clip: Clip) -> Iterator[Piece]:
    """Read a recording; live fire stays whole (its 10 s hold one test), the rest is cut."""
    frames, rate_hz = soundfile.read(clip.path, dtype="float32", always_2d=True)
    size = len(frames) if clip.source == LIVE_FIRE else round(PIECE_S * rate_hz)
    last = max(0, len(frames) - size // 2)
    cuts = [*range(0, max(last, 1), size), len(frames)]
    for start, end in pairwise(cuts):
        yield Piece(clip, frames[start:end], rate_hz)
