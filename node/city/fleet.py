"""A fleet's CA that lives as long as the demo: a key and a certificate for each node.

Whoever locates takes a node's word only under the CA's signature; so the demo has to have one.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

_HALF_LIFE: Final = dt.timedelta(hours=12)
_KEY_MODE: Final = 0o600


class DemoFleet:
    """A CA in memory, and the files of its nodes.

    Parameters
    ----------
    folder
        Where `<node>.key`, `<node>.crt` and `ca.crt` are written; theirs alone.
    site
        Named in each certificate.
    utc_ns
        When: certificates are good for half a day before and after.
    """

    def __init__(self, folder: Path, site: str, utc_ns: int) -> None:
        self._folder = folder
        self._site = site
        now = dt.datetime.fromtimestamp(utc_ns // 10**9, dt.UTC)
        self._span = (now - _HALF_LIFE, now + _HALF_LIFE)
        self._key = generate_private_key(SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo fleet CA")])
        self.ca_file = folder / "ca.crt"
        usage = x509.KeyUsage(
            digital_signature=False, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=True,
            encipher_only=False, decipher_only=False,
        )  # fmt: skip
        certificate = (
            self._builder(self._name)
            .public_key(self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def enrol(self, node_id: str) -> tuple[Path, Path]:
        """Make a node's key and certify it; give both files."""
        key = Ed25519PrivateKey.generate()
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, node_id),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self._site),
            ]
        )
        certificate = (
            self._builder(subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        key_file, certificate_file = (self._folder / f"{node_id}.{end}" for end in ("key", "crt"))
        key_file.touch(mode=_KEY_MODE)
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return key_file, certificate_file

    def _builder(self, subject: x509.Name) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._span[0])
            .not_valid_after(self._span[1])
        )
