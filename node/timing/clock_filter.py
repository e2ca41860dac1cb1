"""A crystal against a pulse a second: a Kalman filter on offset, rate and drift. Pure.

Beside the pulse clock: it is given the sample at which each pulse rose, and says what the count of
seconds is at any sample, with its error (signal.md §1.2). Seconds are counted from an arbitrary
first pulse; which second that is, `node.timing.seconds` decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
Verdict = Literal["taken", "refused", "moved"]

# A pulse by a timing receiver through a line input: 50 ns of jitter, 20 ns of sawtooth and what
# the phase slope leaves at -60 dB of noise; with head room for a cheap receiver.
PULSE_SIGMA_S: Final = 120e-9
# What a crystal's rate does: a random walk, and a drift by sun and shade, which comes within
# minutes and calms down again. Over CALM_S the walk is a drift of 5e-9 1/s: a change of 3 °C.
RATE_WALK: Final = 3e-9  # 1 / sqrt(s)
DRIFT_WALK: Final = 4e-10  # 1 / s / sqrt(s)
CALM_S: Final = 300.0  # a box takes on another temperature in minutes
FIRST_RATE_SIGMA: Final = 100e-6  # no better is known of a sound card's crystal
FIRST_DRIFT_SIGMA: Final = 1e-8
GATE: Final = 6.0
# Which pulse of a count one is has to be beyond doubt: half a second is the next one.
COUNTS_S: Final = 0.1
LEAST_GATE_S: Final = 0.3e-6
# After some minutes without a pulse the gate is wider than a pulse ever jitters. One edge that is
# none, as a cable makes that is plugged in amid a pulse, would pass for what the rate has become.
WIDE_GATE_S: Final = 300e-6
# Pulses off by the same are believed against the filter when there are so many and none that fits;
# and within a wide gate only when there are so many.
AGREE: Final = 3
AGREE_S: Final = 20e-6
MOVED_RATE_SIGMA: Final = 0.3e-6
# The told error covers a crystal that is worse than the model has it.
HEAD_ROOM: Final = 2.0
LEAST_SIGMA_S: Final = 40e-9

# Quadrature over [0, 1].
_LEGENDRE = np.polynomial.legendre.leggauss(8)  # type: ignore[no-untyped-call]
_NODES, _WEIGHTS = (_LEGENDRE[0] + 1) / 2, _LEGENDRE[1] / 2


@dataclass(frozen=True, slots=True)
class Count:
    """Seconds at a sample: whole ones, the rest in s, and the standard error in s."""

    seconds: int
    rest_s: float
    sigma_s: float


class ClockFilter:
    """Counts seconds by pulses.

    Attributes
    ----------
    taken, refused, missed
        Pulses that fitted; that did not; seconds without one. They go on where the count begins
        anew.
    since_begun, since_moved
        Pulses taken since it began, and since it jumped as well.
    jump_s
        By how much it did last, as far as a pulse a second can tell.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self.jump_s = 0.0
        self._n = 0.0
        self._k: int | None = None
        self._x: Float64Array = np.zeros(3)
        self._p: Float64Array = np.zeros((3, 3))
        self._off: list[tuple[float, float]] = []  # sample and innovation of those not taken
        self.taken = self.refused = self.missed = 0
        self.since_begun = self.since_moved = 0

    def forget(self) -> None:
        """Begin to count anew at the next pulse."""
        self._k = None
        self._off = []
        self.since_begun = self.since_moved = 0

    @property
    def last_sample(self) -> float | None:
        """Sample of the last pulse that was taken."""
        return None if self._k is None else self._n

    @property
    def rate_ppm(self) -> tuple[float, float] | None:
        """By how much the card runs fast, in ppm, and its standard error; None before 2 pulses."""
        if self.since_begun < 2:
            return None
        return -1e6 * float(self._x[1]), 1e6 * math.sqrt(float(self._p[1, 1]))

    def pulse(self, sample: float, sigma_samples: float = 0.0) -> tuple[Verdict, int]:
        """Take a pulse at a fractional sample; give what became of it, and its count.

        `sigma_samples` is what the noise adds to the pulse's own error.
        """
        noise = PULSE_SIGMA_S**2 + (sigma_samples / self._rate) ** 2
        if self._k is None:
            self._begin(sample, noise)
            return "taken", 0
        x, p, seconds = self._at(sample)
        count = self._k + round(seconds + float(x[0]))
        off_s = (count - self._k) - (seconds + float(x[0]))
        variance = float(p[0, 0]) + noise
        gate_s = max(GATE * math.sqrt(variance), LEAST_GATE_S)
        fits = abs(off_s) <= gate_s
        if not fits or (gate_s > WIDE_GATE_S and self.since_begun > 1):
            agree = self._agree(sample, off_s)
            self.refused += not (fits and agree)
            if not agree:
                return "refused", count
            if not fits:
                self._move(sample, off_s, count, x, p, seconds)
                return "moved", count
        gain = p[:, 0] / variance
        self._set(sample, count, x + gain * off_s, p - np.outer(gain, p[0]), seconds)
        self._off = []
        self.taken += 1
        self.since_begun += 1
        self.since_moved += 1
        return "taken", count

    def counts(self, sample: float) -> bool:
        """Whether a pulse at a sample could be counted: the error stays far from half a second."""
        if self._k is None:
            return False
        _, p, _ = self._at(sample)
        return GATE * math.sqrt(max(float(p[0, 0]), 0.0)) < COUNTS_S

    def suspicion_s(self, now_sample: float) -> float:
        """Say by how much pulses in a row were off, where the one that was due did not come."""
        if not self._off or now_sample - self._n < 1.01 * self._rate:
            return 0.0
        # A lone glitch is no news for longer than a true pulse would take to come again.
        if now_sample - self._off[-1][0] > 1.1 * self._rate:
            return 0.0
        return max(abs(off_s) for _, off_s in self._off)

    def at(self, sample: float) -> Count:
        """Give the count of seconds at a sample, before or after the last pulse.

        Raises
        ------
        RuntimeError
            There was no pulse yet.
        """
        if self._k is None:
            raise RuntimeError("no pulse yet")
        x, p, seconds = self._at(sample)
        whole = math.floor(seconds)
        sigma_s = HEAD_ROOM * math.sqrt(max(float(p[0, 0]), 0.0))
        return Count(
            self._k + whole, (seconds - whole) + float(x[0]), math.hypot(sigma_s, LEAST_SIGMA_S)
        )

    def _begin(self, sample: float, noise: float) -> None:
        self._n, self._k = sample, 0
        self._x = np.zeros(3)
        self._p = np.diag([noise, FIRST_RATE_SIGMA**2, FIRST_DRIFT_SIGMA**2])
        self._off = []
        self.taken += 1
        self.since_begun = self.since_moved = 1

    def _at(self, sample: float) -> tuple[Float64Array, Float64Array, float]:
        """Give state and covariance at a sample, and the nominal seconds since the last pulse."""
        t = (sample - self._n) / self._rate
        a = abs(t)
        left, to_rate, to_offset = _drifted(np.array([t]))[:, 0]
        f = np.array([[1, t, to_offset], [0, 1, to_rate], [0, 0, left]])
        # Integrated noise of rate and drift; its signs where time runs backwards are no matter.
        y = RATE_WALK**2
        q = np.array([[y * a**3 / 3, y * a * t / 2, 0], [y * a * t / 2, y * a, 0], [0, 0, 0]])
        g = _drifted(a * _NODES)[::-1]
        q += DRIFT_WALK**2 * a * (g * _WEIGHTS) @ g.T
        return f @ self._x, f @ self._p @ f.T + q, t

    def _set(
        self, sample: float, count: int, x: Float64Array, p: Float64Array, seconds: float
    ) -> None:
        assert self._k is not None  # noqa: S101
        steps = count - self._k
        self.missed += max(0, steps - 1)
        x = x.copy()
        x[0] += seconds - steps  # the nominal seconds that are not whole are offset now
        self._n, self._k, self._x, self._p = sample, count, x, p

    def _agree(self, sample: float, off_s: float) -> bool:
        """Whether this pulse is off by the same as those before it, and they are enough."""
        # A drifting rate is no jump: it is the same offset each time that tells one.
        self._off = [o for o in self._off if abs(o[1] - off_s) < AGREE_S and o[0] > self._n]
        self._off.append((sample, off_s))
        lasted = sample - self._off[0][0] >= (AGREE - 1.5) * self._rate
        return len(self._off) >= AGREE and lasted

    def _move(
        self,
        sample: float,
        off_s: float,
        count: int,
        x: Float64Array,
        p: Float64Array,
        seconds: float,
    ) -> None:
        x = x.copy()
        x[0] += off_s
        p = p.copy()
        p[0, :] = p[:, 0] = 0.0
        p[0, 0] = PULSE_SIGMA_S**2
        p[1, 1] += MOVED_RATE_SIGMA**2
        self._set(sample, count, x, p, seconds)
        self._off = []
        self.jump_s = off_s
        self.taken += 1
        self.since_begun += 1
        self.since_moved = 1


def _drifted(seconds: Float64Array) -> Float64Array:
    """Give what is left of a unit of drift after a time, and what it made of rate and offset.

    Shape [3, n]. Drift calms down as the box takes on the temperature round it; and backwards in
    time too, since such a walk looks the same from either end. That matters for what was heard
    hours before the first pulse and is told again by it.
    """
    after = np.abs(seconds)
    rate = -CALM_S * np.expm1(-after / CALM_S)
    return np.array([np.exp(-after / CALM_S), np.copysign(rate, seconds), CALM_S * (after - rate)])
