"""Where an array points, by claps from known sides: the heading, and the tilt where it can tell it.

Behind `check --mount`, after `node.check.mount`. In come bearings as somebody told them and
directions as they were heard in the array's own axes; out goes what the settings should say, or
why the claps do not tell. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from node.board.findings import Finding
from node.settings import CaptureSettings

Floats = npt.NDArray[np.float64]

# Three claps from one place differ by less, but where an echo was taken for one.
SCATTER_DEG: Final = 10.0
# Two sides differ in the sky as people pace them out, give or take this.
SIDES_DEG: Final = 15.0
# Nobody mounts an array so far from level; one whose channels are in another order seems so.
TILTED_DEG: Final = 30.0
# Who stands where is known no better by a compass.
HEADING_DEG: Final = 3.0
LEVEL_DEG: Final = 2.0
_APART: Final = (
    "the two sides are {told:.0f}° apart, but are heard {heard:.0f}° apart: the microphones are "
    "not where capture.array says, or not in that order"
)


@dataclass(frozen=True, slots=True)
class Side:
    """Claps from one place at the height of the array.

    Attributes
    ----------
    bearing_deg
        Where whoever clapped says to have stood, clockwise from true north as seen from the array.
    claps
        Where they were heard from, in the array's axes: azimuth from its y axis towards its x axis,
        and elevation, None where it cannot be told; in degrees.
    """

    bearing_deg: float
    claps: tuple[tuple[float, float | None], ...]


@dataclass(frozen=True, slots=True)
class Aim:
    """Where an array points, by claps.

    Attributes
    ----------
    heading_deg
        What capture.heading_deg should be.
    pitch_deg, roll_deg
        What the others should be; None where the claps do not tell.
    sigma_deg
        Standard error of the heading, without that of who stood where.
    trouble
        Why there is none of that; empty where there is.
    """

    heading_deg: float
    pitch_deg: float | None
    roll_deg: float | None
    sigma_deg: float
    trouble: str = ""

    def toml(self) -> str:
        """Give the lines for the settings."""
        lines = ["[capture]", f"heading_deg = {self.heading_deg:.1f}"]
        if self.pitch_deg is not None and self.roll_deg is not None:
            pitch_deg, roll_deg = round(self.pitch_deg, 1) + 0.0, round(self.roll_deg, 1) + 0.0
            lines += [f"pitch_deg = {pitch_deg}", f"roll_deg = {roll_deg}"]
        return "\n".join(lines)


def aim(sides: Sequence[Side], capture: CaptureSettings) -> Aim:
    """Tell where the array points, from one side or from two.

    From one side the tilt is taken from the settings. From two, and where elevations are known,
    heading and tilt are the rotation that best turns what was heard into what was told (Wahba's
    problem, by the singular value decomposition).
    """
    for side in sides:
        scatter_deg = _scatter_deg([azimuth for azimuth, _ in side.claps])
        if scatter_deg > SCATTER_DEG:
            return _refused(
                f"the claps from {side.bearing_deg:.0f}° differ by up to {scatter_deg:.0f}°: stand "
                "away from walls, and clap again"
            )
    heard = [_mean_direction(side) for side in sides]
    headings = [_heading_deg(s, v, capture) for s, v in zip(sides, heard, strict=True)]
    heading_deg = _mean_deg(headings)
    sigma_deg = _sigma_deg(sides)
    if len(sides) < 2:
        return Aim(heading_deg % 360, None, None, sigma_deg)
    told_deg = _turn_deg(sides[1].bearing_deg - sides[0].bearing_deg)
    heard_deg = _turn_deg(_azimuth_deg(heard[1]) - _azimuth_deg(heard[0]))
    flat = any(elevation is None for side in sides for _, elevation in side.claps)
    if flat:
        if abs(_turn_deg(heard_deg + told_deg)) < min(SIDES_DEG, abs(told_deg)):
            return _refused(
                "right and left are exchanged: the channels are in mirrored order, or the array "
                "hangs upside down; tap the microphones"
            )
        if abs(_turn_deg(heard_deg - told_deg)) > SIDES_DEG:
            return _refused(_APART.format(told=abs(told_deg), heard=abs(heard_deg)))
        return Aim(heading_deg % 360, None, None, sigma_deg)
    between_deg = math.degrees(math.acos(float(np.clip(heard[0] @ heard[1], -1, 1))))
    if abs(between_deg - abs(told_deg)) > SIDES_DEG:
        return _refused(_APART.format(told=abs(told_deg), heard=between_deg))
    heading_deg, pitch_deg, roll_deg = _rotation(sides, heard)
    if math.hypot(pitch_deg, roll_deg) > TILTED_DEG:
        return _refused(
            f"it seems tilted (pitch {pitch_deg:.0f}°, roll {roll_deg:.0f}°): if it stands level, "
            "its channels are mirrored or rotated; tap the microphones"
        )
    return Aim(heading_deg % 360, pitch_deg, roll_deg, sigma_deg)


def aim_finding(found: Aim, capture: CaptureSettings, by: str = "claps") -> Finding:
    """Compare where the array points, by claps or a compass, with what the settings say."""
    if found.trouble:
        what, _, advice = found.trouble.rpartition(": ")
        return Finding("heading", "fail", what, advice)
    off_deg = _turn_deg(found.heading_deg - capture.heading_deg)
    figure = f"{found.heading_deg:.1f} ± {found.sigma_deg:.1f}° by {by}"
    wrong = abs(off_deg) > max(HEADING_DEG, 2 * found.sigma_deg)
    if found.pitch_deg is not None and found.roll_deg is not None:
        figure += f", pitch {found.pitch_deg:.1f}°, roll {found.roll_deg:.1f}°"
        tilt_deg = math.hypot(
            found.pitch_deg - capture.pitch_deg, found.roll_deg - capture.roll_deg
        )
        wrong |= tilt_deg > max(LEVEL_DEG, 2 * found.sigma_deg)
    if not wrong:
        return Finding("heading", "pass", figure)
    advice = "; ".join(found.toml().splitlines()[1:])
    said = f"; the settings say {capture.heading_deg:g}°"
    return Finding("heading", "warn", figure + said, f"write into [capture]: {advice}")


def parse_bearing(text: str, heading_deg: float) -> float | None:
    """Read a bearing in degrees from true north, or hours of a clock whose 12 is the array's mark.

    None where it is neither: "90", "90°", "3h", "3 o'clock".
    """
    words = text.strip().casefold().replace("o'clock", "h").replace(" ", "")
    of_clock = words.endswith("h")
    try:
        number = float(words.rstrip("h°"))
    except ValueError:
        return None
    if not math.isfinite(number) or (of_clock and not 0 <= number <= 12):
        return None
    return (heading_deg + 30 * number if of_clock else number) % 360


def _refused(trouble: str) -> Aim:
    return Aim(math.nan, None, None, math.nan, trouble)


def _unit(azimuth_deg: float, elevation_deg: float) -> Floats:
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    level = math.cos(elevation)
    return np.array([math.sin(azimuth) * level, math.cos(azimuth) * level, math.sin(elevation)])


def _mean_direction(side: Side) -> Floats:
    # The median of each part does not mind one clap that went wrong.
    units = np.array([_unit(azimuth, elevation or 0.0) for azimuth, elevation in side.claps])
    middle = np.median(units, axis=0)
    return np.asarray(middle / np.linalg.norm(middle))


def _heading_deg(side: Side, heard: Floats, capture: CaptureSettings) -> float:
    levelled = _turned(0.0, capture.pitch_deg, capture.roll_deg) @ heard
    return _turn_deg(side.bearing_deg - _azimuth_deg(levelled))


def _rotation(sides: Sequence[Side], heard: Sequence[Floats]) -> tuple[float, float, float]:
    told = [_unit(side.bearing_deg, 0.0) for side in sides]
    u, _, vt = np.linalg.svd(sum(np.outer(t, h) for t, h in zip(told, heard, strict=True)))
    proper = np.diag([1.0, 1.0, float(np.sign(np.linalg.det(u) * np.linalg.det(vt)))])
    turn = u @ proper @ vt
    pitch = math.asin(float(np.clip(turn[2, 1], -1, 1)))
    heading = math.atan2(turn[0, 1], turn[1, 1])
    roll = math.atan2(-turn[2, 0], turn[2, 2])
    return math.degrees(heading), math.degrees(pitch), math.degrees(roll)


def _turned(heading_deg: float, pitch_deg: float, roll_deg: float) -> Floats:
    """Give the rotation of `ArrayGeometry.oriented`."""
    heading, pitch, roll = np.deg2rad([heading_deg, pitch_deg, roll_deg])
    c, s = np.cos(roll), np.sin(roll)
    rolled = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = np.cos(pitch), np.sin(pitch)
    pitched = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(heading), np.sin(heading)
    return np.asarray(np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ pitched @ rolled)


def _azimuth_deg(unit: Floats) -> float:
    return math.degrees(math.atan2(unit[0], unit[1]))


def _turn_deg(angle_deg: float) -> float:
    """Give an angle from -180 to 180."""
    return (angle_deg + 180) % 360 - 180


def _mean_deg(angles_deg: Sequence[float]) -> float:
    unit = np.sum(np.exp(1j * np.deg2rad(angles_deg)))
    return float(np.degrees(np.angle(unit)))


def _scatter_deg(angles_deg: Sequence[float]) -> float:
    """Give the largest difference of two."""
    return max(abs(_turn_deg(a - b)) for a in angles_deg for b in angles_deg)


def _sigma_deg(sides: Sequence[Side]) -> float:
    """Give the standard error of the sides' mean."""
    squares: list[float] = []
    for side in sides:
        azimuths = [azimuth for azimuth, _ in side.claps]
        middle_deg = _mean_deg(azimuths)
        squares += [_turn_deg(a - middle_deg) ** 2 for a in azimuths]
    free = max(1, len(squares) - len(sides))
    return max(0.2, math.sqrt(sum(squares) / free / len(squares)))
