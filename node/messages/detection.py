"""The detection: what one node measured of one event. A measurement, not an alarm.

Every key is always there and null where the value is not known, except `transport`, `prev_hash`
and `signature`, which only sending and signing can add and which a replay leaves out. Field names
are a contract with every subscriber (docs/look-up/messages.md); tests/contract holds them.
"""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from node.messages.fields import (
    Decibels,
    Degrees,
    GeographicDegrees,
    Message,
    Metres,
    PerMinute,
    PositiveSeconds,
    Probability,
    Seconds,
    Sha256,
    TopicLevel,
    Utc,
    Uuid,
)
from node.types import ClockSource, Grade, Label

DETECTION_SCHEMA: Final = "gunfire.detection/1"

# Four scores, each rounded to six decimals, may miss 1 by two of the last digit; the rest is slack
# for scores that other software has rounded harder.
_SUM_SLACK: Final = 1e-4


class Round(Message):
    """One round: the first arrival of a shot (or a burst, or a slam), echoes left out."""

    utc: Utc = Field(description="Onset at the reference microphone (channel 0), UTC.")
    sigma_s: Seconds = Field(ge=0, description="Standard error of `utc`, seconds.")
    snr_db: Decibels = Field(
        description="Peak over the background's rms in the trigger band, decibels."
    )
    peak_dbfs: Decibels = Field(
        description="Peak of the loudest channel, decibels relative to full scale."
    )
    peak_db_spl: Decibels | None = Field(
        description="Peak sound pressure level, decibels re 20 µPa; null where not calibrated."
    )


class Scores(Message):
    """Calibrated class probabilities; they sum to 1."""

    gunfire: Probability = Field(description="Probability of gunfire, 0 to 1.")
    fireworks: Probability = Field(description="Probability of fireworks, 0 to 1.")
    backfire: Probability = Field(description="Probability of an engine's backfire, 0 to 1.")
    other: Probability = Field(description="Probability of anything else, 0 to 1.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.gunfire + self.fireworks + self.backfire + self.other
        if abs(total - 1) > _SUM_SLACK:
            raise ValueError(f"scores sum to {total:.6f}, not to 1")
        return self


class Thresholds(Message):
    """The thresholds on `scores.gunfire` that the model file carries; they make the grade."""

    gunfire: Probability = Field(description="At or above it the grade is gunfire, 0 to 1.")
    probable: Probability = Field(
        description="At or above it the grade is probable_gunfire, 0 to 1."
    )


class Clock(Message):
    """What disciplines the node's clock, and how far off it may be."""

    source: ClockSource = Field(
        description="What disciplines it: pps, gps, ntp, or free where nothing does."
    )
    sigma_s: Seconds = Field(ge=0, description="Standard error of the clock, seconds.")
    bound_s: Seconds | None = Field(
        ge=0, description="Largest error of the clock, seconds; null where nothing vouches for it."
    )
    second_confirmed: bool = Field(
        description="Whether a second source agrees on the whole second."
    )
    holdover_s: Seconds = Field(ge=0, description="Time since its source was last heard, seconds.")


class Position(Message):
    """Where the node stands (WGS 84)."""

    lat_deg: GeographicDegrees = Field(
        ge=-90, le=90, description="Latitude, degrees, north positive."
    )
    lon_deg: GeographicDegrees = Field(
        ge=-180, le=180, description="Longitude, degrees, east positive."
    )
    alt_m: Metres = Field(ge=-500, le=9000, description="Height above the ellipsoid, metres.")
    sigma_m: Metres = Field(ge=0, description="Standard error of the position, metres.")


class Local(Message):
    """Where the node stands in a surveyed local frame."""

    frame: str = Field(min_length=1, max_length=64, description="Name of the frame.")
    x_m: Metres = Field(description="First coordinate, metres (east in an east-north-up frame).")
    y_m: Metres = Field(description="Second coordinate, metres (north in such a frame).")
    z_m: Metres = Field(description="Third coordinate, metres (up in such a frame).")
    sigma_m: Metres | None = Field(
        ge=0, description="Standard error of the position, metres; null where the survey is silent."
    )


class Direction(Message):
    """Where the sound came from, as seen from the node."""

    azimuth_deg: Degrees = Field(
        ge=0, le=360, description="Azimuth, degrees clockwise from true north."
    )
    elevation_deg: Degrees | None = Field(
        ge=-90, le=90, description="Elevation, degrees; null where the array cannot tell."
    )
    sigma_deg: Degrees = Field(
        ge=0,
        le=180,
        description="Standard error along each axis of the sky, degrees: a cone of 2.45 sigma "
        "holds 95 %; where elevation_deg is null, 1.96 sigma of azimuth do.",
    )
    airborne_probability: Probability | None = Field(
        description="Probability that the source was in the air, 0 to 1; null where not known."
    )


class Audio(Message):
    """What the samples were like that the event was judged on."""

    sample_rate_hz: int = Field(ge=1, description="Nominal sample rate, hertz.")
    channels: int = Field(ge=1, description="Channels heard.")
    lost_samples: int = Field(
        ge=0, description="Frames lost inside the stretch that the event was judged on."
    )
    clipped: bool = Field(
        description="Whether an impulse reached full scale: its level is then a minimum."
    )


class Model(Message):
    """A classifier, so exactly that its model card can be found."""

    name: str = Field(min_length=1, max_length=128, description="Name of the model.")
    version: str = Field(min_length=1, max_length=64, description="Version of the model.")
    sha256: Sha256 = Field(description="SHA-256 of the model file, lower-case hexadecimal.")


class Snippet(Message):
    """The encrypted sound of the event, if the owner has switched it on."""

    sha256: Sha256 = Field(description="SHA-256 of the encrypted snippet, lower-case hexadecimal.")
    seconds: PositiveSeconds = Field(gt=0, description="Its length, seconds.")


class Transport(Message):
    """What only sending can know; outside the signature."""

    published_utc: Utc = Field(description="When this copy was handed to the broker, UTC.")
    delayed: bool = Field(
        description="Whether it had to wait on disk or was sent before, so that it is not news."
    )


class Detection(Message):
    """One event as one node heard it.

    A message is unique by (`event_id`, `revision`); the highest revision of an event wins.
    """

    message_schema: Literal["gunfire.detection/1"] = Field(
        alias="schema", description="Names this form; another number would be another contract."
    )
    event_id: Uuid = Field(
        description="UUIDv5 of node_id, boot_id and the first sample; the same in every revision."
    )
    revision: int = Field(ge=0, description="0 at first; each later knowledge of the event adds 1.")
    type: Literal["new", "update", "cancel"] = Field(description="What the message does.")
    site: TopicLevel = Field(description="Name of the site.")
    node_id: TopicLevel = Field(description="Name of the node.")
    boot_id: Uuid = Field(description="Names the run of the node in which it heard the event.")
    seq: int = Field(ge=1, description="Counts the node's detections for life, from 1.")
    onset_utc: Utc = Field(description="Onset of the first round, UTC.")
    rounds: tuple[Round, ...] = Field(
        min_length=1, description="The rounds, in order of time; echoes are left out."
    )
    round_count: int = Field(ge=1, description="How many rounds were told from their echoes.")
    round_count_is_minimum: bool = Field(
        description="Whether there may have been more: a second shooter, one arrival over another, "
        "samples that were lost."
    )
    cadence_rpm: PerMinute | None = Field(
        ge=0, description="Rounds a minute; null below three rounds, or without a steady rate."
    )
    label: Label = Field(description="The likeliest class.")
    abstained: bool = Field(description="Whether the classifier declined to name a class.")
    grade: Grade = Field(
        description="From scores.gunfire by the two thresholds: gunfire, probable_gunfire or "
        "not_gunfire."
    )
    scores: Scores = Field(description="Calibrated class probabilities.")
    thresholds: Thresholds = Field(description="The thresholds that make the grade.")
    clock: Clock = Field(description="What the times may be trusted for.")
    position: Position | None = Field(description="Where the node stands; null where not known.")
    local: Local | None = Field(
        description="Where it stands in a surveyed local frame; null where there is none."
    )
    direction: Direction | None = Field(
        description="Where the sound came from; null until the channel order is proven."
    )
    audio: Audio = Field(description="What the samples were like.")
    model: Model = Field(description="Which classifier judged.")
    firmware: str = Field(min_length=1, max_length=64, description="Version of this software.")
    snippet: Snippet | None = Field(description="The encrypted sound; null unless switched on.")
    prev_hash: Sha256 | None = Field(
        default=None,
        description="SHA-256 of the signed form before it in the chain; null where not signed.",
    )
    signature: str | None = Field(
        default=None,
        max_length=256,
        description="Ed25519 signature over the signed form, base64; null where not signed.",
    )
    transport: Transport | None = Field(
        default=None, description="What only sending can know; null before it is sent."
    )

    @model_validator(mode="after")
    def _onset_is_the_first_round(self) -> Self:
        if self.onset_utc != self.rounds[0].utc:
            raise ValueError("onset_utc is not the time of the first round")
        return self
