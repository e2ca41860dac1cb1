"""From what the stages found to a message: pure, called at the end of the pipeline.

In come an event, which of its impulses are shots and when they were, direction, judgement and
clock; out goes a detection that lacks only its number, which the outbox gives when it is made
durable.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from node.messages.checkpoint import CHECKPOINT_SCHEMA, Checkpoint, Gap
from node.messages.detection import (
    DETECTION_SCHEMA,
    Audio,
    Clock,
    Detection,
    Direction,
    Local,
    Model,
    Position,
    Round,
    Scores,
    Thresholds,
)
from node.messages.health import (
    HEALTH_SCHEMA,
    ArrayHealth,
    BoardHealth,
    CheckHealth,
    ChronyHealth,
    Health,
    ReceiverHealth,
    SampleClockHealth,
)
from node.messages.identity import event_id
from node.messages.node import NODE_SCHEMA, Array, Key, Node, Privacy
from node.messages.status import STATUS_SCHEMA, Area, OutboxStatus, State, Status
from node.types import ClockQuality, Event, Instant, Judgement, ModelIdentity, Rounds
from node.types import Direction as Bearing
from node.utc import utc_text

# Of a meridian, at its longest (WGS 84, at the poles).
_METRES_PER_DEGREE: Final = 111_694


@dataclass(frozen=True, slots=True)
class Origin:
    """Who speaks: the same in every message of one run of a node.

    `boot_id` names the run whose sample counter the events' names rest on, so it must be new
    whenever that counter starts anew: at each start of the process, not of the machine.
    """

    site: str
    node_id: str
    boot_id: str
    firmware: str
    position: Position | None = None
    local: Local | None = None


def build_detection(
    origin: Origin,
    event: Event,
    rounds: Rounds,
    instants: Sequence[Instant],
    judgement: Judgement,
    clock: ClockQuality,
    model: ModelIdentity,
    *,
    direction: Bearing | None,
    sample_rate_hz: int,
    channels: int,
    revision: int = 0,
    seq: int = 1,
) -> Detection:
    """Build a message on an event.

    Parameters
    ----------
    rounds
        Which impulses of `event` are shots.
    instants
        UTC of each shot, in the same order.
    direction
        Where the shots came from; None where that is not known.
    channels
        Microphones heard.
    revision
        0 at first; each later knowledge of the same event adds 1.
    seq
        The detection's number, ≥ 1. One that goes through the outbox is numbered there:
        see `numbered`.
    """
    if len(instants) != len(rounds.shots):
        raise ValueError(f"{len(instants)} instants for {len(rounds.shots)} shots")
    shots = tuple(
        Round(
            utc=utc_text(instant.utc_ns),
            sigma_s=instant.sigma_s,
            snr_db=impulse.snr_db,
            peak_dbfs=impulse.peak_dbfs,
            peak_db_spl=None,
        )
        for impulse, instant in zip(
            (event.impulses[i] for i in rounds.shots), instants, strict=True
        )
    )
    scores = judgement.scores
    return Detection(
        schema=DETECTION_SCHEMA,
        event_id=event_id(origin.node_id, origin.boot_id, event.first_sample),
        revision=revision,
        type="update" if revision else "new",
        site=origin.site,
        node_id=origin.node_id,
        boot_id=origin.boot_id,
        seq=seq,
        onset_utc=shots[0].utc,
        rounds=shots,
        round_count=len(shots),
        round_count_is_minimum=rounds.is_minimum or event.lost_samples > 0,
        cadence_rpm=rounds.cadence_rpm,
        label=judgement.label,
        abstained=judgement.abstained,
        grade=judgement.grade,
        scores=Scores(
            gunfire=scores.gunfire,
            fireworks=scores.fireworks,
            backfire=scores.backfire,
            other=scores.other,
        ),
        thresholds=Thresholds(gunfire=model.gunfire_threshold, probable=model.probable_threshold),
        clock=_clock(clock),
        position=origin.position,
        local=origin.local,
        direction=None
        if direction is None
        else Direction(
            azimuth_deg=direction.azimuth_deg,
            elevation_deg=direction.elevation_deg,
            sigma_deg=direction.sigma_deg,
            airborne_probability=direction.airborne_probability,
        ),
        audio=Audio(
            sample_rate_hz=sample_rate_hz,
            channels=channels,
            lost_samples=event.lost_samples,
            clipped=any(impulse.clipped for impulse in event.impulses),
        ),
        model=Model(name=model.name, version=model.version, sha256=model.sha256),
        firmware=origin.firmware,
        snippet=None,
    )


def numbered(message: Detection, seq: int) -> Detection:
    """Give a detection the number that the outbox has for it."""
    return message.model_copy(update={"seq": seq})


def build_status(
    origin: Origin,
    state: State,
    *,
    utc_ns: int,
    reasons: Sequence[str] = (),
    clock: ClockQuality | None = None,
    lost_samples: int | None = None,
    outbox: OutboxStatus | None = None,
) -> Status:
    """Build a status; leave the last three out for the last will, which cannot know them."""
    return Status(
        schema=STATUS_SCHEMA,
        site=origin.site,
        node_id=origin.node_id,
        boot_id=origin.boot_id,
        utc=utc_text(utc_ns),
        state=state,
        reasons=tuple(reasons),
        clock=None if clock is None else _clock(clock),
        firmware=origin.firmware,
        lost_samples=lost_samples,
        outbox=outbox,
        area=None if origin.position is None else _area(origin.position),
    )


def build_health(
    origin: Origin,
    *,
    utc_ns: int,
    uptime_s: float,
    clock: ClockQuality,
    sample_clock: SampleClockHealth,
    chrony: ChronyHealth | None,
    receiver: ReceiverHealth | None,
    array: ArrayHealth,
    outbox: OutboxStatus | None,
    condition: Literal["ok", "degraded", "failed"] | None = None,
    checks: tuple[CheckHealth, ...] | None = None,
    board: BoardHealth | None = None,
) -> Health:
    """Build a health message."""
    return Health(
        schema=HEALTH_SCHEMA,
        site=origin.site,
        node_id=origin.node_id,
        boot_id=origin.boot_id,
        utc=utc_text(utc_ns),
        uptime_s=uptime_s,
        clock=_clock(clock),
        sample_clock=sample_clock,
        chrony=chrony,
        receiver=receiver,
        array=array,
        outbox=outbox,
        firmware=origin.firmware,
        condition=condition,
        checks=checks,
        board=board,
    )


def build_node(
    origin: Origin,
    *,
    utc_ns: int,
    array: Array,
    model: ModelIdentity,
    key: Key | None,
    privacy: Privacy,
) -> Node:
    """Build a node's birth certificate, not signed yet."""
    return Node(
        schema=NODE_SCHEMA,
        site=origin.site,
        node_id=origin.node_id,
        boot_id=origin.boot_id,
        utc=utc_text(utc_ns),
        firmware=origin.firmware,
        position=origin.position,
        local=origin.local,
        array=array,
        model=Model(name=model.name, version=model.version, sha256=model.sha256),
        key=key,
        privacy=privacy,
    )


def build_checkpoint(
    origin: Origin, *, utc_ns: int, seq: int, head: str, gaps: Sequence[Gap], key_id: str
) -> Checkpoint:
    """Build a checkpoint, not signed yet.

    Parameters
    ----------
    seq
        The last number given; 0 before the first detection.
    head
        SHA-256 of the signed form of the detection with that number, in hexadecimal.
    """
    return Checkpoint(
        schema=CHECKPOINT_SCHEMA,
        site=origin.site,
        node_id=origin.node_id,
        boot_id=origin.boot_id,
        utc=utc_text(utc_ns),
        seq=seq,
        head=head,
        gaps=tuple(gaps),
        key_id=key_id,
    )


def _area(position: Position) -> Area:
    """Round a position to a hundredth of a degree.

    What is cut off is uniform over a cell: its standard error along a meridian is the cell's side
    over √12, and a parallel's is never longer.
    """
    side_m = 0.01 * _METRES_PER_DEGREE
    return Area(
        lat_deg=position.lat_deg,
        lon_deg=position.lon_deg,
        sigma_m=math.hypot(side_m / math.sqrt(12), position.sigma_m),
    )


def _clock(quality: ClockQuality) -> Clock:
    return Clock(
        source=quality.source,
        sigma_s=quality.sigma_s,
        bound_s=quality.bound_s,
        second_confirmed=quality.second_confirmed,
        holdover_s=quality.holdover_s,
    )
