"""How the microphones of an array stand to each other: built in by name, or from a TOML file.

Direction finding and the birth certificate use it; the order of the rows is the order of the
card's microphones. Axes before mounting: x east, y north, z up, in metres, from the array's middle.

A file says::

    name = "roof mast 3"
    positions_m = [[0.1, 0.0, 0.0], [-0.05, 0.087, 0.0], [-0.05, -0.087, 0.0], [0.0, 0.0, 0.141]]
    delays_s = [0.0, 1.2e-6, -0.4e-6, 0.0]  # if calibrated: by how much each channel is late
    timing_sigma_s = 0.9e-6  # and how well places and delays together are known
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from node.errors import SceneError

MOST_CHANNELS: Final = 64
FARTHEST_M: Final = 100.0  # from zero: more is millimetres
# From microphone to microphone: sound crosses it in 10 ms, within which the trigger waits for all.
LARGEST_M: Final = 3.0
CLOSEST_M: Final = 1e-3  # no two capsules fit into less
LATEST_S: Final = 1e-3  # what a channel may be late by: more is another card's
UNSUREST_S: Final = 1e-4  # 34 mm of sound: a ruler knows places better


@dataclass(frozen=True, slots=True, eq=False)
class ArrayGeometry:
    """Where the microphones are.

    Attributes
    ----------
    name
        The built-in name, or what the file says.
    positions_m
        Shape [channels, 3], metres, read-only; row k is microphone k.
    delays_s
        By how much each channel is late, shape [channels], read-only; zero unless calibrated.
    calibrated
        Whether places and delays were measured on sounds, not with a ruler.
    timing_sigma_s
        Standard error of a channel's delay, as places and delays together give it; None where
        nothing says it.
    """

    name: str
    positions_m: npt.NDArray[np.float64]
    delays_s: npt.NDArray[np.float64]
    calibrated: bool = False
    timing_sigma_s: float | None = None

    @property
    def channels(self) -> int:
        """Microphones in the array."""
        return len(self.positions_m)

    @property
    def is_point(self) -> bool:
        """Whether all channels hear at one place, so that no direction can be told."""
        return not np.ptp(self.positions_m, axis=0).any()

    def oriented(
        self, heading_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0
    ) -> ArrayGeometry:
        """Give the array as it is mounted: x east, y north, z up.

        Parameters
        ----------
        heading_deg
            Where its y axis points, clockwise from true north.
        pitch_deg
            By how much its y axis points above the horizon.
        roll_deg
            By how much its x axis dips below the horizon: clockwise, seen along y.
        """
        heading, pitch, roll = np.deg2rad([heading_deg, pitch_deg, roll_deg])
        c, s = np.cos(roll), np.sin(roll)
        rolled = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        c, s = np.cos(pitch), np.sin(pitch)
        pitched = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        c, s = np.cos(heading), np.sin(heading)
        headed = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        positions_m = self.positions_m @ (headed @ pitched @ rolled).T
        positions_m.setflags(write=False)
        return replace(self, positions_m=positions_m)


def load_geometry(name_or_file: str | Path, channels: int) -> ArrayGeometry:
    """Give a geometry by its built-in name or from a TOML file.

    Parameters
    ----------
    name_or_file
        ``mono`` (any number of channels at one place), ``square_65mm``, ``tetrahedron_200mm``, or
        a path that ends in ``.toml``.
    channels
        Channels of the source that it has to fit.

    Raises
    ------
    SceneError
        There is no such name, the file is not of its form, or it has another number of
        microphones than the source has channels.
    """
    name = str(name_or_file)
    if name in _BUILT_IN:
        geometry = make_geometry(name, _BUILT_IN[name](channels))
    elif name.endswith(".toml"):
        geometry = _read(Path(name))
    else:
        raise SceneError(
            f"array {name!r} is not built in; choose one of {', '.join(_BUILT_IN)}, or name a "
            ".toml file"
        )
    if geometry.channels != channels:
        raise SceneError(
            f"array {name!r} has {geometry.channels} microphones, the source {channels} "
            "channels; choose the array that is connected, or set the number of channels to its own"
        )
    return geometry


def make_geometry(
    name: str,
    positions_m: npt.ArrayLike,
    delays_s: npt.ArrayLike | None = None,
    timing_sigma_s: float | None = None,
) -> ArrayGeometry:
    """Make a geometry from places in metres, shape [channels, 3], and calibrated delays in s."""
    places = np.array(positions_m, np.float64)
    late = np.zeros(len(places)) if delays_s is None else np.array(delays_s, np.float64)
    places.setflags(write=False)
    late.setflags(write=False)
    calibrated = delays_s is not None
    return ArrayGeometry(name, places, late, calibrated, timing_sigma_s)


def check_places(places_m: Sequence[tuple[float, float, float]]) -> None:
    """See whether the microphones of one array can stand so to each other.

    Parameters
    ----------
    places_m
        One place a microphone: x, y and z in metres.

    Raises
    ------
    ValueError
        There are too many, two are at one place, or they are too far apart.
    """
    if len(places_m) > MOST_CHANNELS:
        raise ValueError(f"{len(places_m)} microphones, at most {MOST_CHANNELS} are taken")
    for (i, one), (j, other) in combinations(enumerate(places_m), 2):
        apart_m = math.dist(one, other)
        if apart_m > LARGEST_M:
            raise ValueError(
                f"channels {i} and {j} are {apart_m:g} m apart, at most {LARGEST_M:g} m are taken; "
                "give metres, and what stands farther off a node of its own"
            )
        if apart_m < CLOSEST_M:
            raise ValueError(f"channels {i} and {j} are at one place; give each microphone its own")


def built_in_arrays() -> dict[str, npt.NDArray[np.float64]]:
    """Give the positions of every built-in array, shape [channels, 3], in m; mono as one."""
    channels = {"mono": 1}
    return {name: make(channels.get(name, 4)) for name, make in _BUILT_IN.items()}


def _mono(channels: int) -> npt.NDArray[np.float64]:
    return np.zeros((channels, 3))


def _square_65mm(_channels: int) -> npt.NDArray[np.float64]:
    """ReSpeaker-class square: counter-clockwise from the north-east corner, seen from above."""
    half = 0.065 / 2
    return np.array([[half, half, 0], [-half, half, 0], [-half, -half, 0], [half, -half, 0]])


def _tetrahedron_200mm(_channels: int) -> npt.NDArray[np.float64]:
    """Regular, edge 200 mm: three below (the first north, then counter-clockwise), one on top."""
    edge = 0.2
    radius, height = edge / math.sqrt(3), edge * math.sqrt(2 / 3)
    below = [
        [-radius * math.sin(turn), radius * math.cos(turn), -height / 4]
        for turn in (0, 2 * math.pi / 3, 4 * math.pi / 3)
    ]
    return np.array([*below, [0, 0, 3 * height / 4]])


_BUILT_IN: Final[dict[str, Callable[[int], npt.NDArray[np.float64]]]] = {
    "mono": _mono,
    "square_65mm": _square_65mm,
    "tetrahedron_200mm": _tetrahedron_200mm,
}


# Numbers, not texts or truths that could be taken for some.
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(default=None, min_length=1, max_length=64)
    positions_m: list[tuple[_Number, _Number, _Number]] = Field(
        min_length=1, max_length=MOST_CHANNELS
    )
    delays_s: list[Annotated[_Number, Field(ge=-LATEST_S, le=LATEST_S)]] | None = None
    timing_sigma_s: Annotated[_Number, Field(ge=0, le=UNSUREST_S)] | None = None


def _read(path: Path) -> ArrayGeometry:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin it with a mark
    except OSError as error:
        raise SceneError(
            f"{path}: cannot read the array ({error.strerror}); see the name"
        ) from error
    except ValueError as error:
        undecoded = isinstance(error, UnicodeDecodeError)
        reason = "not UTF-8 text" if undecoded else "not the name of a file"
        raise SceneError(f"{path}: cannot read the array ({reason}); see the name") from error
    try:
        file = _File.model_validate(tomllib.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SceneError(
            f"{path}: {where}: {first['msg'].lower()}; an array is positions_m = [[x, y, z], …] in "
            "metres, one row a channel, and a name"
        ) from error
    except (ValueError, RecursionError) as error:
        # tomllib lets through what int() and the depth of the stack refuse.
        raise SceneError(f"{path}: not TOML ({error}); mend it or name another file") from error
    positions = np.array(file.positions_m, np.float64)
    reach_m = np.abs(positions).max()
    if reach_m > FARTHEST_M:
        raise SceneError(
            f"{path}: positions_m reach {reach_m:g} m, at most {FARTHEST_M:g} m are taken; give "
            "metres, not millimetres"
        )
    try:
        check_places(file.positions_m)
    except ValueError as error:
        raise SceneError(f"{path}: {error}") from error
    if file.delays_s is not None and len(file.delays_s) != len(positions):
        raise SceneError(
            f"{path}: {len(file.delays_s)} delays_s for {len(positions)} microphones; give one each"
        )
    if file.timing_sigma_s is not None and file.delays_s is None:
        raise SceneError(
            f"{path}: timing_sigma_s without delays_s; give the delays that it is the error of"
        )
    return make_geometry(file.name or path.stem, positions, file.delays_s, file.timing_sigma_s)
