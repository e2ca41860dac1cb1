"""Settles what a scene leaves open: each source becomes sounds with a place, a time and a front.

Between `node.simulate.scene` and `node.simulate.render`. Every random choice hangs on the scene's
seed and on what it is for, so that adding a node or a source changes nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from node.simulate.echoes import Wall, random_street
from node.simulate.pulses import Sound
from node.simulate.scene import AerialShell, Scene, SceneSource
from node.simulate.sounds import LiftCharge, ShellBurst

Float64Array = npt.NDArray[np.float64]

# Spreads the 1 to 4 ms that `ShellBurst` draws from by itself over shells of 50 to 150 mm.
SHELL_PHASE_S_PER_MM: Final = 25e-6


class Chance(IntEnum):
    """What a random stream is for."""

    SOURCE = 0
    STREET = 1
    NOISE = 2
    SELF_NOISE = 3
    TAIL = 4
    PULSE = 5


@dataclass(frozen=True)
class Cue:
    """A sound that is settled.

    Attributes
    ----------
    sound
        What.
    time_s
        When it starts at its place, from the scene's start.
    place_m
        Where: east, north, up in m, shape [3].
    front
        Where it points, unit vector of shape [3].
    """

    sound: Sound
    time_s: float
    place_m: Float64Array
    front: Float64Array


def chance(scene: Scene, purpose: Chance, *which: int) -> np.random.SeedSequence:
    """Give the seed of one purpose."""
    return np.random.SeedSequence(scene.seed, spawn_key=(int(purpose), *which))


def cues(scene: Scene) -> tuple[Cue, ...]:
    """Settle the sources, in the scene's order; an aerial shell makes two cues, lift and burst."""
    return tuple(
        cue
        for i, source in enumerate(scene.sources)
        for cue in _cues(source, np.random.default_rng(chance(scene, Chance.SOURCE, i)))
    )


def walls(scene: Scene) -> tuple[Wall, ...]:
    """Give the scene's walls and those of its random street, which runs by the first node."""
    if not scene.street.facades:
        return scene.walls
    first = scene.nodes[0]
    rng = np.random.default_rng(chance(scene, Chance.STREET))
    return scene.walls + random_street(rng, (first.x_m, first.y_m), scene.street.facades)


def _cues(source: SceneSource, rng: np.random.Generator) -> tuple[Cue, ...]:
    any_heading_deg = rng.uniform(0, 360)
    heading = np.deg2rad(any_heading_deg if source.heading_deg is None else source.heading_deg)
    front = np.array([np.sin(heading), np.cos(heading), 0.0])
    place_m = np.array([source.x_m, source.y_m, source.z_m])
    if not isinstance(source.sound, AerialShell):
        return (Cue(source.sound.draw(rng), source.time_s, place_m, front),)
    shell = source.sound
    any_diameter_mm = rng.uniform(50, 150)
    diameter_mm = shell.diameter_mm or any_diameter_mm
    # The trade's rule: 100 ft of height per inch, and a fuse of about 2.5 s for three inches.
    fuse_s = shell.fuse_s or 1.0 + diameter_mm / 50
    height_m = shell.burst_height_m or 1.2 * diameter_mm
    # Cube-root scaling of blasts (Hopkinson, Cranz): the positive phase goes with the cube root of
    # the charge, and a shell's charge with the cube of its diameter.
    burst = ShellBurst(positive_phase_s=diameter_mm * SHELL_PHASE_S_PER_MM * rng.uniform(0.8, 1.2))
    aloft_m = place_m + np.array([0.0, 0.0, height_m])
    return (
        Cue(LiftCharge().draw(rng), source.time_s, place_m, front),
        Cue(burst.draw(rng), source.time_s + fuse_s, aloft_m, front),
    )
