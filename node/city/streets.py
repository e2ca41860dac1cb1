"""The city that is played: a scene laid on the globe, who stands where, and who lies.

In comes a scene in metres; out go settings for each node, and the truth to compare with. Stated
places are off by what a survey is off by, clocks by what a receiver leaves: a demo with perfect
places would show errors that no city has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np

from node.capture import built_in_arrays
from node.network.plane import Plane
from node.simulate.cast import Cue
from node.simulate.render import RenderedScene, render
from node.simulate.scene import load as load_scene
from node.simulate.scene import packaged as packaged_scene
from node.types import ClockQuality, Label

SCENE: Final = "city"
SITE: Final = "demo-city"
# Where the scene's origin lies: a field in Kansas, where nobody is told to have been shot at.
ORIGIN_DEG: Final = (39.0, -99.0)
ORIGIN_ALT_M: Final = 600.0
# A host's clock that chrony disciplines by a receiver's pulse.
CLOCK: Final = ClockQuality(source="gps", sigma_s=1e-5, bound_s=1e-4, second_confirmed=True)
LIES_S: Final = 1.0
LIAR: Final = "roof-6"
# Shots of one gun follow each other within so much; what is farther apart is another matter.
SAME_VOLLEY_S: Final = 2.0


@dataclass(frozen=True)
class Lie:
    """What is wrong with one node, and nobody has told it.

    Attributes
    ----------
    node_id
        Whose.
    clock_s
        By how much its clock is ahead, in s, while it says that it is right.
    """

    node_id: str
    clock_s: float

    def __str__(self) -> str:
        return f"{self.node_id}'s clock is {self.clock_s:+g} s off"


@dataclass(frozen=True)
class Sound:
    """One thing that happened: the shots of one gun within two seconds, or a look-alike.

    Attributes
    ----------
    kind, label
        What.
    place_m
        East and north in the scene, in m.
    times_s
        When each shot left, from the scene's start, in s; of a look-alike only its first sound.
    """

    kind: str
    label: Label
    place_m: tuple[float, float]
    times_s: tuple[float, ...]

    @property
    def rounds(self) -> int:
        """How many shots."""
        return len(self.times_s)


@dataclass(frozen=True)
class Stated:
    """Where a node says that it stands (WGS 84)."""

    lat_deg: float
    lon_deg: float
    alt_m: float
    sigma_m: float


@dataclass(frozen=True)
class City:
    """A scene of several nodes, ready to be played.

    Attributes
    ----------
    rendered
        The scene; no sound is worked out yet.
    stated
        Where each node says it stands, in the scene's order.
    clock_errors_s
        By how much each node's clock is ahead, the lie included.
    lie
        What is wrong, and with whom; None where nobody lies.
    """

    rendered: RenderedScene
    stated: tuple[Stated, ...]
    clock_errors_s: tuple[float, ...]
    lie: Lie | None

    @classmethod
    def load(cls, scene: Path | None = None, lie: Lie | None = None) -> City:
        """Read a scene, the packaged ten nodes if None; `lie` of a node that is not there is none.

        Raises
        ------
        SceneError
            The scene cannot be read, or says something that a scene cannot.
        """
        rendered = render(load_scene(scene) if scene else packaged_scene(SCENE), built_in_arrays())
        rng = np.random.default_rng(rendered.scene.seed)
        stated, clocks = [], []
        for node in rendered.scene.nodes:
            x, y, z = np.array([node.x_m, node.y_m, node.z_m]) + node.sigma_m * rng.normal(size=3)
            lat_deg, lon_deg = to_globe(x, y)
            stated.append(Stated(lat_deg, lon_deg, ORIGIN_ALT_M + z, node.sigma_m))
            clocks.append(CLOCK.sigma_s * rng.normal())
        names = [node.id for node in rendered.scene.nodes]
        if lie is not None and lie.node_id in names:
            clocks[names.index(lie.node_id)] += lie.clock_s
        else:
            lie = None
        return cls(rendered, tuple(stated), tuple(clocks), lie)

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes, in the scene's order."""
        return tuple(node.id for node in self.rendered.scene.nodes)

    def places_m(self) -> dict[str, tuple[float, float]]:
        """Give where each node says it stands, east and north in the scene, in m."""
        stated = zip(self.names, self.stated, strict=True)
        return {name: to_scene(s.lat_deg, s.lon_deg) for name, s in stated}

    def sounds(self) -> tuple[Sound, ...]:
        """Give what happens, in order of time; shots of one gun together."""
        cues = sorted(self.rendered.nodes[0].cues, key=lambda cue: cue.time_s)
        shots = [cue for cue in cues if cue.sound.label == "gunfire"]
        volleys: list[list[Cue]] = []
        for _, of_place in groupby(sorted(shots, key=_place), key=_place):
            for cue in of_place:
                last = volleys[-1] if volleys else None
                if (
                    last is not None
                    and _place(last[-1]) == _place(cue)
                    and cue.time_s - last[-1].time_s <= SAME_VOLLEY_S
                ):
                    last.append(cue)
                else:
                    volleys.append([cue])
        sounds = [_sound(volley) for volley in volleys]
        sounds += [_sound([cue]) for cue in cues if cue.sound.label != "gunfire"]
        return tuple(sorted(sounds, key=lambda sound: sound.times_s))

    def heard_s(self, sound: Sound, of: int) -> float:
        """Give when the `of`th honest node hears a sound's first shot, from the start, in s."""
        speed = self.rendered.scene.atmosphere.sound_speed_m_s
        liar = self.lie.node_id if self.lie else None
        ways_m = sorted(
            math.dist(sound.place_m, (node.x_m, node.y_m))
            for node in self.rendered.scene.nodes
            if node.id != liar
        )
        return sound.times_s[0] + ways_m[min(of, len(ways_m)) - 1] / speed


def to_globe(x_m: float, y_m: float) -> tuple[float, float]:
    """Give latitude and longitude, degrees, of a place in the scene."""
    return _plane().degrees(x_m, y_m)


def to_scene(lat_deg: float, lon_deg: float) -> tuple[float, float]:
    """Give east and north in the scene, m, of a place on the globe."""
    return _plane().metres(lat_deg, lon_deg)


@cache
def _plane() -> Plane:
    return Plane(*ORIGIN_DEG)


def _place(cue: Cue) -> tuple[float, float]:
    return float(cue.place_m[0]), float(cue.place_m[1])


def _sound(cues: list[Cue]) -> Sound:
    first = cues[0].sound
    times_s = tuple(cue.time_s for cue in cues)
    return Sound(first.kind, first.label, _place(cues[0]), times_s)
