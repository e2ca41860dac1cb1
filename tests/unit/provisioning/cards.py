"""First-boot files and nodes for the tests: one that is right, and what it takes."""

from __future__ import annotations

import datetime as dt
import shutil
from functools import cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from provisioning.places import Places
from tests.evidence import ROOT

DAY: Final = dt.timedelta(days=1)
NOW_NS: Final = 1_790_000_000_000_000_000  # in September 2026
TOKEN: Final = "kJ2h3kjh4kj5h6kj7h8kj9hAAA"  # noqa: S105
OTHER_TOKEN: Final = "Zz2h3kjh4kj5h6kj7h8kj9hBBB"  # noqa: S105
SSH_KEY: Final = (
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop me"
)
BOARD: Final = "board:10000000abcdef01"
OTHER_BOARD: Final = "board:10000000abcdef02"


def now_ns() -> int:
    """Give what a node's clock says."""
    return NOW_NS


@cache
def authority(*, ca: bool = True, ended_days: int = -3650) -> str:
    """Give a CA's certificate in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fleet CA")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - 4000 * DAY)
        .not_valid_after(now - ended_days * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@cache
def private_key() -> str:
    """Give a private key in PEM, whose lines are secrets."""
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


@cache
def release_root() -> str:
    """Give a TUF root that its own key has signed."""
    signer = CryptoSigner.generate_ed25519()
    root = Root(expires=dt.datetime.now(dt.UTC).replace(microsecond=0) + 365 * DAY)
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(signer.public_key, role)
    metadata = Metadata(root)
    metadata.sign(signer)
    return metadata.to_bytes().decode()


def right_text() -> str:
    """Give a file with something of every kind in it; each of its lines is there once."""
    return f"""\
# A node.
[node]
id = "node-0001"
site = "riverside"

[capture]
device = "USB Audio"
channels = 5
array = "tetrahedron_200mm"

[timing]
pps_channel = 4

[board]
enabled = true

[mqtt]
url = "mqtts://broker.local:8883"

[receiver]
kind = "pulse"

[network]
wifi_ssid = "yard"
wifi_psk = "{"0f" * 32}"
country = "MN"
address = "192.168.1.20/24"
gateway = "192.168.1.1"
dns = ["192.168.1.1"]
ntp = ["ntp.local"]

[enrolment]
url = "https://broker.local:8885"
token = "{TOKEN}"  # ends soon
ca = \"\"\"
{authority()}\"\"\"

[update]
url = "https://broker.local:8885/releases"
root = '''{release_root()}'''
"""


def node(folder: Path, text: str | bytes | None = None) -> Places:
    """Make the folders of a flashed node; its card's file too, where there is one."""
    places = Places(folder)
    chrony = folder / "usr/share/gunfire-node/chrony"
    kernel = folder / "proc/sys/kernel"
    for made in (places.boot, places.memory.parent, chrony, kernel):
        made.mkdir(parents=True)
    for fragment in (ROOT / "systemd" / "chrony").glob("*.conf"):
        shutil.copy(fragment, chrony)
    if text is not None:
        put(places, text)
    return places


def put(places: Places, text: str | bytes) -> None:
    """Put another file onto the card."""
    places.card_file.write_bytes(text if isinstance(text, bytes) else text.encode())


def enrolled(places: Places) -> None:
    """Give a node its certificate."""
    places.mqtt_certificate.write_text("a certificate")
