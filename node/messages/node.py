"""The node: its retained birth certificate, what it is and by which key it signs.

Precise positions stand in it, so its topic is restricted; the coarse one is the status' `area`.
What it says of its key is no proof: a verifier starts from the fleet's CA.
"""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from node.messages.detection import Local, Model, Position
from node.messages.fields import (
    Base64,
    KeyId,
    Message,
    Metres,
    Seconds,
    TopicLevel,
    Utc,
    Uuid,
)

NODE_SCHEMA: Final = "gunfire.node/1"


class Microphone(Message):
    """Where one microphone stands, from the array's middle, as the array is mounted."""

    x_m: Metres = Field(description="East of the array's middle, metres.")
    y_m: Metres = Field(description="North of the array's middle, metres.")
    z_m: Metres = Field(description="Above the array's middle, metres.")


class Array(Message):
    """The microphones, in the order of the card's channels."""

    name: str = Field(min_length=1, max_length=128, description="Name of the array.")
    channels: int = Field(ge=1, description="Microphones heard.")
    sample_rate_hz: int = Field(ge=1, description="Nominal sample rate, hertz.")
    microphones: tuple[Microphone, ...] = Field(
        min_length=1, description="Where each stands, in the order of the channels."
    )

    @model_validator(mode="after")
    def _one_place_for_each_channel(self) -> Self:
        if len(self.microphones) != self.channels:
            raise ValueError(f"{len(self.microphones)} microphones for {self.channels} channels")
        return self


class Key(Message):
    """The public half of the key that the node signs with."""

    algorithm: Literal["Ed25519"] = Field(description="The kind of key (RFC 8032).")
    key_id: KeyId = Field(
        description="First 16 hexadecimal digits of the SHA-256 of the raw public key."
    )
    public_key: Base64 = Field(max_length=64, description="The raw public key, base64.")
    certificate: str | None = Field(
        max_length=16_384,
        description="The node's enrolment certificate over this key, PEM; null before enrolment.",
    )


class Privacy(Message):
    """The settings that bear on privacy, as they are in force."""

    snippets: bool = Field(description="Whether encrypted sound of events is sent.")
    snippet_seconds: Seconds = Field(
        ge=0, description="The most sound that one snippet holds, seconds; 0 while they are off."
    )
    publish_rejected: bool = Field(
        description="Whether detections that are not gunfire are published too."
    )


class Node(Message):
    """What a node is: sent at each connection, and when something of it changes."""

    message_schema: Literal["gunfire.node/1"] = Field(
        alias="schema", description="Names this form; another number would be another contract."
    )
    site: TopicLevel = Field(description="Name of the site.")
    node_id: TopicLevel = Field(description="Name of the node.")
    boot_id: Uuid = Field(description="Names the run of the node.")
    utc: Utc = Field(description="When this was so, by the node's own clock, UTC.")
    firmware: str = Field(min_length=1, max_length=64, description="Version of this software.")
    position: Position | None = Field(description="Where the node stands; null where not known.")
    local: Local | None = Field(
        description="Where it stands in a surveyed local frame; null where there is none."
    )
    array: Array = Field(description="The microphones.")
    model: Model = Field(description="Which classifier judges.")
    key: Key | None = Field(description="The key that it signs with; null without one.")
    privacy: Privacy = Field(description="The settings that bear on privacy.")
    signature: Base64 | None = Field(
        default=None,
        max_length=256,
        description="Ed25519 signature of this message by `key`, base64; null without a key.",
    )
