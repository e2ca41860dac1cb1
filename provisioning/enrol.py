"""On the node: get certificates from the fleet, and renew them.

`python -m provisioning.enrol`, from a timer and at boot. In come the fleet's CA, where to ask and
the one-time token (provisioning/memory.py); out go certificates where the daemon's settings name
them, which takes them up without a restart, and a sentence for it to tell (provisioning/report.py).
Two keys, neither of which leaves the node: the broker's, and the one that the daemon signs with.

What a cut of power leaves is gone on from: a key is on the disk before anybody certifies it, and
asked again for the same key, the fleet gives the same certificate.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import pwd
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import click
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from node.board.findings import Verdict
from node.deliver.tls import TlsFiles
from node.errors import BrokerError, GunfireNodeError, ProvisioningError
from node.files import sync_folder
from node.identity import KEY_MODE, load_identity
from node.messages.trust import UNREADABLE, issued, issued_crl
from node.settings import Settings, load
from node.timing.chrony import ChronyError
from node.timing.chrony import ask as ask_chrony
from node.timing.host import utc_now_ns
from provisioning.est import (
    KINDS,
    MOST_BYTES,
    REQUEST_TYPE,
    CarriedRequest,
    CarriedResponse,
    Kind,
    Operation,
    PrivateKey,
    decode_certificates,
    encode_request,
    key_print,
    make_request,
    path,
    pem,
)
from provisioning.first_boot_file import EnrolmentSettings
from provisioning.invitation import Invitation
from provisioning.memory import Named, forget_token, read_memory, write_memory
from provisioning.places import Places
from provisioning.report import write as report
from provisioning.whole import fat_writable, write_whole

log = logging.getLogger("enrol")

LATER, REFUSED = 75, 77
"""Exit codes (sysexits.h): to be tried again soon, and not before somebody has mended it."""
RENEWED_BELOW: Final = 1 / 3
USER: Final = "gunfire-node"
CLOCK_S: Final = 5.0
# A clock that nothing disciplines is taken after so long, unless it is evidently wrong: a node with
# neither receiver nor network time is not kept waiting for them.
PATIENCE_S: Final = 900.0
CONNECT_S: Final = 15.0
ANSWER_S: Final = 30.0
MOST_CRL_BYTES: Final = 4 * 2**20
_LONGEST_WORDS: Final = 400
_AGAIN: Final = "have this node invited again (gunfire-fleet invite): docs/do/run-a-broker.md"


class Clock(Protocol):
    """What time it is, and whether something keeps it right."""

    def utc_now_ns(self) -> int:
        """Give UTC by the host's clock."""

    def synchronised(self) -> bool:
        """Say whether chrony vouches for it."""


class HostClock:
    """The host's own clock, and chrony."""

    def utc_now_ns(self) -> int:
        """Read the clock."""
        return utc_now_ns()

    def synchronised(self) -> bool:
        """Ask chrony."""
        try:
            return ask_chrony().synchronised
        except ChronyError:
            return False


class _RefusedError(Exception):
    """What no further try mends, and what to do."""

    def __init__(self, figure: str, advice: str) -> None:
        super().__init__(figure)
        self.figure = figure
        self.advice = advice


class _LaterError(Exception):
    """What another try may find mended."""

    def __init__(self, verdict: Verdict, figure: str, advice: str) -> None:
        super().__init__(figure)
        self.verdict = verdict
        self.figure = figure
        self.advice = advice


@dataclass(frozen=True)
class _Held:
    """A certificate that the fleet issued over one of our keys, and how long it is good."""

    certificate: x509.Certificate
    begins: dt.datetime
    ends: dt.datetime

    def left(self, now: dt.datetime) -> float:
        """Give what part of its life is left."""
        return (self.ends - now) / (self.ends - self.begins)


class Enroller:
    """A node's way to its certificates.

    Parameters
    ----------
    places
        Where things lie.
    settings
        The daemon's.
    table
        Where to ask, with which token, and whom to trust.
    clock
        What time it is.
    """

    def __init__(
        self, places: Places, settings: Settings, table: EnrolmentSettings, clock: Clock
    ) -> None:
        mqtt, integrity = settings.mqtt, settings.integrity
        if mqtt.ca_file is None or mqtt.cert_file is None or mqtt.key_file is None:
            raise ProvisioningError(
                "mqtt.ca_file, mqtt.cert_file, mqtt.key_file: must say where certificates and key "
                "are to be put: docs/do/install-a-node.md"
            )
        if integrity.certificate_file is None:
            raise ProvisioningError(
                "integrity.certificate_file: must say where the certificate of the signing key is "
                "to be put: docs/do/install-a-node.md"
            )
        self._places = places
        self._table = table
        self._clock = clock
        self._node_id, self._site = settings.node.id, settings.node.site
        self._ca_file, self._mqtt_key_file = mqtt.ca_file, mqtt.key_file
        self._signing_key_file = integrity.key_file
        self._files: dict[Kind, Path] = {
            "mqtt": mqtt.cert_file,
            "signing": integrity.certificate_file,
        }
        self._anchors = x509.load_pem_x509_certificates(table.ca.encode())

    def run(self) -> int:
        """Do what is due, and tell it; gives the exit code."""
        try:
            figure = self._run()
        except _RefusedError as refusal:
            log.error("%s: %s", refusal.figure, refusal.advice)
            report(self._places, "enrolment", "fail", refusal.figure, refusal.advice)
            return REFUSED
        except _LaterError as later:
            log.warning("%s: %s", later.figure, later.advice)
            report(self._places, "enrolment", later.verdict, later.figure, later.advice)
            return LATER
        except GunfireNodeError as error:  # of a key, above all
            what, _, advice = str(error).partition(": ")
            log.error("%s", error)
            report(self._places, "enrolment", "fail", what, advice)
            return REFUSED
        except OSError as error:
            log.error("%s", error)
            advice = "see `df`, and `dmesg` for a broken card"
            report(self._places, "enrolment", "fail", f"cannot be written: {error}", advice)
            return LATER
        log.info("%s", figure)
        return 0

    def _run(self) -> str:
        self._settle()
        if not self._ca_file.exists() or self._ca_file.read_bytes() != self._table.ca.encode():
            write_whole(self._ca_file, self._table.ca)
        with _as_owner():
            signing = load_identity(
                self._signing_key_file, None, self._node_id, self._site
            ).private_key
            key = _mqtt_key(self._mqtt_key_file)
        keys: dict[Kind, PrivateKey] = {"mqtt": key, "signing": signing}
        if self._table.url is None:
            self._take_carried(keys)
        held = self._held(keys)
        refusal: _RefusedError | None = None
        if self._table.token is not None and self._table.url is not None:
            self._wait_for_the_clock()
            try:
                for kind in KINDS:
                    self._put(kind, self._ask(kind, "simpleenroll", keys[kind]))
                forget_token_of(self._places)
            except _RefusedError as error:
                if len(held) < len(KINDS):
                    raise
                refusal = error  # of a token that was old; what it has is renewed all the same
            held = self._held(keys)
        elif missing := [kind for kind in KINDS if kind not in held]:
            return self._lacks(missing, keys)
        elif self._table.url is not None:
            forget_token_of(self._places)  # of a card that could not be written when it was used
        self._see_whether_revoked(held)
        figure = self._keep(held, keys)
        if refusal is not None:
            raise refusal
        return figure

    def _keep(self, held: dict[Kind, _Held], keys: dict[Kind, PrivateKey]) -> str:
        """Renew what is due; say until when there are certificates."""
        now, ends = self._now(), min(one.ends for one in held.values())
        left = min(one.left(now) for one in held.values())
        if now < min(one.begins for one in held.values()) or left < RENEWED_BELOW:
            self._wait_for_the_clock()
            now = self._now()
            left = min(one.left(now) for one in held.values())
        if left <= 0:
            raise _RefusedError(f"the certificates ran out on {ends:%Y-%m-%d}", _AGAIN)
        if left < RENEWED_BELOW:
            if self._table.url is None:
                return self._carry(keys, f"the certificates end on {ends:%Y-%m-%d}")
            self._renew(keys["signing"])
            ends = min(one.ends for one in self._held(self._keys(keys["signing"])).values())
        figure = f"enrolled as {self._node_id}, until {ends:%Y-%m-%d}"
        report(self._places, "enrolment", "pass", figure)
        return figure

    def _keys(self, signing: PrivateKey) -> dict[Kind, PrivateKey]:
        with _as_owner():
            return {"mqtt": _mqtt_key(self._mqtt_key_file), "signing": signing}

    def _lacks(self, missing: list[Kind], keys: dict[Kind, PrivateKey]) -> str:
        if self._table.url is None:
            return self._carry(keys, "not enrolled yet")
        raise _RefusedError(
            f"not enrolled ({', '.join(missing)} missing), and there is no token", _AGAIN
        )

    # What is carried by hand: on the FAT partition, or where there is none, by ssh.

    @property
    def _request_file(self) -> Path:
        file = self._places.request_file
        return file if file.parent.is_dir() else self._places.memory / file.name

    @property
    def _response_file(self) -> Path:
        return self._request_file.with_name(self._places.response_file.name)

    def _carry(self, keys: dict[Kind, PrivateKey], why: str) -> str:
        """Leave a request on the card, unless the same one lies there."""
        file = self._request_file
        wanted = {kind: key_print(key) for kind, key in keys.items()}
        if not self._lies_there(file, wanted):
            request = CarriedRequest(
                node_id=self._node_id,
                site=self._site,
                requests={
                    kind: pem(make_request(key, self._node_id, self._site))
                    for kind, key in keys.items()
                },
            )
            with fat_writable(self._places):
                write_whole(file, request.text())
        advice = (
            f"carry {file} to the fleet (gunfire-fleet sign), and {self._response_file.name} back "
            "beside it; it is taken at the next start"
        )
        report(self._places, "enrolment", "warn", why, advice)
        return why

    def _lies_there(self, file: Path, wanted: dict[Kind, str]) -> bool:
        try:
            said = CarriedRequest.read(file)
        except ProvisioningError:
            return False
        there = {
            kind: key_print(x509.load_pem_x509_csr(text.encode()))
            for kind, text in said.requests.items()
        }
        return (said.node_id, said.site) == (self._node_id, self._site) and there == wanted

    def _take_carried(self, keys: dict[Kind, PrivateKey]) -> None:
        """Take the fleet's answer from the card, unless what we have is good for longer."""
        file = self._response_file
        if not file.exists():
            return
        answer = CarriedResponse.read(file)
        held = self._held(keys)
        for kind, text in answer.certificates.items():
            try:
                certificate = self._judged(
                    [x509.load_pem_x509_certificate(text.encode())], kind, keys[kind]
                )
            except ValueError as error:
                raise _RefusedError(
                    f"{file.name}: {error}",
                    f"have this node's own {self._request_file.name} signed (gunfire-fleet sign), "
                    "and bring that answer",
                ) from None
            before = held.get(kind)
            if before is None or before.ends < certificate.not_valid_after_utc:
                self._put(kind, certificate)
        if self._request_file.exists():
            with contextlib.suppress(OSError), fat_writable(self._places):
                self._request_file.unlink()

    # What is asked over the network.

    def _ask(
        self, kind: Kind, operation: Operation, key: PrivateKey, *, known: bool = False
    ) -> x509.Certificate:
        """Ask the fleet for a certificate; `known` shows the one that we have."""
        request = make_request(key, self._node_id, self._site)
        headers = {"Content-Type": REQUEST_TYPE, "Content-Transfer-Encoding": "base64"}
        if not known:
            credentials = f"{self._node_id}:{self._table.token}"
            headers |= urllib3.make_headers(basic_auth=credentials)
        status, body = self._exchange(
            "POST",
            path(kind, operation),
            known=known,
            body=encode_request(request),
            headers=headers,
        )
        if status == 200:
            try:
                return self._judged(decode_certificates(body), kind, key)
            except ValueError as error:
                raise _RefusedError(f"the answer of {self._table.url} {error}", _AGAIN) from None
        words = _printable(body) or f"HTTP {status}"
        if status in (400, 401, 403):
            what, _, advice = words.partition(": ")
            raise _RefusedError(f"the fleet refuses: {what}", advice or _AGAIN)
        raise _LaterError(
            "warn",
            f"{self._table.url} answers {status}: {words}",
            "it is tried again by itself; see the log of gunfire-fleet there",
        )

    def _exchange(
        self,
        method: str,
        where: str,
        *,
        known: bool = False,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> tuple[int, bytes]:
        """Ask once over TLS; nobody but who holds a certificate of the fleet's CA is spoken to."""
        files = TlsFiles(self._ca_file)
        if known:
            files = TlsFiles(self._ca_file, self._files["mqtt"], self._mqtt_key_file)
        try:
            context = files.context()
        except BrokerError as error:
            what, _, advice = str(error).partition(": ")
            raise _RefusedError(what, advice) from None
        timeout = urllib3.Timeout(connect=CONNECT_S, read=ANSWER_S)
        try:
            with (
                urllib3.PoolManager(ssl_context=context, retries=False, timeout=timeout) as pool,
                pool.request(
                    method,
                    f"{self._table.url}{where}",
                    body=body,
                    headers=headers,
                    redirect=False,
                    preload_content=False,
                ) as answer,
            ):
                data = answer.read(most_bytes + 1)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _explained(str(self._table.url), error) from None
        if len(data) > most_bytes:
            raise _LaterError(
                "warn", f"{self._table.url} answers at too great a length", "see its log"
            )
        return answer.status, data

    def _renew(self, signing: PrivateKey) -> None:
        """Have both certificates issued anew: over the same signing key, and a new MQTT key."""
        self._put("signing", self._ask("signing", "simplereenroll", signing, known=True))
        fresh = _next(self._mqtt_key_file)
        with _as_owner():
            key = _mqtt_key(fresh)  # of a try that was cut off, if there was one
        certificate = self._ask("mqtt", "simplereenroll", key, known=True)
        write_whole(_next(self._files["mqtt"]), pem(certificate))
        self._settle()

    def _settle(self) -> None:
        """Put key and certificate of a renewal in place; also those that a cut has left between."""
        file, key_file = self._files["mqtt"], self._mqtt_key_file
        fresh, fresh_key = _next(file), _next(key_file)
        if not fresh.exists():
            return
        wanted = _print_of_certificate(fresh)
        if wanted is not None and wanted == _print_of_key(fresh_key):
            fresh_key.replace(key_file)
            sync_folder(key_file.parent)
        if wanted is not None and wanted == _print_of_key(key_file):
            fresh.replace(file)
        else:
            fresh.unlink()
        sync_folder(file.parent)

    def _see_whether_revoked(self, held: dict[Kind, _Held]) -> None:
        """Read the fleet's list of what is revoked, if it can be had."""
        if self._table.url is None:
            return
        try:
            status, data = self._exchange("GET", "/crl.pem", most_bytes=MOST_CRL_BYTES)
            crl = x509.load_pem_x509_crl(data) if status == 200 else None
        except (_LaterError, *UNREADABLE):
            return
        if crl is None or not any(issued_crl(anchor, crl) for anchor in self._anchors):
            return
        for kind, one in held.items():
            entry = crl.get_revoked_certificate_by_serial_number(one.certificate.serial_number)
            if entry is not None:
                raise _RefusedError(
                    f"revoked by the fleet on {entry.revocation_date_utc:%Y-%m-%d} ({kind})",
                    "the broker lets this box in no more; a box that is to come back gets a new "
                    "card: docs/do/replace-a-node.md",
                )

    # Time.

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.utc_now_ns() // 10**9, dt.UTC)

    def _wait_for_the_clock(self) -> None:
        """Wait until the clock can be believed: by a wrong one no certificate is valid."""
        files = TlsFiles(self._ca_file)
        patient_until_s = time.monotonic() + PATIENCE_S
        told = ""
        while not self._clock.synchronised():
            doubt = files.clock_doubt(self._clock.utc_now_ns())
            if not doubt and time.monotonic() > patient_until_s:
                log.warning("nothing disciplines the clock; it is taken as it is")
                return
            figure, _, advice = (
                doubt or "waits for the clock, which nothing sets yet: see that GPS or NTP does"
            ).rpartition(": ")
            if figure != told:
                told = figure
                log.info("%s", figure)
                report(self._places, "enrolment", "warn", figure, advice)
            time.sleep(CLOCK_S)

    # Certificates.

    def _held(self, keys: dict[Kind, PrivateKey]) -> dict[Kind, _Held]:
        """Read what certificates there are over our keys, in our name, of the fleet's CA."""
        held: dict[Kind, _Held] = {}
        for kind, file in self._files.items():
            with contextlib.suppress(OSError, *UNREADABLE):
                certificate = x509.load_pem_x509_certificate(file.read_bytes())
                self._judged([certificate], kind, keys[kind])
                held[kind] = _Held(
                    certificate, certificate.not_valid_before_utc, certificate.not_valid_after_utc
                )
        return held

    def _judged(
        self, certificates: list[x509.Certificate], kind: Kind, key: PrivateKey
    ) -> x509.Certificate:
        """Take the one that is over our key, in our name, of the fleet's CA; else ValueError."""
        for certificate in certificates:
            if key_print(certificate) != key_print(key):
                continue
            if not any(issued(anchor, certificate) for anchor in self._anchors):
                raise ValueError(f"holds a {kind} certificate that the fleet's CA has not issued")
            found = [
                str(one.value)
                for oid in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME)
                for one in certificate.subject.get_attributes_for_oid(oid)
            ]
            if found != [self._site, self._node_id]:
                raise ValueError(
                    f"holds a {kind} certificate of {'/'.join(found)}; this node is "
                    f"{self._site}/{self._node_id}"
                )
            return certificate
        raise ValueError(f"holds no {kind} certificate over this node's key")

    def _put(self, kind: Kind, certificate: x509.Certificate) -> None:
        write_whole(self._files[kind], pem(certificate))
        log.info(
            "%s certificate until %s in %s",
            kind,
            f"{certificate.not_valid_after_utc:%Y-%m-%d}",
            self._files[kind],
        )


def forget_token_of(places: Places) -> None:
    """Forget the token; a card that cannot be written keeps it, spent as it is."""
    try:
        forget_token(places)
        if places.request_file.exists() or places.response_file.exists():
            with fat_writable(places):
                places.request_file.unlink(missing_ok=True)
                places.response_file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("the card keeps its token, which is spent: %s", error)


def _next(file: Path) -> Path:
    return file.with_name(f"{file.name}.next")


@contextlib.contextmanager
def _as_owner() -> Iterator[None]:
    """Be the service's user meanwhile, where we are root: keys are its, and so it reads them."""
    try:
        owner = pwd.getpwnam(USER) if os.geteuid() == 0 else None
    except KeyError:
        owner = None
    if owner is None:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(owner.pw_gid)
    os.seteuid(owner.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def _mqtt_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """Read the key that the broker knows us by; make it if there is none."""
    with contextlib.suppress(FileNotFoundError):
        try:
            key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        except UNREADABLE:
            raise ProvisioningError(
                f"mqtt.key_file {file}: is not an unencrypted private key (PEM): remove it, and "
                "one is made"
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ProvisioningError(
                f"mqtt.key_file {file}: is a key of another kind than EC P-256: remove it, and one "
                "is made"
            )
        return key
    key = ec.generate_private_key(ec.SECP256R1())
    data = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, data, KEY_MODE)
    return key


def _print_of_certificate(file: Path) -> str | None:
    try:
        return key_print(x509.load_pem_x509_certificate(file.read_bytes()))
    except (OSError, *UNREADABLE):
        return None


def _print_of_key(file: Path) -> str | None:
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, *UNREADABLE):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey | Ed25519PrivateKey):
        return None
    return key_print(key)


def _explained(url: str, error: Exception) -> _LaterError:
    """Say why the fleet was not reached, and what to do about it."""
    reason: object = error
    while isinstance(reason, Exception) and not isinstance(reason, ssl.SSLError):
        inner = getattr(reason, "reason", None) or (reason.args[-1] if reason.args else None)
        if not isinstance(inner, Exception):
            break
        reason = inner
    if isinstance(reason, ssl.SSLCertVerificationError):
        advice = (
            "somebody may be in between, or the card's enrolment.ca is another fleet's; see that "
            "the host's name is one that `gunfire-fleet init` was given"
        )
        if "expired" in reason.verify_message or "not yet valid" in reason.verify_message:
            advice = "see this node's clock, then the dates of the broker's certificate"
        return _LaterError(
            "fail", f"{url}: its certificate is not accepted ({reason.verify_message})", advice
        )
    if isinstance(reason, ssl.SSLError):
        return _LaterError(
            "fail",
            f"{url}: TLS failed ({reason.reason})",
            "if this node's certificate was revoked or ran out, have it invited again; else see "
            "the log of gunfire-fleet there",
        )
    told = str(reason).partition(">: ")[2] or str(reason)
    return _LaterError(
        "warn",
        f"{url}: cannot be reached ({told[:120]})",
        "it is tried again by itself; see the network, and that gunfire-fleet serves there",
    )


def _printable(body: bytes) -> str:
    """Give what a server said as one line that steers no terminal."""
    text = body[:_LONGEST_WORDS].decode("utf-8", "replace").strip()
    return "".join(c if c.isprintable() else " " for c in text)


def _remember(places: Places, file: Path) -> None:
    """Remember an invitation, where no first boot has read a card's file."""
    invitation = Invitation.read(file)
    table = EnrolmentSettings(
        url=invitation.enrolment_url, token=invitation.token, ca=invitation.ca
    )
    settings = load(places.settings_file).settings.node
    if (settings.id, settings.site) != (invitation.node_id, invitation.site):
        raise ProvisioningError(
            f"{file}: is for {invitation.site}/{invitation.node_id}, this node is "
            f"{settings.site}/{settings.id}: mend node.id and node.site, or have it invited anew"
        )
    named = Named(id=invitation.node_id, site=invitation.site)
    write_memory(places, read_memory(places).model_copy(update={"enrolment": table, "node": named}))


@click.command()
@click.option(
    "--invitation",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Enrol by this file of `gunfire-fleet invite`, where no card brought it.",
)
def command(invitation: Path | None) -> None:
    """Get this node's certificates from the fleet, or renew them; tells how it went.

    Example: sudo /opt/gunfire-node/bin/python -m provisioning.enrol --invitation node-0001.json
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    places = Places()
    try:
        if invitation is not None:
            _remember(places, invitation)
        table = read_memory(places).enrolment
        if table is None:
            log.info("nothing is to be done: this node was not invited")
            sys.exit(0)
        enroller = Enroller(places, load(places.settings_file).settings, table, HostClock())
    except GunfireNodeError as error:
        what, _, advice = str(error).partition(": ")
        log.error("%s", error)
        report(places, "enrolment", "fail", what, advice)
        sys.exit(REFUSED)
    sys.exit(enroller.run())


if __name__ == "__main__":
    command()
