"""What the fleet gives to whoever makes a node's card: one JSON file, with a one-time token in it.

Written beside the broker by `gunfire-fleet invite`, read on the laptop by `gunfire-card new
--invitation`. Neither needs the other's program: only this file passes between them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from node.errors import ProvisioningError
from node.settings import BrokerUrl, TopicLevel
from provisioning.words import authority, https_url, token, tuf_root

SCHEMA: Final = "gunfire.invitation/1"
LARGEST_BYTES: Final = 256 * 1024

HttpsUrl = Annotated[str, AfterValidator(https_url)]
Token = Annotated[str, AfterValidator(token)]
Authority = Annotated[str, AfterValidator(authority)]
TufRoot = Annotated[str, AfterValidator(tuf_root)]


def _broker_with_tls(url: str) -> str:
    if not url.startswith("mqtts://"):
        raise ValueError(
            "must start with mqtts://: a node that is enrolled proves who it is by TLS"
        )
    return url


class Invitation(BaseModel):
    """One node's way into the fleet.

    Attributes
    ----------
    enrolment_url
        Where certificates are asked for (EST); None where the node cannot reach it, and its
        request is carried by hand.
    token
        One-time, for this node and site alone; None where requests are carried by hand.
    expires_utc
        When the token ends, RFC 3339.
    ca
        The fleet's CA certificate, PEM.
    update_url, update_root
        Where releases are, and the first TUF root (JSON) that they are trusted by.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    format: Literal["gunfire.invitation/1"] = Field(default=SCHEMA, alias="schema")
    node_id: TopicLevel
    site: TopicLevel
    broker: Annotated[BrokerUrl, AfterValidator(_broker_with_tls)]
    ca: Authority
    enrolment_url: HttpsUrl | None = None
    token: Token | None = None
    expires_utc: str | None = None
    update_url: HttpsUrl | None = None
    update_root: TufRoot | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one from its file.

        Raises
        ------
        ProvisioningError
            It cannot be read, or is no invitation.
        """
        again = "have it made anew: gunfire-fleet invite"
        try:
            with path.open("rb") as file:
                data = file.read(LARGEST_BYTES + 1)
        except OSError as error:
            raise ProvisioningError(
                f"{path}: cannot be read: {error.strerror}; name the file that `gunfire-fleet "
                "invite` wrote"
            ) from None
        if len(data) > LARGEST_BYTES:
            raise ProvisioningError(f"{path}: is too large for an invitation; {again}")
        try:
            values: Any = json.loads(data)
            return cls.model_validate(values)
        except ValidationError as error:
            told = [
                f"{'.'.join(map(str, problem['loc'])) or 'the whole'}: "
                f"{problem['msg'].removeprefix('Value error, ')}"
                for problem in error.errors(include_input=False)
            ]
            raise ProvisioningError(
                "\n".join(f"{path}: {line}; {again}" for line in told)
            ) from None
        except (ValueError, RecursionError):
            raise ProvisioningError(f"{path}: is no JSON; {again}") from None

    def text(self) -> str:
        """Write it; for its owner alone, since it holds a token."""
        return json.dumps(self.model_dump(by_alias=True, exclude_none=True), indent=2) + "\n"
