"""`gunfire-fleet verify`: whether a node is enrolled, online, and signs what it hears."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from node.cli._shared import sentence
from node.errors import IdentityError, ProvisioningError
from node.messages import Detection, Node, Status
from node.messages.trust import Trust
from node.messages.verify import Report, Verifier
from node.network.subscribe import Kind, Word
from node.utc import parse_utc_ns
from provisioning.est import KINDS
from provisioning.fleet.files import moment_of, read
from provisioning.fleet.fleet import Fleet
from provisioning.fleet.inventory import Member

VERIFIER: Final = "verifier"
"""The name that it goes by at the broker."""
READS: Final[tuple[Kind, ...]] = ("status", "node", "detection")
POLL_S: Final = 0.5
NOW_S: Final = 60.0
"""So far a detection's time may be from ours: what is older may be a recording of the node."""
_NEVER: Final = ("expired", "revoked", "cloned", "run out")
"""States of a member that waiting does not change."""


def member_of(fleet: Fleet, name: str) -> tuple[Member, str]:
    """Give a node, and why it is not enrolled: with what its last invitation has brought it.

    Raises
    ------
    ProvisioningError
        There is no such node.
    """
    member = fleet.inventory.read().members.get(name)
    if member is None or member.role != "node":
        raise ProvisioningError(
            f"{name}: is no node of this fleet; gunfire-fleet list names them, and "
            f"gunfire-fleet invite {name} invites one"
        )
    now, invitation = fleet.clock(), member.invitation
    state: str = member.state(now)
    if invitation is not None and not invitation.keys and now > moment_of(invitation.ends_utc):
        invitation = None  # nobody has used it, and nobody can
    if invitation is not None and state != "cloned":
        newest = [member.newest(kind) for kind in KINDS]
        if any(i is None or i.enrolment_utc != invitation.made_utc for i in newest):
            # Whatever it had before is of another box, or another card.
            state = f"invited on {invitation.made_utc}"
    if state == "enrolled":
        return member, ""
    since = "" if invitation is None else invitation.made_utc
    refused = [refusal for refusal in member.refusals if refusal.utc >= since]
    return member, f"{state}, and not enrolled" + (
        f"; refused last: {refused[-1].why}" if refused else ""
    )


def wait_for_enrolment(
    fleet: Fleet, name: str, until_s: float, tell: Callable[[str], None]
) -> Member | None:
    """Wait until a node is enrolled, until a moment of the monotonic clock; None if it is not.

    `tell` hears what is waited for; raises as `member_of`.
    """
    said = ""
    while True:
        member, lacks = member_of(fleet, name)
        if not lacks:
            return member
        if lacks != said:
            said = lacks
            tell(lacks)
        if lacks.startswith(_NEVER) or time.monotonic() >= until_s:
            return None
        time.sleep(POLL_S)


def key_of(member: Member) -> str:
    """Give the id of the key that a node signs with."""
    signing = member.newest("signing")
    return signing.key_id or "" if signing is not None else ""


@dataclass
class Proof:
    """What a node has shown so far; takes its words as they come.

    Parameters
    ----------
    key_id
        Of the key that it was enrolled with: words of another box under its name do not count.
    utc_now_s
        This machine's clock, s since 1970.
    tell
        Told in a sentence what is new.
    settle_s
        So long a node that is heard may say that something is wrong.
    """

    key_id: str
    utc_now_s: Callable[[], float]
    tell: Callable[[str], None]
    settle_s: float
    _status: Status | None = field(default=None, init=False)
    _birth: tuple[Node, bytes] | None = field(default=None, init=False)
    _heard: tuple[Detection, bytes] | None = field(default=None, init=False)
    _heard_s: float = field(default=0.0, init=False)
    _said: str = field(default="", init=False)
    _told: set[str] = field(default_factory=set, init=False)

    def take(self, word: Word) -> None:
        """Take a word: the last status, the last birth and the first detection of its run count."""
        match word.message:
            case Status() as status:
                so_far = f" so far: {'; '.join(status.reasons)}" if status.reasons else ""
                said = f"{status.state}{so_far}"
                # A count that has grown is no news.
                if (form := re.sub(r"\d+", "0", said)) != self._said:
                    self._said = form
                    self.tell(said)
                self._status = status
            case Node() as birth:
                self._take_birth(birth, word.payload)
            case Detection() as detection if word.is_news and not self._is_heard:
                self._take_detection(detection, word.payload)
            case _:
                pass

    @property
    def waits_for(self) -> str:
        """What is missing, and what to do about it; nothing where all is there."""
        status, birth = self._status, self._birth
        of_another = status and birth and status.boot_id != birth[0].boot_id
        if status is None or status.state == "offline" or of_another:
            return "the node at the broker: is it switched on, and has it network?"
        if birth is None:
            return (
                "its birth certificate (if it does not come: provisioning/broker/set-up brings the "
                "broker's access list up to date)"
            )
        return (
            ""
            if self._is_heard
            else "a detection with its time: clap once at the node (any sound counts)"
        )

    @property
    def degraded(self) -> str:
        """What the node says is wrong; nothing where nothing is."""
        if self._status is None or self._status.state == "online":
            return ""
        return "; ".join(self._status.reasons) or self._status.state

    @property
    def settles(self) -> bool:
        """Whether what is wrong may yet go away by itself."""
        return bool(self.degraded) and time.monotonic() < self._heard_s + self.settle_s

    def report(self, trust: Trust) -> Report:
        """Judge the signature of what was heard by the certificate that came with the birth."""
        verifier = Verifier(trust)
        lines = [said[1] for said in (self._birth, self._heard) if said is not None]
        for line in lines:
            verifier.gather(line)
        for number, line in enumerate(lines, 1):
            verifier.take(line, number)
        return verifier.report()

    @property
    def _is_heard(self) -> bool:
        if self._birth is None or self._heard is None:
            return False
        return self._heard[0].boot_id == self._birth[0].boot_id

    def _take_birth(self, birth: Node, payload: bytes) -> None:
        if birth.key is None or birth.key.certificate is None:
            return  # another follows as soon as it has taken its certificate up
        if birth.key.key_id != self.key_id:
            self._once(
                f"another box says that it is {birth.node_id}, with the key {birth.key.key_id}: "
                "one that this replaces is to be off, and revoked: gunfire-fleet revoke "
                f"{birth.node_id} --old"
            )
            return
        self._birth = (birth, payload)

    def _take_detection(self, detection: Detection, payload: bytes) -> None:
        """Take one that says when: by a clock that is set, and just now."""
        if detection.clock.source == "free":
            self._once("heard something, by a clock that nobody has set: does not count")
            return
        off_s = parse_utc_ns(detection.onset_utc) / 1e9 - self.utc_now_s()
        if abs(off_s) > NOW_S:
            self._once(
                f"heard something that is {off_s:+.0f} s from this machine's clock: does not "
                "count; see both clocks"
            )
            return
        self._heard, self._heard_s = (detection, payload), time.monotonic()
        self.tell(f"heard: {sentence(detection)}")

    def _once(self, said: str) -> None:
        if said not in self._told and len(self._told) < 16:
            self._told.add(said)
            self.tell(said)


def trust_of(fleet: Fleet) -> Trust:
    """Trust what the fleet's CA has certified, and has not revoked."""
    ca, crl = fleet.folder / "ca.crt", fleet.folder / "crl.pem"
    advice = "run this as who owns the fleet's folder"
    authority = read(ca, advice)
    try:
        return Trust.of_authority(authority, read(crl, advice))
    except IdentityError as error:
        raise ProvisioningError(
            f"{ca}, {crl}: {error}: gunfire-fleet renew writes the list"
        ) from None
