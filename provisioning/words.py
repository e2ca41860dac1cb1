"""What may stand in a first-boot file or an invitation; each check says the mend."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from node.settings import is_address, is_host

TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{22,256}")
"""A one-time token: what `secrets.token_urlsafe(16)` gives, or a longer one."""


def https_url(url: str) -> str:
    """Take the URL of a place that is asked over TLS."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(
            "its host or port is not right, such as https://broker.local:8885"
        ) from None
    if parts.scheme == "http":
        raise ValueError(
            "must start with https://: over http:// anybody on the way reads the token"
        )
    if parts.scheme != "https":
        raise ValueError("must start with https://, such as https://broker.local:8885")
    if not is_host(parts.hostname or "") or port == 0 or re.search(r"[\0- \x7f]", url):
        raise ValueError("names no host, such as https://broker.local:8885")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no user or password; the token has a line of its own")
    if parts.query or parts.fragment:
        raise ValueError("must end with host, port and path, such as https://broker.local:8885")
    return url.rstrip("/")


def token(text: str) -> str:
    """Take a one-time token by its shape."""
    if not TOKEN.fullmatch(text):
        raise ValueError(
            f"is no token: one is 22 or more letters, digits, '-' and '_', and this is {len(text)} "
            "characters; copy it anew, as `gunfire-fleet invite` gave it"
        )
    return text


def authority(pem: str) -> str:
    """Take a CA's certificate in PEM; one or several, each a CA's. Give it as OpenSSL takes it."""
    from cryptography import x509  # a boot with a file that is known has no use for it
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding

    again = "put in the whole ca.crt of the fleet, from -----BEGIN to -----END"
    if "PRIVATE KEY" in pem:
        raise ValueError(f"holds a private key, which must not leave the fleet's machine; {again}")
    if "-----BEGIN CERTIFICATE-----" in pem and "-----END CERTIFICATE-----" not in pem:
        raise ValueError(
            f"is cut short: its last line -----END CERTIFICATE----- is missing; {again}"
        )
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
        constraints = [
            c.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            for c in certificates
        ]
    except x509.ExtensionNotFound:
        constraints = [False]
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(f"is no certificate in PEM; {again}") from None
    if not all(constraints):
        raise ValueError(f"is a certificate, but no CA's; {again}")
    # OpenSSL reads no PEM that is indented, or all in one line.
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


def authority_ends_ns(pem: str) -> int:
    """Give when the first of the CA's certificates ends, in ns since 1970."""
    from cryptography import x509

    ends = [c.not_valid_after_utc for c in x509.load_pem_x509_certificates(pem.encode())]
    return int(min(ends).timestamp()) * 1_000_000_000


def tuf_root(text: str) -> str:
    """Take the root of trust of releases: a TUF root, JSON, signed by its own keys."""
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root

    again = "put in the whole root.json, as `gunfire-fleet` gives it"
    try:
        root = Metadata[Root].from_bytes(text.encode())
        if not isinstance(root.signed, Root):
            raise ValueError(f"is {root.signed.type}.json and no root.json; {again}")
        root.verify_delegate(Root.type, root)
    except (RepositoryError, RecursionError):
        raise ValueError(f"is no TUF root, or its signature is not right; {again}") from None
    return text


def address_of_net(text: str) -> str:
    """Take an address with the length of its net."""
    example = "such as 192.168.1.20/24"
    if "/" not in text:
        raise ValueError(f"must say how long its net is, {example}")
    # networkd passes over whatever else Python takes.
    if "%" in text or not re.search(r"/[1-9][0-9]*$", text):
        raise ValueError(
            f"must end with the length of its net as a number, {example} for 255.255.255.0"
        )
    try:
        interface = ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"is no address, {example}") from None
    if is_of_the_net(interface):
        raise ValueError(f"is the net's own address and not a node's, {example}")
    return text


def is_of_the_net(interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> bool:
    """Say whether an address is its net's own, or for all in it."""
    net = interface.network
    short = net.prefixlen < net.max_prefixlen - 1
    own = (net.network_address, net.broadcast_address)
    return net.version == 4 and short and interface.ip in own


def ip_address(text: str) -> str:
    """Take an address."""
    if not is_address(text):
        raise ValueError("is no address, such as 192.168.1.1")
    return text


def host_name(text: str) -> str:
    """Take the name or address of a host."""
    if not is_host(text):
        raise ValueError("is neither a host's name nor an address")
    return text


def ssid(text: str) -> str:
    """Take the name of a Wi-Fi."""
    size = len(text.encode())
    if not 1 <= size <= 32:
        raise ValueError(f"is {size} bytes long; a Wi-Fi's name has 1 to 32")
    if any(ord(c) < 0x20 for c in text):
        raise ValueError("holds a control character; type the Wi-Fi's name anew")
    return text


def psk(text: str) -> str:
    """Take the key of a Wi-Fi, not its passphrase."""
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError(
            f"is {len(text)} characters; the key is 64 hexadecimal digits: `wpa_passphrase` and "
            "`gunfire-card new` make it of the passphrase"
        )
    return text.lower()


def country(text: str) -> str:
    """Take a country by its two letters."""
    if not re.fullmatch("[A-Z]{2}", text):
        raise ValueError("must be two capital letters, such as MN, DE or US")
    if text == "UK":
        raise ValueError("is not the United Kingdom's letters; write GB")
    if re.fullmatch("AA|EU|Q[M-Z]|X[A-JL-Z]|ZZ", text):  # ISO 3166-1 gives these to no country
        raise ValueError("is no country; write where the node stands, such as MN, DE or US")
    return text


def device(text: str) -> str:
    """Take the name of a serial line."""
    if not re.fullmatch(r"/dev/[A-Za-z0-9._/:+-]+", text) or "/.." in text:
        raise ValueError("must be a device, such as /dev/ttyAMA0")
    return text


def ssh_key(text: str) -> str:
    """Take a public key of SSH."""
    if "PRIVATE KEY" in text:
        raise ValueError("is the private key, which must stay where it is; give the .pub file")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    kinds = r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9@.-]+)"
    line = text.strip()
    if "\n" in line or not re.fullmatch(rf"{kinds} [A-Za-z0-9+/=]+( .*)?", line):
        raise ValueError("is no public key of SSH: give the one line of the .pub file")
    try:
        load_ssh_public_key(line.encode())
    except UnsupportedAlgorithm:  # a key in a token, which this cryptography cannot judge
        return line
    except ValueError:
        raise ValueError("is not a whole key: give the one line of the .pub file") from None
    return line
