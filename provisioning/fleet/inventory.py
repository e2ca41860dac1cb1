"""The fleet's inventory: one readable JSON file, changed by one at a time, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from node.errors import ProvisioningError
from node.settings import TopicLevel
from provisioning.est import KINDS, Kind
from provisioning.fleet.files import PUBLIC, locked, moment_of, read, text_of, write

MOST_REFUSALS: Final = 20
"""So many are kept of each name, and of names that nobody knows; all are counted."""

IssuedKind = Literal["mqtt", "signing", "reader", "broker"]
Reason = Literal["stolen", "replaced", "ended"]
State = Literal["invited", "run out", "enrolled", "expired", "revoked", "cloned"]


def _moment(text: str) -> str:
    moment_of(text)
    return text


Moment = Annotated[str, AfterValidator(_moment)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class Revocation(_Part):
    """Since when a certificate does not count, and why."""

    utc: Moment
    reason: Reason
    since_utc: Moment | None = None
    """From when its key is not to be believed, which may be earlier."""


class Issued(_Part):
    """A certificate; itself it lies in issued/<serial>.crt."""

    kind: IssuedKind
    serial: str
    key_sha256: str
    issued_utc: Moment
    not_before_utc: Moment
    not_after_utc: Moment
    key_id: str | None = None
    """Of a signing key: as the node's messages and `gunfire-node check` say it."""
    enrolment_utc: Moment | None = None
    """When the invitation was made that it goes back to."""
    revoked: Revocation | None = None


class Token(_Part):
    """An invitation. Of the token only its hash: whoever reads this cannot enrol."""

    made_utc: Moment
    ends_utc: Moment
    token_sha256: str | None = None
    keys: dict[Kind, str] = Field(default_factory=dict)
    """The first key that came with it, for each kind; it serves no other."""


class Refusal(_Part):
    """Somebody was refused."""

    utc: Moment
    who: str
    why: str


class Member(_Part):
    """A name of the fleet: a node, one who reads, or the broker."""

    role: Literal["node", "reader", "broker"]
    site: TopicLevel
    invitation: Token | None = None
    certificates: list[Issued] = Field(default_factory=list)
    addresses: list[str] = Field(default_factory=list)
    peer: bool = False
    refused: int = 0
    refusals: list[Refusal] = Field(default_factory=list)
    cloned_utc: Moment | None = None
    offline_utc: Moment | None = None
    online_utc: Moment | None = None

    def newest(self, kind: str, key_sha256: str | None = None) -> Issued | None:
        """Give the last certificate of a kind that was issued, over a key if one is given."""
        for issued in reversed(self.certificates):
            if issued.kind == kind and key_sha256 in (None, issued.key_sha256):
                return issued
        return None

    def state(self, now: datetime) -> State:
        """Say how it stands with this name."""
        if self.cloned_utc:
            return "cloned"
        kinds = KINDS if self.role == "node" else (self.role,)
        newest = [self.newest(kind) for kind in kinds]
        have = [issued for issued in newest if issued is not None]
        invited = self.invitation is not None and not self.invitation.keys
        if have and any(issued.revoked for issued in have) and not invited:
            return "revoked"
        if len(have) == len(kinds) and not any(issued.revoked for issued in have):
            held = all(now <= moment_of(issued.not_after_utc) for issued in have)
            return "enrolled" if held else "expired"
        if self.invitation is not None and now > moment_of(self.invitation.ends_utc):
            return "run out"
        return "invited"

    @property
    def enrolled_utc(self) -> str | None:
        """When a certificate was issued to it last."""
        return self.certificates[-1].issued_utc if self.certificates else None

    def refuse(self, refusal: Refusal) -> None:
        """Keep that somebody was refused under this name."""
        self.refused += 1
        self.refusals = [*self.refusals, refusal][-MOST_REFUSALS:]


class Inventory(_Part):
    """All that the fleet's authority remembers."""

    form: Literal["gunfire.inventory/1"] = Field(default="gunfire.inventory/1", alias="schema")
    crl_number: int = 0
    members: dict[TopicLevel, Member] = Field(default_factory=dict)
    strangers_refused: int = 0
    strangers: list[Refusal] = Field(default_factory=list)

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    def refuse(self, name: str, who: str, why: str, now: datetime) -> None:
        """Keep that somebody was refused."""
        member = self.members.get(name)
        if member is not None:
            member.refuse(Refusal(utc=text_of(now), who=who, why=why))
            return
        self.strangers_refused += 1
        told = Refusal(utc=text_of(now), who=f"{who} as {name[:64]!r}", why=why)
        self.strangers = [*self.strangers, told][-MOST_REFUSALS:]


class InventoryFile:
    """The inventory's file, and the lock beside it.

    Parameters
    ----------
    path
        Of the file; the lock is `.lock` in the same folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = path.with_name(".lock")

    def read(self) -> Inventory:
        """Read it as it is now.

        Raises
        ------
        ProvisioningError
            It cannot be read, or is broken; nothing is made in its place.
        """
        data = read(self.path, "is this the fleet's folder (--fleet)?")
        try:
            return Inventory.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise ProvisioningError(
                f"{self.path}: is not as it was written ({where}: {first['msg']}): mend it, or "
                "bring it back from a backup; nothing was changed"
            ) from None

    def make(self, inventory: Inventory) -> None:
        """Write the first one."""
        with locked(self._lock):
            if self.path.exists():
                raise ProvisioningError(f"{self.path}: is there already, and is left alone")
            self._write(inventory)

    @contextmanager
    def change(self) -> Iterator[Inventory]:
        """Give it to be changed; written when the block ends, but for an error, which undoes it."""
        with locked(self._lock):
            inventory = self.read()
            before = _text(inventory)
            yield inventory
            if _text(inventory) != before:
                self._write(inventory)

    def _write(self, inventory: Inventory) -> None:
        write(self.path, _text(inventory).encode(), PUBLIC)


def _text(inventory: Inventory) -> str:
    values = inventory.model_dump(by_alias=True, exclude_none=True)
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
