"""The fleet's certificate authority: an EC key in a file, and what is signed with it.

Whoever has this key can make a node (docs/decisions/0028-enrolment.md). What it issues is what
`node.messages.trust` and Mosquitto go by; what was issued and revoked, the inventory knows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from node.errors import ProvisioningError
from node.messages.trust import UNREADABLE
from provisioning.est import name
from provisioning.fleet.files import PUBLIC, SECRET, moment_of, read, write
from provisioning.fleet.inventory import Issued, Reason

Use = Literal["mqtt", "signing", "reader", "broker", "peer"]

AUTHORITY_DAYS: Final = 3650
# A machine's clock may be behind the authority's by so much, and see what it gets as valid.
EARLIER: Final = timedelta(hours=1)
CRL_EARLIER: Final = timedelta(minutes=10)

_WHERE: Final = "is this the fleet's folder (--fleet)?"

# What a node signs its detections with opens no broker: it is for documents (RFC 9336).
_DOCUMENTS: Final = ObjectIdentifier("1.3.6.1.5.5.7.3.36")
_CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
_SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH
_USES: Final[dict[Use, tuple[ObjectIdentifier, ...]]] = {
    "mqtt": (_CLIENT,),
    "signing": (_DOCUMENTS,),
    "reader": (_CLIENT,),
    "broker": (_SERVER,),
    "peer": (_SERVER, _CLIENT),
}
_REASONS: Final[dict[Reason, x509.ReasonFlags]] = {
    "stolen": x509.ReasonFlags.key_compromise,
    "replaced": x509.ReasonFlags.superseded,
    "ended": x509.ReasonFlags.cessation_of_operation,
}


@dataclass(frozen=True)
class Authority:
    """The authority's key and certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, folder: Path, common_name: str, now: datetime) -> Authority:
        """Make an authority, ten years long; with the key that is there, if one is.

        Raises
        ------
        ProvisioningError
            That key cannot be used; it is left as it is.
        """
        key_file = folder / "ca.key"
        is_there = key_file.exists()
        key = _key(key_file) if is_there else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - EARLIER)
            .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        if not is_there:
            write(key_file, private_pem(key), SECRET)
        write(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM), PUBLIC)
        return cls(key, certificate)

    @classmethod
    def load(cls, folder: Path) -> Authority:
        """Read it.

        Raises
        ------
        ProvisioningError
            It cannot be read, or key and certificate do not belong together.
        """
        certificate_file, key_file = folder / "ca.crt", folder / "ca.key"
        try:
            certificate = x509.load_pem_x509_certificate(read(certificate_file, _WHERE))
        except UNREADABLE:
            raise ProvisioningError(f"{certificate_file}: is no certificate (X.509, PEM)") from None
        key = _key(key_file)
        if key.public_key() != certificate.public_key():
            raise ProvisioningError(f"{key_file}: is not the key of {certificate_file}")
        return cls(key, certificate)

    def issue(
        self,
        public_key: object,
        common_name: str,
        organization: str,
        use: Use,
        not_before: datetime,
        not_after: datetime,
        addresses: Sequence[str] = (),
    ) -> x509.Certificate:
        """Issue a certificate, in the name that is given here and no other."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(common_name, organization))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(max(not_before, self.certificate.not_valid_before_utc))
            .not_valid_after(min(not_after, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_USES[use]), critical=False)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(public_key),  # type: ignore[arg-type]
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if addresses:
            names = x509.SubjectAlternativeName([_general_name(address) for address in addresses])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def revocation_list(
        self, revoked: Iterable[Issued], number: int, now: datetime, days: int
    ) -> bytes:
        """Write the list of what is revoked, PEM; the serial numbers stand before it in words.

        By them the broker's side tells one that somebody was added to from one that was renewed.
        """
        entries = [_entry(issued) for issued in revoked if issued.revoked is not None]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - CRL_EARLIER)
            .next_update(now + timedelta(days=days))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        for entry in entries:
            builder = builder.add_revoked_certificate(entry)
        pem = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        serials = sorted(f"revoked {entry.serial_number:x}\n" for entry in entries)
        return "".join(serials).encode() + pem


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Write a private key."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _key(file: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(read(file, _WHERE), password=None)
    except UNREADABLE:
        # What the library says may quote the file.
        raise ProvisioningError(f"{file}: is no private key (PEM)") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ProvisioningError(f"{file}: is no key of an elliptic curve")
    return key


def _entry(issued: Issued) -> x509.RevokedCertificate:
    revoked = issued.revoked
    assert revoked is not None  # noqa: S101 - the caller has looked
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(int(issued.serial, 16))
        .revocation_date(moment_of(revoked.utc))
        .add_extension(x509.CRLReason(_REASONS[revoked.reason]), critical=False)
    )
    if revoked.since_utc is not None:
        since = moment_of(revoked.since_utc).replace(tzinfo=None)
        builder = builder.add_extension(x509.InvalidityDate(since), critical=False)
    return builder.build()


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
