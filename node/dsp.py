"""The few tools of signal processing that the node needs while it hears, in numpy alone.

A leaf: detect and classify design their filters, resample and find peaks by it. `scipy.signal` has
all of it, and brings so much else that it took 60 MB and most of a second of a node's start; the
tests hold every function here against it (docs/decisions/0024).
"""

from __future__ import annotations

import cmath
import math
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
Sound = npt.NDArray[np.float32] | npt.NDArray[np.float64]

# Frames in a block of a recursive filter: fewer cost more passes over the states, more cost more
# products. On x86-64 anything from 24 to 64 costs the same.
BLOCK: Final = 48
# Frames that are filtered at once, so that what is between stays in a processor's cache.
PIECE: Final = 100 * BLOCK
# Of a state so many times smaller nothing is left in any sum.
NOTHING: Final = 1e-25

# As scipy.signal.resample_poly has it, by which the model was trained.
KAISER_BETA: Final = 5.0
ZERO_CROSSINGS: Final = 10
# Outputs of a resampler that one product of matrices gives, at least.
LEAST_OUTPUTS: Final = 24


def high_pass(cutoff_hz: float, sample_rate_hz: float) -> Float64Array:
    """Design a Butterworth high-pass of second order.

    Returns
    -------
    Second-order sections, shape [1, 6]: b0, b1, b2, 1, a1, a2. By the bilinear transformation with
    the cut-off prewarped (Oppenheim and Schafer, Discrete-Time Signal Processing, §7.2).
    """
    w = math.tan(math.pi * cutoff_hz / sample_rate_hz)
    scale = 1.0 / (1.0 + math.sqrt(2.0) * w + w * w)
    a1, a2 = 2.0 * (w * w - 1.0) * scale, (1.0 - math.sqrt(2.0) * w + w * w) * scale
    return np.array([[scale, -2.0 * scale, scale, 1.0, a1, a2]])


def band_pass(low_hz: float, high_hz: float, sample_rate_hz: float) -> Float64Array:
    """Design a Butterworth band-pass of second order, which has four poles.

    As `high_pass`, from the low-pass by s -> (s² + w0²) / (bandwidth s).

    Returns
    -------
    Sections, shape [2, 6]. The poles nearest to the unit circle come last, with the zeros that are
    nearest to them, so that neither section's gain is far from the whole's.
    """
    low, high = (math.tan(math.pi * f / sample_rate_hz) for f in (low_hz, high_hz))
    width = high - low
    middle = 0.5 * width * cmath.exp(0.75j * math.pi)
    apart = cmath.sqrt(middle * middle - low * high)
    gain, poles = width * width, []
    for pole in (middle + apart, middle - apart):  # each with its conjugate
        gain /= abs(1.0 - pole) ** 2
        poles.append((1.0 + pole) / (1.0 - pole))
    poles.sort(key=abs)
    last_zero = math.copysign(1.0, poles[1].real)
    sections = [
        [1.0, -2.0 * zero, 1.0, 1.0, -2.0 * pole.real, abs(pole) ** 2]
        for pole, zero in zip(poles, (-last_zero, last_zero), strict=True)
    ]
    sections[0][:3] = [gain * b for b in sections[0][:3]]
    return np.array(sections)


class Cascade:
    """Second-order sections one after the other, run a block at a time.

    A block of samples x and the state s before it give y = H x + G s and, for the next block,
    s' = A^N s + B x (Burrus, "Block realization of digital filters", IEEE Trans. Audio
    Electroacoustics AU-20, 1972): products of matrices, exact but for rounding. The states of
    all blocks come of their own parts B x by doubling (Hillis and Steele, "Data parallel
    algorithms", CACM 29, 1986).

    Parameters
    ----------
    sections
        Shape [sections, 6].

    Attributes
    ----------
    rest
        State after a 1 that has stood for ever, shape [states]: of each section in turn the two
        of its transposed direct form II.
    """

    def __init__(self, sections: Float64Array) -> None:
        step, enter, leave, through = _state_space(sections)
        states = len(step)
        powers = np.empty((BLOCK + 1, states, states))
        powers[0] = np.eye(states)
        for i in range(BLOCK):
            powers[i + 1] = step @ powers[i]
        response = np.concatenate(([through], leave @ powers[: BLOCK - 1] @ enter))
        lag = np.arange(BLOCK) - np.arange(BLOCK)[:, None]
        # All are transposed, since time runs along the rows of what is multiplied.
        self._through = np.where(lag >= 0, response[np.maximum(lag, 0)], 0.0)
        self._leave = np.ascontiguousarray((leave @ powers[:BLOCK]).T)
        self._enter = np.ascontiguousarray(powers[BLOCK - 1 :: -1] @ enter)
        self._powers = powers.transpose(0, 2, 1)
        self._doublings = [self._powers[BLOCK]]
        while np.abs(self._doublings[-1]).max() > NOTHING and len(self._doublings) < 32:
            self._doublings.append(self._doublings[-1] @ self._doublings[-1])
        self.rest = _rest(sections)

    def silence(self, channels: int) -> Float64Array:
        """Give the state after silence, shape [states, channels]."""
        return np.zeros((len(self.rest), channels))

    def run(self, x: Sound, state: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Filter the next frames.

        Parameters
        ----------
        x
            Shape [n, channels].
        state
            Shape [states, channels].

        Returns
        -------
        What comes out, of the shape of `x`, and the state after it. One channel's do not depend on
        which others there are.
        """
        y = np.empty(x.shape[::-1])
        for at in range(0, len(x), PIECE):
            state = self._piece(x[at : at + PIECE], state, y[:, at : at + PIECE])
        return y.T, state

    def thinned(self, x: Sound, first: int, step: int) -> Float64Array:
        """Filter from silence on, and keep each `step`-th frame from `first` on.

        As `run`, without room for what is not kept.
        """
        state, kept = self.silence(x.shape[1]), [np.empty((0, x.shape[1]))]
        y = np.empty((x.shape[1], min(len(x), PIECE)))
        for at in range(0, len(x), PIECE):
            piece = x[at : at + PIECE]
            state = self._piece(piece, state, y[:, : len(piece)])
            begin = first - at if at <= first else (first - at) % step
            kept.append(y.T[begin : len(piece) : step].copy())
        return np.concatenate(kept)

    def _piece(self, x: Sound, state: Float64Array, y: Float64Array) -> Float64Array:
        """Filter some frames into `y`, shape [channels, n]; give the state after them."""
        n, channels = x.shape
        count = n // BLOCK
        whole, shape = count * BLOCK, (channels, count, BLOCK)
        lanes = np.ascontiguousarray(x.T, dtype=np.float64)
        blocks, out = lanes[:, :whole].reshape(shape), y[:, :whole].reshape(shape)
        states = np.empty((channels, count + 1, len(state)))
        states[:, 0] = state.T
        np.matmul(blocks, self._enter, out=states[:, 1:])
        back = 1
        for power in self._doublings:
            if back > count:
                break
            states[:, back:] += states[:, :-back] @ power
            back *= 2
        np.matmul(blocks, self._through, out=out)
        out += states[:, :-1] @ self._leave
        end: Float64Array = states[:, -1]
        left = n - whole
        if left:
            rest, before = lanes[:, None, whole:], states[:, -1:]
            out = rest @ self._through[:left, :left] + before @ self._leave[:, :left]
            y[:, whole:] = out[:, 0]
            end = (before @ self._powers[left] + rest @ self._enter[BLOCK - left :])[:, 0]
        return end.T


def _state_space(
    sections: Float64Array,
) -> tuple[Float64Array, Float64Array, Float64Array, float]:
    """Give A, b, c, d of s' = A s + b x, y = c s + d x."""
    states = 2 * len(sections)
    step, enter, leave = np.zeros((states, states)), np.zeros(states), np.zeros(states)
    through = 1.0
    for i, (b0, b1, b2, _, a1, a2) in enumerate(sections.tolist()):
        own, before = slice(2 * i, 2 * i + 2), slice(0, 2 * i)
        into = np.array([b1 - a1 * b0, b2 - a2 * b0])
        step[own, own] = [[-a1, 1.0], [-a2, 0.0]]
        step[own, before] = np.outer(into, leave[before])
        enter[own] = into * through
        leave[before] *= b0
        leave[2 * i] = 1.0
        through *= b0
    return step, enter, leave, through


def _rest(sections: Float64Array) -> Float64Array:
    states: list[float] = []
    level = 1.0
    for b0, b1, b2, _, a1, a2 in sections.tolist():
        out = level * (b0 + b1 + b2) / (1.0 + a1 + a2)
        states += [out - b0 * level, b2 * level - a2 * out]
        level = out
    return np.array(states)


def interpolate(x: Sound, kernel: Float64Array, up: int) -> Float64Array:
    """Put `up` - 1 zeros after each sample but the last, and convolve with a kernel.

    Polyphase: the zeros are not multiplied. `x` has shape [n], the answer
    [(n - 1) * up + len(kernel)].
    """
    taps = -(-len(kernel) // up)
    phases = np.pad(kernel, (0, taps * up - len(kernel))).reshape(taps, up)[::-1]
    padded = np.pad(x.astype(np.float64), taps - 1)
    near = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(padded, taps))
    fine: Float64Array = (near @ phases).ravel()[: (len(x) - 1) * up + len(kernel)]
    return fine


def resample(x: Sound, up: int, down: int) -> Float64Array:
    """Bring one channel to `up` / `down` times its rate, a ratio in lowest terms.

    Through a low-pass of `ZERO_CROSSINGS` either side, a sinc in a Kaiser window (Oppenheim and
    Schafer, §4.6 and §7.5.3), centred, so that nothing is late; beyond its ends `x` is zero. `x`
    has shape [n], n > 0, the answer as many samples as begin within it.
    """
    weights, before, step = _resampler(up, down)
    span, outputs = weights.shape
    count = -(-len(x) * up // down)
    blocks = -(-count // outputs)
    padded = np.zeros((blocks - 1) * step + span)
    seen = min(len(x), len(padded) - before)
    padded[before : before + seen] = x[:seen]
    near = np.lib.stride_tricks.sliding_window_view(padded, span)[::step]
    resampled: Float64Array = (np.ascontiguousarray(near) @ weights).ravel()[:count]
    return resampled


@lru_cache(maxsize=4)
def _resampler(up: int, down: int) -> tuple[Float64Array, int, int]:
    """Give what a run of inputs weighs in a run of outputs, [inputs, outputs].

    With it: how many of the inputs come before the first output, and by how many inputs the next
    run is further on. Each run holds whole turns of the ratio, so that all are alike.
    """
    most = max(up, down)
    half = ZERO_CROSSINGS * most
    low_pass = np.sinc(np.arange(-half, half + 1) / most) * np.kaiser(2 * half + 1, KAISER_BETA)
    low_pass *= up / low_pass.sum()
    turns = -(-LEAST_OUTPUTS // up)
    outputs = turns * up
    before = half // up
    last = ((outputs - 1) * down + half) // up
    tap = np.arange(outputs) * down + half - np.arange(-before, last + 1)[:, None] * up
    known = (tap >= 0) & (tap <= 2 * half)
    weights = np.where(known, low_pass[np.clip(tap, 0, 2 * half)], 0.0)
    return weights, before, turns * down


def find_peaks(x: Float64Array, height: float, distance: int) -> list[int]:
    """Find the local maxima of at least a height, the highest of any nearer than a distance.

    Of a flat top the middle is told; what reaches the first or the last sample is no peak.
    """
    # One value of each run of equals stands for all of them.
    starts = np.flatnonzero(np.concatenate(([True], x[1:] != x[:-1])))
    ends = np.append(starts[1:], len(x)) - 1
    run = x[starts]
    top = np.flatnonzero((run[1:-1] > run[:-2]) & (run[1:-1] > run[2:]) & (run[1:-1] >= height)) + 1
    peaks = (starts[top] + ends[top]) // 2
    kept = np.ones(len(peaks), dtype=bool)
    for i in np.argsort(x[peaks])[::-1].tolist():
        if kept[i]:
            kept &= np.abs(peaks - peaks[i]) >= distance
            kept[i] = True
    return [int(peak) for peak in peaks[kept]]


def fast_length(n: int) -> int:
    """Give the least length from `n` on, n > 0, that a real Fourier transform is fast at.

    One with no prime factor above 5.
    """
    best = 1 << (n - 1).bit_length()
    fives = 1
    while fives < best:
        odd = fives
        while odd < best:
            best = min(best, odd << (-(-n // odd) - 1).bit_length())
            odd *= 3
        fives *= 5
    return best
