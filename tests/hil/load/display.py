"""New Year's Eve as one node hears it: ten impulses a second, and real shots hidden among them.

A minute is rendered by the simulator, to be played over and over; each shot has its own place in
it. Shells give two impulses each, the thump of the mortar, which is mostly below the trigger's
band, and the burst; firecrackers go off near and far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from node.capture import built_in_arrays
from node.simulate import render
from node.simulate.scene import parse

RATE_HZ: Final = 48_000
ARRAY: Final = "tetrahedron_200mm"
LOOP_S: Final = 60
SEED: Final = 2_027
SHELLS_PER_S: Final = 2.5
CRACKERS_PER_S: Final = 5.0
IMPULSES_PER_S: Final = 2 * SHELLS_PER_S + CRACKERS_PER_S
SHOT_APART_S: Final = (3.0, 5.0)
# Where a shot begins and a loop ends nothing is cut off.
MARGIN_S: Final = 1.5

_NEAR_FAR_M: Final = (30.0, 450.0)
_SHELLS_M: Final = (120.0, 500.0)
_SHOTS_M: Final = (40.0, 150.0)
_CALIBRES: Final = ("9mm", "5.56", "7.62x39")
_SCENE: Final = """
name = "new-year"
duration_s = {seconds}
seed = {seed}
sample_rate_hz = {rate}
start_utc = 2026-12-31T23:59:30Z
[atmosphere]
temperature_c = 2.0
[street]
noise_db_a = 60.0
vehicles_per_minute = 2.0
facades = 3
{sources}
[[nodes]]
id = "new-year"
x_m = 0.0
y_m = 0.0
z_m = 6.0
array = "{array}"
full_scale_db_spl = 125.0
"""

Pcm = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Display:
    """A stretch of New Year's Eve.

    Attributes
    ----------
    frames
        Shape [n, 4].
    shots
        Where each real shot reaches channel 0, in samples, in order.
    fireworks
        The same of all else.
    """

    frames: Pcm
    shots: tuple[float, ...]
    fireworks: tuple[float, ...]

    def shots_between(self, first_sample: int, end_sample: int) -> list[float]:
        """Give the onsets of the shots in part of the stream that it makes, played on and on."""
        loop = len(self.frames)
        turns = range(first_sample // loop, end_sample // loop + 1)
        onsets = [turn * loop + onset for turn in turns for onset in self.shots]
        return [onset for onset in onsets if first_sample <= onset < end_sample]


def display(
    seconds: int = LOOP_S,
    seed: int = SEED,
    *,
    shells_per_s: float = SHELLS_PER_S,
    crackers_per_s: float = CRACKERS_PER_S,
) -> Display:
    """Render it; the same one for the same arguments."""
    rng = np.random.default_rng(seed)
    inside = (MARGIN_S, seconds - MARGIN_S)
    sources = [
        _source("aerial_shell", at_s, rng, _SHELLS_M, 0.0)
        for at_s in rng.uniform(*inside, round(shells_per_s * seconds))
    ]
    sources += [
        _source("firecracker", at_s, rng, _NEAR_FAR_M, 0.1)
        for at_s in rng.uniform(*inside, round(crackers_per_s * seconds))
    ]
    at_s = MARGIN_S
    while at_s < inside[1]:
        calibre = rng.choice(_CALIBRES)
        sources.append(
            _source("muzzle_blast", at_s, rng, _SHOTS_M, 1.5) + f'calibre = "{calibre}"\n'
        )
        at_s += rng.uniform(*SHOT_APART_S)
    text = _SCENE.format(
        seconds=seconds, seed=seed, rate=RATE_HZ, array=ARRAY, sources="\n".join(sources)
    )
    rendered = render(parse(text), built_in_arrays())
    (node,) = rendered.nodes
    labels = [source.label for source in rendered.truth.sources]
    heard = [(arrival.sample, labels[arrival.source]) for arrival in node.arrivals()]
    return Display(
        node.frames(),
        tuple(sample for sample, label in heard if label == "gunfire"),
        tuple(sample for sample, label in heard if label != "gunfire"),
    )


def _source(
    kind: str, at_s: float, rng: np.random.Generator, away_m: tuple[float, float], up_m: float
) -> str:
    """Write a source down, somewhere round the node."""
    distance_m, bearing = rng.uniform(*away_m), rng.uniform(0, 2 * np.pi)
    x_m, y_m = distance_m * np.sin(bearing), distance_m * np.cos(bearing)
    return (
        f'[[sources]]\nkind = "{kind}"\ntime_s = {at_s:.4f}\n'
        f"x_m = {x_m:.1f}\ny_m = {y_m:.1f}\nz_m = {up_m}\n"
    )
