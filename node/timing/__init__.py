"""What time it is: from the sample counter over the host's clocks to UTC, with its error."""

from node.timing.chrony import Tracking
from node.timing.host import FakeHostClock, HostClock, HostClockReader, utc_now_ns
from node.timing.leap import LeapTable
from node.timing.misplaced import Misplaced
from node.timing.pps import PpsSampleClock, PulseState
from node.timing.receiver import Fix, ReceiverState
from node.timing.sample_clock import HostSampleClock, RecordingClock
from node.timing.timekeeper import Moment, Timekeeper

__all__ = [
    "FakeHostClock",
    "Fix",
    "HostClock",
    "HostClockReader",
    "HostSampleClock",
    "LeapTable",
    "Misplaced",
    "Moment",
    "PpsSampleClock",
    "PulseState",
    "ReceiverState",
    "RecordingClock",
    "Timekeeper",
    "Tracking",
    "utc_now_ns",
]
