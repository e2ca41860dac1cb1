"""Whose signature counts for which node, and when: the fleet's CA, never what a topic says.

A certificate counts if one of the CA's certificates has issued it. It counts for the node that its
CN names (and the site that its O names, if it names one), from its first day until its last, or
until it was revoked. Certificates may come from anywhere, the log itself included: only the CA's
signature makes them good.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

from node.errors import IdentityError
from node.messages.signing import key_id
from node.types import NS_PER_S

FOR_EVER: Final = (0, 2**63 - 1)

# All that the library raises on a certificate that is not as it should be.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_ONE_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True)
class TrustedKey:
    """A public key that counts for a node.

    Attributes
    ----------
    spans
        When: from the first to before the second (UTC, ns), one for each certificate over it.
    certificates
        Their serial numbers, in hexadecimal.
    """

    public: Ed25519PublicKey
    key_id: str
    spans: list[tuple[int, int]] = field(default_factory=list)
    certificates: list[str] = field(default_factory=list)


class Trust:
    """The keys that count.

    Make it by `of_authority` or `of_key`.
    """

    def __init__(self) -> None:
        self._anchors: list[x509.Certificate] = []
        self._revoked_ns: dict[tuple[bytes, int], int] = {}  # issuer and serial number → when
        self._keys: dict[tuple[str, str | None], dict[str, TrustedKey]] = defaultdict(dict)
        self._any: TrustedKey | None = None
        self._seen: dict[bytes, str] = {}  # fingerprint → why it does not count
        self.crl_utc: datetime | None = None

    @classmethod
    def of_authority(cls, ca_pem: bytes, crl_pem: bytes | None = None) -> Trust:
        """Trust what the fleet's CA has certified.

        Raises
        ------
        IdentityError
            These are no certificates of a CA, or no revocation list of it.
        """
        trust = cls()
        try:
            trust._anchors = x509.load_pem_x509_certificates(ca_pem)
        except UNREADABLE:
            raise IdentityError("holds no certificate (X.509, PEM)") from None
        for anchor in trust._anchors:
            if not _may_issue(anchor):
                raise IdentityError(
                    f"{anchor.subject.rfc4514_string()!r} is no CA's certificate: give the fleet "
                    "CA's own"
                )
        if crl_pem is not None:
            trust._revoke(crl_pem)
        return trust

    @classmethod
    def of_key(cls, public_pem: bytes) -> Trust:
        """Trust one key, for whatever node it signs, at any time.

        Raises
        ------
        IdentityError
            It is no Ed25519 public key.
        """
        try:
            public = serialization.load_pem_public_key(public_pem)
        except (ValueError, UnsupportedAlgorithm):
            raise IdentityError("is not a public key (PEM)") from None
        if not isinstance(public, Ed25519PublicKey):
            raise IdentityError("is a key of another kind than Ed25519")
        trust = cls()
        trust._any = TrustedKey(public, key_id(public.public_bytes_raw()), [FOR_EVER])
        return trust

    @property
    def can_revoke(self) -> bool:
        """Whether there is a CA, which can revoke what it has certified."""
        return bool(self._anchors)

    def offer(self, certificate: x509.Certificate) -> str:
        """Take a certificate if the CA has issued it; else say why it does not count."""
        fingerprint = certificate.public_bytes(serialization.Encoding.DER)
        if fingerprint not in self._seen:
            self._seen[fingerprint] = self._take(certificate)
        return self._seen[fingerprint]

    def keys(self, site: str, node_id: str) -> list[TrustedKey]:
        """Give the keys that count for a node, whenever that is."""
        if self._any is not None:
            return [self._any]
        merged: dict[str, TrustedKey] = {}
        for place in ((node_id, site), (node_id, None)):
            for name, key in self._keys.get(place, {}).items():
                both = merged.setdefault(name, TrustedKey(key.public, name))
                both.spans.extend(key.spans)
                both.certificates.extend(key.certificates)
        return list(merged.values())

    def everybody(self) -> Iterator[tuple[str, TrustedKey]]:
        """Give every key that counts for anybody, with the name that it counts for."""
        for (node_id, site), keys in self._keys.items():
            name = node_id if site is None else f"{site}/{node_id}"
            yield from ((name, key) for key in keys.values())

    def _take(self, certificate: x509.Certificate) -> str:
        try:
            public = certificate.public_key()
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            sites = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
            signs = _may_sign(certificate)
        except UNREADABLE as error:
            return f"its certificate cannot be read ({error})"
        if not isinstance(public, Ed25519PublicKey):
            return "its certificate is not over an Ed25519 key"
        if len(names) != 1 or len(sites) > 1:
            return "its certificate names no node, or more than one"
        if not signs:
            return "its certificate is not for signing"
        issuers = [anchor for anchor in self._anchors if issued(anchor, certificate)]
        if not issuers:
            return "its certificate is not issued by this CA"
        site = str(sites[0].value) if sites else None
        name = key_id(public.public_bytes_raw())
        keys = self._keys[str(names[0].value), site]
        key = keys.setdefault(name, TrustedKey(public, name))
        serial = (certificate.issuer.public_bytes(), certificate.serial_number)
        revoked_ns = self._revoked_ns.get(serial, FOR_EVER[1])
        for anchor in issuers:
            begins_ns = max(_ns(certificate.not_valid_before_utc), _ns(anchor.not_valid_before_utc))
            ends_ns = min(_ns(certificate.not_valid_after_utc), _ns(anchor.not_valid_after_utc))
            key.spans.append((begins_ns, min(ends_ns + NS_PER_S, revoked_ns)))
        key.certificates.append(f"{certificate.serial_number:x}")
        return ""

    def _revoke(self, crl_pem: bytes) -> None:
        """Take the lists of a file: each CA has its own."""
        try:
            crls = [x509.load_pem_x509_crl(pem) for pem in _ONE_CRL.findall(crl_pem)]
        except UNREADABLE:
            crls = []
        if not crls:
            raise IdentityError("is not a revocation list (X.509 CRL, PEM)")
        for crl in crls:
            if not any(issued_crl(anchor, crl) for anchor in self._anchors):
                raise IdentityError(
                    "is not a revocation list of this CA, or holds one that is not"
                    if len(crls) > 1
                    else "is not a revocation list of this CA"
                )
            self._take_crl(crl)
        self.crl_utc = min(crl.last_update_utc for crl in crls)

    def _take_crl(self, crl: x509.CertificateRevocationList) -> None:
        issuer = crl.issuer.public_bytes()
        for entry in crl:
            moments = [entry.revocation_date_utc]
            try:
                # When the key is known or thought to have been lost, which may be earlier.
                lost = entry.extensions.get_extension_for_class(x509.InvalidityDate)
                moments.append(lost.value.invalidity_date_utc)
            except x509.ExtensionNotFound:
                pass
            known = self._revoked_ns.get((issuer, entry.serial_number), FOR_EVER[1])
            self._revoked_ns[issuer, entry.serial_number] = min(known, _ns(min(moments)))


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """Read what certificates a PEM file holds; none where there are none."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except UNREADABLE:
        return []


def raw_public_key(text: object) -> Ed25519PublicKey | None:
    """Read a public key as it stands in a node's birth message."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(str(text), validate=True))
    except ValueError:
        return None


def spans_hold(spans: Iterable[tuple[int, int]], utc_ns: int) -> bool:
    """Whether a moment lies in one of the spans."""
    return any(begins_ns <= utc_ns < ends_ns for begins_ns, ends_ns in spans)


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, *UNREADABLE):
        return False


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return usage.digital_signature


def issued(anchor: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Say whether an authority has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(anchor)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def issued_crl(anchor: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    """Say whether an authority has signed a list of what is revoked."""
    try:
        return crl.issuer == anchor.subject and crl.is_signature_valid(anchor.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _ns(moment: datetime) -> int:
    return max(0, round(moment.astimezone(UTC).timestamp())) * NS_PER_S
