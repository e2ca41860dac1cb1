"""The incident: what several nodes' detections add up to. Where, when, how many rounds, how sure.

The network publishes it, not a node; it is for everybody, so nothing in it places a node.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from node.messages.detection import Scores
from node.messages.fields import (
    Degrees,
    GeographicDegrees,
    Message,
    Metres,
    PerMinute,
    Seconds,
    TopicLevel,
    Utc,
    Uuid,
)
from node.types import Grade

INCIDENT_SCHEMA: Final = "gunfire.incident/1"

# What people read, on one line: nothing that steers a terminal or turns the order of letters.
_PRINTABLE: Final = r"^[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+$"
Sentence = Annotated[str, StringConstraints(pattern=_PRINTABLE, max_length=500)]


class Ellipse(Message):
    """The ellipse on the ground that holds the source with a probability of 95 %."""

    major_m: Metres = Field(ge=0, description="Its longer half axis, metres.")
    minor_m: Metres = Field(ge=0, description="Its shorter half axis, metres.")
    bearing_deg: Degrees = Field(
        ge=0, le=360, description="Bearing of the longer axis, degrees clockwise from true north."
    )


class SourcePosition(Message):
    """Where a shot was fired (WGS 84)."""

    lat_deg: GeographicDegrees = Field(
        ge=-90, le=90, description="Latitude, degrees, north positive."
    )
    lon_deg: GeographicDegrees = Field(
        ge=-180, le=180, description="Longitude, degrees, east positive."
    )
    alt_m: Metres | None = Field(
        ge=-500, le=9000, description="Height above the ellipsoid, metres; null where not known."
    )
    ellipse_95: Ellipse = Field(description="How sure the place is.")


class SourceLocal(Message):
    """Where a shot was fired, in a surveyed local frame."""

    frame: str = Field(min_length=1, max_length=64, description="Name of the frame.")
    x_m: Metres = Field(description="First coordinate, metres (east in an east-north-up frame).")
    y_m: Metres = Field(description="Second coordinate, metres (north in such a frame).")
    z_m: Metres | None = Field(
        description="Third coordinate, metres (up in such a frame); null where not known."
    )
    ellipse_95: Ellipse = Field(description="How sure the place is.")


class IncidentRound(Message):
    """One shot of an incident."""

    utc: Utc = Field(description="When it was fired, at the source, UTC.")
    position: SourcePosition | None = Field(description="Where; null where not known.")
    local: SourceLocal | None = Field(
        description="Where, in a surveyed local frame; null where there is none."
    )


class Witness(Message):
    """A node's part in an incident."""

    node_id: TopicLevel = Field(description="Name of the node.")
    event_id: Uuid = Field(description="The event that it heard, as its detection names it.")
    residual_s: Seconds | None = Field(
        description="Its time of arrival less that of the place found, seconds; null where no "
        "place was found."
    )
    used: bool = Field(description="Whether the place rests on it.")
    grade: Grade | None = Field(
        default=None, description="What its own detection says; null where that is not told."
    )
    doubt: Sentence | None = Field(
        default=None,
        description="What is wrong with its clock or place, as the other nodes show it; null where "
        "nothing is.",
    )


class Incident(Message):
    """What several nodes' detections add up to.

    A message is unique by (`incident_id`, `revision`); the highest revision of an incident wins.
    The keys with a default came later than the others: a message without them is one all the same.
    """

    message_schema: Literal["gunfire.incident/1"] = Field(
        alias="schema", description="Names this form; another number would be another contract."
    )
    incident_id: Uuid = Field(description="Names the incident; the same in every revision.")
    revision: int = Field(ge=0, description="0 at first; each later knowledge of it adds 1.")
    type: Literal["new", "update", "cancel"] = Field(description="What the message does.")
    site: TopicLevel = Field(description="Name of the site.")
    utc: Utc = Field(description="When the first shot was fired, at the source, UTC.")
    sigma_s: Seconds = Field(ge=0, description="Standard error of `utc`, seconds.")
    position: SourcePosition | None = Field(description="Where; null where not known.")
    local: SourceLocal | None = Field(
        description="Where, in a surveyed local frame; null where there is none."
    )
    round_count: int = Field(ge=1, description="How many shots were fired.")
    rounds: tuple[IncidentRound, ...] = Field(
        min_length=1, description="The shots, in order of time."
    )
    cadence_rpm: PerMinute | None = Field(
        default=None,
        ge=0,
        description="Shots a minute; null below three shots, or without a steady rate.",
    )
    grade: Grade = Field(
        description="What the detections together say: gunfire, probable_gunfire or not_gunfire."
    )
    scores: Scores | None = Field(
        default=None, description="The nodes' scores combined; null where that was not done."
    )
    why: Sentence | None = Field(
        default=None,
        description="One sentence for people on what place and grade rest on; programs go by the "
        "other fields.",
    )
    nodes: tuple[Witness, ...] = Field(min_length=1, description="The nodes that heard it.")
    silent_nodes: tuple[TopicLevel, ...] = Field(
        description="Nodes that were up and ought to have heard it, but did not."
    )
    review: Literal["pending", "confirmed", "dismissed", "not_required"] = Field(
        description="What a person who looked at it found, or that nobody has to."
    )
