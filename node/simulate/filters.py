"""Minimum-phase filters: all that a sound meets on its way is causal, so nothing precedes an onset.

Used by `node.simulate.pulses` (anti-alias filter) and `node.simulate.propagation` (air).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import signal

Float64Array = npt.NDArray[np.float64]

OVERSAMPLING: Final = 16
_STOP_DB: Final = 75.0
_PASS_CYCLES, _STOP_CYCLES = (
    0.42,
    0.58,
)  # of the final sample rate; aliases land above the pass band


def minimum_phase(magnitude: npt.ArrayLike) -> Float64Array:
    """Give the causal impulse response of least delay that has a magnitude.

    Parameters
    ----------
    magnitude
        Magnitude (not dB) at the n/2+1 bins of `numpy.fft.rfft`, shape [n/2 + 1], n even. The bins
        should lie several times closer than the response is long, or the cepstrum aliases.

    Returns
    -------
    Impulse response, shape [n].

    Notes
    -----
    Homomorphic method: log-magnitude and phase of a minimum-phase response are a Hilbert pair, so
    its cepstrum is the causal fold of the real cepstrum (Oppenheim & Schafer, Discrete-Time Signal
    Processing, §13.4).
    """
    half = np.maximum(np.asarray(magnitude, dtype=np.float64), 1e-10)
    n = 2 * (len(half) - 1)
    cepstrum = np.fft.irfft(np.log(half), n)
    cepstrum[1 : n // 2] *= 2.0
    cepstrum[n // 2 + 1 :] = 0.0
    return np.fft.irfft(np.exp(np.fft.rfft(cepstrum)), n)


@lru_cache(maxsize=1)
def anti_alias() -> Float64Array:
    """Give the filter before decimation by `OVERSAMPLING`, shape [taps], unit gain at zero.

    A sharp front would alias; a linear-phase filter would ring before the onset. This one delays
    low frequencies by 2.04 final samples instead, a constant, as a converter does.
    """
    taps, beta = signal.kaiserord(_STOP_DB, (_STOP_CYCLES - _PASS_CYCLES) * 2 / OVERSAMPLING)
    cutoff = (_PASS_CYCLES + _STOP_CYCLES) / 2
    linear = signal.firwin(taps | 1, cutoff, window=("kaiser", beta), fs=OVERSAMPLING)
    response = minimum_phase(np.abs(np.fft.rfft(linear, 16 * 1024)))[: len(linear)]
    response /= response.sum()
    response.setflags(write=False)
    return response
