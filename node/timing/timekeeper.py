"""All that tells the time round a node, read together: what the daemon and `check` ask.

The live end of timing: it starts the threads that listen to gpsd and ask chrony and NTP servers,
reads the host's clocks, and gives for one moment what the sample clock is to learn and what health
and status are to tell. Nothing here disciplines anything.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from node.settings import TimingSettings
from node.timing.chrony import ChronyWatch, Tracking
from node.timing.discipline import Discipline, Evidence
from node.timing.gpsd import GpsdListener
from node.timing.host import HostClockReader
from node.timing.leap import LeapTable
from node.timing.ntp import Opinion, SecondOpinion
from node.timing.receiver import Receiver, ReceiverState
from node.types import HostReading, ReceiverReading

log = logging.getLogger(__name__)

KERNEL_PPS: Final = Path("/sys/class/pps")


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known of the time at one moment.

    Attributes
    ----------
    host
        The host's clocks, with what disciplines them, all weighed.
    receiver_readings
        What the receiver said since the moment before.
    reasons
        What is wrong, in words.
    doubts
        Those of the reasons for which the host's clock is not believed.
    tracking
        What chrony says; None where it is silent.
    receiver
        How the receiver does; None where none is set up.
    receiver_reason
        That of the reasons which is the receiver's; empty where it has none.
    gpsd_failure
        Why gpsd is silent; None where it is not, or is not asked.
    kernel_pulse
        Whether the kernel has counted a pulse since; None where it has no such device.
    """

    host: HostReading
    receiver_readings: tuple[ReceiverReading, ...]
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]
    tracking: Tracking | None
    receiver: ReceiverState | None
    receiver_reason: str = ""
    gpsd_failure: str | None = None
    kernel_pulse: bool | None = None


class Timekeeper:
    """Reads all that tells the time.

    Parameters
    ----------
    settings
        Whom to ask.
    host_clock
        The host's clocks.
    made_utc_s
        A receiver that names an earlier time is wrong; the time of this software unless a test
        plays an old record.
    """

    def __init__(
        self,
        settings: TimingSettings,
        host_clock: HostClockReader,
        *,
        made_utc_s: int | None = None,
    ) -> None:
        self._host_clock = host_clock
        self.leaps = LeapTable.load()
        self._discipline = Discipline(self.leaps)
        self._opinion = SecondOpinion(settings.ntp_servers, settings.ntp_interval_s)
        self._chrony = ChronyWatch() if settings.chrony else None
        self._gpsd: GpsdListener | None = None
        if settings.gpsd is not None:
            receiver = (
                Receiver(self.leaps) if made_utc_s is None else Receiver(self.leaps, made_utc_s)
            )
            self._gpsd = GpsdListener(settings.gpsd, receiver, self._utc_by_network)
        self._kernel_pulses: dict[str, str] = {}
        self._network: HostReading | None = None
        self._chrony_spoke = False

    def __enter__(self) -> Self:
        self._opinion.start()
        for watch in (self._chrony, self._gpsd):
            if watch is not None:
                watch.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for watch in (self._opinion, self._chrony, self._gpsd):
            if watch is not None:
                watch.close()

    @property
    def steps(self) -> int:
        """How often the host's clock was seen to be stepped."""
        return self._discipline.steps

    @property
    def opinion(self) -> Opinion | None:
        """The latest second opinion by NTP, if there is one."""
        return self._opinion.latest

    @property
    def opinion_failures(self) -> dict[str, str]:
        """Why a server gave no second opinion, by server."""
        return self._opinion.failures

    @property
    def chrony_failure(self) -> str | None:
        """Why chrony is silent; None where it is not, or is not asked."""
        return self._chrony.failure if self._chrony else None

    @property
    def gpsd_failure(self) -> str | None:
        """Why gpsd is silent; None where it is not, or is not asked."""
        return self._gpsd.failure if self._gpsd else None

    def read(self) -> Moment:
        """Read all, about once a second."""
        host = self._host_clock.read()
        tracking = self._chrony.latest if self._chrony else None
        readings = self._gpsd.take_readings() if self._gpsd else ()
        kernel_pulse = self._kernel_pulse()
        state = self._gpsd.state(bool(kernel_pulse)) if self._gpsd else None
        evidence = Evidence(host, tracking, self._opinion.latest, readings)
        quality, judged = self._discipline.judge(evidence)
        host = replace(host, quality=quality)
        # The kernel alone says "ntp" even of a clock that follows this very receiver.
        network = tracking is not None and tracking.source == "ntp"
        vouched = quality.source == "ntp" and (network or quality.second_confirmed)
        self._network = host if vouched else None
        reasons = [*judged, *self._silences(tracking)]
        of_receiver = ""
        if state is not None and self._gpsd is not None:
            if self._gpsd.failure:
                of_receiver = self._gpsd.failure
            elif not state.utc_valid:
                of_receiver = f"the receiver's time is not used: {state.reason}"
        if of_receiver:
            reasons.append(of_receiver)
        if quality.source == "free":
            reasons.append(self._undisciplined(tracking))
        return Moment(
            host,
            readings,
            tuple(reasons),
            judged,
            tracking,
            state,
            receiver_reason=of_receiver,
            gpsd_failure=self.gpsd_failure,
            kernel_pulse=kernel_pulse,
        )

    def _undisciplined(self, tracking: Tracking | None) -> str:
        if tracking is not None:
            return (
                "nothing disciplines the clock: chrony runs, but is not synchronised; wait until "
                "it is, or see by `chronyc sources` why it is not"
            )
        why = self._chrony.failure if self._chrony else None
        said = f" (chrony: {why})" if why else ""
        return f"nothing disciplines the clock{said}: set up chrony, or connect a GPS receiver"

    def _silences(self, tracking: Tracking | None) -> list[str]:
        reasons = [
            f"no second opinion from {server}: {failure}"
            for server, failure in self._opinion.failures.items()
        ]
        self._chrony_spoke |= tracking is not None
        if self._chrony and self._chrony_spoke and tracking is None:
            reasons.append(f"chrony is silent: {self._chrony.failure or 'it hangs'}")
        return reasons

    def _utc_by_network(self, monotonic_ns: int) -> int | None:
        """Give UTC by a host's clock that follows a network, not this very receiver."""
        network = self._network
        return None if network is None else monotonic_ns + network.utc_minus_monotonic_ns

    def _kernel_pulse(self) -> bool | None:
        """Whether the kernel has counted a pulse since the last call (Documentation/pps.rst).

        None where it has no device that could.
        """
        seen: bool | None = None
        for assert_file in KERNEL_PPS.glob("*/assert"):
            try:
                count = assert_file.read_text("ascii").partition("#")[2].strip()
            except (OSError, ValueError):
                continue
            name = assert_file.parent.name
            counted = name in self._kernel_pulses and count != self._kernel_pulses[name]
            seen = bool(seen) or counted
            self._kernel_pulses[name] = count
        return seen
