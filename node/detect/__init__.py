"""Where a sound becomes an event: trigger, onset, direction, and which impulses are shots.

Blocks of samples come in from capture (through the pipeline); events go out, each a few impulses
with a fractional onset on the node's sample counter. Timing turns these into UTC, and classify
judges the sound round them. All here is pure: no I/O, no threads, no clock.
"""

from node.detect.airborne import SitePrior, weigh_elevation
from node.detect.arrival import Arrival
from node.detect.calibrate import Calibration, calibrate, check_array
from node.detect.detector import Detector
from node.detect.direction import DirectionFinder, Explanation
from node.detect.microphones import MicrophoneState, MicrophoneVerdict, MicrophoneWatch
from node.detect.near import (
    JudgedMisses,
    NearMiss,
    PutDownToEcho,
    PutDownToSeam,
    Rejected,
    ShortOfTrigger,
)
from node.detect.order import ChannelOrder, OrderState
from node.detect.rounds import count_rounds

__all__ = [
    "Arrival",
    "Calibration",
    "ChannelOrder",
    "Detector",
    "DirectionFinder",
    "Explanation",
    "JudgedMisses",
    "MicrophoneState",
    "MicrophoneVerdict",
    "MicrophoneWatch",
    "NearMiss",
    "OrderState",
    "PutDownToEcho",
    "PutDownToSeam",
    "Rejected",
    "ShortOfTrigger",
    "SitePrior",
    "calibrate",
    "check_array",
    "count_rounds",
    "weigh_elevation",
]
