"""The keys of the fleet as the locator holds them: from the CA's files, which may change.

In come certificates, from files and births; out go a node's keys, looked up once. When the CA's
certificate or its revocation list changes on disk, all that was offered is judged anew: a node that
is revoked is not believed from then on, and nobody starts the locator again for it.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from node.authority import offer_certificates, read_trust
from node.errors import IdentityError
from node.messages.signing import is_signed_by
from node.messages.trust import Trust, TrustedKey, raw_public_key, read_certificates

log = logging.getLogger(__name__)

MOST_STRANGE: Final = 4096
"""Certificates that do not count, of which it is remembered why: anybody may offer some."""

_MOST_OFFERED: Final = 4  # by one birth
_MOST_TRIED: Final = 64


class Keys:
    """Which keys count for which node.

    Parameters
    ----------
    ca, crl
        The fleet CA's certificate and its revocation list, PEM.
    certificates
        Certificates of nodes, a file or a folder of them, beside those that births bring.
    key
        Instead of a CA: one public key, for whatever node.

    Raises
    ------
    IdentityError
        A file cannot be read, or is not what it should be.
    """

    def __init__(
        self,
        ca: Path | None = None,
        crl: Path | None = None,
        certificates: Path | None = None,
        key: Path | None = None,
    ) -> None:
        self._files = {"ca": ca, "crl": crl, "key": key}
        self._folder = certificates
        self._offered: dict[bytes, x509.Certificate] = {}  # the CA's own, by fingerprint
        self._strange: OrderedDict[tuple[str, str], tuple[Ed25519PublicKey, str]] = OrderedDict()
        self._strange_offers = 0
        self._known: dict[tuple[str, str], list[TrustedKey]] = {}
        self._told = ""
        self._stamps = self._stamped()
        self._trust = self._read()

    def of(self, site: str, node_id: str) -> list[TrustedKey]:
        """Give the keys that count for a node, whenever that is."""
        keys = self._known.get((site, node_id))
        if keys is None:
            keys = self._trust.keys(site, node_id)
            if keys:  # names without a key are cheap to invent
                self._known[site, node_id] = keys
        return keys

    def why_none(self, site: str, node_id: str) -> str:
        """Say why no key counts for a node, as far as its birth tells."""
        strange = self._strange.get((site, node_id))
        return "no certificate of it has come" if strange is None else strange[1]

    def offer(self, site: str, node_id: str, pem: str, public_key: str) -> str:
        """Take the certificate of a node's birth; say why it does not count, or nothing."""
        if self._files["key"] is not None:
            return ""
        why = "its birth holds no certificate"
        for certificate in read_certificates(pem.encode())[:_MOST_OFFERED]:
            why = self._offer(certificate)
        if not why and not self.of(site, node_id):
            why = "its certificate is of another node or site"
        public = raw_public_key(public_key)
        if why and public is not None:
            self._strange[site, node_id] = (public, why)
            self._strange.move_to_end((site, node_id))
            if len(self._strange) > MOST_STRANGE:
                self._strange.popitem(last=False)
        else:
            self._strange.pop((site, node_id), None)
        return why

    def whose(self, site: str, node_id: str, signature: bytes, form: bytes) -> str:
        """Say whose key has signed what this node's has not; nothing if that is not found."""
        strange = self._strange.get((site, node_id))
        if strange is not None and is_signed_by(strange[0], signature, form):
            return f"by a key of its own that does not count: {strange[1]}"
        for number, (name, key) in enumerate(self._trust.everybody()):
            if number == _MOST_TRIED:
                break
            if is_signed_by(key.public, signature, form):
                return f"by the key of {name}"
        return ""

    def renew(self) -> bool:
        """Look whether the files have changed, and judge anew if so; say whether it was done.

        Files that are not right are told, and those before them stand.
        """
        if (stamps := self._stamped()) == self._stamps:
            return False
        self._stamps = stamps
        try:
            trust = self._read()
        except IdentityError as error:
            log.error("%s; what was known before stands", error)
            return False
        self._judge_anew(trust)
        log.info("the CA's files have changed: every node's key was judged anew")
        return True

    def _offer(self, certificate: x509.Certificate) -> str:
        fingerprint = certificate.fingerprint(hashes.SHA256())
        if fingerprint in self._offered:
            return ""
        why = self._trust.offer(certificate)
        if not why:
            self._offered[fingerprint] = certificate
            self._known.clear()
            return ""
        # The trust remembers each that it has seen: anybody's, too.
        self._strange_offers += 1
        if self._strange_offers >= MOST_STRANGE:
            self._strange_offers = 0
            with contextlib.suppress(IdentityError):  # the files are just being written
                self._judge_anew(self._read())
        return why

    def _judge_anew(self, trust: Trust) -> None:
        self._offered = {
            fingerprint: certificate
            for fingerprint, certificate in self._offered.items()
            if not trust.offer(certificate)
        }
        self._trust = trust
        self._known.clear()

    def _stamped(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(None if file is None else _stamp(file) for file in self._files.values())

    def _read(self) -> Trust:
        ca, crl, key = self._files["ca"], self._files["crl"], self._files["key"]
        trust = read_trust(ca, crl, key)
        if self._folder is not None:
            offer_certificates(trust, self._folder)
        return trust


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
