"""The fleet: who belongs to it, who is let in, and who no longer is.

All decisions are here, and nothing of how they are asked for: the server (EST), the command line
and what is carried by hand call the same methods. What is refused is kept in the inventory.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from node.errors import ProvisioningError
from node.messages.signing import key_id
from node.messages.trust import UNREADABLE
from node.settings import BrokerUrl, TopicLevel
from provisioning.est import (
    KINDS,
    CarriedRequest,
    CarriedResponse,
    Kind,
    key_print,
    pem,
    read_request,
    see_that_fits,
)
from provisioning.est import name as subject
from provisioning.fleet.authority import EARLIER, Authority, Use, private_pem
from provisioning.fleet.files import (
    PUBLIC,
    SECRET,
    make_folder,
    moment_of,
    now,
    read,
    text_of,
    write,
)
from provisioning.fleet.inventory import (
    Inventory,
    InventoryFile,
    Issued,
    IssuedKind,
    Member,
    Reason,
    Revocation,
    Token,
)
from provisioning.invitation import Invitation
from provisioning.words import host_name, https_url

RESERVED: Final = ("operator", "map", "auditor", "evidence", "verifier", "broker", "fleet")
"""Names that the broker's access list knows, and so no node's; `fleet` is who watches."""
OWN: Final = "ca"
"""The name of the fleet's own key and certificate in its folder, and so nobody's."""
DAYS: Final = 730
CRL_DAYS: Final = 30
INVITED_DAYS: Final = 14
RENEWED_WITHIN: Final = 0.5
"""A certificate is renewed in this last part of its life; a node asks in the last third."""
_TOKEN_BYTES: Final = 24
_NOBODYS_HASH: Final = "0" * 64

_KINDS: Final[dict[str, IssuedKind]] = {"node": "mqtt", "reader": "reader", "broker": "broker"}

_Judged = TypeVar("_Judged")
Clock = Callable[[], datetime]


class RefusedError(Exception):
    """Why somebody gets no certificate, with the status that HTTP has for it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class FleetSettings(BaseModel):
    """What fleet.toml says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: TopicLevel
    broker: BrokerUrl
    enrolment: Annotated[str, AfterValidator(https_url)] | None = None
    update: Annotated[str, AfterValidator(https_url)] | None = None
    certificate_days: int = Field(default=DAYS, ge=1, le=3650)
    crl_days: int = Field(default=CRL_DAYS, ge=1, le=365)


_SETTINGS: Final = """\
# Of `gunfire-fleet`. How nodes reach what stands beside it; what is absent, invitations lack.
site = "{site}"                  # of invitations without --site
broker = "mqtts://{host}:8883"
enrolment = "https://{host}:8885"
update = "https://{host}:8885/releases"
certificate_days = {days}          # a node renews its own when a third is left
crl_days = {crl_days}                  # renewed daily: gunfire-fleet renew
"""


@dataclass(frozen=True)
class Fleet:
    """A fleet's folder, and what can be done with it."""

    folder: Path
    settings: FleetSettings
    authority: Authority
    inventory: InventoryFile
    clock: Clock = now

    @classmethod
    def make(
        cls, folder: Path, names: Sequence[str], site: str, common_name: str, clock: Clock = now
    ) -> Fleet:
        """Make a fleet: authority, broker's certificate, empty list of what is revoked.

        Where a cut ended this half-way, it goes on, with the authority that is there.

        Raises
        ------
        ProvisioningError
            There is one already, or a name is none.
        """
        for address in names:
            _host(address)
        host = f"[{names[0]}]" if ":" in names[0] else names[0]
        text = _SETTINGS.format(site=site, host=host, days=DAYS, crl_days=CRL_DAYS)
        settings = _parsed(folder / "fleet.toml", text.encode())
        inventory = InventoryFile(folder / "inventory.json")
        if not _may_be_made(folder, inventory):
            raise ProvisioningError(
                f"{folder}: is a fleet's folder already, and is left alone: give another --fleet; "
                "what it lacks (crl.pem), gunfire-fleet renew writes"
            )
        make_folder(folder, 0o700)
        make_folder(folder / "issued", 0o700)
        make_folder(folder / "releases", 0o755)
        write(folder / "fleet.toml", text.encode(), PUBLIC)
        if (folder / "ca.crt").exists():
            authority = Authority.load(folder)
        else:
            authority = Authority.make(folder, common_name, clock())
        if not inventory.path.exists():
            inventory.make(Inventory())
        fleet = cls(folder, settings, authority, inventory, clock)
        fleet.issue("broker", addresses=names)
        # Last: with it, the folder is a whole fleet's.
        fleet.write_revocations()
        return fleet

    @classmethod
    def load(cls, folder: Path, clock: Clock = now) -> Fleet:
        """Read a fleet's folder; raises ProvisioningError where it is none."""
        if not folder.is_dir():
            raise ProvisioningError(
                f"{folder}: there is no such folder: name the fleet's with --fleet, or make one "
                "with `gunfire-fleet init`"
            )
        authority = Authority.load(folder)
        inventory = InventoryFile(folder / "inventory.json")
        inventory.read()
        return cls(folder, _settings(folder), authority, inventory, clock)

    def invite(
        self,
        node_id: str,
        site: str | None,
        days: int,
        *,
        by_hand: bool,
        give: Callable[[Invitation], None] | None = None,
    ) -> Invitation:
        """Make a node's way in; whatever invitation it had before does not count any more.

        Where `give` fails, which is to hand it on, the one before stays good.
        """
        _see_free(node_id)
        _node_name(node_id)
        made = self.clock()
        token = None if by_hand else secrets.token_urlsafe(_TOKEN_BYTES)
        if not by_hand and self.settings.enrolment is None:
            raise ProvisioningError(
                f"{self.folder / 'fleet.toml'}: has no `enrolment`, where nodes could ask: set it, "
                "or invite --by-hand"
            )
        ends = made + timedelta(days=days)
        with self.inventory.change() as inventory:
            member = inventory.members.get(node_id)
            if member is None:
                member = Member(role="node", site=site or self.settings.site)
                inventory.members[node_id] = member
            elif member.role != "node":
                raise ProvisioningError(
                    f"{node_id}: is the name of one who reads ({node_id}.crt): give another"
                )
            elif site is not None and site != member.site:
                raise ProvisioningError(
                    f"{node_id}: belongs to the site {member.site}: a node that moves to another "
                    "takes a new name, since its log goes by both"
                )
            member.invitation = Token(
                made_utc=text_of(made),
                ends_utc=text_of(ends),
                token_sha256=None if token is None else _hash(token),
            )
            member.cloned_utc = None
            # Within: what cannot be given away is not remembered.
            invitation = self._invitation(node_id, member.site, token, text_of(ends))
            if give is not None:
                give(invitation)
        return invitation

    def _invitation(self, node_id: str, site: str, token: str | None, ends_utc: str) -> Invitation:
        by_hand = token is None
        try:
            return Invitation(
                node_id=node_id,
                site=site,
                broker=self.settings.broker,
                ca=pem(self.authority.certificate),
                enrolment_url=None if by_hand else self.settings.enrolment,
                token=token,
                expires_utc=None if by_hand else ends_utc,
                update_url=self._update_root and self.settings.update,
                update_root=self._update_root,
            )
        except ValidationError as error:
            told = error.errors(include_input=False)[0]
            where = ".".join(map(str, told["loc"]))
            what = told["msg"].removeprefix("Value error, ")
            raise ProvisioningError(f"{self.folder}: {where} of an invitation {what}") from None

    @property
    def _update_root(self) -> str | None:
        """The newest root of trust of releases, where there are any."""
        found = {
            int(match[1]): file
            for file in (self.folder / "releases" / "metadata").glob("*.root.json")
            if (match := re.fullmatch(r"(\d+)\.root\.json", file.name))
        }
        return found[max(found)].read_text("utf-8") if found else None

    def enrol(
        self,
        node_id: str,
        token: str,
        kind: Kind,
        request: x509.CertificateSigningRequest,
        who: str,
    ) -> x509.Certificate:
        """Give a node with a token a certificate; the same one for the same key, however often.

        Raises
        ------
        RefusedError
            With why; it is kept in the inventory.
        """
        return self._judged(
            node_id, who, lambda inventory: self._enrol(inventory, node_id, token, kind, request)
        )

    def renew(
        self, peer: x509.Certificate, kind: Kind, request: x509.CertificateSigningRequest, who: str
    ) -> x509.Certificate:
        """Give a node that proves itself by its MQTT certificate another; raises as `enrol`."""
        serial = f"{peer.serial_number:x}"
        with_it = [
            (name, issued)
            for name, member in self.inventory.read().members.items()
            for issued in member.certificates
            if issued.serial == serial and issued.kind == "mqtt"
        ]
        if not with_it:
            refusal = RefusedError(403, "this certificate is no node's of this fleet")
            self.refuse("", who, refusal.why)
            raise refusal
        (node_id, _), *_ = with_it
        return self._judged(
            node_id, who, lambda inventory: self._renew(inventory, node_id, serial, kind, request)
        )

    def sign(self, carried: CarriedRequest, who: str) -> CarriedResponse:
        """Answer a request that was carried by hand, under an invitation; raises as `enrol`.

        Both its certificates, or none.
        """
        certificates = self._judged(
            carried.node_id, who, lambda inventory: self._by_hand(inventory, carried)
        )
        return CarriedResponse(
            node_id=carried.node_id,
            site=carried.site,
            ca=pem(self.authority.certificate),
            certificates=certificates,
        )

    def refuse(self, name: str, who: str, why: str) -> None:
        """Keep that somebody was refused before it was known for what."""
        with self.inventory.change() as inventory:
            inventory.refuse(name, who, why, self.clock())

    def issue(
        self,
        name: str,
        *,
        request: x509.CertificateSigningRequest | None = None,
        addresses: Sequence[str] = (),
        peer: bool = False,
    ) -> Path:
        """Issue a certificate to one who reads, or to a broker; without a request, its key too.

        Gives the certificate's file. Addresses are kept for when it is issued again.
        """
        _see_free(name)
        for address in addresses:
            _host(address)
        if request is not None:
            try:
                see_that_fits(request, None)
            except ValueError as error:
                raise ProvisioningError(f"{name}: the request {error}") from None
        with self.inventory.change() as inventory:
            member = inventory.members.get(name)
            serves = bool(addresses) or name == "broker"
            if member is None:
                self._see_replaces_nothing(name)
                member = Member(role="broker" if serves else "reader", site=self.settings.site)
                inventory.members[name] = member
            if member.role == "node":
                raise ProvisioningError(f"{name}: is a node: gunfire-fleet invite enrols it")
            if addresses:
                member.role, member.addresses, member.peer = "broker", list(addresses), peer
            if member.role == "broker" and not member.addresses:
                raise ProvisioningError(f"{name}: say by which names it is reached: --name")
            key = None if request is not None else ec.generate_private_key(ec.SECP256R1())
            use: Use = "reader" if member.role == "reader" else "peer" if member.peer else "broker"
            certificate = self._issue(member, name, use, key or request)
            if key is not None:
                write(self.folder / f"{name}.key", private_pem(key), SECRET)
            file = self.folder / f"{name}.crt"
            write(file, pem(certificate).encode(), PUBLIC)
        return file

    def revoke(
        self, name: str, reason: Reason, since: datetime | None = None, *, old: bool = False
    ) -> list[Issued]:
        """Revoke what a name has; with `old`, only what is of earlier invitations than the last.

        Raises
        ------
        ProvisioningError
            There is nothing to revoke.
        """
        at = self.clock()
        with self.inventory.change() as inventory:
            member = _member(inventory, name)
            self._adopt_what_was_cut_off(inventory, name, member)
            current = member.invitation.made_utc if member.invitation else None
            if old and current is None:
                raise ProvisioningError(f"{name}: was invited once only: there is nothing older")
            found = [
                issued
                for issued in member.certificates
                if not (old and issued.enrolment_utc == current)
                # A second time, since a date was forgotten, or is earlier.
                and (issued.revoked is None or since is not None)
            ]
            if not found and (old or member.invitation is None):
                raise ProvisioningError(f"{name}: has no certificate that is not revoked already")
            for issued in found:
                issued.revoked = Revocation(
                    utc=issued.revoked.utc if issued.revoked else text_of(at),
                    reason=reason,
                    since_utc=None if since is None else text_of(since),
                )
            if not old:
                member.invitation = None
        self.write_revocations()
        return found

    def write_revocations(self) -> Path:
        """Write crl.pem anew, good for as many days as the settings say."""
        with self.inventory.change() as inventory:
            inventory.crl_number += 1
            issued = [i for member in inventory.members.values() for i in member.certificates]
            crl = self.authority.revocation_list(
                issued, inventory.crl_number, self.clock(), self.settings.crl_days
            )
            file = self.folder / "crl.pem"
            write(file, crl, PUBLIC)
        return file

    def renew_brokers(self) -> list[str]:
        """Issue anew what servers have whose certificate has a third of its life left.

        Also where a cut has left a key without its certificate.
        """
        at, due = self.clock(), []
        for name, member in self.inventory.read().members.items():
            newest = member.newest("broker")
            if newest is None or newest.revoked is not None:
                continue
            if _left(newest, at) < 1 / 3 or self._are_apart(name, member, newest):
                due.append(name)
        for name in due:
            self.issue(name)
        return due

    def forgive(self, name: str) -> None:
        """Forget that a name was seen twice, and whom it was refused to."""
        with self.inventory.change() as inventory:
            member = _member(inventory, name)
            member.cloned_utc, member.refused, member.refusals = None, 0, []

    def certificate_of(self, issued: Issued) -> x509.Certificate:
        """Read a certificate that was issued."""
        file = self.folder / "issued" / f"{issued.serial}.crt"
        return x509.load_pem_x509_certificate(read(file, "bring it back from a backup"))

    def _are_apart(self, name: str, member: Member, newest: Issued) -> bool:
        """Say whether the key that lies here is not the certificate's beside it."""
        key = _print_of_key(self.folder / f"{name}.key")
        if key is None:
            return False  # made and kept by who asked for the certificate
        if key == newest.key_sha256:
            return _print_of_certificate(self.folder / f"{name}.crt") != key
        # One that is known is older: a certificate over somebody's request came after it.
        return all(issued.key_sha256 != key for issued in member.certificates)

    def _see_replaces_nothing(self, name: str) -> None:
        """See that a new name's files are nobody's, but for what a cut has left of its own."""
        known = {_print_of_certificate(file) for file in (self.folder / "issued").glob("*.crt")}
        key_file, file = self.folder / f"{name}.key", self.folder / f"{name}.crt"
        for path, found in ((key_file, _print_of_key), (file, _print_of_certificate)):
            if path.exists() and ((is_own := found(path)) is None or is_own not in known):
                raise ProvisioningError(
                    f"{path}: is there, and nobody of the fleet's: move it away, or give another "
                    "name"
                )

    def _adopt_what_was_cut_off(self, inventory: Inventory, name: str, member: Member) -> None:
        """Remember what was issued to a name before a power cut, and the inventory missed."""
        known = {i.serial for m in inventory.members.values() for i in m.certificates}
        for file in (self.folder / "issued").glob("*.crt"):
            if file.stem in known:
                continue
            with contextlib.suppress(OSError, *UNREADABLE):
                certificate = x509.load_pem_x509_certificate(file.read_bytes())
                if certificate.subject == subject(name, member.site):
                    issued = _entry_of(certificate, _KINDS[member.role], moment=None)
                    member.certificates.insert(0, issued)

    def _judged(self, node_id: str, who: str, judge: Callable[[Inventory], _Judged]) -> _Judged:
        """Have it judged under the inventory's lock; a refusal is kept, and raised after that."""
        refusal: RefusedError | None = None
        judged: _Judged | None = None
        with self.inventory.change() as inventory:
            try:
                judged = judge(inventory)
            except RefusedError as error:
                refusal = error
                inventory.refuse(node_id, who, error.why, self.clock())
        if refusal is not None:
            raise refusal
        assert judged is not None  # noqa: S101 - or it was refused
        return judged

    def _enrol(
        self,
        inventory: Inventory,
        node_id: str,
        token: str,
        kind: Kind,
        request: x509.CertificateSigningRequest,
    ) -> x509.Certificate:
        member = inventory.members.get(node_id)
        invitation = member.invitation if member is not None else None
        kept = invitation.token_sha256 if invitation is not None else None
        # As long for a name that nobody knows as for one that has another token.
        right = hmac.compare_digest(_hash(token), kept or _NOBODYS_HASH)
        if member is None or invitation is None or kept is None or not right:
            raise RefusedError(
                401,
                "the token is not one that this name was invited with: have it invited again "
                "(gunfire-fleet invite), and put the new token on the card",
            )
        return self._invited(inventory, node_id, member, invitation, kind, request)

    def _by_hand(self, inventory: Inventory, carried: CarriedRequest) -> dict[Kind, str]:
        member = inventory.members.get(carried.node_id)
        invitation = member.invitation if member is not None else None
        if member is None or member.role != "node" or invitation is None:
            raise RefusedError(
                403, f"{carried.node_id} was not invited: gunfire-fleet invite {carried.node_id}"
            )
        if member.site != carried.site:
            raise RefusedError(
                403,
                f"{carried.node_id} was invited for the site {member.site}, and says that it is of "
                f"{carried.site}: mend node.site on the card",
            )
        if missing := [kind for kind in KINDS if kind not in carried.requests]:
            raise RefusedError(
                400, f"asks for no {' and no '.join(missing)} certificate: carry it anew, whole"
            )
        asked = {kind: read_request(text.encode()) for kind, text in carried.requests.items()}
        node_id = carried.node_id
        # All are judged before the first is issued.
        for kind, request in asked.items():
            self._see_invited(inventory, node_id, member, invitation, kind, request)
        return {
            kind: pem(self._invited(inventory, node_id, member, invitation, kind, request))
            for kind, request in asked.items()
        }

    def _invited(
        self,
        inventory: Inventory,
        node_id: str,
        member: Member,
        invitation: Token,
        kind: Kind,
        request: x509.CertificateSigningRequest,
    ) -> x509.Certificate:
        """Give one who was invited its certificate: the one it has, if it comes again."""
        known = self._see_invited(inventory, node_id, member, invitation, kind, request)
        if known is not None:
            return self.certificate_of(known)
        # The node signed before it was enrolled; since its card was made, nobody else did.
        begins = moment_of(invitation.made_utc) if kind == "signing" else None
        certificate = self._issue(
            member, node_id, kind, request, begins=begins, enrolment_utc=invitation.made_utc
        )
        invitation.keys = {**invitation.keys, kind: key_print(request)}
        return certificate

    def _see_invited(
        self,
        inventory: Inventory,
        node_id: str,
        member: Member,
        invitation: Token,
        kind: Kind,
        request: x509.CertificateSigningRequest,
    ) -> Issued | None:
        """See that it may have a certificate; gives what it has, if it comes again."""
        _fits(request, kind)
        _refuse_cloned(node_id, member)
        key = key_print(request)
        bound = invitation.keys.get(kind)
        if bound is not None and bound != key:
            raise RefusedError(
                403,
                f"the token of {node_id} was used before, with another key: if that was not this "
                f"box, somebody else has it: gunfire-fleet revoke {node_id}, and invite again",
            )
        known = member.newest(kind, key)
        if known is not None and known.revoked is not None:
            raise RefusedError(
                403,
                f"{node_id}'s {kind} key was revoked on {known.revoked.utc[:10]}: a box that is to "
                "come back makes new keys under a new invitation",
            )
        if bound == key and known is not None:
            return known
        if self.clock() > moment_of(invitation.ends_utc):
            raise RefusedError(
                403,
                f"the token of {node_id} ran out on {invitation.ends_utc[:10]}: have it invited "
                "again (gunfire-fleet invite), and put the new token on the card",
            )
        _refuse_anothers_key(inventory, node_id, kind, key)
        return None

    def _renew(
        self,
        inventory: Inventory,
        node_id: str,
        serial: str,
        kind: Kind,
        request: x509.CertificateSigningRequest,
    ) -> x509.Certificate:
        member = inventory.members[node_id]
        (shown,) = [i for i in member.certificates if i.serial == serial]
        if shown.revoked is not None:
            raise RefusedError(
                403,
                f"{node_id} was revoked on {shown.revoked.utc[:10]}: a box that is to come back "
                "makes new keys under a new invitation",
            )
        _refuse_cloned(node_id, member)
        _fits(request, kind)
        key = key_print(request)
        known = member.newest(kind, key)
        if kind == "signing" and (known is None or known.revoked is not None):
            raise RefusedError(403, f"this is no signing key that {node_id} was enrolled with")
        newest = member.newest(kind)
        fresh = newest is not None and _left(newest, self.clock()) > RENEWED_WITHIN
        if newest is not None and newest.revoked is None and fresh:
            if newest.key_sha256 == key:
                return self.certificate_of(newest)  # the answer was lost on its way
            raise RefusedError(
                403,
                f"{node_id}'s {kind} certificate has been renewed already, over another key: "
                f"if that was not this box, somebody else has its keys: gunfire-fleet revoke "
                f"{node_id}, and invite again",
            )
        _refuse_anothers_key(inventory, node_id, kind, key)
        return self._issue(member, node_id, kind, request, enrolment_utc=shown.enrolment_utc)

    def _issue(
        self,
        member: Member,
        name: str,
        use: Use,
        over: x509.CertificateSigningRequest | ec.EllipticCurvePrivateKey | None,
        *,
        begins: datetime | None = None,
        enrolment_utc: str | None = None,
    ) -> x509.Certificate:
        assert over is not None  # noqa: S101 - one of both
        at = self.clock()
        certificate = self.authority.issue(
            over.public_key(),
            name,
            member.site,
            use,
            not_before=min(begins or at, at - EARLIER),
            not_after=at + timedelta(days=self.settings.certificate_days),
            addresses=member.addresses,
        )
        serial = f"{certificate.serial_number:x}"
        # Before the inventory, which names it.
        write(self.folder / "issued" / f"{serial}.crt", pem(certificate).encode(), PUBLIC)
        issued = _entry_of(certificate, "broker" if use == "peer" else use, at)
        issued.enrolment_utc = enrolment_utc
        member.certificates.append(issued)
        return certificate


def _entry_of(certificate: x509.Certificate, kind: IssuedKind, moment: datetime | None) -> Issued:
    """Give what the inventory keeps of a certificate."""
    own = _key_id(certificate.public_key())
    begins = certificate.not_valid_before_utc
    return Issued(
        kind="signing" if own is not None else kind,
        serial=f"{certificate.serial_number:x}",
        key_sha256=key_print(certificate),
        key_id=own,
        issued_utc=text_of(moment or begins),
        not_before_utc=text_of(begins),
        not_after_utc=text_of(certificate.not_valid_after_utc),
    )


def _key_id(public_key: object) -> str | None:
    """Give the short name of a signing key; None for any other."""
    return (
        key_id(public_key.public_bytes_raw()) if isinstance(public_key, Ed25519PublicKey) else None
    )


def _may_be_made(folder: Path, inventory: InventoryFile) -> bool:
    """Say whether a folder is no fleet's yet: nothing is there, or what a cut has left of `make`.

    The list of what is revoked comes last. An inventory alone may be lost, and with it who was
    revoked.
    """
    if (folder / "crl.pem").exists():
        return False
    if not inventory.path.exists():
        return not any((folder / "issued").glob("*.crt"))
    return inventory.read().members.keys() <= {"broker"}


def _print_of_key(file: Path) -> str | None:
    """Give the print of the key in a file; None where there is none."""
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, *UNREADABLE):
        return None
    return key_print(key)  # type: ignore[arg-type]


def _print_of_certificate(file: Path) -> str | None:
    """Give the print of the key that a file's certificate is over; None where there is none."""
    try:
        return key_print(x509.load_pem_x509_certificate(file.read_bytes()))
    except (OSError, *UNREADABLE):
        return None


def _settings(folder: Path) -> FleetSettings:
    file = folder / "fleet.toml"
    return _parsed(file, read(file, "is this the fleet's folder (--fleet)?"))


def _parsed(file: Path, text: bytes) -> FleetSettings:
    try:
        return FleetSettings.model_validate(tomllib.loads(text.decode()))
    except ValidationError as error:
        told = error.errors(include_input=False)[0]
        where = ".".join(map(str, told["loc"]))
        raise ProvisioningError(
            f"{file}: {where}: {told['msg'].removeprefix('Value error, ')}"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ProvisioningError(f"{file}: is no TOML: {error}") from None


def _member(inventory: Inventory, name: str) -> Member:
    member = inventory.members.get(name)
    if member is None:
        raise ProvisioningError(f"{name}: nobody of this name; gunfire-fleet list says who is")
    return member


def _see_free(name: str) -> None:
    if name == OWN:
        raise ProvisioningError(
            f"{name}: is the name of the fleet's own key and certificate: give another"
        )


def _node_name(node_id: str) -> None:
    if node_id in RESERVED:
        raise ProvisioningError(
            f"{node_id}: is a name that the broker's access list gives to one who reads: a node of "
            "it would open the broker; give another"
        )


def _host(address: str) -> None:
    try:
        host_name(address)
    except ValueError as error:
        raise ProvisioningError(f"{address!r}: {error}") from None


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _fits(request: x509.CertificateSigningRequest, kind: Kind) -> None:
    try:
        see_that_fits(request, kind)
    except ValueError as error:
        raise RefusedError(400, f"the request {error}") from None


def _left(issued: Issued, at: datetime) -> float:
    """Give what part of its life a certificate has left."""
    begins, ends = moment_of(issued.issued_utc), moment_of(issued.not_after_utc)
    return (ends - at) / (ends - begins)


def _refuse_cloned(node_id: str, member: Member) -> None:
    if member.cloned_utc is not None:
        raise RefusedError(
            403,
            f"{node_id} was seen twice at the broker on {member.cloned_utc[:10]}: two boxes have "
            f"its keys: gunfire-fleet revoke {node_id}, and invite the one that is to stay",
        )


def _refuse_anothers_key(inventory: Inventory, node_id: str, kind: Kind, key: str) -> None:
    for other, member in inventory.members.items():
        if other != node_id and any(i.key_sha256 == key for i in member.certificates):
            raise RefusedError(
                403,
                f"this {kind} key is {other}'s: a card that was copied; write this box a card of "
                "its own",
            )
