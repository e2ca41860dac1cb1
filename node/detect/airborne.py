"""Whether a sound came from the air: elevation as evidence, never as a veto.

Beside the direction, before the grade. A burst of fireworks goes off above the roofs, a pistol
hardly ever does; so where an array tells elevation, it tells the two apart better than the sound
does. But shots are fired from windows too: elevation moves the scores by a bounded weight, and a
site says how high its buildings are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from node.types import Scores

Float64Array = npt.NDArray[np.float64]

# Horizontal ranges, in m, at which shots and bursts are heard, all alike likely.
RANGES_M: Final = (40.0, 800.0)
# Heights of what goes off in the air above the ground, in m: from small consumer mortars to shells
# of 150 mm at 1.2 m a millimetre (the trade's rule: 100 ft an inch).
AIRBORNE_M: Final = (25.0, 200.0)
# Of sounds on the ground, so many come from people's height, the others from windows and roofs.
STREET_LEVEL: Final = 0.9
STREET_M: Final = (0.0, 2.0)
# Rays bend with the wind and the temperature gradient: curvature g / c with g = 0.1 / s turns
# them by some 4 degrees over 500 m at the strongest (signal.md §3); its spread is half of that.
REFRACTION_DEG_PER_M: Final = 2.0 / 500.0
# Before anything was heard, of all that bangs. A city has more to lose by a shot that is called a
# burst than by a burst that is not.
AIRBORNE_SHARE: Final = 0.08
BLUNDER: Final = 1e-3
# Of bursts, so many are nearer than the ranges above, at any height in the sky. Without them
# what is overhead would be as likely a blunder of the array as a burst.
OVERHEAD: Final = 0.03
OVERHEAD_DEG: Final = (30.0, 90.0)
CELLS: Final = 24

# What elevation may do to the odds of fireworks against all else: at most this factor upwards. A
# shot from a tower that sounds like one (odds of 20 and more) stays one; a burst that sounds half
# like a shot does not.
MOST_WEIGHT: Final = 5.0
# And downwards: fireworks go off on the ground, too.
GROUND_FIREWORKS: Final = 0.5


@dataclass(frozen=True)
class SitePrior:
    """What stands round a node.

    Attributes
    ----------
    building_height_m
        Height from which people may shoot: of the buildings round about.
    sensor_height_m
        Of the array above the ground.
    """

    building_height_m: float = 20.0
    sensor_height_m: float = 6.0

    @cached_property
    def ground(self) -> Elevations:
        """Elevations of sources on streets and in windows."""
        street = _seen(STREET_M, self.sensor_height_m)
        windows = _seen((STREET_M[1], max(self.building_height_m, 3.0)), self.sensor_height_m)
        return street.mixed(windows, STREET_LEVEL)

    @cached_property
    def air(self) -> Elevations:
        """Elevations of what goes off above the roofs."""
        low_m = max(AIRBORNE_M[0], self.building_height_m)
        high = _seen((low_m, max(AIRBORNE_M[1], 2 * low_m)), self.sensor_height_m)
        return high.mixed(_flat(*OVERHEAD_DEG), 1 - OVERHEAD)


@dataclass(frozen=True)
class Elevations:
    """Elevations of possible sources in degrees, how far refraction spreads them, their shares."""

    at_deg: Float64Array
    spread_deg: Float64Array
    share: Float64Array

    def density(self, elevation_deg: float, sigma_deg: float) -> float:
        """Give the density at a measured elevation, per degree."""
        spread_deg = np.hypot(self.spread_deg, sigma_deg)
        z = (elevation_deg - self.at_deg) / spread_deg
        return float(self.share @ (np.exp(-0.5 * z * z) / spread_deg)) / math.sqrt(2 * math.pi)

    def mixed(self, other: Elevations, share: float) -> Elevations:
        """Mix with another set, whose share is what this one leaves."""
        return Elevations(
            np.concatenate((self.at_deg, other.at_deg)),
            np.concatenate((self.spread_deg, other.spread_deg)),
            np.concatenate((self.share * share, other.share * (1 - share))),
        )


def airborne_probability(elevation_deg: float, sigma_deg: float, prior: SitePrior) -> float:
    """Give the probability that a source was in the air, by Bayes' rule over heights and ranges.

    Parameters
    ----------
    elevation_deg, sigma_deg
        As measured, with its standard error.
    prior
        The site.
    """
    # A little of the flat density of an elevation that is wrong altogether, so that no reading is
    # certain.
    blunder = BLUNDER / 180.0
    air = prior.air.density(elevation_deg, sigma_deg) + blunder
    ground = prior.ground.density(elevation_deg, sigma_deg) + blunder
    return AIRBORNE_SHARE * air / (AIRBORNE_SHARE * air + (1 - AIRBORNE_SHARE) * ground)


def weigh_elevation(scores: Scores, airborne: float) -> Scores:
    """Let elevation move the odds of fireworks against all else, by at most `MOST_WEIGHT`.

    Parameters
    ----------
    scores
        Calibrated class probabilities from the sound alone.
    airborne
        Probability that the source was in the air.

    Returns
    -------
    Scores
        They sum to 1. What is not fireworks keeps its shares among itself.
    """
    odds = airborne / max(1 - airborne, 1e-12) * (1 - AIRBORNE_SHARE) / AIRBORNE_SHARE
    weight = min(max(odds, GROUND_FIREWORKS), MOST_WEIGHT)
    total = scores.gunfire + scores.backfire + scores.other + weight * scores.fireworks
    return Scores(
        gunfire=scores.gunfire / total,
        fireworks=weight * scores.fireworks / total,
        backfire=scores.backfire / total,
        other=scores.other / total,
    )


def _seen(heights_m: tuple[float, float], sensor_m: float) -> Elevations:
    range_m, height_m = np.meshgrid(_middles(*RANGES_M), _middles(*heights_m))
    at_deg = np.rad2deg(np.arctan2(height_m - sensor_m, range_m)).ravel()
    share = np.full(at_deg.shape, 1 / at_deg.size)
    return Elevations(at_deg, REFRACTION_DEG_PER_M * range_m.ravel(), share)


def _flat(low_deg: float, high_deg: float) -> Elevations:
    spread_deg = np.full(CELLS, (high_deg - low_deg) / CELLS)
    return Elevations(_middles(low_deg, high_deg), spread_deg, np.full(CELLS, 1 / CELLS))


def _middles(low: float, high: float) -> Float64Array:
    return low + (np.arange(CELLS) + 0.5) * (high - low) / CELLS
