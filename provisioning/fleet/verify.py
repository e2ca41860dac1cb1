"""`gunfire-fleet verify`: whether a node is enrolled, online, and signs what it hears."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from node.cli._shared import sentence
from node.errors import IdentityError, ProvisioningError
from node.messages import Detection, Node, Status
from node.messages.trust import Trust
from node.messages.verify import Report, Verifier
from node.network.subscribe import Kind, Word
from provisioning.fleet.files import SECRET, own, read
from provisioning.fleet.fleet import Fleet
from provisioning.fleet.inventory import Member

VERIFIER: Final = "verifier"
"""The name that it goes by at the broker."""
READS: Final[tuple[Kind, ...]] = ("status", "node", "detection")
POLL_S: Final = 0.5
SETTLES_S: Final = 90.0
"""So long a node that is heard may say that something is wrong: chrony needs a minute."""
_NEVER: Final = ("expired", "revoked", "cloned", "run out")
"""States of a member that waiting does not change."""


def enrolled(fleet: Fleet, name: str, until_s: float, tell: Callable[[str], None]) -> Member | None:
    """Wait until a node is enrolled, until a moment of the monotonic clock; None if it is not.

    `tell` hears in a sentence what is waited for, and why a node is not enrolled.

    Raises
    ------
    ProvisioningError
        There is no such node.
    """
    said = ""
    while True:
        member = fleet.inventory.read().members.get(name)
        if member is None or member.role != "node":
            raise ProvisioningError(
                f"{name}: is no node of this fleet; gunfire-fleet list names them, and "
                f"gunfire-fleet invite {name} invites one"
            )
        state = member.state(fleet.clock())
        if state == "enrolled":
            return member
        refused = f"; refused last: {member.refusals[-1].why}" if member.refusals else ""
        sentence = f"{state}: not enrolled{refused}"
        if sentence != said:
            said = sentence
            tell(sentence)
        if state in _NEVER or time.monotonic() >= until_s:
            return None
        time.sleep(POLL_S)


def trust_of(fleet: Fleet) -> Trust:
    """Trust what the fleet's CA has certified, and has not revoked."""
    ca, crl = fleet.folder / "ca.crt", fleet.folder / "crl.pem"
    advice = "run this as who owns the fleet's folder"
    try:
        return Trust.of_authority(read(ca, advice), read(crl, advice))
    except IdentityError as error:
        raise ProvisioningError(f"{crl}: {error}: gunfire-fleet renew writes it anew") from None


@dataclass
class Proof:
    """What a node has shown so far; takes its words as they come.

    Parameters
    ----------
    trust
        Whose signatures count.
    tell
        Told in a sentence what is new.
    """

    trust: Trust
    tell: Callable[[str], None]
    heard: Detection | None = None
    _heard_s: float = 0.0
    _status: Status | None = None
    _birth: bytes = b""
    _signed: bytes = b""
    _said: list[str] = field(default_factory=list)

    def take(self, word: Word) -> None:
        """Take a word: the last status and birth count, and the first detection that is news.

        One whose time is of a clock that nobody has set says no when, and does not count.
        """
        match word.message:
            case Status() as status:
                self._status = status
                reasons = "; ".join(status.reasons)
                self._tell(f"{status.state}: {reasons}" if reasons else status.state)
            case Node():
                self._birth = word.payload
            case Detection() as detection if (
                self.heard is None and word.is_news and detection.clock.source != "free"
            ):
                self.heard, self._signed = detection, word.payload
                self._heard_s = time.monotonic()
                self.tell(f"heard: {sentence(detection)}")
            case _:
                pass

    @property
    def waits_for(self) -> str:
        """What is missing, and what to do about it; nothing where all is there."""
        if self._status is None or self._status.state == "offline":
            return "the node at the broker: is it switched on, and has it network?"
        if not self._birth:
            return "its birth certificate (the topic node)"
        return "" if self.heard is not None else "a detection with its time: clap once at the node"

    @property
    def degraded(self) -> str:
        """What the node says is wrong; nothing where nothing is."""
        if self._status is None or self._status.state == "online":
            return ""
        return "; ".join(self._status.reasons) or self._status.state

    @property
    def settles(self) -> bool:
        """Whether what is wrong may yet go away by itself."""
        return bool(self.degraded) and time.monotonic() < self._heard_s + SETTLES_S

    def report(self) -> Report:
        """Judge the signature of what was heard by the certificate that came with the birth."""
        verifier = Verifier(self.trust)
        lines = (self._birth, self._signed)
        for line in lines:
            verifier.gather(line)
        for number, line in enumerate(lines, 1):
            verifier.take(line, number)
        return verifier.report()

    def _tell(self, sentence: str) -> None:
        if self._said[-1:] != [sentence]:
            self._said.append(sentence)
            self.tell(sentence)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only one: a broker lets each name in once, and two would throw each other out."""
    lock = folder / ".verify.lock"
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET)
    except OSError as error:
        raise ProvisioningError(f"{lock}: cannot be opened: {error.strerror}") from None
    try:
        own(descriptor, folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ProvisioningError(
                f"{folder}: somebody else verifies a node just now: wait until that has ended"
            ) from None
        yield
    finally:
        os.close(descriptor)
