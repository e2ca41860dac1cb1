"""What lies between a sound and a file: drawn alike for every class, lest the place tell it.

A dry moment comes in; the same moment as a roof or a street would deliver it and a recorder would
keep it goes out: the way (`place`), measured background, the device (`recorder`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import fft

from models.training.place import place
from models.training.recorder import record
from node.classify import features

Sound = npt.NDArray[np.float64]

RATE: Final = features.RATE_HZ
_MOVED: Final = 0.5
"""Share of the recorded that is moved to another place; the rest stays where it was recorded."""
_AS_IT_IS: Final = 0.4
"""Of what stays in place: heard by no second recorder and over no second street, as a file is."""
_RECORDED: Final = 0.7
"""Of all else: heard by a device with faults of its own; the rest by one as good as a node's."""
_SNR_DB: Final = (6.0, 45.0)
_LOUDEST: Final = round(0.03 * RATE)


def surround(
    dry: Sound,
    onset: int,
    background: Sound,
    draw: np.random.Generator,
    *,
    recorded: bool = True,
    response: Sound | None = None,
    second_background: Sound | None = None,
) -> Sound:
    """Carry a moment through one random surrounding.

    Parameters
    ----------
    dry
        The moment at the internal rate, shape [n].
    onset
        Where in it the sound sets in: levels are measured from there.
    background
        What the street sounds like without it, shape [n].
    draw
        Random numbers.
    recorded
        False for a simulated sound: it has been through its own air already, and has no place of
        its own to stay in.
    response
        A measured impulse response at the internal rate, in place of a street's.
    second_background
        Mixed with the first, within 15 dB of it; shape [n].

    Returns
    -------
    Shape [n], full scale at 1, the onset where it was.
    """
    wet, snr_db = np.asarray(dry, dtype=np.float64), draw.uniform(*_SNR_DB)
    if not recorded or draw.random() < _MOVED:
        wet = carried(wet, place(draw, air=recorded, measured=response))
        noisy = True
    elif draw.random() < _AS_IT_IS:
        return _full_scale(wet)
    else:
        noisy, snr_db = draw.random() < 0.6, max(snr_db, 12.0)
    if noisy:
        if second_background is not None:
            background = _mixed(background, second_background, draw.uniform(-15.0, 15.0))
        wet = over(wet, onset, background, snr_db)
    return record(wet, draw) if draw.random() < _RECORDED else _full_scale(wet)


def _full_scale(sound: Sound) -> Sound:
    """Bring the peak to 1; silence stays silence."""
    return sound / max(float(np.max(np.abs(sound))), 1e-12)


def carried(dry: Sound, response: Sound) -> Sound:
    """Convolve with a response, and keep the length."""
    size = fft.next_fast_len(len(dry) + len(response) - 1, real=True)
    wet: Sound = fft.irfft(fft.rfft(dry, size) * fft.rfft(response, size), size)[: len(dry)]
    return wet


def over(sound: Sound, onset: int, background: Sound, snr_db: float) -> Sound:
    """Mix over a background; the ratio is of the loudest 30 ms after the onset to its rms."""
    energy = np.cumsum(sound[max(0, onset - _LOUDEST) :] ** 2)
    power = (energy[_LOUDEST:] - energy[:-_LOUDEST]) / _LOUDEST
    noise = np.mean(background**2)
    if noise <= 0 or len(power) == 0:
        return sound
    if power.max() <= 0:
        return background.copy()
    gain = float(np.sqrt(power.max() / noise * 10 ** (-snr_db / 10)))
    return sound + gain * background


def _mixed(one: Sound, other: Sound, level_db: float) -> Sound:
    """Add a second background, at a level relative to the first."""
    first, second = np.mean(one**2), np.mean(other**2)
    if first <= 0 or second <= 0:
        return one + other
    return one + other * float(np.sqrt(first / second) * 10 ** (level_db / 20))
