"""Look in bytes for sound that is known: any eight successive samples, in any of the usual forms.

What a node wrote is small and the sound is large, so the bytes are read in every way in which
they might be samples, and the sound is passed along what comes of that, a minute at a time.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

RUN: Final = 8
"""Successive samples that are a find."""

_VARIED: Final = 5
# splitmix64's constants.
_ODD: Final = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
_BITS: Final = 27
_APART: Final = bytes(64)
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]{22,}={0,2}")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{32,}")
_NUMBER: Final = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS: Final = re.compile(_NUMBER + rb"(?:[\s,;\[\]]+" + _NUMBER + rb"){%d,}" % (RUN - 1))

Int16 = npt.NDArray[np.int16]


class Finds:
    """Everything in some bytes that could be eight successive samples.

    Parameters
    ----------
    streams
        What went into each file or socket; sound that is spread over several writes is found.
    """

    def __init__(self, streams: Iterable[bytes]) -> None:
        keys: list[npt.NDArray[np.uint64]] = []
        for data in streams:
            for form in (data, *_decoded(data)):
                keys += [_keys(run) for run in _as_samples(form)]
            keys += [_keys(run) for run in _written_out(data)]
        keys.append(np.zeros(1, np.uint64))  # so that there is one to compare with
        self._keys = np.unique(np.concatenate(keys))
        self._perhaps = np.zeros(2**_BITS, np.bool_)
        self._perhaps[self._keys >> np.uint64(64 - _BITS)] = True

    def __len__(self) -> int:
        return len(self._keys)

    def places(self, sound: npt.NDArray[np.int32]) -> set[int]:
        """Give the frames of some sound, shape [n, channels], int32, that are in the bytes.

        Cut down to 16 bits and rounded to them, each channel by itself and the frames as they lie.
        """
        found: set[int] = set()
        channels = sound.shape[1]
        cut = (sound >> 16).astype(np.int16)
        # Half a step is added to what cannot overflow by it.
        rounded = ((np.minimum(sound, 2**31 - 2**15 - 1) + np.int32(2**15)) >> 16).astype(np.int16)
        for samples in (cut, rounded):
            for channel in range(channels):
                found |= set(self._in(np.ascontiguousarray(samples[:, channel])).tolist())
            found |= set((self._in(samples.ravel()) // channels).tolist())
        return found

    def _in(self, samples: Int16) -> npt.NDArray[np.intp]:
        keys = _hash(samples)
        perhaps = np.flatnonzero(self._perhaps[keys >> np.uint64(64 - _BITS)])
        at = np.searchsorted(self._keys, keys[perhaps]).clip(max=len(self._keys) - 1)
        return perhaps[self._keys[at] == keys[perhaps]]


def _hash(samples: Int16) -> npt.NDArray[np.uint64]:
    if len(samples) < RUN:
        return np.zeros(0, np.uint64)
    # Four samples side by side in 64 bits, by doubling; two such make a run.
    one = samples.view(np.uint16)
    two = one[:-1] | one[1:].astype(np.uint32) << np.uint32(16)
    four = two[:-2] | two[2:].astype(np.uint64) << np.uint64(32)
    out = four[:-4] * _ODD[0]
    out ^= out >> np.uint64(29)
    out += four[4:]
    out *= _ODD[1]
    out ^= out >> np.uint64(31)
    out *= _ODD[2]
    return out


def _keys(samples: Int16) -> npt.NDArray[np.uint64]:
    """Name the runs that could be noise: those that vary. Pages of a database are full of zeros."""
    if len(samples) < RUN:
        return np.zeros(0, np.uint64)
    runs = np.sort(np.lib.stride_tricks.sliding_window_view(samples, RUN), axis=1)
    varied = (np.diff(runs.astype(np.int32), axis=1) != 0).sum(axis=1) + 1 >= _VARIED
    return np.asarray(_hash(samples)[varied])


def _as_samples(data: bytes) -> Iterator[Int16]:
    """Read bytes as PCM of 16, 24 and 32 bits and as floats: the upper 16 bits of each."""
    raw = np.frombuffer(data, np.uint8)
    if len(raw) < 2 * RUN:
        return
    for width in (2, 3, 4):
        for offset in range(width):
            whole = raw[offset : offset + (len(raw) - offset) // width * width]
            values = whole.reshape(-1, width)
            yield np.ascontiguousarray(values[:, -2:]).view("<i2")[:, 0].astype(np.int16)
            yield np.ascontiguousarray(values[:, :2]).view(">i2")[:, 0].astype(np.int16)
    for width in (4, 8):
        for offset in range(width):
            whole = raw[offset : offset + (len(raw) - offset) // width * width]
            for order in "<>":
                with np.errstate(invalid="ignore"):  # signalling NaNs, of bytes that are no sound
                    yield _from_floats(whole.view(f"{order}f{width}").astype(np.float64))


def _from_floats(values: npt.NDArray[np.float64]) -> Int16:
    # What is no sample becomes zero, and a run of zeros is no find.
    sound = np.isfinite(values) & (np.abs(values) <= 1)
    return np.floor(np.where(sound, values, 0.0) * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)


def _written_out(data: bytes) -> Iterator[Int16]:
    """Read numbers that are written in decimals: whole ones of 16 bits and above, and fractions."""
    for match in _NUMBERS.finditer(data):
        texts = re.findall(_NUMBER, match[0])
        values = np.array([float(text) for text in texts[:1_000_000]])
        values = np.where(np.isfinite(values), values, 0.0)
        yield _from_floats(values)
        for bits in (16, 24, 32):
            whole = np.floor(values / 2.0 ** (bits - 16))
            yield whole.clip(-(2**15), 2**15 - 1).astype(np.int16)


def _decoded(data: bytes) -> Iterator[bytes]:
    """Undo base64 and hexadecimal, from every place where they might begin; zeros between finds."""
    texts = [
        match[0].rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        for match in _BASE64.finditer(data)
    ]
    for offset in range(4):
        parts = (text[offset:] for text in texts)
        yield _APART.join(base64.b64decode(part[: len(part) // 4 * 4]) for part in parts)
    numbers = [match[0] for match in _HEX.finditer(data)]
    for offset in range(2):
        parts = (number[offset:] for number in numbers)
        yield _APART.join(binascii.unhexlify(part[: len(part) // 2 * 2]) for part in parts)
