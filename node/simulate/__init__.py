"""Makes the sound of a street from physics: scenes in, recordings per node and their truth out.

It stands before the pipeline, in place of microphones. `sources` emits, `propagation` and `echoes`
carry, `noise` and `microphone` spoil, `render` puts a `scene` together. The training code uses the
parts by themselves.
"""

from node.simulate.propagation import Atmosphere, absorb, air_absorption_db_per_m
from node.simulate.sources import SOURCE_KINDS, Emission, emit

__all__ = ["SOURCE_KINDS", "Atmosphere", "Emission", "absorb", "air_absorption_db_per_m", "emit"]
