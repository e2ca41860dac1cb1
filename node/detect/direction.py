"""Where an impulse came from, by the times at which its first arrival reaches the microphones.

Between the trigger and the rounds: in comes the sound round an onset on every microphone, out goes
azimuth and elevation with their standard error, or None where they cannot be told. Pure.

Method (signal.md §3). Only the first arrival is looked at, before its echoes, and of it the front,
0.4 ms, before what the ground reflects (`node.detect.arrival`): worth more than any estimator. Each
pair of microphones is correlated, and its peak refined by a parabola. A plane wave of slowness s =
u / c, u towards the source, is early by m · s at the place m, so t_i - t_j = -(m_i - m_j) · s;
least squares give s. In three dimensions its direction needs no speed of sound, and its length,
which must be 1 / c, proves that it was one plane wave. A planar array sees only the part of s in
its plane: what is left is found from c, but for its sign.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from node.detect.airborne import SitePrior, airborne_probability
from node.detect.arrival import Arrival, FirstArrival
from node.types import Direction

Float64Array = npt.NDArray[np.float64]
Samples = npt.NDArray[np.float32]

SOUND_SPEED_M_S: Final = 343.0
# Between -15 and 40 degrees Celsius, by a thermometer that is far off or absent.
SOUND_SPEED_SIGMA: Final = 0.03
# Of capsules placed by hand and never calibrated (signal.md §3).
POSITION_SIGMA_M: Final = 0.5e-3
DELAY_SIGMA_S: Final = 2e-6

# Fewer than three microphones tell no direction.
FEWEST: Final = 3
# Smaller spreads than this, relative to the largest, are no dimension of an array.
FLAT: Final = 0.05
# Below this coherence the peaks of the correlations are as likely noise as not.
LEAST_COHERENCE: Final = 0.6
# How many sigma a residual or the slowness's length may be off before it is no plane wave.
SIGMAS: Final = 4.0
# A planar array knows elevation from cos(elevation): flat near the horizon.
LOWEST_PLANAR_DEG: Final = 20.0
# A roof array hears nothing from steeply below; it is this that tells up from down.
STEEPEST_BELOW_DEG: Final = -20.0
WIDEST_SIGMA_DEG: Final = 30.0
# cos of the tilt up to which a planar array counts as level: the azimuths of its two directions
# differ by less than a degree below 60 degrees of elevation.
LEVEL: Final = math.cos(math.radians(0.5))


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What a direction rests on, for `check` and for tests.

    Attributes
    ----------
    direction
        The answer, or None.
    reason
        Why there is none; empty where there is one.
    used
        The microphones that it rests on.
    inverted
        Those of them whose polarity is wrong; they were turned round.
    coherence
        The least correlation coefficient of a pair.
    residual_s
        Root mean square of the pairs' residuals.
    speed_m_s
        1 / |s|, the speed of sound that the array saw; None for a planar array.
    arrival
        The pairs' time differences.
    """

    direction: Direction | None
    reason: str
    used: tuple[int, ...] = ()
    inverted: tuple[int, ...] = ()
    coherence: float = 0.0
    residual_s: float = 0.0
    speed_m_s: float | None = None
    arrival: Arrival | None = None


def sound_speed_m_s(temperature_c: float) -> float:
    """Give the speed of sound in dry air (ISO 9613-1, eq. 5: 343.2 m/s at 20 °C)."""
    return 343.2 * math.sqrt((temperature_c + 273.15) / 293.15)


class DirectionFinder:
    """Finds directions with one array.

    Parameters
    ----------
    positions_m
        Where the microphones stand, shape [channels, 3]: x east, y north, z up, in m.
    sample_rate_hz
        Of the sound.
    delays_s
        By how much each channel is late, shape [channels]; as calibrated, else zero.
    position_sigma_m, delay_sigma_s
        How well places and delays are known, along each axis and of each channel.
    sound_speed_m_s, sound_speed_sigma
        Speed of sound, and its relative standard error.
    prior
        The site, for the chance that a source was in the air.
    """

    def __init__(
        self,
        positions_m: npt.ArrayLike,
        sample_rate_hz: int,
        *,
        delays_s: npt.ArrayLike | None = None,
        position_sigma_m: float = POSITION_SIGMA_M,
        delay_sigma_s: float = DELAY_SIGMA_S,
        sound_speed_m_s: float = SOUND_SPEED_M_S,
        sound_speed_sigma: float = SOUND_SPEED_SIGMA,
        prior: SitePrior | None = None,
    ) -> None:
        self._positions_m = np.asarray(positions_m, np.float64)
        channels = len(self._positions_m)
        self._delays_s = np.zeros(channels) if delays_s is None else np.asarray(delays_s)
        self._sigma_s = math.hypot(delay_sigma_s, position_sigma_m / sound_speed_m_s)
        self._speed = sound_speed_m_s
        self._speed_sigma = sound_speed_sigma
        self._prior = prior or SitePrior()
        apart = np.linalg.norm(self._positions_m[:, None] - self._positions_m[None], axis=-1)
        self._first_arrival = FirstArrival(sample_rate_hz, apart / sound_speed_m_s)
        self._frames: dict[tuple[int, ...], _Frame] = {}

    @property
    def crossing_s(self) -> float:
        """How long sound takes across the array at most."""
        return self._first_arrival.crossing_s

    def window(self) -> tuple[int, int]:
        """Give the frames wanted before and after an onset."""
        return self._first_arrival.window()

    def find(self, sound: Samples, onset: float) -> Direction | None:
        """Find where an impulse came from.

        Parameters
        ----------
        sound
            Shape [n, channels], full scale at 1, with n of `window`.
        onset
            Index of the onset in it.
        """
        return self.explain(sound, onset).direction

    def explain(self, sound: Samples, onset: float) -> Explanation:
        """Find where an impulse came from, and say what that rests on."""
        arrival = self._first_arrival.measure(sound, onset)
        if arrival is None:
            return Explanation(None, "nothing is heard")
        facts = Explanation(
            None, "", arrival.used, arrival.inverted, arrival.coherence, arrival=arrival
        )
        if len(arrival.used) < FEWEST:
            reason = f"{len(arrival.used)} microphones hear the same sound"
            return replace(facts, reason=reason)
        if arrival.coherence < LEAST_COHERENCE:
            return replace(facts, reason="the microphones hear too little in common")
        if not math.isfinite(arrival.sigma_s):
            return replace(facts, reason="too little of it stands out of the noise")
        solution = self._solve(arrival)
        facts = replace(facts, residual_s=solution.residual_s)
        if solution.dimensions < 2:
            return replace(facts, reason="the microphones stand in a line")
        if solution.residual_s > SIGMAS * solution.sigma_s:
            return replace(facts, reason="the time differences fit no plane wave")
        if solution.dimensions == 2:
            direction, reason = self._planar(solution)
            return replace(facts, direction=direction, reason=reason)
        return self._spatial(solution, facts)

    def _solve(self, arrival: Arrival) -> _Solution:
        used = list(arrival.used)
        frame = self._frame(arrival.used)
        # Pairs share their microphones' errors; a least-squares mean over all pairs is the same as
        # one over the microphones' own delays against their mean.
        delays_s = arrival.delays_s[used] - self._delays_s[used]
        delays_s = delays_s - delays_s.mean()
        slowness = -frame.inverse @ delays_s
        free = len(used) - 1 - frame.dimensions
        residuals_s = delays_s + frame.design @ slowness
        sigma_s = math.hypot(self._sigma_s, arrival.sigma_s)
        closure_s = math.sqrt(residuals_s @ residuals_s / len(used)) if free > 0 else 0.0
        return _Solution(
            slowness=frame.span.T @ slowness,
            covariance=frame.covariance * sigma_s**2,
            normal=frame.normal,
            dimensions=frame.dimensions,
            residual_s=max(closure_s, arrival.closure_s),
            sigma_s=sigma_s,
        )

    def _frame(self, used: tuple[int, ...]) -> _Frame:
        """Give what depends on the microphones used alone; it is the same at most impulses."""
        if used not in self._frames:
            self._frames[used] = _frame_of(self._positions_m[list(used)])
        return self._frames[used]

    def _spatial(self, solution: _Solution, facts: Explanation) -> Explanation:
        length = float(np.linalg.norm(solution.slowness))
        u = solution.slowness / max(length, 1e-12)
        along = math.sqrt(float(u @ solution.covariance @ u))
        facts = replace(facts, speed_m_s=1 / max(length, 1e-12))
        allowed = SIGMAS * math.hypot(along, self._speed_sigma / self._speed)
        if abs(length - 1 / self._speed) > allowed:
            reason = f"sound would have passed the array at {facts.speed_m_s:.0f} m/s"
            return replace(facts, reason=f"{reason}: no single far source")
        across = np.eye(3) - np.outer(u, u)
        spread = across @ solution.covariance @ across / length**2
        sigma_deg = math.degrees(math.sqrt(float(np.trace(spread)) / 2))
        direction = _told(u, _elevation_deg(u), sigma_deg, self._prior)
        reason = "" if direction else f"it is known to {sigma_deg:.0f} degrees only"
        return replace(facts, direction=direction, reason=reason)

    def _planar(self, solution: _Solution) -> tuple[Direction | None, str]:
        """Find the two directions that fit, and choose, or tell what both have in common."""
        s, normal = solution.slowness * self._speed, solution.normal
        in_plane = float(np.linalg.norm(s))
        sigma = math.sqrt(float(np.trace(solution.covariance)) / 2) * self._speed
        wide = math.hypot(sigma, self._speed_sigma * in_plane)
        if in_plane > 1 + SIGMAS * wide:
            return None, "sound would have passed the array too slowly: no single far source"
        if in_plane < SIGMAS * sigma:
            return None, "it came along the normal of the array's plane"
        out = math.sqrt(max(0.0, 1 - in_plane**2))
        around_deg = math.degrees(sigma / in_plane)
        # Along the elevation an angle is told from its cosine, badly where that is flat.
        both_deg = math.degrees(math.hypot(sigma, wide / max(out, 0.1)) / math.sqrt(2))
        if abs(normal[2]) > LEVEL:
            # Both have the azimuth in common, and nothing loud is steeply below a roof's array.
            sure = in_plane + SIGMAS * wide < math.cos(math.radians(LOWEST_PLANAR_DEG))
            if not sure:
                return _told(s, None, around_deg, self._prior), ""
            return _told(s, math.degrees(math.acos(in_plane)), both_deg, self._prior), ""
        either = [s + sign * out * normal for sign in (1.0, -1.0)]
        likely = [u for u in either if _elevation_deg(u) > STEEPEST_BELOW_DEG]
        if len(likely) == 1 and out > math.sin(math.radians(LOWEST_PLANAR_DEG)) + 2 * wide:
            return _told(likely[0], _elevation_deg(likely[0]), both_deg, self._prior), ""
        return None, "the microphones stand in a tilted plane: two directions fit"


def _elevation_deg(u: Float64Array) -> float:
    return math.degrees(math.asin(min(max(float(u[2] / np.linalg.norm(u)), -1.0), 1.0)))


def _told(
    u: Float64Array, elevation_deg: float | None, sigma_deg: float, prior: SitePrior
) -> Direction | None:
    if sigma_deg > WIDEST_SIGMA_DEG:
        return None
    azimuth_deg = math.degrees(math.atan2(float(u[0]), float(u[1]))) % 360
    airborne = None
    if elevation_deg is not None:
        airborne = airborne_probability(elevation_deg, sigma_deg, prior)
    return Direction(azimuth_deg, elevation_deg, sigma_deg, airborne)


@dataclass(frozen=True, slots=True, eq=False)
class _Solution:
    """Slowness in s/m with its covariance, in the array's span; `normal` to its plane."""

    slowness: Float64Array
    covariance: Float64Array
    normal: Float64Array
    dimensions: int
    residual_s: float
    sigma_s: float


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """The span of some microphones' places, and least squares in it."""

    span: Float64Array
    normal: Float64Array
    dimensions: int
    design: Float64Array
    inverse: Float64Array
    covariance: Float64Array  # for errors of 1 s


def _frame_of(positions_m: Float64Array) -> _Frame:
    places = positions_m - positions_m.mean(axis=0)
    _, spread, axes = np.linalg.svd(places, full_matrices=True)
    dimensions = int(np.sum(spread > FLAT * max(spread[0], 1e-9)))
    span = axes[:dimensions]
    design = places @ span.T
    covariance = span.T @ np.linalg.inv(design.T @ design) @ span
    return _Frame(span, axes[2], dimensions, design, np.linalg.pinv(design), covariance)
