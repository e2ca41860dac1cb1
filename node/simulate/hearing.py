"""One sound at one array: every way that it takes there, at every microphone, and its tail.

Between `node.simulate.cast` and `node.simulate.render`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from node.simulate.cast import Cue
from node.simulate.echoes import Path, Tail, Wall, paths
from node.simulate.propagation import absorb
from node.simulate.scene import Scene

Float64Array = npt.NDArray[np.float64]

_AIR_TAIL_S: Final = 0.02  # what absorption adds to a sound's end


def onset_samples(
    scene: Scene,
    cue: Cue,
    image_m: Float64Array,
    microphones_m: Float64Array,
    rate_hz: float,
) -> Float64Array:
    """Give when a sound starts at each microphone, by the way from an image of its place.

    Parameters
    ----------
    rate_hz
        The converter's true rate.

    Returns
    -------
    Fractional samples from the scene's start, shape [channels].
    """
    distances_m = np.linalg.norm(microphones_m - image_m, axis=1)
    after_s = distances_m / scene.atmosphere.sound_speed_m_s
    return np.asarray((cue.time_s + after_s) * rate_hz)


def hear(
    scene: Scene,
    cue: Cue,
    microphones_m: Float64Array,
    walls: Sequence[Wall],
    rng: np.random.Generator,
    rate_hz: float,
) -> Float64Array:
    """Work out one sound at the microphones of one array, with its echoes.

    Parameters
    ----------
    scene, cue
        The surroundings, and the sound.
    microphones_m
        Where the microphones are in the scene, shape [channels, 3], in m.
    walls
        All that mirror.
    rng
        Settles the scattered tail.
    rate_hz
        The converter's true rate, which its nominal one may differ from by some ppm.

    Returns
    -------
    Pressure in Pa, shape [n, channels], from the whole sample at or before the first arrival at
    any microphone.
    """
    ways = paths(
        cue.place_m,
        cue.front,
        microphones_m.mean(axis=0),
        walls,
        ground_reflection=scene.street.ground_reflection,
        order=scene.street.echo_order,
    )
    base = int(onset_samples(scene, cue, cue.place_m, microphones_m, rate_hz).min())
    parts = [_along(way, scene, cue, microphones_m, base, rate_hz) for way in ways]
    if scene.street.tail:
        parts.append((parts[0][0], _tail(scene, parts[0][1], microphones_m, rng)))
    total = np.zeros((max(at + wave.shape[1] for at, wave in parts), len(microphones_m)))
    for at, wave in parts:
        total[at : at + wave.shape[1]] += wave.T
    return total


def _along(
    way: Path, scene: Scene, cue: Cue, microphones_m: Float64Array, base: int, rate: float
) -> tuple[int, Float64Array]:
    """Give where a way's sound starts after `base`, and the sound, [channels, n]."""
    onsets = onset_samples(scene, cue, way.image_m, microphones_m, rate) - base
    start = int(onsets.min())
    distances_m = np.linalg.norm(microphones_m - way.image_m, axis=1)
    line_m = microphones_m.mean(axis=0) - way.image_m
    way_m = float(np.linalg.norm(line_m))
    ahead = np.clip(line_m @ way.front / max(way_m, 1e-3), -1, 1)
    waves = [
        cue.sound.sample(
            distance_m=float(distance_m),
            sample_rate_hz=rate,
            onset_sample=float(onset - start),
            off_axis_deg=float(np.rad2deg(np.arccos(ahead))),
        )
        for distance_m, onset in zip(distances_m, onsets, strict=True)
    ]
    n = max(len(wave) for wave in waves) + int(_AIR_TAIL_S * rate)
    stacked = np.stack([np.pad(wave, (0, n - len(wave))) for wave in waves])
    return start, way.gain * absorb(stacked, way_m, rate, scene.atmosphere)


def _tail(
    scene: Scene, direct: Float64Array, microphones_m: Float64Array, rng: np.random.Generator
) -> Float64Array:
    """Give what the street scatters of the direct sound, [channels, n]."""
    response = Tail(scene.street.tail_db, scene.street.tail_s).response(
        rng, microphones_m - microphones_m[0], scene.sample_rate_hz, scene.atmosphere
    )
    n = direct.shape[1] + response.shape[1] - 1
    size = 1 << (n - 1).bit_length()
    spectrum = np.fft.rfft(direct[:1], size) * np.fft.rfft(response, size)
    return np.asarray(np.fft.irfft(spectrum, size)[:, :n])
