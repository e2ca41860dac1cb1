"""One second of sound of every microphone, in the figures that tell a broken one.

Levels, bits and likenesses of what the converter delivered; `node.detect.microphones` makes
verdicts of them. Pure. Comparisons are of the sound at some 8 kHz, differentiated: where
microphones a hand apart hear the same street, and rumble and wind count for little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect.detector import RAIL
from node.types import PcmArray, to_full_scale

Float32Array = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

# A capsule with its amplifier is never quieter than this, a cable that is off is: an electret of
# 14 dB SPL self-noise under 125 dB SPL full scale makes -111 dBFS, and converters -95 to -115.
SILENT_DBFS: Final = -110.0
COMPARE_RATE_HZ: Final = 8000
SLOTS: Final = 200
TENTHS: Final = 10
SLICES: Final = 20
BACKGROUND_QUANTILE: Final = 0.2
# A loose plug's crack, against the sound of its own channel and that of each other one.
CRACK_DB: Final = 20.0
CRACK_OVER_OTHERS_DB: Final = 14.0
CALM_DB: Final = 6.0
# With fewer values, chance or a synthetic sound may leave a bit unmoved.
ENOUGH_VALUES: Final = 64
VALUES_OF: Final = 4096


@dataclass(frozen=True, slots=True)
class Second:
    """Figures of one second, arrays of shape [channels] unless said otherwise.

    Attributes
    ----------
    power, dc, peak
        Mean square without the mean; mean; largest magnitude. Full scale is 1.
    full_scale
        Share of the samples at full scale.
    full_scale_slices
        Share of the twentieths of the second with such a sample.
    constant
        Whether no sample differs from the first.
    values
        Different values among some thousands of samples.
    latched
        Bits that never moved though higher and lower ones did, as a mask of a 32-bit word.
    lowest_bit
        The lowest bit of a 32-bit word that moved; 32 where none did, -1 where samples are floats.
    level_db
        Background between some hundred hertz and 4 kHz, in dB re full scale.
    cracks
        Impulses heard by this microphone and by no other.
    alike
        The least correlation with each other microphone in a tenth of this second, shape
        [channels, channels].
    """

    power: Floats
    dc: Floats
    peak: Floats
    full_scale: Floats
    full_scale_slices: Floats
    constant: Flags
    values: Ints
    latched: Ints
    lowest_bit: Ints
    level_db: Floats
    cracks: Ints
    alike: Floats

    @property
    def dead(self) -> Flags:
        """Which microphones deliver nothing that a capsule made."""
        return np.asarray(self.constant | (self.power < 10 ** (SILENT_DBFS / 10)))


def measure(pcm: PcmArray, sample_rate_hz: int) -> tuple[Second, Float32Array]:
    """Measure a second of PCM of shape [channels, n]; give its sound, too, full scale at 1."""
    x = to_full_scale(pcm)
    if pcm.dtype == np.float32 and not np.isfinite(x).all():
        x = np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=-1.0)
    channels, n = x.shape
    dc = x.mean(axis=1, dtype=np.float64)
    low, high = x.min(axis=1), x.max(axis=1)
    centred = x - dc[:, None].astype(np.float32)
    power = np.einsum("ij,ij->i", centred, centred) / n
    peak = np.maximum(-low, high).astype(np.float64)
    share, slices = np.zeros(channels), np.zeros(channels)
    for channel in np.flatnonzero(peak >= RAIL).tolist():
        at_rail = np.abs(x[channel, : n // SLICES * SLICES]) >= RAIL
        share[channel] = at_rail.mean()
        slices[channel] = at_rail.reshape(SLICES, -1).any(axis=1).mean()
    latched, lowest = _bits(pcm)
    values = np.array([len(np.unique(row[: 11 * VALUES_OF : 11])) for row in pcm])
    steps = _steps(centred, sample_rate_hz)
    constant = np.asarray(low == high)
    level_db, cracks = _levels_and_cracks(steps, constant | (power < 10 ** (SILENT_DBFS / 10)))
    second = Second(
        power=power.astype(np.float64),
        dc=dc,
        peak=peak,
        full_scale=share,
        full_scale_slices=slices,
        constant=constant,
        values=values,
        latched=np.where(values >= ENOUGH_VALUES, latched, 0),
        lowest_bit=lowest,
        level_db=level_db,
        cracks=cracks,
        alike=_alike(steps),
    )
    return second, x


def _bits(pcm: PcmArray) -> tuple[Ints, Ints]:
    """Give the latched bits and the lowest that moves, of integers."""
    channels = len(pcm)
    latched, lowest = np.zeros(channels, dtype=np.int64), np.full(channels, -1, dtype=np.int64)
    if pcm.dtype == np.float32:
        return latched, lowest
    shift = 32 - 8 * pcm.dtype.itemsize
    ones = np.bitwise_and.reduce(pcm, axis=1)
    some = np.bitwise_or.reduce(pcm, axis=1)
    for channel, (one, any_) in enumerate(zip(ones.tolist(), some.tolist(), strict=True)):
        moving = (any_ & ~one) << shift & 0xFFFFFFFF
        bottom = (moving & -moving).bit_length() - 1
        lowest[channel] = 32 if moving == 0 else bottom
        between = ((1 << moving.bit_length()) - 1) & ~((1 << max(bottom, 0)) - 1)
        latched[channel] = between & ~moving
    return latched, lowest


def _steps(x: Float32Array, sample_rate_hz: int) -> Float32Array:
    """Give differences of successive means, shape [channels, SLOTS * whole]."""
    every = max(1, round(sample_rate_hz / COMPARE_RATE_HZ))
    slow = x[:, : x.shape[1] // every * every].reshape(len(x), -1, every).mean(axis=2)
    steps = np.diff(slow, axis=1, prepend=slow[:, :1])
    return np.asarray(steps[:, : steps.shape[1] // SLOTS * SLOTS])


def _levels_and_cracks(steps: Float32Array, dead: Flags) -> tuple[Floats, Ints]:
    channels = len(steps)
    slots = steps.reshape(channels, SLOTS, -1)
    power = np.square(slots).mean(axis=2, dtype=np.float64) + 1e-20
    level_db = 10 * np.log10(np.quantile(power, BACKGROUND_QUANTILE, axis=1))
    cracks = np.zeros(channels, dtype=np.int64)
    live = np.flatnonzero(~dead)
    if len(live) < 3:
        return level_db, cracks
    peak_db = 20 * np.log10(np.abs(slots[live]).max(axis=2) + 1e-10)
    over_db = peak_db - np.median(peak_db, axis=1, keepdims=True)
    wide_db, wide_over_db = _beside(peak_db), _beside(over_db)
    for i, channel in enumerate(live.tolist()):
        others = np.arange(len(live)) != i
        alone = (over_db[i] >= CRACK_DB) & (wide_over_db[others].max(axis=0) < CALM_DB)
        alone &= peak_db[i] - wide_db[others].max(axis=0) >= CRACK_OVER_OTHERS_DB
        cracks[channel] = np.count_nonzero(alone[1:] & ~alone[:-1]) + int(alone[0])
    return level_db, cracks


def _beside(slots: Floats) -> Floats:
    """Give the largest of each slot and the two beside it."""
    wide = slots.copy()
    np.maximum(wide[:, 1:], slots[:, :-1], out=wide[:, 1:])
    np.maximum(wide[:, :-1], slots[:, 1:], out=wide[:, :-1])
    return wide


def _alike(steps: Float32Array) -> Floats:
    channels = len(steps)
    tenths = steps[:, : steps.shape[1] // TENTHS * TENTHS].reshape(channels, TENTHS, -1)
    products = np.einsum("itn,jtn->tij", tenths, tenths, dtype=np.float64, optimize=True)
    size = np.sqrt(np.einsum("tii->ti", products))
    alike = products / np.maximum(size[:, :, None] * size[:, None, :], 1e-20)
    return np.asarray(alike.min(axis=0))
