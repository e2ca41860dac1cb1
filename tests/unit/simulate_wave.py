"""What the tests of the simulation measure on a waveform."""

import numpy as np
import numpy.typing as npt


def delay_samples(late: npt.ArrayLike, early: npt.ArrayLike, below: float = 0.3) -> float:
    """Give how many samples `late` comes after `early`, by the slope of their phase.

    `below` is the highest frequency looked at, in cycles per sample.
    """
    late, early = np.asarray(late), np.asarray(early)
    size = 4 * max(len(late), len(early))
    cross = np.fft.rfft(late, size) * np.conj(np.fft.rfft(early, size))
    f = np.fft.rfftfreq(size)
    keep = (f > 0) & (f < below)
    weight, phase = np.abs(cross[keep]), np.unwrap(np.angle(cross[keep]))
    return float(-(weight * f[keep] @ phase) / (2 * np.pi * (weight * f[keep]) @ f[keep]))
