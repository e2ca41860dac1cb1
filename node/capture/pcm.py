"""Between capture's bytes and numpy: packed PCM of 16, 24 or 32 bit into integer frames."""

from __future__ import annotations

import numpy as np

from node.types import PcmArray


def unpack(data: bytes, bits: int, channels: int) -> PcmArray:
    """Turn interleaved little-endian PCM into frames, bit for bit.

    Parameters
    ----------
    data
        Interleaved samples as the card delivered them; 24-bit samples are packed in 3 bytes.
    bits
        16, 24 or 32.
    channels
        Channels in a frame.

    Returns
    -------
    PcmArray
        Shape [n, channels]: int16 for 16 bit, else int32 (24-bit samples in its upper bits). It
        shares the memory of `data` where the width allows, and is then read-only.
    """
    if bits == 16:
        return np.frombuffer(data, "<i2").reshape(-1, channels).astype(np.int16, copy=False)
    if bits == 32:
        return np.frombuffer(data, "<i4").reshape(-1, channels).astype(np.int32, copy=False)
    packed = np.frombuffer(data, np.uint8).reshape(-1, 3)
    widened = np.zeros((len(packed), 4), np.uint8)
    widened[:, 1:] = packed
    return widened.view("<i4").reshape(-1, channels).astype(np.int32, copy=False)
