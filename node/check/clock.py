"""Self-test of the time: what disciplines the host's clock, the receiver, others' opinion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from node.board.findings import Finding
from node.ears import far_from
from node.examine import is_young, receiver_finding, receiver_pulse_finding
from node.settings import Settings, TimingSettings
from node.timing import HostClock, Moment, ReceiverState, Timekeeper

# chrony, gpsd and NTP servers have answered by then, or do not.
ASK_S: Final = 9.0
CLOCK_S: Final = 14.0
_OPINIONS_AGREE_S: Final = 0.1


def clock(settings: Settings) -> Iterator[Finding]:
    """Ask all that tells the time, until each has answered or `ASK_S` has passed."""
    timing = settings.timing
    with Timekeeper(timing, HostClock()) as keeper:
        end = time.monotonic() + ASK_S
        moment = keeper.read()
        pulse = False
        while time.monotonic() < end and not _all_said(moment, keeper, timing):
            time.sleep(0.2)
            moment = keeper.read()
            pulse |= moment.receiver is not None and moment.receiver.pps_seen
        opinion, failures = keeper.opinion, keeper.opinion_failures
        gpsd_failure = keeper.gpsd_failure
    yield _disciplined(moment, keeper)
    if moment.receiver is not None:
        yield from receiver(moment.receiver, gpsd_failure)
        if gpsd_failure is None and timing.pps_channel is None:
            followed = moment.tracking is not None and moment.tracking.source == "pps"
            yield (
                Finding("receiver pulse", "pass", "chrony follows it")
                if followed
                else receiver_pulse_finding(pulse)
            )
        fix, surveyed = moment.receiver.position, settings.node.position
        if fix is not None and surveyed is not None:
            elsewhere = far_from(fix, surveyed)
            as_surveyed = f"as surveyed, ± {fix.sigma_m:.0f} m"
            yield Finding("position", "fail" if elsewhere else "pass", elsewhere or as_surveyed)
    several = len(timing.ntp_servers) > 1
    for server, failure in failures.items():
        figure = f"{server}: {failure}"
        which = server if several else ""
        yield Finding("second opinion", "warn", figure, "check the name, and the network", which)
    unheard = [s for s in timing.ntp_servers if s not in failures]
    if opinion is not None:
        off_s, within_s = opinion.offset_s, opinion.uncertainty_s
        right = abs(off_s) <= within_s + _OPINIONS_AGREE_S
        yield Finding(
            "second opinion",
            "pass" if right else "fail",
            f"{opinion.server}: the clocks agree to {abs(off_s):.1g} ± {within_s:.1g} s"
            if right
            else f"{opinion.server}: the host's clock is {-off_s:+.4f} s off, ± {within_s:.2g} s",
            "one of the two is wrong: see `chronyc sources`",
            opinion.server if several else "",
        )
    elif unheard:
        names = ", ".join(unheard)
        advice = "check the name, and the network"
        yield Finding("second opinion", "warn", f"{names}: no answer in {ASK_S:g} s", advice)


def _all_said(moment: Moment, keeper: Timekeeper, timing: TimingSettings) -> bool:
    """Whether everybody who was asked has answered."""
    chrony = moment.tracking is not None or keeper.chrony_failure is not None
    told = moment.receiver
    receiver = told is None or (
        (told.utc_valid or is_young(told))
        and told.satellites_used is not None
        and (timing.pps_channel is not None or told.pps_seen or moment.tracking is not None)
    )
    opinion = keeper.opinion is not None or len(keeper.opinion_failures) == len(timing.ntp_servers)
    return (chrony or not timing.chrony) and receiver and opinion


def _disciplined(moment: Moment, keeper: Timekeeper) -> Finding:
    tracking = moment.tracking
    if tracking is not None:
        quality = tracking.quality()
        said = (
            f"chrony follows {tracking.reference} (stratum {tracking.stratum}), "
            f"offset {tracking.offset_s:+.2g} s, bound {tracking.bound_s:.2g} s, "
            f"{tracking.rate_ppm:+.2f} ppm"
            if quality is not None
            else "chrony runs, but is not synchronised"
        )
    else:
        quality = HostClock().read().quality
        why = f"; chrony: {keeper.chrony_failure}" if keeper.chrony_failure else ""
        said = f"by the kernel, σ {quality.sigma_s:.2g} s{why}"
    source = "free" if quality is None else quality.source
    if moment.doubts:
        # They name who else says what.
        return Finding("clock", "warn", "; ".join(moment.doubts), "see `chronyc sources`")
    if source != "free":
        return Finding("clock", "pass", f"{source}: {said}")
    advice = ""
    if tracking is not None:
        advice = "wait until it is, or see by `chronyc sources` why it is not"
    elif keeper.chrony_failure:
        advice = "start it (`systemctl start chrony`), or see docs/do/discipline-the-clock.md"
    return Finding("clock", "warn", f"{source}: {said}", advice)


def receiver(state: ReceiverState, failure: str | None) -> Iterator[Finding]:
    """Tell how the receiver does, or why nothing comes from gpsd."""
    if failure is not None:
        if failure.endswith("is being asked"):
            address = failure.removesuffix(" is being asked")
            failure = f"{address} says nothing of a receiver in {ASK_S:g} s"
        advice = (
            "check gpsd's service, timing.gpsd and the receiver's cable; see `gpsmon` of the "
            "package gpsd-clients"
        )
        yield Finding("receiver", "fail", failure, advice)
        return
    yield receiver_finding(state)
