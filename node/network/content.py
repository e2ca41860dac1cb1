"""What of a detection is compared: its moments, its content with a copy's, its place with another.

Pure; used by the gate before the locator.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final

from node.messages import Detection
from node.messages.detection import Local, Position
from node.messages.fields import moment_ns
from node.types import NS_PER_S

LONGEST_EVENT_S: Final = 120.0

FARTHEST_M: Final = 1e8
"""No survey's coordinates are larger: ten times the northing of a grid. Beyond, squares overflow,
and a search among all nodes of the site would fail for one that says so."""

_METRES_PER_DEGREE: Final = 111_320.0


def span_ns(said: Detection) -> tuple[int, int]:
    """Give the first and last moment of a detection.

    Raises
    ------
    ValueError
        Its rounds are out of order, or lie too far apart to be of one event.
    """
    moments = [moment_ns(one.utc) for one in said.rounds]
    last = moments[0]
    for moment in moments[1:]:
        if moment < last:
            raise ValueError("not a detection: its rounds are not in order of time")
        last = moment
    if last - moments[0] > LONGEST_EVENT_S * NS_PER_S:
        raise ValueError("not a detection: its rounds lie minutes apart")
    return moments[0], last


def mark_of(payload: bytes) -> bytes:
    """Give what is the same if a copy comes: all but the transport, which stands at the end."""
    return hashlib.blake2b(payload[: payload.rfind(b'"transport"')], digest_size=16).digest()


def content_of(said: Detection) -> bytes:
    """Give what is the same if the same comes written otherwise: Ed25519 signs it alike.

    That it is the same the signature proves, so this is asked only of what was verified.
    """
    if said.signature is not None:
        return said.signature.encode()[:24]
    form: dict[str, Any] = said.model_dump(exclude={"transport"})
    return hashlib.blake2b(repr(form).encode(), digest_size=16).digest()


def place_fault(place: Position | Local) -> str:
    """Say what of a place cannot be; nothing where all can."""
    for key, value in place.model_dump(exclude={"frame"}).items():
        if value is not None and abs(value) > FARTHEST_M:
            return f"{key} = {value:g}: no place is so far off, or so little known"
    return ""


def apart_m(one: Position | Local, other: Position | Local) -> float:
    """Give how far apart two places are; 0 where they are not to be compared."""
    if isinstance(one, Local) and isinstance(other, Local):
        if one.frame != other.frame:
            return 0.0
        return math.dist((one.x_m, one.y_m, one.z_m), (other.x_m, other.y_m, other.z_m))
    if isinstance(one, Position) and isinstance(other, Position):
        north = (other.lat_deg - one.lat_deg) * _METRES_PER_DEGREE
        turn = (other.lon_deg - one.lon_deg + 180) % 360 - 180
        east = turn * _METRES_PER_DEGREE * math.cos(math.radians(one.lat_deg))
        return math.hypot(north, east, other.alt_m - one.alt_m)
    return 0.0
