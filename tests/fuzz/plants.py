"""Bugs planted into the code under test, each of which its target must find within its share.

Planted only in a process that was started for it: `python -m tests.fuzz run TARGET --plant NAME`.
"""

from __future__ import annotations

import builtins
import json
import math
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

import node.messages as messages_module
from node import settings as settings_module
from node import utc as utc_module
from node.capture import geometry, identity, recording
from node.deliver import database, outbox, tables
from node.messages import checkpoint, detection, health, wire
from node.messages import node as node_module
from node.timing import chrony, receiver
from node.timing import gpsd as gpsd_module


@dataclass(frozen=True)
class Plant:
    """A bug: the target that must find it, what it is, and what plants it."""

    target: str
    what: str
    plant: Callable[[], None]


def _set(owner: Any, name: str, value: Any) -> Callable[[], None]:
    if not (hasattr(owner, name) or hasattr(builtins, name)):
        raise AttributeError(f"{name} is not in {owner}: it has moved, and would plant nothing")
    return lambda: setattr(owner, name, value)


def _rebuilt(part: type[BaseModel], change: Callable[[], None]) -> None:
    """Change a model, and build anew all that hold it."""
    change()
    above = (
        *(part, settings_module.Settings, detection.Detection, health.Health),
        *(checkpoint.Checkpoint, node_module.Node),
    )
    for model in above:
        model.model_rebuild(force=True)


def _without_range(part: type[BaseModel], field: str) -> Callable[[], None]:
    return lambda: _rebuilt(part, lambda: part.model_fields[field].metadata.clear())


def _lax() -> None:
    def parse(model: Any, payload: bytes | str) -> Any:
        try:
            return model.model_validate_json(payload, strict=False, extra="ignore")
        except ValueError as error:
            raise ValueError(f"not a {model.__name__.lower()}: {error}") from error

    wire._parse = parse


def _nan_let_through() -> None:
    def allow() -> None:
        detection.Round.model_config["allow_inf_nan"] = True

    _rebuilt(detection.Round, allow)


def _stale_onset() -> None:
    whole = wire.parse_detection

    def parse(payload: bytes | str) -> Any:
        try:
            return whole(payload)
        except ValueError as error:
            if "onset_utc is not" not in str(error):
                raise
            document = json.loads(payload)
            document["onset_utc"] = document["rounds"][0]["utc"]
            return whole(json.dumps(document))

    messages_module.parse_detection = parse


def _settings_swallowed() -> None:
    whole = settings_module._read

    def read(path: Any) -> dict[str, Any]:
        try:
            return whole(path)
        except settings_module.SettingsError:
            return {}

    settings_module._read = read


def _chrony_by_index() -> None:
    whole = chrony.parse

    def parse(line: str) -> chrony.Tracking:
        if line.split(",")[13].strip() == "Not synchronised":
            pass  # an IndexError where there are fewer
        return whole(line)

    chrony.parse = parse


def _chrony_unchecked() -> None:
    chrony.MOST = math.inf


def _gpsd_numbers() -> None:
    receiver._is_number = lambda value: type(value) in (int, float) and math.isfinite(value)


def _gpsd_fix() -> None:
    whole = receiver.Receiver._doubt

    def doubt(self: Any, report: Any, *more: Any) -> str:
        return "" if "leapseconds" in report else whole(self, report, *more)

    receiver.Receiver._doubt = doubt  # type: ignore[method-assign]


def _library_dies() -> None:
    whole = recording._dtype

    def dtype(subtype: str) -> Any:
        if subtype == "ULAW":
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(subtype)

    recording._dtype = dtype


def _endless_turn() -> None:
    whole = identity._number

    def number(name: str, value: object) -> float:
        angle = whole(name, value)
        while name == "heading_deg" and angle > identity.LARGEST_ANGLE_DEG:
            angle -= identity.LARGEST_ANGLE_DEG  # without end where 360 is lost in the rounding
        return angle

    identity._number = number


def _days_unchecked() -> None:
    class Date:
        def __init__(self, year: int, month: int, day: int) -> None:
            self._ordinal = _Day(max(year, 1), min(max(month, 1), 12), 1).toordinal() + day - 1

        def toordinal(self) -> int:
            return self._ordinal

    _Day = utc_module.date
    utc_module.date = Date  # type: ignore[assignment, misc]


def _unlocked_file() -> None:
    database._is_corrupt = lambda error: False


def _doubled_ceiling() -> None:
    whole = outbox.Outbox._load

    def load(self: Any, db: sqlite3.Connection) -> None:
        whole(self, db)
        if not self._depth:
            self._chain = self._chain._replace(seq=0)

    outbox.Outbox._load = load  # type: ignore[method-assign]


PLANTS: Final[dict[str, Plant]] = {
    "settings-range": Plant(
        "settings",
        "the range of capture.sample_rate_hz is not checked",
        _without_range(settings_module.CaptureSettings, "sample_rate_hz"),
    ),
    "settings-swallowed": Plant(
        "settings", "a file that cannot be read passes for an empty one", _settings_swallowed
    ),
    "settings-password": Plant(
        "settings",
        "a password is repeated in an error",
        _set(settings_module, "hide_password", lambda text: text),
    ),
    "message-lax": Plant("status", "a text passes for a number", _lax),
    "message-nan": Plant("detection", "NaN is let through in a round's level", _nan_let_through),
    "message-range": Plant(
        "detection",
        "the range of an azimuth is not checked",
        _without_range(detection.Direction, "azimuth_deg"),
    ),
    "message-onset": Plant(
        "detection", "an onset that contradicts the rounds is mended silently", _stale_onset
    ),
    "message-gap": Plant(
        "checkpoint",
        "the number that a gap begins with is not checked",
        _without_range(checkpoint.Gap, "from_seq"),
    ),
    "stamp-object": Plant(
        "stamp",
        "what is no JSON object is stamped",
        _set(wire, "isinstance", lambda *_: True),
    ),
    "chrony-index": Plant("chrony", "a field is taken that may not be there", _chrony_by_index),
    "chrony-range": Plant("chrony", "figures have no bound", _chrony_unchecked),
    "gpsd-number": Plant("gpsd", "an integer that no float holds is taken", _gpsd_numbers),
    "gpsd-fix": Plant("gpsd", "a second is believed without a fix", _gpsd_fix),
    "gpsd-height": Plant(
        "gpsd", "heights have no bound", _set(receiver, "HEIGHTS_M", (-math.inf, math.inf))
    ),
    "gpsd-line": Plant(
        "gpsd",
        "a line that is no object is taken for one",
        _set(gpsd_module, "isinstance", lambda *_: True),
    ),
    "sound-nan": Plant(
        "sound",
        "samples that are no numbers are passed on",
        _set(recording.RecordingSource, "_check_numbers", lambda *_: None),
    ),
    "sound-cut": Plant(
        "sound",
        "a recording that is cut short passes for whole",
        _set(recording, "_promises_more", lambda notes: False),
    ),
    "sound-crash": Plant("sound", "a library takes the process down with it", _library_dies),
    "sound-rate": Plant("sound", "rates have no lower end", _set(recording, "LOWEST_RATE_HZ", 0)),
    "identity-endless": Plant("identity", "a loop without end for some angles", _endless_turn),
    "identity-day": Plant("identity", "days that no month has are taken", _days_unchecked),
    "array-places": Plant(
        "array",
        "two microphones may stand at one place",
        _set(geometry, "check_places", lambda places: None),
    ),
    "outbox-corrupt": Plant("outbox", "a corrupt file is not set aside", _unlocked_file),
    "outbox-number": Plant("outbox", "an empty outbox counts from 1 again", _doubled_ceiling),
    "outbox-rows": Plant(
        "outbox", "rows are not looked at", _set(tables, "check_rows", lambda db: None)
    ),
    "outbox-count": Plant(
        "outbox",
        "the last number is not written down",
        _set(tables, "set_counter", lambda db, name, value: None),
    ),
}
