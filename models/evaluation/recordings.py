"""The recordings to judge by: a data folder's manifest held against its files, and the pieces.

A folder laid out as `../shared/data` comes in; sounds to judge go out to `predictions`, each with
what is known of it: its range for live fire, its signal-to-noise ratio.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile
from scipy import signal

from models.training.corpus import LIVE_FIRE, Clip, LiveFire, live_fire, read_manifest
from node.classify import features
from node.errors import GunfireNodeError
from node.types import LABELS

Frames = npt.NDArray[np.float32]

PIECE_S: Final = 5.0
"""A display of a minute is many city sounds: about what one clip of UrbanSound8K holds."""
BAND_HZ: Final = 6_000
"""The live-fire test was recorded at 12 kHz: above this it holds nothing, and others may."""
_COLUMNS: Final = ("path", "label", "sound", "source", "group", "licence_tier", "licence")
_LOUDEST_S: Final = 0.03
_RUMBLE_HZ: Final = 150.0


class DataError(GunfireNodeError, ValueError):
    """A data folder is not what it should be; the message names the file and what to mend."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One sound to judge, shape [n, channels] at the file's own rate."""

    clip: Clip
    number: int
    frames: Frames
    rate_hz: int


def read_folder(data: Path) -> list[Clip]:
    """List the recordings of a folder that have one of the four labels.

    Raises
    ------
    DataError
        The manifest lacks a column, a row a value, or a file that it names is not there.
    """
    manifest = data / "manifest.csv"
    try:
        with manifest.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = [c for c in (*_COLUMNS, "seconds") if c not in (rows.fieldnames or ())]
            if missing:
                raise DataError(f"{manifest}: has no column {', '.join(missing)}; see its README")
            for row in rows:
                _check_row(data, manifest, rows.line_num, row)
        clips = read_manifest(data, "ABC")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{manifest}: unreadable ({reason}); it lists the recordings") from error
    return [clip for clip in clips if clip.label in LABELS]


def _check_row(data: Path, manifest: Path, line: int, row: dict[str, str | None]) -> None:
    where = f"{manifest}, line {line}"
    if any(row[column] is None for column in (*_COLUMNS, "seconds")) or None in row:
        raise DataError(f"{where}: has another number of values than the header")
    if row["label"] not in LABELS:
        return
    try:
        seconds = float(row["seconds"] or "nan")
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise DataError(f"{where}: seconds is {row['seconds']!r}, no length")
    if row["licence_tier"] not in ("A", "B", "C"):
        raise DataError(f"{where}: licence_tier is {row['licence_tier']!r}, not A, B or C")
    if not (data / str(row["path"])).is_file():
        raise DataError(f"{data / str(row['path'])}: not there, though {where} names it")


def is_live(clip: Clip) -> bool:
    """Say whether a recording is of a live-fire test, where 10 s hold one test."""
    return clip.source == LIVE_FIRE or _survey(clip).exists()


def read(clip: Clip) -> tuple[Frames, int]:
    """Read a recording: samples of shape [n, channels], full scale at 1, and their rate.

    Raises
    ------
    DataError
        It is no recording, empty, or holds what is no number.
    """
    try:
        frames, rate_hz = soundfile.read(clip.path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"{clip.path}: no recording that can be read ({error})") from error
    if len(frames) == 0 or not np.isfinite(frames).all():
        raise DataError(f"{clip.path}: empty, or holds samples that are no numbers")
    return frames, rate_hz


def pieces(clip: Clip) -> Iterator[Piece]:
    """Read a recording and cut it into pieces of `PIECE_S`; live fire stays whole.

    A rest shorter than half a piece goes with the piece before it.
    """
    frames, rate_hz = read(clip)
    size = len(frames) if is_live(clip) else round(PIECE_S * rate_hz)
    last = max(0, len(frames) - size // 2)
    cuts = [*range(0, max(last, 1), size), len(frames)]
    for number, (start, end) in enumerate(pairwise(cuts)):
        yield Piece(clip, number, frames[start:end], rate_hz)


def band_limited(piece: Piece) -> Piece:
    """Give a piece without what is above `BAND_HZ`: as if it had been recorded at 12 kHz."""
    if piece.rate_hz <= 2 * BAND_HZ:
        return piece
    common = math.gcd(2 * BAND_HZ, piece.rate_hz)
    low = signal.resample_poly(
        piece.frames.astype(np.float64), 2 * BAND_HZ // common, piece.rate_hz // common
    )
    return Piece(piece.clip, piece.number, low.astype(np.float32), 2 * BAND_HZ)


def range_m(clip: Clip) -> float:
    """Give the distance from shooter to sensor in m; NaN where it is not stated.

    Raises
    ------
    DataError
        The survey or the recording's .json is there, and does not hold three coordinates.
    """
    survey, own = _survey(clip), clip.path.with_suffix(".json")
    if not (survey.exists() and own.exists()):
        return math.nan
    return math.dist(_place(survey, "survey_location"), _place(own, "location"))


def with_pulses(clips: list[Clip]) -> Iterator[LiveFire]:
    """Give the pulses of those live-fire recordings for which they are stated.

    Raises
    ------
    DataError
        They are stated in a form that cannot be read.
    """
    for clip in clips:
        test = clip.path.parent / clip.path.parent.name
        stated = (
            clip.path.with_suffix(".json"),
            test.with_suffix(".allpulses.json"),
            test.with_suffix(".nlos-tuples.json"),
            test.with_suffix(".survey.json"),
            test.with_suffix(".weather.json"),
        )
        if clip.source == LIVE_FIRE and all(path.exists() for path in stated):
            try:
                yield from live_fire([clip])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{clip.path}: the pulses stated beside it (.json, .allpulses.json, "
                    f".nlos-tuples.json, .survey.json, .weather.json) cannot be read ({error!r})"
                ) from error


def _survey(clip: Clip) -> Path:
    return clip.path.parent / f"{clip.path.parent.name}.survey.json"


def _place(path: Path, key: str) -> list[float]:
    try:
        place = json.loads(path.read_bytes())[key]
        coordinates = [float(place[axis]) for axis in "xyz"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no {key} of x, y, z in metres in it ({error!r})") from error
    if not all(map(math.isfinite, coordinates)):
        raise DataError(f"{path}: {key} holds what is no number")
    return coordinates


def snr_db(piece: Piece) -> float:
    """Give how far the loudest 30 ms stand over the quiet half of a piece, in dB.

    The quiet half are those 30 ms whose power is below the median; digital silence (redaction,
    padding) is left out, rumble below `_RUMBLE_HZ` too. NaN where nothing is left.
    """
    sound = features.resample(features.pick_channel(piece.frames), piece.rate_hz)
    high = signal.butter(2, _RUMBLE_HZ, "high", fs=features.RATE_HZ, output="sos")
    frame = round(_LOUDEST_S * features.RATE_HZ)
    count = len(sound) // frame
    silent = (sound[: count * frame] == 0).reshape(count, frame).mean(axis=1) > 0.5
    heard = signal.sosfilt(high, sound)[: count * frame].reshape(count, frame)
    power = np.sort(np.mean(heard**2, axis=1)[~silent])
    quiet = power[: (len(power) + 1) // 2]
    if not len(power) or quiet.mean() <= 0:
        return math.nan
    return float(10 * np.log10(power[-1] / quiet.mean()))
