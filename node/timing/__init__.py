"""What time it is: from the sample counter over the host's clocks to UTC, with its error."""

from node.timing.host import FakeHostClock, HostClock, HostClockReader, utc_now_ns
from node.timing.leap import LeapTable
from node.timing.ntp import Opinion, SecondOpinion, weigh
from node.timing.pps import PpsSampleClock, PulseState
from node.timing.sample_clock import HostSampleClock, RecordingClock

__all__ = [
    "FakeHostClock",
    "HostClock",
    "HostClockReader",
    "HostSampleClock",
    "LeapTable",
    "Opinion",
    "PpsSampleClock",
    "PulseState",
    "RecordingClock",
    "SecondOpinion",
    "utc_now_ns",
    "weigh",
]
