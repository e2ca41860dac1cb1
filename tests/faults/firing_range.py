"""The sound that the node under fault hears, and the truth of it: shots in the open, without end.

A minute is rendered by the simulator and played over and over; each shot has its own place in the
sample counter. One microphone at 16 kHz, so that thirty seconds are heard in one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from node.capture import built_in_arrays
from node.simulate import render
from node.simulate.scene import parse

RATE_HZ: Final = 16_000
LOOP_S: Final = 60
APART_S: Final = (2.2, 3.0)

_CALIBRES: Final = ("9mm", "5.56", "7.62x39")
_SCENE: Final = """
name = "range"
duration_s = {duration}
seed = {seed}
sample_rate_hz = {rate}
start_utc = 2026-01-01T00:00:00Z
[street]
noise_db_a = 48.0
vehicles_per_minute = 0.0
tail_s = 0.3
tail_db = -12.0
{sources}
[[nodes]]
id = "range"
x_m = 0.0
y_m = 0.0
z_m = 6.0
array = "mono"
"""
_SHOT: Final = """[[sources]]
kind = "muzzle_blast"
calibre = "{calibre}"
time_s = {time:.4f}
x_m = {x:.1f}
y_m = {y:.1f}
heading_deg = 0.0
"""

Pcm = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Range:
    """A minute of shots.

    Attributes
    ----------
    frames
        Shape [n, 1].
    silence
        As many frames without a shot.
    onsets
        Where each shot reaches the microphone, in samples, in order.
    """

    frames: Pcm
    silence: Pcm
    onsets: tuple[float, ...]

    def onsets_until(self, sample: int) -> list[float]:
        """Give the onsets of a stream from its start to a sample."""
        loop = len(self.frames)
        return [
            turn * loop + onset
            for turn in range(sample // loop + 1)
            for onset in self.onsets
            if turn * loop + onset < sample
        ]


@cache
def firing_range(seed: int = 5) -> Range:
    """Render the minute; the same one for the same seed."""
    rng = np.random.default_rng(seed)
    shots, at_s = [], 2.0
    while at_s < LOOP_S - 2.0:
        distance_m, bearing = rng.uniform(40, 120), rng.uniform(0, 2 * np.pi)
        shots.append(
            _SHOT.format(
                calibre=rng.choice(_CALIBRES),
                time=at_s,
                x=distance_m * np.sin(bearing),
                y=distance_m * np.cos(bearing),
            )
        )
        at_s += rng.uniform(*APART_S)
    loud = _rendered("\n".join(shots), seed)
    return Range(
        loud.frames(),
        _rendered("", seed + 1).frames(),
        tuple(arrival.sample for arrival in loud.arrivals()),
    )


def _rendered(sources: str, seed: int):
    scene = parse(_SCENE.format(duration=LOOP_S, seed=seed, rate=RATE_HZ, sources=sources))
    return render(scene, built_in_arrays()).nodes[0]
