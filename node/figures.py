"""The figures behind a node's status, for whoever looks after it: its health message.

Beside the daemon, which knows when. In come the moment, the ears and counts; out comes a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from node.board import BoardReading
from node.board.findings import Finding, condition
from node.ears import Ears
from node.messages import (
    ArrayHealth,
    BoardHealth,
    CheckHealth,
    ChronyHealth,
    Health,
    Origin,
    OutboxStatus,
    ReceiverHealth,
    SampleClockHealth,
    build_health,
)
from node.timing import HostSampleClock, Moment, PpsSampleClock

MOST_CHECKS: Final = 64  # that a health message holds
MOST_WORDS: Final = 512


def health(
    origin: Origin,
    moment: Moment,
    ears: Ears,
    *,
    utc_ns: int,
    uptime_s: float,
    host_steps: int,
    sample_rate_hz: int,
    lost_samples: int,
    floor_dbfs: tuple[float | None, ...],
    outbox: OutboxStatus,
    findings: Sequence[Finding],
    board: BoardReading,
) -> Health:
    """Build a health message.

    Parameters
    ----------
    host_steps
        How often the host's clock has stepped.
    floor_dbfs
        The background of each microphone; None where there is none yet.
    findings, board
        What the node has found on itself, and what its board says.

    Raises
    ------
    pydantic.ValidationError
        If chrony or the receiver says what cannot be.
    """
    chrony, receiver, order = moment.tracking, moment.receiver, ears.order
    return build_health(
        origin,
        utc_ns=utc_ns,
        uptime_s=uptime_s,
        clock=ears.clock.quality(),
        sample_clock=_sample_clock(ears.clock, host_steps),
        chrony=None
        if chrony is None
        else ChronyHealth(
            reference=chrony.reference,
            stratum=chrony.stratum,
            synchronised=chrony.synchronised,
            offset_s=chrony.offset_s,
            root_delay_s=chrony.root_delay_s,
            root_dispersion_s=chrony.root_dispersion_s,
        ),
        receiver=None
        if receiver is None
        else ReceiverHealth(
            fix=receiver.fix,
            satellites_used=receiver.satellites_used,
            satellites_seen=receiver.satellites_seen,
            utc_valid=receiver.utc_valid,
            pps_seen=receiver.pps_seen,
            position_sigma_m=receiver.position.sigma_m if receiver.position else None,
        ),
        array=ArrayHealth(
            sample_rate_hz=sample_rate_hz,
            channels=len(ears.microphones),
            lost_samples=lost_samples,
            floor_dbfs=floor_dbfs,
            order_proven=None if order is None else order.state.proven is True,
            order_reason=None if order is None else order.state.reason,
        ),
        outbox=outbox,
        condition=condition(findings),
        checks=tuple(_check(finding) for finding in findings[:MOST_CHECKS]),
        board=_board(board),
    )


def _check(finding: Finding) -> CheckHealth:
    return CheckHealth(
        name=finding.name,
        verdict=finding.verdict,
        figure=finding.figure[:MOST_WORDS],
        advice=finding.next_step[:MOST_WORDS],
    )


def _board(reading: BoardReading) -> BoardHealth:
    button = reading.button
    return BoardHealth(
        enclosure_c=reading.enclosure_c,
        processor_c=reading.soc_c,
        under_voltage=reading.power.under_voltage,
        throttled=reading.power.throttled,
        enclosure_open=reading.tamper.open if reading.tamper else None,
        maintenance=None if button is None else button.maintenance_left_s is not None,
    )


def _sample_clock(clock: HostSampleClock | PpsSampleClock, host_steps: int) -> SampleClockHealth:
    """Say how the sample counter is mapped to UTC."""
    if isinstance(clock, HostSampleClock):
        return SampleClockHealth(
            method="host",
            rate_ppm=clock.rate_ppm,
            pulses=None,
            missed=None,
            refused=None,
            reason=None,
            host_steps=host_steps,
        )
    state = clock.state
    return SampleClockHealth(
        method="pps",
        rate_ppm=state.rate_ppm,
        pulses=state.pulses,
        missed=state.missed,
        refused=state.refused,
        reason=state.reason or None,
        host_steps=host_steps,
    )
