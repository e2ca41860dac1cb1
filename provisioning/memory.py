"""What a node remembers of its card's file, in `/data/setup/first-boot.json`; root's alone.

First boot writes it when it has applied a file; enrolment and update read in it where to ask, and
whom to trust::

    memory = read_memory(places)
    memory.enrolment.url, memory.enrolment.token, memory.enrolment.ca  # None: no file yet
    memory.update.url, memory.update.root
    memory.node.id, memory.node.site
    forget_token(places)      # once certificates are there

A token that is there is meant to be used, also where there are certificates: the card may stand in
a new board. `forget_token` takes it out of the card's file too, and leaves all else there as it
stands, comments too.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provisioning.first_boot_file import (
    EnrolmentSettings,
    NetworkSettings,
    ReceiverSettings,
    UpdateSettings,
    statements,
)
from provisioning.places import Places
from provisioning.whole import fat_writable, write_whole

FILE: Final = "first-boot.json"
_BOM: Final = b"\xef\xbb\xbf"


class Named(BaseModel):
    """Who the node is."""

    model_config = ConfigDict(frozen=True)

    id: str
    site: str


class Memory(BaseModel):
    """What is remembered.

    Attributes
    ----------
    sha256
        Of the file that was applied last.
    machine
        The board that it was applied on; see provisioning/machine.py.
    token_sha256
        Of the last token that a file brought: another one counts as new, this one never again.
    node, network, receiver, enrolment, update
        As that file had them.
    mdns
        Whether a host that the node needs has a name in .local.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str | None = None
    machine: str | None = None
    token_sha256: str | None = None
    node: Named | None = None
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    receiver: ReceiverSettings = Field(default_factory=ReceiverSettings)
    enrolment: EnrolmentSettings | None = None
    update: UpdateSettings | None = None
    mdns: bool = False


def read_memory(places: Places) -> Memory:
    """Read what is remembered; nothing, where there is none or it is not whole."""
    try:
        return Memory.model_validate_json((places.memory / FILE).read_bytes())
    except (OSError, ValidationError):
        return Memory()


def write_memory(places: Places, memory: Memory) -> None:
    """Remember this.

    Raises
    ------
    OSError
        It could not be written; what was remembered before still is.
    """
    places.memory.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(places.memory / FILE, memory.model_dump_json(indent=1), 0o600)


def forget_token(places: Places) -> None:
    """Take the token out of the card's file and of what is remembered.

    Raises
    ------
    OSError
        The card cannot be written. What is remembered has lost its token all the same; the card's
        is spent, and no boot takes it up again.
    """
    memory = read_memory(places)
    if memory.enrolment is not None and memory.enrolment.token is not None:
        enrolment = memory.enrolment.model_copy(update={"token": None})
        memory = memory.model_copy(update={"enrolment": enrolment})
        write_memory(places, memory)
    try:
        data = places.card_file.read_bytes()
    except FileNotFoundError:
        return
    without = without_token(data)
    if without == data or memory.sha256 != hashlib.sha256(data).hexdigest():
        return  # a file that is not in force yet keeps its own token
    with fat_writable(places):
        write_whole(places.card_file, without, 0o600)
    write_memory(places, memory.model_copy(update={"sha256": hashlib.sha256(without).hexdigest()}))


def without_token(data: bytes) -> bytes:
    """Give a first-boot file without its token; all else as it stands."""
    mark = _BOM if data.startswith(_BOM) else b""
    text = data.removeprefix(_BOM).decode("utf-8", errors="surrogateescape")
    lines = text.split("\n")
    kept: list[str] = []
    done = 0
    for first, last, values, table in statements(text):
        where: Any = values if table != "enrolment" else {"enrolment": values}
        enrolment = where.get("enrolment") if isinstance(where, dict) else None
        if not (isinstance(enrolment, dict) and "token" in enrolment):
            continue
        kept += lines[done : first - 1]
        done = last
        rest = {key: value for key, value in enrolment.items() if key != "token"}
        if rest:  # all of the table in one line
            kept += [f"enrolment.{line}" for line in tomli_w.dumps(rest).strip().split("\n")]
    kept += lines[done:]
    return mark + "\n".join(kept).encode("utf-8", errors="surrogateescape")
