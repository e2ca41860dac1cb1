"""What streets are put together from: stretches of their noise, and single sounds, on disk.

Made by `rendering`. They are read from the file a block at a time, and not mapped or kept, so that
the library takes no memory of the process whose memory is measured.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int32]
Kind = Literal["shot", "firework", "backfire", "clatter"]

PPM: Final = 18.0
"""By how much the card's crystal runs fast."""
_FRAME_BYTES: Final = 4


@dataclass(frozen=True)
class Bed:
    """A stretch of noise without a sound that anybody means: where it lies in the file."""

    vehicles_per_minute: float
    first: int
    frames: int


@dataclass(frozen=True)
class Sound:
    """A sound by itself, in silence.

    Attributes
    ----------
    kind
        What it is.
    first, frames
        Where it lies in the file.
    onset
        Where it reaches channel 0 first, in samples from its first frame.
    rounds
        Shots in it; 0 where it is none.
    """

    kind: Kind
    first: int
    frames: int
    onset: float
    rounds: int


@dataclass(frozen=True)
class Library:
    """Beds and sounds, and the file that holds their frames one after the other.

    Attributes
    ----------
    sample_rate_hz, microphones
        Of all.
    pulse_frames
        How long the pulses are, which can be played over and over without a seam.
    """

    folder: Path
    sample_rate_hz: int
    microphones: int
    pulse_frames: int
    beds: tuple[Bed, ...]
    sounds: tuple[Sound, ...]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `make` has written."""
        said = json.loads((folder / "library.json").read_text())
        return cls(
            folder,
            said["sample_rate_hz"],
            said["microphones"],
            said["pulse_frames"],
            tuple(Bed(**bed) for bed in said["beds"]),
            tuple(Sound(**sound) for sound in said["sounds"]),
        )

    def of(self, *kinds: Kind) -> list[int]:
        """Give the numbers of the sounds of some kinds."""
        return [number for number, sound in enumerate(self.sounds) if sound.kind in kinds]

    def with_vehicles(self, vehicles_per_minute: float) -> list[int]:
        """Give the numbers of the beds with so much traffic."""
        return [n for n, b in enumerate(self.beds) if b.vehicles_per_minute == vehicles_per_minute]

    def open(self) -> Frames:
        """Open the file of beds and sounds."""
        return Frames(self.folder / "frames.raw", self.microphones)

    def open_pulses(self) -> Frames:
        """Open the file of the pulses."""
        return Frames(self.folder / "pulses.raw", 1)


class Frames:
    """The frames of a library, read as they are asked for."""

    def __init__(self, file: Path, microphones: int) -> None:
        self._descriptor = os.open(file, os.O_RDONLY)
        self._microphones = microphones

    def read(self, first: int, frames: int) -> Pcm:
        """Give some frames, shape [n, microphones]."""
        wide = self._microphones * _FRAME_BYTES
        data = os.pread(self._descriptor, frames * wide, first * wide)
        return np.frombuffer(data, np.int32).reshape(-1, self._microphones)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
