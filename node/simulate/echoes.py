"""Ground, walls and the clutter of a street: every way from a source to a listener.

Specular ways come from image sources (Allen & Berkley 1979); what a street scatters besides is a
tail of random faint arrivals. Between `node.simulate.sources` and `node.simulate.render`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from node.simulate.propagation import Atmosphere, absorption_response

Float64Array = npt.NDArray[np.float64]

_UP: Final = np.array([0.0, 0.0, 1.0])
_TAIL_START_S: Final = 0.006
_TAIL_ARRIVALS_PER_S: Final = 1500
_KERNEL_HALF: Final = 16  # samples each side of a scattered arrival's interpolation kernel
_SHELLS: Final = 4


class Wall(BaseModel):
    """An upright rectangular wall over a straight line on the ground; it reflects on both sides."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    x1_m: float = Field(description="Start, east, in m.")
    y1_m: float = Field(description="Start, north, in m.")
    x2_m: float = Field(description="End, east, in m.")
    y2_m: float = Field(description="End, north, in m.")
    height_m: float = Field(default=10.0, gt=0, le=500, description="Height in m.")
    reflection: float = Field(
        default=0.7, ge=0, le=1, description="Share of the pressure that it reflects."
    )

    @model_validator(mode="after")
    def _has_length(self) -> Wall:
        if (self.x1_m, self.y1_m) == (self.x2_m, self.y2_m):
            raise ValueError("ends where it starts; give it a length")
        return self

    @property
    def start(self) -> Float64Array:
        """Its foot's start, shape [3], in m."""
        return np.array([self.x1_m, self.y1_m, 0.0])

    @property
    def along(self) -> Float64Array:
        """From its foot's start to its end, shape [3], in m."""
        return np.array([self.x2_m - self.x1_m, self.y2_m - self.y1_m, 0.0])

    @property
    def normal(self) -> Float64Array:
        """Unit vector across it, shape [3]."""
        across = np.cross(self.along, _UP)
        return np.asarray(across / np.linalg.norm(across))


@dataclass(frozen=True)
class Path:
    """A way to a listener, as a straight line from an image of the source.

    Attributes
    ----------
    image_m
        Where the source seems to be, shape [3].
    front
        Where it seems to point, unit vector of shape [3].
    gain
        Product of the reflections on the way; 1 for the direct one.
    """

    image_m: Float64Array
    front: Float64Array
    gain: float


def paths(
    source_m: Float64Array,
    front: Float64Array,
    listener_m: Float64Array,
    walls: Sequence[Wall],
    *,
    ground_reflection: float = 0.7,
    order: int = 2,
) -> list[Path]:
    """Find the specular ways from a source to a listener; the direct one is first.

    Parameters
    ----------
    source_m, front, listener_m
        Positions in m (east, north, up; the ground is at 0) and the source's unit direction,
        shape [3] each.
    walls
        Each may mirror; none casts a shadow.
    ground_reflection
        Share of the pressure that the ground reflects, negative for a soft one.
    order
        Most walls on one way; the ground comes on top.
    """
    above = [
        path
        for walls_met in _sequences(len(walls), order)
        if (path := _mirrored(source_m, front, listener_m, [walls[i] for i in walls_met]))
    ]
    if ground_reflection == 0:
        return above
    flip = np.array([1.0, 1.0, -1.0])
    return above + [
        Path(path.image_m * flip, path.front * flip, path.gain * ground_reflection)
        for path in above
    ]


def _sequences(walls: int, order: int) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = [()]
    last = found
    for _ in range(order):
        last = [(*met, i) for met in last for i in range(walls) if not met or met[-1] != i]
        found = found + last
    return found


def _mirrored(
    source_m: Float64Array, front: Float64Array, listener_m: Float64Array, met: Sequence[Wall]
) -> Path | None:
    images = [source_m]
    gain = 1.0
    for wall in met:
        offset = (images[-1] - wall.start) @ wall.normal
        images.append(images[-1] - 2 * offset * wall.normal)
        front = front - 2 * (front @ wall.normal) * wall.normal
        gain *= wall.reflection
    # Back from the listener: every wall must be met within its bounds, in turn.
    at = listener_m
    for wall, image in zip(reversed(met), reversed(images[1:]), strict=True):
        here, there = (at - wall.start) @ wall.normal, (image - wall.start) @ wall.normal
        if here * there >= 0:
            return None
        at = at + (image - at) * (here / (here - there))
        along = (at - wall.start) @ wall.along / (wall.along @ wall.along)
        if not 0 <= along <= 1 or at[2] > wall.height_m:
            return None
    return Path(images[-1], front, gain)


def random_street(
    rng: np.random.Generator, centre_m: tuple[float, float], facades: int
) -> tuple[Wall, ...]:
    """Draw a street: facades by turns to its left and right, with gaps between the houses.

    Parameters
    ----------
    rng
        Settles the street's direction, width and houses.
    centre_m
        A point on the street, east and north, in m.
    facades
        How many.
    """
    angle = rng.uniform(0, np.pi)
    ahead = np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-ahead[1], ahead[0]])
    half_width_m = rng.uniform(7, 14)
    walls = []
    next_m = {-1: rng.uniform(-80, -30), 1: rng.uniform(-80, -30)}
    for i in range(facades):
        side = -1 if i % 2 else 1
        length_m = rng.uniform(20, 60)
        foot = np.asarray(centre_m) + side * half_width_m * aside + next_m[side] * ahead
        end = foot + length_m * ahead
        next_m[side] += length_m + rng.uniform(4, 15)
        walls.append(
            Wall(
                x1_m=foot[0],
                y1_m=foot[1],
                x2_m=end[0],
                y2_m=end[1],
                height_m=rng.uniform(6, 18),
                reflection=rng.uniform(0.5, 0.85),
            )
        )
    return tuple(walls)


@dataclass(frozen=True)
class Tail:
    """What a street scatters back: many faint arrivals from all round, dying exponentially.

    Attributes
    ----------
    level_db
        Energy of the whole tail over that of the direct sound, in dB.
    decay_s
        Time in which it falls by 60 dB.
    """

    level_db: float
    decay_s: float

    def response(
        self,
        rng: np.random.Generator,
        microphones_m: Float64Array,
        sample_rate_hz: float,
        atmosphere: Atmosphere,
    ) -> Float64Array:
        """Draw impulse responses that turn a direct sound into its tail.

        Each arrival is a plane wave, so that microphones of one array hear the same street from
        where they stand, and has lost to the air what its detour takes.

        Parameters
        ----------
        rng
            Settles the arrivals.
        microphones_m
            Positions in m from the array's reference point, shape [channels, 3].
        sample_rate_hz, atmosphere
            Of the result.

        Returns
        -------
        Impulse responses from the direct sound's arrival at the reference, [channels, n].
        """
        count = max(1, round(_TAIL_ARRIVALS_PER_S * self.decay_s))
        fall_per_s = np.log(1000) / self.decay_s
        after_s = _TAIL_START_S + self.decay_s * np.sort(rng.uniform(0, 1, count))
        gain = rng.standard_normal(count) * np.exp(-fall_per_s * after_s)
        gain *= 10 ** (self.level_db / 20) / np.linalg.norm(gain)
        azimuth = rng.uniform(0, 2 * np.pi, count)
        rise = np.abs(np.deg2rad(12) * rng.standard_normal(count))
        towards = np.stack(
            [np.cos(rise) * np.sin(azimuth), np.cos(rise) * np.cos(azimuth), np.sin(rise)]
        )
        speed = atmosphere.sound_speed_m_s
        at_sample = (after_s - microphones_m @ towards / speed) * sample_rate_hz
        n = int((_TAIL_START_S + self.decay_s) * sample_rate_hz) + 4 * _KERNEL_HALF
        edges = np.linspace(0, count, _SHELLS + 1).astype(int)
        size = 1 << (n + 2048 - 1).bit_length()
        spectrum = np.zeros((len(microphones_m), size // 2 + 1), dtype=np.complex128)
        for first, last in pairwise(edges):
            shell = _impulses(at_sample[:, first:last], gain[first:last], n)
            detour_m = float(speed * after_s[first:last].mean())
            air = absorption_response(round(detour_m), sample_rate_hz, atmosphere)
            spectrum += np.fft.rfft(shell, size) * np.fft.rfft(air, size)
        return np.asarray(np.fft.irfft(spectrum, size)[:, :n])


def _impulses(at_sample: Float64Array, gain: Float64Array, n: int) -> Float64Array:
    """Add unit impulses at fractional samples, [channels, count], by a windowed sinc."""
    taps = np.arange(1 - _KERNEL_HALF, _KERNEL_HALF + 1)
    whole = np.floor(at_sample).astype(int)
    offset = taps - (at_sample - whole)[..., None]
    kernel = np.sinc(offset) * np.cos(np.pi * offset / (2 * _KERNEL_HALF + 2)) ** 2
    index = np.clip(whole[..., None] + taps, 0, n - 1)
    sums = [
        np.bincount(i.ravel(), (k * gain[:, None]).ravel(), n)
        for i, k in zip(index, kernel, strict=True)
    ]
    return np.stack(sums)
