"""The checkpoint: how far a node's chain has come, signed, so that a cut tail shows elsewhere.

Cumulative: the newest tells all that the ones before it told, every gap in the chain with them.
"""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from node.messages.fields import Base64, KeyId, Message, Sha256, TopicLevel, Utc, Uuid

CHECKPOINT_SCHEMA: Final = "gunfire.checkpoint/1"


class Gap(Message):
    """Numbers of the chain that a log may lack although nobody took them out."""

    from_seq: int = Field(ge=1, description="The first number that may be missing.")
    to_seq: int = Field(ge=1, description="The last number that may be missing.")
    count: int | None = Field(
        ge=0,
        description="How many detections the node gave up; null where that is not known.",
    )
    reason: Literal["dropped", "lost"] = Field(
        description="dropped: the outbox gave up its oldest, to make room or as too old; lost: the "
        "outbox itself was lost."
    )

    @model_validator(mode="after")
    def _runs_forward(self) -> Self:
        numbers = self.to_seq - self.from_seq + 1
        if numbers < 1:
            raise ValueError(f"from_seq {self.from_seq} lies after to_seq {self.to_seq}")
        if self.count is not None and self.count > numbers:
            raise ValueError(f"count {self.count} is more than the {numbers} numbers of the gap")
        return self


class Checkpoint(Message):
    """How far a node's chain has come."""

    message_schema: Literal["gunfire.checkpoint/1"] = Field(
        alias="schema", description="Names this form; another number would be another contract."
    )
    site: TopicLevel = Field(description="Name of the site.")
    node_id: TopicLevel = Field(description="Name of the node.")
    boot_id: Uuid = Field(description="Names the run of the node.")
    utc: Utc = Field(description="When this was so, by the node's own clock, UTC.")
    seq: int = Field(ge=0, description="The last number given; 0 before the first detection.")
    head: Sha256 = Field(
        description="SHA-256 of the signed form of the detection with that number; the next one's "
        "prev_hash. 64 zeros before the first."
    )
    gaps: tuple[Gap, ...] = Field(
        description="Every gap in the chain so far, in rising order; empty where there is none."
    )
    key_id: KeyId = Field(description="Names the key that signed, as in the node's message.")
    signature: Base64 | None = Field(
        default=None,
        max_length=256,
        description="Ed25519 signature of this message, base64; null until it is signed.",
    )
