"""How a node hears: which channels of its card, by which clock, with what array.

Under the daemon and the check, which both hear; from settings it makes what the pipeline is given.
"""

from __future__ import annotations

import math
from typing import Final

from node.capture import load_geometry
from node.detect import ChannelOrder, SitePrior
from node.messages import Array as MountedArray
from node.messages import Microphone
from node.pipeline import Array
from node.settings import PositionSettings, Settings
from node.timing import Fix, HostSampleClock, LeapTable, PpsSampleClock

# A receiver so far from the surveyed place is another node's, beyond what its error allows.
FAR_M: Final = 20.0
SIGMAS: Final = 6.0


class Ears:
    """How this node's card is heard: which channels, by which clock, with what array.

    Raises
    ------
    SceneError
        The array does not fit the card's microphones.
    """

    def __init__(self, settings: Settings, sample_rate_hz: int) -> None:
        capture, timing = settings.capture, settings.timing
        self.microphones = capture.microphones(timing.pps_channel)
        host = HostSampleClock(sample_rate_hz)
        self.clock: HostSampleClock | PpsSampleClock = host
        if timing.pps_channel is not None:
            self.clock = PpsSampleClock(
                sample_rate_hz, timing.pps_channel, host, leaps=LeapTable.load()
            )
        geometry = load_geometry(capture.array, len(self.microphones))
        mounted = geometry.oriented(capture.heading_deg, capture.pitch_deg, capture.roll_deg)
        self.described = MountedArray(
            name=mounted.name,
            channels=mounted.channels,
            sample_rate_hz=sample_rate_hz,
            microphones=tuple(
                Microphone(x_m=float(x), y_m=float(y), z_m=float(z))
                for x, y, z in mounted.positions_m - mounted.positions_m.mean(axis=0)
            ),
        )
        self.order = (
            None
            if geometry.is_point
            else ChannelOrder(
                capture.channels,
                sample_rate_hz,
                pps_channel=timing.pps_channel,
                silent_channels=capture.silent_channels,
                fixed=capture.order_fixed,
            )
        )
        self.array = Array.of(
            mounted,
            sample_rate_hz,
            settings=settings.detect,
            prior=SitePrior(
                building_height_m=settings.node.building_height_m,
                sensor_height_m=settings.node.height_m,
            ),
            order=self.order,
        )


def far_from(fix: Fix, surveyed: PositionSettings) -> str:
    """Say that a receiver stands elsewhere than was surveyed; nothing where it does not."""
    apart_m = fix.metres_to(surveyed.lat_deg, surveyed.lon_deg)
    if apart_m <= FAR_M + SIGMAS * math.hypot(fix.sigma_m, surveyed.sigma_m):
        return ""
    return (
        f"the receiver is {apart_m:.0f} m from where node.position says: was this node moved, or "
        "the setting copied from another?"
    )
