"""Arrivals of sound at nodes, as arrays in one flat frame: what the solver works on.

In come nodes' places and the rounds of their detections; out go arrays that the likelihood is
written in. All lengths are metres, times seconds after the pool's own origin.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from node.network.compiled import compiled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

ALL_TOLD: Final = (1e12, 1e12 + 1.0)
"""Of `Pool.told_s`: no node is still to tell of anything."""


@dataclass(frozen=True)
class Pool:
    """Arrivals that may be of the same shots, sorted by node, then by time.

    Attributes
    ----------
    place_m
        Of each node: east, north, up; shape [n, 3].
    place_sigma_m
        Standard error of it along each axis, shape [n].
    node
        Index of the node of each arrival, ascending; shape [m].
    time_s, sigma_s
        When it came, and the standard error of that, shape [m].
    azimuth_rad, azimuth_sigma_rad
        Where from, clockwise from north, and its standard error; NaN and infinity where that is
        not known. Shape [m].
    first
        Whether the bearing is this arrival's own, and not that of an earlier one of its event.
    clutter_per_s
        How often such an arrival comes to a node without any shot, shape [m].
    late_share
        Probability that such a node hears an echo but not the direct sound, shape [m].
    key
        What the caller knows the arrival by, shape [m].
    told_s
        Of what came to a node before the first of these, its word has come, too; of what came after
        the second, it cannot have come yet.
    """

    place_m: FloatArray
    place_sigma_m: FloatArray
    node: IntArray
    time_s: FloatArray
    sigma_s: FloatArray
    azimuth_rad: FloatArray
    azimuth_sigma_rad: FloatArray
    first: BoolArray
    clutter_per_s: FloatArray
    late_share: FloatArray
    key: IntArray
    told_s: tuple[float, float] = ALL_TOLD

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def heard(self) -> IntArray:
        """Nodes with an arrival, ascending."""
        return unique(self.node)

    def only(self, which: BoolArray | IntArray) -> Pool:
        """Give the pool with some of its arrivals; the nodes stay."""
        of_arrivals = (f.name for f in fields(self) if not f.name.startswith(("place_", "told_")))
        return replace(self, **{name: getattr(self, name)[which] for name in of_arrivals})


def pool_of(
    place_m: FloatArray,
    place_sigma_m: FloatArray,
    node: IntArray,
    time_s: FloatArray,
    sigma_s: FloatArray,
    *,
    azimuth_rad: FloatArray | None = None,
    azimuth_sigma_rad: FloatArray | None = None,
    first: BoolArray | None = None,
    clutter_per_s: FloatArray | float = 1.0,
    late_share: FloatArray | float = 0.2,
) -> Pool:
    """Make a pool of arrivals in any order; `key` is where each stood."""
    count = len(time_s)
    order = np.lexsort((time_s, node))
    azimuth = np.full(count, np.nan) if azimuth_rad is None else azimuth_rad
    spread = np.full(count, np.inf) if azimuth_sigma_rad is None else azimuth_sigma_rad
    own = np.ones(count, np.bool_) if first is None else first
    clutter = np.broadcast_to(np.asarray(clutter_per_s, np.float64), (count,))
    late = np.broadcast_to(np.asarray(late_share, np.float64), (count,))
    return Pool(
        place_m,
        place_sigma_m,
        node[order],
        time_s[order],
        sigma_s[order],
        azimuth[order],
        spread[order],
        own[order],
        clutter[order],
        late[order],
        order,
    )


@compiled
def unique(values: IntArray) -> IntArray:
    """As numpy's, without its cost for a few values."""
    return np.unique(values)


@compiled
def is_in(values: IntArray, among: IntArray) -> BoolArray:
    """As numpy's `isin`, for a few values."""
    found = np.zeros(len(values), np.bool_)
    for at in range(len(values)):
        for one in among:
            if one == values[at]:
                found[at] = True
                break
    return found
