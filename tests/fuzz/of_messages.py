"""Messages: each kind read from bytes, and a detection stamped when it is handed to the broker."""

from __future__ import annotations

import json
import math
import re
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, Final
from zlib import crc32

import jsonschema

from node import messages
from node.messages import json_schema, to_json, with_transport
from node.utc import LATEST_UTC_NS, parse_utc_ns
from tests.evidence import ROOT
from tests.fuzz import mutate
from tests.fuzz.engine import Target, WrongError

KINDS: Final = ("detection", "status", "health", "node", "checkpoint", "snippet", "incident")
_EXAMPLES: Final = ROOT / "tests" / "contract"
_ONE_IN: Final = 16
"""So many accepted messages for one that the published schema is asked about: it is slow."""

_UUIDS: Final = ("event_id", "boot_id", "incident_id")
_DIGITS: Final = (9, 7, 6, 3, 2, 1)
_TEXTS: Final[dict[str, str]] = {
    **dict.fromkeys(_UUIDS, r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    **dict.fromkeys(("sha256", "prev_hash", "head"), "[0-9a-f]{64}"),
    **dict.fromkeys(("site", "node_id"), "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
    **dict.fromkeys(("utc", "onset_utc", "published_utc"), r"[0-9]{4}-[-T0-9:]{14}\.[0-9]{9}Z"),
    "key_id": "[0-9a-f]{16}",
    "grade": "gunfire|probable_gunfire|not_gunfire",
    "type": "new|update|cancel",
    "label": "gunfire|fireworks|backfire|other",
    "source": "pps|gps|ntp|free",
    "state": "online|degraded|offline",
    "encryption": "age",
    "reason": ".{0,256}",
}
_UNIT: Final = ("gunfire", "fireworks", "backfire", "other", "probable", "airborne_probability")
_RANGES: Final[dict[str, tuple[float, float]]] = {
    **dict.fromkeys(_UNIT, (0, 1)),
    **dict.fromkeys(("sigma_s", "bound_s", "holdover_s", "sigma_m", "uptime_s"), (0, math.inf)),
    **dict.fromkeys(("seconds", "root_delay_s", "root_dispersion_s"), (0, math.inf)),
    **dict.fromkeys(("azimuth_deg", "bearing_deg"), (0, 360)),
    **dict.fromkeys(("elevation_deg", "lat_deg"), (-90, 90)),
    **dict.fromkeys(("lost_samples", "depth", "dropped", "revision", "stratum"), (0, math.inf)),
    **dict.fromkeys(("round_count", "channels", "sample_rate_hz", "from_seq"), (1, math.inf)),
    **dict.fromkeys(("satellites_used", "satellites_seen", "host_steps"), (0, math.inf)),
    "lon_deg": (-180, 180),
    "sigma_deg": (0, 180),
    "alt_m": (-500, 9000),
    "fix": (0, 3),
}


@cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema(kind))  # type: ignore[arg-type]


def _examples(kind: str) -> list[bytes]:
    whole = json.loads((_EXAMPLES / f"{kind}.json").read_bytes())
    bare = {k: v for k, v in whole.items() if k not in ("transport", "signature", "prev_hash")}
    return [json.dumps(whole).encode(), json.dumps(bare).encode()]


def _check(kind: str, data: bytes, _folder: Path) -> bool:
    parse = getattr(messages, f"parse_{kind}")
    try:
        message = parse(data)
    except ValueError as error:
        if not str(error).startswith(f"not a {kind}: "):
            raise WrongError(f"an error that does not say of what: {error}") from error
        return False
    text = to_json(message)
    if parse(text) != message or to_json(parse(text)) != text:
        raise WrongError("it does not come back from its own text")
    document = json.loads(text)
    _judge(document)
    _compare(json.loads(data), document, kind)
    if kind == "detection":
        _judge_detection(document)
    if crc32(data) % _ONE_IN == 0:
        problem = jsonschema.exceptions.best_match(_validator(kind).iter_errors(document))
        if problem is not None:
            raise WrongError(f"the published schema refuses it: {problem.message[:100]}")
    return True


def _judge(part: Any, name: str = "") -> None:
    """Hold every value against what its name says, whatever the models say."""
    if isinstance(part, dict):
        for key, value in part.items():
            _judge(value, key)
    elif isinstance(part, list):
        for value in part:
            _judge(value, name)
    elif isinstance(part, str):
        if name in _TEXTS and not re.fullmatch(_TEXTS[name], part, re.DOTALL):
            raise WrongError(f"{name} is none")
        if name.endswith("utc") and not 0 <= parse_utc_ns(part) <= LATEST_UTC_NS:
            raise WrongError(f"{name} out of range")
    elif isinstance(part, int | float) and not isinstance(part, bool):
        low, high = _RANGES.get(name, (-math.inf, math.inf))
        if isinstance(part, float) and not math.isfinite(part):
            raise WrongError(f"{name} is not finite")
        if not low <= part <= high:
            raise WrongError(f"{name} out of range")


def _judge_detection(document: dict[str, Any]) -> None:
    if document["onset_utc"] != document["rounds"][0]["utc"] or document["seq"] < 1:
        raise WrongError("an onset that is not the first round's")
    if abs(sum(document["scores"].values()) - 1) > 1.1e-4:
        raise WrongError("scores that do not sum to 1")


def _compare(said: Any, kept: Any, name: str) -> None:
    """See that nothing was kept but what was said, to the digits that a message has."""
    if isinstance(kept, dict) and isinstance(said, dict):
        for key, value in kept.items():
            if key in said:
                _compare(said[key], value, key)
            elif value is not None:
                raise WrongError(f"{key} was not said")
    elif isinstance(kept, list) and isinstance(said, list) and len(kept) == len(said):
        for one, other in zip(said, kept, strict=True):
            _compare(one, other, name)
    elif type(kept) is float and type(said) in (int, float):
        if kept != said and kept not in {round(float(said), digits) for digits in _DIGITS}:
            raise WrongError(f"{name} is another number than was said")
    elif type(kept) is not type(said) or kept != said:
        raise WrongError(f"{name} is something else than was said")


def _check_stamp(data: bytes, _folder: Path) -> bool:
    try:
        stamped = with_transport(data, 1_795_500_000_123_456_789, delayed=True)
    except ValueError:
        return False  # the sender then sets the message aside
    before, after = json.loads(data), json.loads(stamped)
    transport = after.pop("transport")
    before.pop("transport", None)
    if transport != {"published_utc": "2026-11-24T06:00:00.123456789Z", "delayed": True}:
        raise WrongError("another stamp")
    if before != after or list(before) != list(after):
        raise WrongError("more than the stamp was changed")
    return True


_INPUTS: Final = {"detection": 120_000, "health": 70_000}


def _make(rng: Random, corpus: list[bytes]) -> bytes:
    return mutate.json_text(rng, corpus)


TARGETS: Final = (
    *(
        Target(
            kind,
            _INPUTS.get(kind, 40_000),
            ("node.messages.wire", "node.messages.fields", f"node.messages.{kind}"),
            partial(_examples, kind),
            _make,
            partial(_check, kind),
        )
        for kind in KINDS
    ),
    Target(
        "stamp",
        60_000,
        ("node.messages.wire",),
        partial(_examples, "detection"),
        _make,
        _check_stamp,
    ),
)
