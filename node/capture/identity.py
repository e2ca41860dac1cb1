"""Who recorded a file, where and when: the `.json` beside a recording.

The form is that of the open live-fire set (ShotSpotter Tech Note 098): `serial_number`,
`timestamp` of the first sample, `location` with x, y, z in metres. A `location` or `position` of
`lat_deg`, `lon_deg` and `alt_m` (WGS 84) is read too, and what direction and the clock rest on:
`array` (a name or a file) or `microphones_m`, `heading_deg`, `pitch_deg`, `roll_deg`, and
`pps_channel`. All keys may be absent, others are passed over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.capture.geometry import FARTHEST_M, check_places
from node.errors import RecordingError
from node.utc import parse_utc_ns

# As for the position in the settings; a message takes no others.
LOWEST_M: Final = -500
HIGHEST_M: Final = 9_000
LEAST_SURE_M: Final = 10_000
LARGEST_ANGLE_DEG: Final = 360
SURVEYED_KM: Final = 1_000  # from the zero of a survey


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """A surveyed place in a frame of its own, in metres."""

    x_m: float
    y_m: float
    z_m: float
    sigma_m: float | None = None


@dataclass(frozen=True, slots=True)
class GeodeticPlace:
    """A place on the Earth (WGS 84)."""

    lat_deg: float
    lon_deg: float
    alt_m: float
    sigma_m: float | None = None


@dataclass(frozen=True, slots=True)
class RecordingIdentity:
    """What a recording knows of itself; None is what it does not know.

    `start_utc_ns` is the time of the first sample in ns since 1970, `microphones_m` where each
    microphone stands, shape [microphones, 3], `pps_channel` the channel that carries a receiver's
    pulse instead of sound.
    """

    node_id: str | None = None
    start_utc_ns: int | None = None
    local: LocalPlace | None = None
    position: GeodeticPlace | None = None
    array: str | None = None
    microphones_m: tuple[tuple[float, float, float], ...] | None = None
    heading_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    pps_channel: int | None = None


def read_identity(recording: Path) -> RecordingIdentity:
    """Read the `.json` beside a recording; no such file is no error.

    Raises
    ------
    RecordingError
        It is there and unreadable, or a value in it is not of its form.
    """
    path = recording.with_suffix(".json")
    try:
        sidecar = json.loads(path.read_bytes())
    except FileNotFoundError:
        return RecordingIdentity()
    except OSError as error:
        raise RecordingError(
            f"{path}: unreadable ({error.strerror}); the recording's identity stands in it"
        ) from error
    except ValueError as error:
        raise RecordingError(f"{path}: not JSON ({error}); mend it or move it away") from error
    except RecursionError as error:
        raise RecordingError(
            f"{path}: not JSON that can be read (nested too deep); mend it or move it away"
        ) from error
    if not isinstance(sidecar, dict):
        raise RecordingError(f"{path}: not a JSON object; mend it or move it away")
    try:
        return _identity(sidecar)
    except ValueError as error:
        raise RecordingError(f"{path}: {error}; mend it or move it away") from error


def _identity(sidecar: Mapping[str, Any]) -> RecordingIdentity:
    local: LocalPlace | None = None
    position: GeodeticPlace | None = None
    for key in ("location", "position"):
        place = sidecar.get(key)
        if place is None:
            continue
        if not isinstance(place, dict):
            raise ValueError(f"{key} is not an object")
        if "lat_deg" in place:
            position = _geodetic(key, place)
        else:
            local = _local(key, place)
    return RecordingIdentity(
        node_id=_text(sidecar, "serial_number"),
        start_utc_ns=_start_ns(sidecar),
        local=local,
        position=position,
        array=_text(sidecar, "array"),
        microphones_m=_microphones(sidecar),
        heading_deg=_angle(sidecar, "heading_deg"),
        pitch_deg=_angle(sidecar, "pitch_deg"),
        roll_deg=_angle(sidecar, "roll_deg"),
        pps_channel=_channel(sidecar, "pps_channel"),
    )


def _microphones(sidecar: Mapping[str, Any]) -> tuple[tuple[float, float, float], ...] | None:
    rows = sidecar.get("microphones_m")
    if rows is None:
        return None
    if not isinstance(rows, list) or not rows:
        raise ValueError("microphones_m is not a list of [x, y, z], one for each microphone")
    places = tuple(_microphone(i, row) for i, row in enumerate(rows))
    try:
        check_places(places)
    except ValueError as error:
        raise ValueError(f"microphones_m: {error}") from None
    return places


def _microphone(i: int, row: object) -> tuple[float, float, float]:
    name = f"microphones_m[{i}]"
    if not isinstance(row, list) or len(row) != 3:
        raise ValueError(f"{name} is not a list of x, y and z in metres")
    x, y, z = (_number(f"{name}.{axis}", v) for axis, v in zip("xyz", row, strict=True))
    farthest = max(abs(x), abs(y), abs(z))
    if farthest > FARTHEST_M:
        raise ValueError(
            f"{name} reaches {farthest:g} m, at most {FARTHEST_M:g} m are taken: give metres, not "
            "millimetres"
        )
    return x, y, z


def _angle(sidecar: Mapping[str, Any], key: str) -> float:
    if sidecar.get(key) is None:
        return 0.0
    angle = _number(key, sidecar[key])
    if abs(angle) > LARGEST_ANGLE_DEG:
        raise ValueError(f"{key} is {angle:g}, outside of ±{LARGEST_ANGLE_DEG} degrees")
    return angle


def _channel(sidecar: Mapping[str, Any], key: str) -> int | None:
    channel = sidecar.get(key)
    if channel is not None and (type(channel) is not int or channel < 0):
        raise ValueError(f"{key} is not the number of a channel, from 0")
    return channel


def _start_ns(sidecar: Mapping[str, Any]) -> int | None:
    stamp = _text(sidecar, "timestamp")
    if stamp is None:
        return None
    try:
        return parse_utc_ns(stamp)
    except ValueError as error:
        raise ValueError(f"timestamp {error}") from None


def _text(sidecar: Mapping[str, Any], key: str) -> str | None:
    value = sidecar.get(key)
    if value is not None and not (isinstance(value, str) and value):
        raise ValueError(f"{key} is not a text")
    try:
        (value or "").encode()
    except UnicodeEncodeError:  # JSON can write half of a surrogate pair
        raise ValueError(f"{key} is not text that UTF-8 can hold") from None
    return value


def _local(key: str, place: Mapping[str, Any]) -> LocalPlace:
    x, y, z = (_coordinate(f"{key}.{axis}", place.get(axis)) for axis in "xyz")
    return LocalPlace(x, y, z, _sigma(key, place))


def _coordinate(name: str, value: object) -> float:
    metres = _number(name, value)
    if abs(metres) > SURVEYED_KM * 1000:
        raise ValueError(f"{name} is {metres:g}, outside of ±{SURVEYED_KM} km")
    return metres


def _geodetic(key: str, place: Mapping[str, Any]) -> GeodeticPlace:
    lat, lon, alt = (
        _number(f"{key}.{name}", place.get(name)) for name in ("lat_deg", "lon_deg", "alt_m")
    )
    if abs(lat) > 90 or abs(lon) > 180:
        raise ValueError(f"{key} {lat}, {lon} is not on the Earth")
    if not LOWEST_M <= alt <= HIGHEST_M:
        raise ValueError(f"{key}.alt_m is {alt:g}, outside of {LOWEST_M}…{HIGHEST_M} m")
    return GeodeticPlace(lat, lon, alt, _sigma(key, place))


def _sigma(key: str, place: Mapping[str, Any]) -> float | None:
    if place.get("sigma_m") is None:
        return None
    sigma = _number(f"{key}.sigma_m", place["sigma_m"])
    if not 0 < sigma <= LEAST_SURE_M:
        raise ValueError(f"{key}.sigma_m is not above 0 and at most {LEAST_SURE_M} m")
    return sigma


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no end
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is not a finite number")
    return number
