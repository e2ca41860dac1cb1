"""Makes the sound of a street from physics: scenes in, recordings per node and their truth out.

It stands before the pipeline, in place of microphones. `sources` emits, `propagation` and `echoes`
carry, `noise` and `microphone` spoil, `render` puts a `scene` together. The training code uses the
parts by themselves.
"""

from node.simulate.propagation import Atmosphere, absorb, air_absorption_db_per_m
from node.simulate.render import RenderedNode, RenderedScene, render, write
from node.simulate.scene import Scene, load, packaged, packaged_names
from node.simulate.sources import SOURCE_KINDS, Emission, emit
from node.simulate.truth import Truth

__all__ = [
    "SOURCE_KINDS",
    "Atmosphere",
    "Emission",
    "RenderedNode",
    "RenderedScene",
    "Scene",
    "Truth",
    "absorb",
    "air_absorption_db_per_m",
    "emit",
    "load",
    "packaged",
    "packaged_names",
    "render",
    "write",
]
