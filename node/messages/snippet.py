"""The snippet: the encrypted sound of one event, sent only where the owner has switched it on.

Only the holder of the owner's private key can hear it; the detection of the same event names its
hash, and so its signature covers it.
"""

import base64
import hashlib
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from node.messages.fields import Base64, Message, PositiveSeconds, Sha256, TopicLevel, Uuid

SNIPPET_SCHEMA: Final = "gunfire.snippet/1"


class SnippetMessage(Message):
    """The encrypted sound of one event."""

    message_schema: Literal["gunfire.snippet/1"] = Field(
        alias="schema", description="Names this form; another number would be another contract."
    )
    site: TopicLevel = Field(description="Name of the site.")
    node_id: TopicLevel = Field(description="Name of the node.")
    event_id: Uuid = Field(description="The event that was heard, as its detection names it.")
    revision: int = Field(ge=0, description="The revision of the detection that names this sound.")
    sha256: Sha256 = Field(
        description="SHA-256 of the encrypted sound, lower-case hexadecimal; the detection's too."
    )
    seconds: PositiveSeconds = Field(gt=0, description="Its length, seconds.")
    media: Literal["audio/flac"] = Field(description="What it is once decrypted.")
    encryption: Literal["age"] = Field(description="How it is encrypted (age-encryption.org/v1).")
    data: Base64 = Field(min_length=4, description="The encrypted sound, base64.")

    @model_validator(mode="after")
    def _the_sound_is_the_one_named(self) -> Self:
        if hashlib.sha256(base64.b64decode(self.data)).hexdigest() != self.sha256:
            raise ValueError("sha256 is not that of the data")
        return self
