"""A scene as its TOML says it: the street, who makes which sound where and when, who listens.

The way in of the simulation; `node.simulate.cast` settles what a scene leaves open and
`node.simulate.render` makes it heard. docs/look-up/scenes.md lists every key.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from node.errors import SceneError
from node.simulate.echoes import Wall
from node.simulate.explain import one_line
from node.simulate.microphone import Bits
from node.simulate.propagation import Atmosphere
from node.simulate.sounds import (
    Backfire,
    DoorSlam,
    Firecracker,
    Hammer,
    LiftCharge,
    MuzzleBlast,
    ShellBurst,
)

Metres = Annotated[float, Field(ge=-50_000, le=50_000)]
Height = Annotated[float, Field(ge=0, le=5_000)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AerialShell(_Model):
    """A shell of fireworks: its lift charge at the mortar, its burst above after the fuse."""

    kind: Literal["aerial_shell"] = "aerial_shell"
    diameter_mm: float | None = Field(
        default=None,
        ge=25,
        le=610,
        description="Shell's diameter in mm; 50 to 150 if absent. The positive phase of the "
        "burst goes with it: 25 us per mm, give or take a fifth.",
    )
    fuse_s: float | None = Field(
        default=None,
        gt=0.2,
        le=15,
        description="From lift to burst in s; by diameter, 2 to 4 s for 50 to 150 mm, if absent.",
    )
    burst_height_m: float | None = Field(
        default=None,
        gt=1,
        le=1000,
        description="Burst over the mortar in m; 1.2 m per mm of diameter if absent.",
    )


Sounding = Annotated[
    MuzzleBlast
    | AerialShell
    | ShellBurst
    | LiftCharge
    | Firecracker
    | Backfire
    | DoorSlam
    | Hammer,
    Field(discriminator="kind"),
]


class SceneSource(_Model):
    """A source: where and when, and in the same table the parameters of its kind."""

    time_s: float = Field(ge=0, description="When its first sound leaves, from the start, in s.")
    x_m: Metres = Field(description="East, in m.")
    y_m: Metres = Field(description="North, in m.")
    z_m: Height = Field(default=1.5, description="Above the ground, in m.")
    heading_deg: float | None = Field(
        default=None,
        ge=-360,
        le=360,
        description="Where it points, clockwise from north; any way if absent.",
    )
    sound: Sounding = Field(description="Kind and parameters, written in the source's own table.")

    @model_validator(mode="before")
    @classmethod
    def _part(cls, table: Any) -> Any:
        if not isinstance(table, Mapping) or "sound" in table:
            return table
        place = {key: value for key, value in table.items() if key in cls.model_fields}
        return place | {"sound": {k: v for k, v in table.items() if k not in place}}


class Street(_Model):
    """What surrounds sources and nodes alike."""

    noise_db_a: float = Field(
        default=55.0, ge=-20, le=110, description="Street noise between vehicles in dB(A)."
    )
    vehicles_per_minute: float = Field(
        default=4.0, ge=0, le=120, description="Vehicles that pass near by, a minute."
    )
    ground_reflection: float = Field(
        default=0.7, ge=-1, le=1, description="Share of the pressure that the ground reflects."
    )
    facades: int = Field(
        default=0,
        ge=0,
        le=12,
        description="Facades drawn at random along a street by the first node.",
    )
    echo_order: int = Field(default=2, ge=0, le=3, description="Most walls on one way.")
    tail: bool = Field(default=True, description="Whether the street scatters sound.")
    tail_db: float = Field(
        default=-6.0,
        ge=-60,
        le=20,
        description="Energy of the scattered tail over the direct sound's, in dB.",
    )
    tail_s: float = Field(
        default=0.6, ge=0.05, le=5, description="Time in which the tail falls by 60 dB, in s."
    )


class SceneNode(_Model):
    """A node: where it stands, its microphones and its converter."""

    id: str = Field(description="Name: up to 64 of letters, digits, '.', '_', '-'; also of files.")
    x_m: Metres = Field(description="East, in m.")
    y_m: Metres = Field(description="North, in m.")
    z_m: Height = Field(default=4.0, description="Above the ground, in m.")
    sigma_m: float = Field(
        default=0.5, gt=0, le=1000, description="Standard error that its place is told with, in m."
    )
    heading_deg: float = Field(
        default=0.0,
        ge=-360,
        le=360,
        description="Where the array's y axis points, clockwise from north.",
    )
    array: str | None = Field(default=None, description="Array geometry by name.")
    microphones_m: tuple[tuple[float, float, float], ...] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="Or each microphone's x, y, z from the node's place, in m, before heading.",
    )
    full_scale_db_spl: float = Field(
        default=120.0, ge=60, le=200, description="Peak level that fills the converter, in dB SPL."
    )
    bits: Bits = Field(default=24, description="Resolution: 16, 24 or 32.")
    highpass_hz: float = Field(
        default=40.0, ge=1, le=500, description="Lower corner of the capsules in Hz."
    )
    clock_ppm: float = Field(
        default=0.0,
        ge=-500,
        le=500,
        description="By how much its converter runs fast, in parts per million.",
    )
    pps: bool = Field(
        default=False,
        description="Whether a channel after the microphones carries the pulse of a receiver, one "
        "a second, 0.1 s wide.",
    )
    self_noise_db_spl: float = Field(
        default=35.0, ge=-40, le=100, description="Noise of each channel's own in dB SPL."
    )

    @field_validator("id")
    @classmethod
    def _names_a_file(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise ValueError(f"{name!r} must be up to 64 letters, digits, '.', '_' or '-'")
        return name

    @model_validator(mode="after")
    def _one_geometry(self) -> SceneNode:
        if (self.array is None) == (self.microphones_m is None):
            raise ValueError(f"node {self.id!r} needs either array or microphones_m")
        return self


class Scene(_Model):
    """All that happens and all who listen."""

    name: str = Field(default="scene", min_length=1, max_length=64, description="Its name.")
    duration_s: float = Field(gt=0, le=7200, description="How long it lasts, in s.")
    seed: int = Field(default=1, ge=0, le=2**63 - 1, description="Settles all that is random.")
    sample_rate_hz: int = Field(
        default=48_000, ge=8_000, le=192_000, description="Rate of every node in Hz."
    )
    start_utc: AwareDatetime = Field(
        default=datetime(2026, 1, 1, tzinfo=UTC),
        strict=True,
        description="When every first sample is taken, with its zone.",
    )
    atmosphere: Atmosphere = Field(default_factory=Atmosphere, description="The air.")
    street: Street = Field(default_factory=Street, description="Noise, ground, scatter.")
    walls: tuple[Wall, ...] = Field(default=(), max_length=32, description="Walls that echo.")
    sources: tuple[SceneSource, ...] = Field(
        default=(), max_length=10_000, description="Who makes a sound."
    )
    nodes: tuple[SceneNode, ...] = Field(min_length=1, max_length=500, description="Who listens.")

    @field_validator("nodes")
    @classmethod
    def _each_once(cls, nodes: tuple[SceneNode, ...]) -> tuple[SceneNode, ...]:
        name, count = Counter(node.id for node in nodes).most_common(1)[0]
        if count > 1:
            raise ValueError(f"id {name!r} is used {count} times; each node needs its own")
        return nodes

    @model_validator(mode="after")
    def _in_time(self) -> Scene:
        for i, source in enumerate(self.sources):
            if source.time_s >= self.duration_s:
                raise ValueError(
                    f"sources[{i}].time_s is {source.time_s:g}, but the scene ends at duration_s "
                    f"= {self.duration_s:g}"
                )
        return self


# Locations in errors name the discriminated models too; the scene's author wrote none of these.
_NO_KEYS: Final = frozenset(
    {"sound", "aerial_shell", "muzzle_blast", "shell_burst", "lift_charge"}
    | {"firecracker", "backfire", "door_slam", "hammer"}
)


def parse(text: str, origin: str = "scene") -> Scene:
    """Read a scene from TOML.

    Raises
    ------
    SceneError
        On one line: `origin`, the key that is wrong, and what is allowed.
    """
    try:
        return Scene.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise SceneError(f"{origin}: {one_line(error, _NO_KEYS)}") from None
    except (ValueError, RecursionError) as error:
        # tomllib lets through what int() and the depth of the stack refuse.
        raise SceneError(f"{origin}: is not TOML: {error}") from None


def load(path: Path | str) -> Scene:
    """Read a scene from a file.

    Raises
    ------
    SceneError
        If it cannot be read, or says something that a scene cannot.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SceneError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SceneError(f"{path}: is not UTF-8 text; write it as TOML") from None
    return parse(text, str(path))


def packaged_names() -> tuple[str, ...]:
    """Name the scenes that come with the package."""
    folder = resources.files("node.simulate").joinpath("scenes")
    names = (file.name for file in folder.iterdir() if file.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def packaged(name: str) -> Scene:
    """Give a scene that comes with the package.

    Raises
    ------
    SceneError
        If there is none of that name.
    """
    if name not in packaged_names():
        raise SceneError(
            f"no scene {name!r} comes with the package; {', '.join(packaged_names())} do"
        )
    file = resources.files("node.simulate").joinpath("scenes", f"{name}.toml")
    return parse(file.read_text(encoding="utf-8"), name)
