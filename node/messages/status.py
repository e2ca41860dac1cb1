"""The status: a node's retained word on itself, and the last will that the broker speaks for it."""

from typing import Final, Literal

from pydantic import Field

from node.messages.detection import Clock
from node.messages.fields import CoarseDegrees, Message, Metres, TopicLevel, Utc, Uuid

STATUS_SCHEMA: Final = "gunfire.status/1"

State = Literal["online", "degraded", "offline"]


class OutboxStatus(Message):
    """What waits on the node's disk."""

    depth: int = Field(ge=0, description="Detections that the broker has not acknowledged.")
    dropped: int = Field(
        ge=0, description="Detections that the outbox had to drop, full or too old, for life."
    )


class Area(Message):
    """Roughly where a node stands: for everybody."""

    lat_deg: CoarseDegrees = Field(
        ge=-90, le=90, description="Latitude to a hundredth of a degree, north positive."
    )
    lon_deg: CoarseDegrees = Field(
        ge=-180, le=180, description="Longitude to a hundredth of a degree, east positive."
    )
    sigma_m: Metres = Field(ge=0, description="Standard error that the rounding leaves, metres.")


class Status(Message):
    """How a node is now.

    The last will is lodged with the broker before its time comes, so what it cannot know then
    (`clock`, `lost_samples`, `outbox`) is null in it, and its `utc` is when it was lodged.
    """

    message_schema: Literal["gunfire.status/1"] = Field(
        alias="schema", description="Names this form; another number would be another contract."
    )
    site: TopicLevel = Field(description="Name of the site.")
    node_id: TopicLevel = Field(description="Name of the node.")
    boot_id: Uuid = Field(
        description="Names the run of the node: an offline of an older run is no news."
    )
    utc: Utc = Field(description="When this was so, by the node's own clock, UTC.")
    state: State = Field(
        description="online: hears and publishes; degraded: something is wrong, see reasons; "
        "offline: stopped or cut off."
    )
    reasons: tuple[str, ...] = Field(
        max_length=32, description="Sentences: what is wrong, and what to do about it."
    )
    clock: Clock | None = Field(description="The clock now; null in the last will.")
    firmware: str = Field(min_length=1, max_length=64, description="Version of this software.")
    lost_samples: int | None = Field(
        ge=0, description="Frames lost since this run began; null in the last will."
    )
    outbox: OutboxStatus | None = Field(description="The outbox now; null in the last will.")
    area: Area | None = Field(
        default=None,
        exclude_if=lambda area: area is None,
        description="Roughly where the node stands; absent where it has no position to tell.",
    )
