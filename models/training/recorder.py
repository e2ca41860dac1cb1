"""What a recorder makes of a sound: microphone, converter, gain control, rate, codec, publisher.

The last step of `models.training.surroundings`. A class must not show by its recorder, so any
sound may meet any of them.
"""

from __future__ import annotations

import io
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import soundfile
from scipy import signal

from node.classify import features
from node.simulate.filters import minimum_phase

Sound = npt.NDArray[np.float64]

RATE: Final = features.RATE_HZ
_HERTZ: Final = np.maximum(np.fft.rfftfreq(1024, 1 / RATE), 10.0)
_KNOTS_HZ: Final = np.array([30.0, 100, 250, 500, 1000, 2000, 4000, 6000])
_BLOCK: Final = 12
"""Samples from step to step of a gain control: 1 ms."""
_MP3_DELAY: Final = 576 + 529
"""Samples that LAME's encoder and the decoder put before a sound."""


def record(heard: Sound, draw: np.random.Generator) -> Sound:
    """Record a sound with a random device.

    Parameters
    ----------
    heard
        At the internal rate and of any level, shape [n].
    draw
        Random numbers.

    Returns
    -------
    What a file of it holds, full scale at 1, shape [n]; silence stays silence.
    """
    sound = signal.fftconvolve(heard, _microphone(draw))[: len(heard)]
    peak = float(np.max(np.abs(sound)))
    if not peak > 1e-12:
        return np.zeros_like(heard)
    sound = converted(sound / peak, draw)
    if draw.random() < 0.25:
        sound = levelled(
            sound,
            threshold=float(10 ** (draw.uniform(-30.0, -3.0) / 20)),
            ratio=float(np.exp(draw.uniform(np.log(1.5), np.log(20.0)))),
            attack_s=float(np.exp(draw.uniform(np.log(0.001), np.log(0.02)))),
            release_s=float(np.exp(draw.uniform(np.log(0.05), np.log(0.8)))),
        )
    if draw.random() < 0.05:
        sound = gated(sound, float(10 ** (draw.uniform(-50.0, -20.0) / 20)))
    if draw.random() < 0.35:
        sound = _band_limited(sound, draw)
    if draw.random() < 0.06:
        sound = at_rate(sound, 8000 if draw.random() < 0.6 else 11025)
    codec = draw.random()
    if codec < 0.1:
        sound = coded(sound, "vorbis" if codec < 0.06 else "mp3", draw.uniform(0.0, 1.0))
    if draw.random() < 0.12:
        sound = _redacted(sound, draw)
    return np.clip(sound, -1.0, 1.0)


def converted(sound: Sound, draw: np.random.Generator) -> Sound:
    """Bring a sound of peak 1 into a converter: its own noise, too much or too little gain, bits.

    A quarter is overdriven, as close sounds are: by up to 14 dB where it clips hard, by up to
    20 dB where it saturates, but never so far that the street clips too. The loudest sample is
    never less than four steps high.
    """
    street = float(np.median(_peaks(sound)))
    noise = 10 ** (draw.uniform(-85.0, -40.0) / 20)
    sound = sound + noise * draw.standard_normal(len(sound))
    kind = draw.random()
    if kind < 0.15:
        sound = np.clip(sound * _drive(draw.uniform(1.0, 14.0), street), -1.0, 1.0)
    elif kind < 0.25:
        sound = np.tanh(sound * _drive(draw.uniform(0.0, 20.0), street))
    bits = int(draw.choice([8, 10, 12, 16], p=[0.04, 0.04, 0.07, 0.85]))
    steps = 2.0 ** (bits - 1) - 1
    lowest_db = 20 * np.log10(4 / steps)
    gain_db = draw.uniform(max(lowest_db, -50.0), 0.0) if kind >= 0.25 else 0.0
    gain = 10 ** (gain_db / 20)
    converted: Sound = np.rint(np.clip(sound * gain, -1.0, 1.0) * steps) / steps
    return converted


def levelled(
    sound: Sound, *, threshold: float, ratio: float, attack_s: float, release_s: float
) -> Sound:
    """Let an automatic gain control turn down what is loud, and what comes after it.

    Parameters
    ----------
    sound
        Shape [n].
    threshold
        Share of the peak above which it acts.
    ratio
        By how many dB the level may rise for one that comes out; large for a limiter.
    attack_s, release_s
        Time constants, in s.
    """
    peaks = _peaks(sound)
    up = float(np.exp(-_BLOCK / RATE / attack_s))
    down = float(np.exp(-_BLOCK / RATE / release_s))
    envelope = np.empty(len(peaks))
    level = float(peaks[: max(1, len(peaks) // 8)].mean())
    for step, peak in enumerate(peaks.tolist()):
        keep = up if peak > level else down
        level = keep * level + (1 - keep) * peak
        envelope[step] = level
    over = np.maximum(envelope / (threshold * peaks.max() + 1e-12), 1.0)
    return sound * _spread(over ** (1 / ratio - 1), len(sound))


def gated(sound: Sound, threshold: float) -> Sound:
    """Let a noise gate turn down by up to 20 dB what is below a share of the peak."""
    peaks = _peaks(sound)
    held = signal.lfilter([0.03], [1, -0.97], peaks) + 1e-12
    open_ = np.clip(np.maximum(held, peaks) / (threshold * peaks.max() + 1e-12), 0.1, 1.0)
    return sound * _spread(open_, len(sound))


def at_rate(sound: Sound, rate_hz: int) -> Sound:
    """Take a sound to a lower rate and back as cheap devices do: between samples by a line."""
    low = signal.sosfilt(signal.butter(4, 0.4 * rate_hz, fs=RATE, output="sos"), sound)
    place = np.arange(len(sound)) / RATE
    coarse = np.arange(int(len(sound) * rate_hz / RATE)) / rate_hz
    stepped: Sound = np.interp(place, coarse, np.interp(coarse, place, low))
    return stepped


def coded(sound: Sound, codec: Literal["vorbis", "mp3"], coarseness: float) -> Sound:
    """Pass a sound through a real lossy codec (libsndfile's), in memory.

    Parameters
    ----------
    sound
        Shape [n], full scale at 1.
    codec
        Vorbis gives 36 to 62 kbit/s here, MP3 (constant rate) 17 to 69 kbit/s.
    coarseness
        0 for the best, 1 for the worst that is asked of it.
    """
    file = io.BytesIO()
    clipped = np.clip(sound, -1.0, 1.0)
    if codec == "mp3":
        soundfile.write(
            file, clipped, RATE, format="MP3", subtype="MPEG_LAYER_III",
            compression_level=0.8 * coarseness, bitrate_mode="CONSTANT",
        )  # fmt: skip
    else:
        soundfile.write(
            file, clipped, RATE, format="OGG", subtype="VORBIS", compression_level=coarseness
        )
    file.seek(0)
    decoded, _ = soundfile.read(file)
    # A coarse MP3 has no room for the tag that tells its delay: the decoder then leaves it in.
    late = _MP3_DELAY if len(decoded) > len(sound) else 0
    kept = np.zeros(len(sound))
    piece = decoded[late : late + len(sound)]
    kept[: len(piece)] = piece
    return kept


def _microphone(draw: np.random.Generator) -> Sound:
    """Draw a microphone and its mounting: some dB up or down per octave, a low cut, a housing.

    The sensors of the live-fire recordings lose 10 dB from 1 to 1.5 kHz, of shots and street alike.
    """
    knots_db = np.cumsum(draw.normal(0, 2.0, len(_KNOTS_HZ)))
    gain_db = np.interp(np.log(_HERTZ), np.log(_KNOTS_HZ), knots_db - knots_db.mean())
    low_hz = np.exp(draw.uniform(np.log(15.0), np.log(200.0)))
    gain_db -= 10 * np.log10(1 + (low_hz / _HERTZ) ** draw.uniform(2.0, 6.0))
    if draw.random() < 0.12:
        corner_hz = np.exp(draw.uniform(np.log(700.0), np.log(4000.0)))
        gain_db -= 10 * np.log10(1 + (_HERTZ / corner_hz) ** draw.uniform(1.0, 6.0))
    return minimum_phase(10 ** (gain_db / 20))


def _band_limited(sound: Sound, draw: np.random.Generator) -> Sound:
    """Cut the top off, as a codec or a card of a lower rate does."""
    corner_hz = np.exp(draw.uniform(np.log(2500.0), np.log(5900.0)))
    sections = signal.cheby2(int(draw.integers(4, 9)), 50, corner_hz, fs=RATE, output="sos")
    cut: Sound = signal.sosfilt(sections, sound)
    return cut


def _redacted(sound: Sound, draw: np.random.Generator) -> Sound:
    """Zero what lies before or after a place, as a publisher or a lost buffer does."""
    cut = sound.copy()
    where = int(draw.uniform(0, len(cut)))
    if where < len(cut) * 0.15:
        cut[:where] = 0.0
    elif where > len(cut) * 0.6:
        cut[where:] = 0.0
    return cut


def _drive(wanted_db: float, street: float) -> float:
    """Give a gain that leaves the street's peaks below half of full scale."""
    return float(min(10 ** (wanted_db / 20), max(1.0, 0.5 / (street + 1e-12))))


def _peaks(sound: Sound) -> Sound:
    """Give the largest value of each block; a piece left over counts as one."""
    padded = np.pad(np.abs(sound), (0, -len(sound) % _BLOCK))
    peaks: Sound = padded.reshape(-1, _BLOCK).max(axis=1)
    return peaks


def _spread(gain: Sound, length: int) -> Sound:
    """Draw gains given for blocks out to samples, without steps."""
    spread: Sound = np.interp(np.arange(length), (np.arange(len(gain)) + 0.5) * _BLOCK, gain)
    return spread
