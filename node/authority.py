"""The authority that a verifier starts from, as files give it: the fleet CA, or one public key."""

from __future__ import annotations

from pathlib import Path

from node.errors import IdentityError
from node.messages.trust import Trust, read_certificates


def read_trust(ca: Path | None, crl: Path | None, key: Path | None) -> Trust:
    """Read whom to trust: the CA that signs nodes, and what it revoked; or one key.

    Raises
    ------
    IdentityError
        Neither is given, or a file cannot be read or is not what it should be; it is named.
    """
    file = key or ca
    if file is None:
        raise IdentityError("no CA: give the fleet's with --ca")
    try:
        if key is not None:
            return Trust.of_key(_bytes(key))
        authority = _bytes(file)
        trust = Trust.of_authority(authority)
        if crl is not None:
            file = crl
            trust = Trust.of_authority(authority, _bytes(crl))
    except IdentityError as error:
        text = str(error)
        raise IdentityError(text if text.startswith(str(file)) else f"{file}: {text}") from None
    return trust


def offer_certificates(trust: Trust, place: Path) -> None:
    """Offer the certificates of a file, or of all files of a folder.

    Raises
    ------
    IdentityError
        There is none, or a file cannot be read.
    """
    files = sorted(f for f in place.iterdir() if f.is_file()) if place.is_dir() else [place]
    found = [certificate for file in files for certificate in read_certificates(_bytes(file))]
    if not found:
        raise IdentityError(f"{place}: holds no certificate (X.509, PEM)")
    for certificate in found:
        trust.offer(certificate)  # of another CA, or for TLS: they do not count, nor do they harm


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror}") from None
