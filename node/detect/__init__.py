"""Where a sound becomes an impulse: trigger, onset, and which impulses are one event.

Blocks of samples come in from capture (through the pipeline); events go out, each a few impulses
with a fractional onset on the node's sample counter. Timing turns these into UTC, and classify
judges the sound round them. All here is pure: no I/O, no threads, no clock.
"""

from node.detect.detector import Detector

__all__ = ["Detector"]
