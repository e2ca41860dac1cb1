"""One picture of one recording for people who look: waveform, spectrogram, verdicts.

Used by `gunfire-node replay --plot`; needs matplotlib, which the `network` extra brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.signal import spectrogram

from node.errors import GunfireNodeError
from node.messages import Detection
from node.types import LABELS, NS_PER_S
from node.utc import parse_utc_ns

COLOURS: Final = {
    "gunfire": "#c0392b",
    "probable_gunfire": "#e08e0b",
    "not_gunfire": "#2471a3",
}
SCORE_COLOURS: Final = dict(zip(LABELS, ("#c0392b", "#8e44ad", "#b9770e", "#7f8c8d"), strict=True))


def plot_recording(
    path: Path,
    *,
    title: str,
    samples: npt.NDArray[np.float32],
    sample_rate_hz: int,
    start_utc_ns: int,
    detections: Sequence[Detection],
) -> None:
    """Draw a recording with what was detected in it.

    Parameters
    ----------
    path
        Picture to write; its ending chooses the format (.png, .svg, .pdf).
    samples
        Channel 0, full scale at 1, shape [n].
    start_utc_ns
        UTC of the first sample.

    Raises
    ------
    GunfireNodeError
        matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise GunfireNodeError(
            "--plot needs matplotlib: pip install 'gunfire-node[network]'"
        ) from None

    figure = Figure(figsize=(11, 7), layout="constrained")
    wave, spectrum, scores = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 3, 1.4]}
    )
    seconds = len(samples) / sample_rate_hz
    _draw_waveform(wave, samples, sample_rate_hz)
    _draw_spectrogram(spectrum, samples, sample_rate_hz)
    for detection in detections:
        _draw_detection(wave, scores, detection, start_utc_ns, seconds)
    wave.set_title(title, loc="left")
    wave.set_ylabel("amplitude\n(full scale 1)")
    spectrum.set_ylabel("frequency (kHz)")
    scores.set_ylabel("scores")
    scores.set_ylim(0, 1)
    scores.set_xlabel("time (s)")
    scores.set_xlim(0, seconds)
    lines = [wave.plot([], color=colour)[0] for colour in COLOURS.values()]
    bars = [scores.bar(0, 0, color=SCORE_COLOURS[label]) for label in LABELS]
    words = [*(f"onset: {grade.replace('_', ' ')}" for grade in COLOURS), *LABELS]
    figure.legend([*lines, *bars], words, ncols=len(words), loc="outside lower center", fontsize=8)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise GunfireNodeError(f"{path}: the picture cannot be written: {error}") from None


def _draw_waveform(axes: Any, samples: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
    # Minimum and maximum of each pixel's worth: a picture of 10 s must not lose a 1 ms peak.
    step = max(1, len(samples) // 4000)
    whole = samples[: len(samples) // step * step].reshape(-1, step)
    at = np.arange(len(whole)) * step / sample_rate_hz
    axes.fill_between(at, whole.min(axis=1), whole.max(axis=1), color="#34495e", linewidth=0.4)


def _draw_spectrogram(axes: Any, samples: npt.NDArray[np.float32], sample_rate_hz: int) -> None:
    length = min(len(samples), 2 ** round(np.log2(sample_rate_hz * 0.02)))
    frequency, at, power = spectrogram(
        samples, sample_rate_hz, nperseg=length, noverlap=length // 2, scaling="spectrum"
    )
    level_db = 10 * np.log10(power + 1e-14)
    top = float(np.percentile(level_db, 99.9))
    axes.pcolormesh(
        at, frequency / 1000, level_db, vmin=top - 70, vmax=top, cmap="magma", rasterized=True
    )
    axes.set_ylim(0, min(8.0, sample_rate_hz / 2000))


def _draw_detection(
    wave: Any, scores: Any, detection: Detection, start_utc_ns: int, seconds: float
) -> None:
    colour = COLOURS[detection.grade]
    for n, impulse in enumerate(detection.rounds):
        at = (parse_utc_ns(impulse.utc) - start_utc_ns) / NS_PER_S
        wave.axvline(at, color=colour, linewidth=1.6 if n == 0 else 0.7, alpha=0.9)
    onset = (parse_utc_ns(detection.onset_utc) - start_utc_ns) / NS_PER_S
    wave.annotate(
        f"{detection.scores.gunfire:.2f}",
        (onset, 1),
        xycoords=("data", "axes fraction"),
        xytext=(3, -11),
        textcoords="offset points",
        color=colour,
        fontsize="small",
    )
    bottom = 0.0
    for label in LABELS:
        share = getattr(detection.scores, label)
        scores.bar(
            onset, share, width=seconds / 60, bottom=bottom, align="edge",
            color=SCORE_COLOURS[label],
        )  # fmt: skip
        bottom += share
