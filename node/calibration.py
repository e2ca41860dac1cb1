"""An array calibrated by recordings: what `gunfire-node replay --calibrate` runs.

In come recordings of many far impulses, and the array as it was meant; the trigger and the first
arrivals are the pipeline's own. Out goes an array's file, for the settings or for the next replay.
All in the array's own axes: how it is mounted no impulse tells, and places do not depend on it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from node.capture import ArrayGeometry, RecordingSource
from node.detect import (
    Arrival,
    Calibration,
    Detector,
    DirectionFinder,
    calibrate,
    check_array,
)
from node.detect.direction import sound_speed_m_s
from node.errors import CalibrationError
from node.history import History
from node.settings import DetectSettings

# Beyond an event and its gap: for blocks, windows and the detector's delay.
KEPT_S: Final = 2.0


@dataclass(frozen=True)
class CalibratedArray:
    """An array as its sounds tell it.

    Attributes
    ----------
    nominal
        As it was meant.
    calibration
        As it is.
    impulses
        How many were heard, whether it rests on them or not.
    """

    nominal: ArrayGeometry
    calibration: Calibration
    impulses: int

    def toml(self) -> str:
        """Give the array's file, as `load_geometry` reads it."""
        told = self.calibration
        places = "".join(
            f"    [{x:.6f}, {y:.6f}, {z:.6f}],\n" for x, y, z in told.positions_m.tolist()
        )
        delays = ", ".join(f"{late_s:.9f}" for late_s in told.delays_s.tolist())
        return (
            f"# Calibrated by {len(told.used)} far impulses: {_errors(told)}.\n"
            f"positions_m = [\n{places}]\n"
            f"delays_s = [{delays}]\n"
            f"timing_sigma_s = {told.timing_sigma_s:.9f}\n"
        )

    def report(self) -> Iterator[str]:
        """Say, line by line, what it rests on and what was found."""
        told = self.calibration
        yield f"{self.nominal.name}: {len(told.used)} of {self.impulses} impulses used"
        moved_mm = 1e3 * (told.positions_m - self.nominal.positions_m)
        for number, (by_mm, late_s) in enumerate(zip(moved_mm, told.delays_s, strict=True)):
            along = ", ".join(f"{axis} {mm:+.1f}" for axis, mm in zip("xyz", by_mm, strict=True))
            yield (
                f"microphone {number}: {np.linalg.norm(by_mm):.1f} mm from its place ({along}), "
                f"late by {1e6 * late_s:+.1f} µs"
            )
        yield (
            f"residual: {1e6 * told.nominal_residual_s:.2f} µs before, "
            f"{1e6 * told.residual_s:.2f} µs after"
        )
        yield f"standard errors: {_errors(told)}"


def _errors(told: Calibration) -> str:
    return (
        f"places ±{1e3 * told.position_sigma_m:.2f} mm, delays ±{1e6 * told.delay_sigma_s:.2f} µs, "
        f"timing by both ±{1e6 * told.timing_sigma_s:.2f} µs"
    )


def calibrate_array(
    recordings: Sequence[Path],
    array: str,
    detect: DetectSettings,
    progress: Callable[[float], None] = lambda _: None,
) -> CalibratedArray:
    """Calibrate an array by the impulses in recordings.

    Parameters
    ----------
    recordings
        All of that array, one or more; none of them is passed over.
    array
        As it was meant, by name or file; one that was calibrated before is calibrated further.
    detect
        When a sound is an impulse, and how fast sound is.
    progress
        Called with the seconds of sound done since the last call.

    Raises
    ------
    RecordingError, SceneError
        A recording or the array is not what it should be.
    CalibrationError
        The impulses do not calibrate the array.
    """
    # All that headers tell is refused before the first hour is listened to.
    *_, nominal = [_nominal(RecordingSource(path), array) for path in recordings]
    check_array(nominal.positions_m, nominal.delays_s)
    impulses, arrivals = 0, []
    for path in recordings:
        with RecordingSource(path) as source:
            for arrival in _arrivals(source, nominal, detect, progress):
                impulses += 1
                if arrival is not None:
                    arrivals.append(arrival)
    calibration = calibrate(
        nominal.positions_m,
        arrivals,
        delays_s=nominal.delays_s,
        sound_speed_m_s=sound_speed_m_s(detect.air_temperature_c),
    )
    return CalibratedArray(nominal, calibration, impulses)


def check_output(path: Path) -> None:
    """Refuse, before the work, a file that could not be written after it.

    Raises
    ------
    CalibrationError
        It exists, its folder does not, or no array would be looked for under its name.
    """
    if path.suffix != ".toml":
        raise CalibrationError(f"{path}: an array's file has to end in .toml; name it so")
    if path.exists():
        raise CalibrationError(f"{path}: exists already; move it away, or name another file")
    if not path.parent.is_dir():
        raise CalibrationError(f"{path.parent}: is not a folder to write an array into; make it")


def write_array(path: Path, array: CalibratedArray) -> None:
    """Write an array's file, whole or not at all.

    Raises
    ------
    CalibrationError
        It exists, or cannot be written.
    """
    check_output(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)  # the daemon is another user
                file.write(array.toml())
                file.flush()
                os.fsync(file.fileno())
            Path(name).rename(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot write the array ({error.strerror}); name another file"
        ) from error


def _microphones(source: RecordingSource) -> list[int]:
    return [c for c in range(source.channels) if c != source.identity.pps_channel]


def _nominal(source: RecordingSource, array: str) -> ArrayGeometry:
    return source.geometry(array, len(_microphones(source)))


def _arrivals(
    source: RecordingSource,
    nominal: ArrayGeometry,
    detect: DetectSettings,
    progress: Callable[[float], None],
) -> Iterator[Arrival | None]:
    """Yield the first arrival of each impulse of a recording; None where none is measured."""
    rate, microphones = source.sample_rate_hz, _microphones(source)
    finder = DirectionFinder(nominal.positions_m, rate)
    before, after = finder.window()
    detector = Detector(detect, rate, len(microphones), crossing_s=finder.crossing_s)
    history = History(detect.event_s + detect.gap_s + KEPT_S, rate, len(microphones))

    def measured(onset_sample: float) -> Arrival | None:
        first = math.floor(onset_sample) - before
        sound = history.window(first, first + before + after)
        return finder.explain(sound, onset_sample - first).arrival

    for block in source.blocks():
        heard = replace(block, frames=block.frames[:, microphones])
        history.push(heard)
        for event in detector.push(heard):
            yield from (measured(impulse.onset_sample) for impulse in event.impulses)
        progress(len(block.frames) / rate)
    for event in detector.flush():
        yield from (measured(impulse.onset_sample) for impulse in event.impulses)
