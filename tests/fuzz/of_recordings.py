"""Recordings and what lies beside them: headers of sound files, their .json, arrays, sidecars."""

from __future__ import annotations

import io
import json
import math
import struct
import tomllib
from datetime import date
from functools import cache
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
import soundfile

from node.capture.geometry import load_geometry
from node.capture.identity import read_identity
from node.capture.recording import RecordingSource
from node.classify import sidecar as sidecar_module
from node.errors import ModelError, RecordingError, SceneError
from node.utc import LATEST_UTC_NS, parse_utc_ns
from tests.evidence import ROOT
from tests.fuzz import mutate
from tests.fuzz.engine import Target, WrongError

FRAMES: Final = 120
_FORMS: Final = (
    *(("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "PCM_U8"), ("WAV", "FLOAT")),
    *(("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_16")),
    *(("RF64", "PCM_24"), ("W64", "PCM_16"), ("FLAC", "PCM_16"), ("FLAC", "PCM_24")),
    *(("AIFF", "PCM_16"), ("AU", "FLOAT"), ("CAF", "PCM_32"), ("WAV", "GSM610"), ("OGG", "VORBIS")),
)
_HEADER: Final = 128
"""Bytes at the start where most changes are made."""


@cache
def _sounds() -> list[bytes]:
    rng = np.random.default_rng(1)
    made = []
    for container, subtype in _FORMS:
        for channels in (1, 4) if subtype in ("PCM_16", "PCM_32", "FLOAT") else (1,):
            file = io.BytesIO()
            samples = rng.uniform(-0.5, 0.5, (FRAMES, channels))
            soundfile.write(file, samples, 48_000, subtype=subtype, format=container)
            made.append(file.getvalue())
    return made


def _make_sound(rng: Random, corpus: list[bytes]) -> bytes:
    data = rng.choice(corpus)
    pick = rng.random()
    if pick < 0.6:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            at = rng.randrange(min(_HEADER, len(data) - 4))
            width = rng.choice(("<H", "<I", ">I", "B"))
            limit = 256 ** struct.calcsize(width)
            number = rng.choice(
                (0, 1, 2, limit - 1, limit // 2, rng.randrange(limit), 3, 65, 48_000)
            )
            struct.pack_into(width, changed, at, number % limit)
        return bytes(changed)
    if pick < 0.7:
        return data[: rng.randrange(len(data))]
    if pick < 0.8:  # numbers that are none, among the samples
        at = rng.randrange(len(data))
        return data[:at] + rng.choice(_NO_NUMBERS) + data[at:]
    if pick < 0.85:  # a header that promises other than it holds
        size = rng.choice((0, 1, 2, FRAMES, len(data) * 2, 2**31, 2**32 - 2, 2**32 - 1))
        at = data.find(b"data") + 4
        return data[:at] + struct.pack("<I", size) + data[at + 4 :]
    return mutate.raw(rng, data, rng.choice(corpus))


_NO_NUMBERS: Final = tuple(
    struct.pack(form, number) * 3
    for form in ("<f", "<d", ">f")
    for number in (math.nan, math.inf, -math.inf)
)


def _check_sound(data: bytes, folder: Path) -> bool:
    file = folder / "sound.wav"
    file.write_bytes(data)
    held = 0
    try:
        source = RecordingSource(file, block_frames=64)
        with source:
            for block in source.blocks():
                if block.first_sample != held or not 1 <= len(block.frames) <= 64:
                    raise WrongError("blocks that do not follow each other")
                if block.frames.shape[1] != source.channels:
                    raise WrongError("another number of channels")
                if block.frames.dtype not in (np.int16, np.int32, np.float32):
                    raise WrongError("samples of another type")
                if not np.isfinite(block.frames).all():
                    raise WrongError("samples that are no numbers")
                held += len(block.frames)
    except RecordingError as error:
        if str(file) not in str(error):
            raise WrongError("an error that names no file") from error
        return False
    if held != source.frames or held < 1:
        raise WrongError("another length than stated")
    if not (4_000 <= source.sample_rate_hz <= 384_000 and 1 <= source.channels <= 64):
        raise WrongError("a rate or a number of channels that is not taken")
    promised = _promised(data)
    if promised is not None and promised > len(data) - 44:
        raise WrongError("cut short, and taken for whole")
    return True


def _promised(data: bytes) -> int | None:
    """Give the bytes that the plainest kind of WAV header promises; None for another header."""
    if data[:4] != b"RIFF" or data[8:20] != b"WAVEfmt \x10\0\0\0" or data[36:40] != b"data":
        return None
    kind, channels, _, _, align, bits = struct.unpack("<HHIIHH", data[20:36])
    size = int(struct.unpack("<I", data[40:44].ljust(4, b"\0"))[0])
    plain = kind == 1 and bits in (16, 24, 32) and align == channels * bits // 8
    return size if plain and size < 2**32 - 1 else None


_IDENTITY: Final = [
    {
        "serial_number": "1001",
        "timestamp": "2018-12-19T00:49:26.000Z",
        "location": {"x": -8757.4, "y": -1749.5, "z": -23.3, "sigma_m": 0.05},
        "array": "square_65mm",
        "heading_deg": 12.5,
        "pitch_deg": -3,
        "roll_deg": 0,
        "pps_channel": 4,
    },
    {
        "timestamp": "2026-06-30T23:59:60.5+01:00",
        "position": {"lat_deg": 40.44, "lon_deg": -79.99, "alt_m": 231.4, "sigma_m": 1},
        "microphones_m": [[0.1, 0.0, 0.0], [-0.05, 0.087, 0.0], [0, 0, 0.141], [0, 0.5, 0]],
        "more": None,
    },
    {"location": {"lat_deg": -33.8, "lon_deg": 151.2, "alt_m": 5}, "serial_number": None},
]


def _check_identity(data: bytes, folder: Path) -> bool:
    (folder / "sound.json").write_bytes(data)
    try:
        known = read_identity(folder / "sound.wav")
    except RecordingError:
        return False
    said = json.loads(data)
    for key, value in (("serial_number", known.node_id), ("array", known.array)):
        if said.get(key) != value or value == "":
            raise WrongError(f"another {key} than was said")
        (value or "").encode()
    stamp = said.get("timestamp")
    start = known.start_utc_ns
    if (stamp is None) != (start is None):
        raise WrongError("a start that was not said")
    if start is not None and not (0 <= start <= LATEST_UTC_NS and start == parse_utc_ns(stamp)):
        raise WrongError("a start out of range")
    if stamp is not None:
        _judge_day(stamp)
    for key in ("heading_deg", "pitch_deg", "roll_deg"):
        angle = getattr(known, key)
        if not abs(angle) <= 360 or angle != (said.get(key) or 0):
            raise WrongError(f"{key} out of range")
    if known.pps_channel is not None and not (
        type(known.pps_channel) is int and known.pps_channel >= 0
    ):
        raise WrongError("a channel that is none")
    _judge_places(known.microphones_m, 64)
    place, local = known.position, known.local
    if place is not None:
        if not (abs(place.lat_deg) <= 90 and abs(place.lon_deg) <= 180):
            raise WrongError("a place off the Earth")
        if not -500 <= place.alt_m <= 9000:
            raise WrongError("a height that no node has")
    if local is not None and not all(abs(v) <= 1e6 for v in (local.x_m, local.y_m, local.z_m)):
        raise WrongError("a place out of any survey")
    for one in (place, local):
        if one is not None and one.sigma_m is not None and not 0 < one.sigma_m <= 10_000:
            raise WrongError("an error of a place out of range")
    return True


def _judge_day(stamp: str) -> None:
    try:
        date.fromisoformat(stamp[:10])
    except ValueError as error:
        raise WrongError("a day that there is not") from error


def _judge_places(places: Any, most: int) -> None:
    if places is None:
        return
    if not 1 <= len(places) <= most or not all(abs(x) <= 100 for row in places for x in row):
        raise WrongError("microphones out of range")
    for one, other in combinations(places, 2):
        if not 1e-3 <= math.dist(one, other) <= 3:
            raise WrongError("microphones that cannot stand so to each other")


_ARRAYS: Final = [
    b'name = "mast"\npositions_m = [[0.1, 0.0, 0.0], [-0.05, 0.087, 0.0], [0, 0, 0.141]]\n'
    b"delays_s = [0.0, 1.2e-6, -0.4e-6]\ntiming_sigma_s = 0.9e-6\n",
    b"positions_m = [[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.5, 0.0, 0.0]]\n",
]


def _make_array(rng: Random, corpus: list[bytes]) -> bytes:
    text = rng.choice(corpus)
    pick = rng.random()
    if pick < 0.8:
        table = mutate.tree(rng, tomllib.loads(text.decode()))
        lines = table.items() if isinstance(table, dict) else [("top", table)]
        text = "\n".join(f"{key} = {toml_value(value)}" for key, value in lines).encode(
            "utf-8", "surrogatepass"
        )
    return text if pick < 0.65 else mutate.raw(rng, text, rng.choice(corpus))


def toml_value(value: Any) -> str:
    """Write a value as TOML would have it; what TOML has no word for, as something near."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int) and abs(value) > 10**300:
        return hex(value).replace("-", "")
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{k}" = {toml_value(v)}' for k, v in value.items()) + "}"
    return json.dumps(value) if isinstance(value, str) else str(value)


def _check_array(data: bytes, folder: Path) -> bool:
    file = folder / "array.toml"
    file.write_bytes(data)
    try:
        array = load_geometry(file, 3)
    except SceneError as error:
        if str(file) not in str(error):
            raise WrongError("an error that names no file") from error
        return False
    if array.positions_m.shape != (3, 3) or array.delays_s.shape != (3,):
        raise WrongError("another number of microphones")
    _judge_places(array.positions_m.tolist(), 3)
    if not all(abs(late) <= 1e-3 for late in array.delays_s):
        raise WrongError("delays out of range")
    if array.timing_sigma_s is not None and not 0 <= array.timing_sigma_s <= 1e-4:
        raise WrongError("an error of delays out of range")
    said = tomllib.loads(file.read_text("utf-8-sig"))
    if set(said) - {"name", "positions_m", "delays_s", "timing_sigma_s"}:
        raise WrongError("a key that there is not")
    if array.positions_m.tolist() != said["positions_m"] or array.calibrated != (
        "delays_s" in said
    ):
        raise WrongError("another array than was said")
    return True


_MODEL: Final = ROOT / "models" / "gunfire.json"


def _sidecars() -> list[bytes]:
    whole = json.loads(_MODEL.read_bytes())
    return [json.dumps(whole | {"training": {}}).encode()]


def _check_sidecar(data: bytes, folder: Path) -> bool:
    file = folder / "model.json"
    file.write_bytes(data)
    try:
        model = sidecar_module.read(file)
    except ModelError:
        return False
    cuts = model.thresholds
    if not 0 < cuts.probable <= cuts.gunfire < 1:
        raise WrongError("thresholds out of order")
    figures = [model.input.scale, model.output.scale, *cuts.model_dump().values()]
    for calibration in (model.calibration, model.stream_calibration):
        figures += [*calibration.scale, *calibration.bias]
    if not all(map(math.isfinite, figures)) or min(model.input.scale, model.output.scale) <= 0:
        raise WrongError("figures that are no numbers")
    if len(model.sha256) != 64 or set(model.sha256) - set("0123456789abcdef"):
        raise WrongError("no digest")
    return True


TARGETS: Final = (
    Target(
        "sound",
        120_000,
        ("node.capture.recording",),
        lambda: list(_sounds()),
        _make_sound,
        _check_sound,
    ),
    Target(
        "identity",
        80_000,
        ("node.capture.identity", "node.utc"),
        lambda: [json.dumps(one).encode() for one in _IDENTITY],
        mutate.json_text,
        _check_identity,
    ),
    Target(
        "array",
        60_000,
        ("node.capture.geometry",),
        lambda: list(_ARRAYS),
        _make_array,
        _check_array,
    ),
    Target(
        "sidecar",
        30_000,
        ("node.classify.sidecar",),
        _sidecars,
        mutate.json_text,
        _check_sidecar,
    ),
)
