"""Who this node is to a court: its signing key, and the fleet's certificate over it.

The key is read once, at the start of the daemon; from then on it is in memory, so that nothing that
happens to the disk stops the signing. The certificate may come later, when the node is enrolled,
and be renewed: it is taken up without a restart. Errors never show what a key file holds.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from node.errors import IdentityError
from node.files import mark as file_mark
from node.files import open_to_others, sync_folder
from node.types import NS_PER_S

KEY_MODE: Final = 0o600
EXPIRY_TOLD_S: Final = 30 * 86_400
_LARGEST_BYTES: Final = 65_536


@dataclass(frozen=True)
class Identity:
    """A node's key and certificate.

    Attributes
    ----------
    private_key
        Never shown, never sent.
    certificate
        PEM, of the certificate alone; None before enrolment.
    awaited
        The file that a certificate is to come to.
    """

    private_key: Ed25519PrivateKey
    certificate: str | None = None
    awaited: Path | None = None
    not_before_ns: int = 0
    not_after_ns: int = 0

    def reason(self, utc_now_ns: int) -> str:
        """Say what is wrong with the certificate at a moment; nothing where nothing is.

        Ask only while the clock can be trusted.
        """
        if self.certificate is None:
            return self.lacks
        if utc_now_ns < self.not_before_ns:
            return "integrity.certificate_file is not valid yet: see its dates and this clock"
        left_s = (self.not_after_ns - utc_now_ns) / NS_PER_S
        if left_s < 0:
            return (
                "integrity.certificate_file has expired: what is signed now proves nothing; have "
                "the fleet's CA issue another over the same key"
            )
        if left_s < EXPIRY_TOLD_S:
            return (
                f"integrity.certificate_file expires in {left_s / 86_400:.0f} days: have the "
                "fleet's CA issue another over the same key"
            )
        return ""

    @property
    def lacks(self) -> str:
        """Say that a certificate is awaited that has not come; nothing else, by no clock."""
        if self.certificate is not None or self.awaited is None:
            return ""
        return (
            f"integrity.certificate_file {self.awaited} is not there yet, so nobody else can tell "
            "whose signature this is: enrol this node; it is taken up without a restart"
        )


def load_identity(
    key_file: Path, certificate_file: Path | None, node_id: str, site: str
) -> Identity:
    """Read key and certificate; make the key if there is none.

    A certificate that is not there yet is awaited: see `CertificateWatch`.

    Raises
    ------
    IdentityError
        The key cannot be read or made, others may read it, or it is no Ed25519 key; the
        certificate cannot be read, is over another key, or names another node or site.
    """
    key = _read_key(key_file)
    if key is None:
        if certificate_file is not None and certificate_file.exists():
            raise IdentityError(
                f"integrity.key_file {key_file}: is not there, yet integrity.certificate_file "
                f"{certificate_file} is: bring the key back, or take the certificate away and "
                "enrol this node anew"
            )
        key = _make_key(key_file) or _read_key(key_file)
        if key is None:
            raise IdentityError(f"integrity.key_file {key_file}: was made and is gone again")
    if certificate_file is None:
        return Identity(key)
    if not os.path.lexists(certificate_file):
        return Identity(key, awaited=certificate_file)
    return _certified(key, certificate_file, node_id, site)


class CertificateWatch:
    """The certificate's file of a node that runs: whether another stands there than was read.

    Parameters
    ----------
    identity
        As read, just before or just after this is made.
    certificate_file, node_id, site
        As for `load_identity`.
    """

    def __init__(
        self, identity: Identity, certificate_file: Path | None, node_id: str, site: str
    ) -> None:
        self._identity = identity
        self._file = certificate_file
        self._name = (node_id, site)
        self._mark: object = None  # so that the first look reads what may have come meanwhile
        self.trouble = ""

    def look(self) -> Identity | None:
        """Give the identity anew if another certificate stands there that can be used.

        One that cannot is told in `trouble`, and the one before is used on; so it is when the file
        is gone.
        """
        mark = None if self._file is None else file_mark(self._file)
        if self._file is None or mark == self._mark:
            return None
        self._mark = mark
        self.trouble = ""
        if mark is None:
            return None
        try:
            identity = _certified(self._identity.private_key, self._file, *self._name)
        except IdentityError as error:
            self.trouble = f"a new certificate is not taken up: {error}"
            return None
        if identity.certificate == self._identity.certificate:
            return None
        self._identity = identity
        return identity


def _read_key(path: Path) -> Ed25519PrivateKey | None:
    """Read a key; None where there is no file."""
    where = f"integrity.key_file {path}"
    try:
        # Without waiting: a named pipe would keep us for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            # Of the open file, not of its name, which may mean another one a moment later.
            _refuse_unless_private(where, path, os.fstat(descriptor))
            pem = os.read(descriptor, _LARGEST_BYTES)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IdentityError(
            f"{where}: cannot be read ({error.strerror}): let this user read it, and nobody else"
        ) from None
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says may quote the file.
        raise IdentityError(
            f"{where}: is not an unencrypted private key (PKCS#8, PEM): bring the right file back; "
            "only if this node never signed, remove it, and a new key is made"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(
            f"{where}: is a key of another kind; a node signs with Ed25519: `openssl genpkey "
            "-algorithm ed25519`, or remove it, and one is made"
        )
    return key


def _refuse_unless_private(where: str, path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise IdentityError(f"{where}: is not a regular file; set integrity.key_file to a file")
    if found.st_uid not in (0, os.geteuid()):
        raise IdentityError(
            f"{where}: belongs to another user (uid {found.st_uid}), who may read it: `chown` it "
            "to the user that runs gunfire-node"
        )
    if open_to_others(path, found.st_mode):
        raise IdentityError(
            f"{where}: has mode {stat.S_IMODE(found.st_mode):04o}, so others may read it: if it "
            f"was always so, have another made and certified; else `chmod 600 {path}`"
        )


def _make_key(path: Path) -> Ed25519PrivateKey | None:
    """Make a key that is either whole on the disk under its name, or not there.

    None where somebody else was faster: daemon and enrolment start at once.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    fresh = path.with_name(f"{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(fresh) as file:
            if path.exists():
                fresh.unlink()
                return None
            os.fchmod(file.fileno(), KEY_MODE)  # whatever the umask
            file.truncate()  # of a start that was cut off
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
            # Unlike a rename, this never puts a key in another's place.
            os.link(fresh, path)
            fresh.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise IdentityError(
            f"integrity.key_file {path}: is not there and cannot be made ({error.strerror}): "
            + (
                "it is a link to nothing: mend it, or remove it"
                if path.is_symlink()
                else "let this user write its folder, or put a key there"
            )
        ) from None
    return key


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is then nobody else's, and still of that name; make it if need be."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(path, flags, KEY_MODE), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            still_there = False
            with suppress(FileNotFoundError):
                still_there = os.path.samestat(os.fstat(file.fileno()), os.stat(path))
            if still_there:
                yield file
                return


def _certified(key: Ed25519PrivateKey, path: Path, node_id: str, site: str) -> Identity:
    where = f"integrity.certificate_file {path}"
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would keep us for ever
        raise IdentityError(
            f"{where}: is not a regular file; set integrity.certificate_file to a file"
        )
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise IdentityError(f"{where}: cannot be read ({error.strerror})") from None
    except (ValueError, x509.InvalidVersion):
        raise IdentityError(
            f"{where}: is not a certificate (X.509, PEM): give the one that the fleet's CA issued"
        ) from None
    if _raw_key(certificate) != key.public_key().public_bytes_raw():
        raise IdentityError(
            f"{where}: is over another key than integrity.key_file: give the certificate that was "
            "issued over this node's key"
        )
    name, organisation = (
        [str(found.value) for found in certificate.subject.get_attributes_for_oid(oid)]
        for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
    )
    if name != [node_id] or organisation not in ([], [site]):
        raise IdentityError(
            f"{where}: names {'/'.join([*organisation, *name]) or 'nobody'}, this node is "
            f"{site}/{node_id}: give this node's, or mend node.id and node.site"
        )
    return Identity(
        key,
        certificate.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        not_before_ns=round(certificate.not_valid_before_utc.timestamp()) * NS_PER_S,
        not_after_ns=round(certificate.not_valid_after_utc.timestamp()) * NS_PER_S,
    )


def _raw_key(certificate: x509.Certificate) -> bytes | None:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes_raw() if isinstance(key, Ed25519PublicKey) else None
