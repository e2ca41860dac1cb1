"""From what the stages found to a message: pure, called at the end of the pipeline.

In come an event, the instants of its impulses, the judgement and the clock; out goes a detection
that lacks only its number, which the outbox gives when it is made durable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from node.messages.detection import (
    DETECTION_SCHEMA,
    Audio,
    Clock,
    Detection,
    Local,
    Model,
    Position,
    Round,
    Scores,
    Thresholds,
)
from node.messages.identity import event_id
from node.messages.status import STATUS_SCHEMA, OutboxStatus, State, Status
from node.types import ClockQuality, Event, Instant, Judgement, ModelIdentity
from node.utc import utc_text


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
    instants: Sequence[Instant],
    judgement: Judgement,
    clock: ClockQuality,
    model: ModelIdentity,
    *,
    sample_rate_hz: int,
    channels: int,
    seq: int = 1,
) -> Detection:
    """Build the first message on an event.

    Parameters
    ----------
    instants
        UTC of each impulse of `event`, in the same order.
    seq
        The detection's number, ≥ 1. One that goes through the outbox is numbered there:
        see `numbered`.

    Notes
    -----
    `rounds` lists every arrival. Echoes are not told from shots yet, so the count is one, and
    called a minimum wherever more arrived or samples were lost (decision 0004). Cadence and
    direction are not measured yet and so are null.
    """
    if len(instants) != len(event.impulses):
        raise ValueError(f"{len(instants)} instants for {len(event.impulses)} impulses")
    rounds = tuple(
        Round(
            utc=utc_text(instant.utc_ns),
            sigma_s=instant.sigma_s,
            snr_db=impulse.snr_db,
            peak_dbfs=impulse.peak_dbfs,
            peak_db_spl=None,
        )
        for impulse, instant in zip(event.impulses, instants, strict=True)
    )
    scores = judgement.scores
    return Detection(
        schema=DETECTION_SCHEMA,
        event_id=event_id(origin.node_id, origin.boot_id, event.first_sample),
        revision=0,
        type="new",
        site=origin.site,
        node_id=origin.node_id,
        boot_id=origin.boot_id,
        seq=seq,
        onset_utc=rounds[0].utc,
        rounds=rounds,
        round_count=1,
        round_count_is_minimum=len(rounds) > 1 or event.lost_samples > 0,
        cadence_rpm=None,
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
        direction=None,
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
    )


def _clock(quality: ClockQuality) -> Clock:
    return Clock(
        source=quality.source,
        sigma_s=quality.sigma_s,
        bound_s=quality.bound_s,
        second_confirmed=quality.second_confirmed,
        holdover_s=quality.holdover_s,
    )
