"""Where things lie on a node that was flashed with the image (docs/decisions/0025-the-image.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROGRAM: Final = "/opt/gunfire-node"
"""The prefix for which every release is built; a symbolic link to the one in use."""


@dataclass(frozen=True)
class Places:
    """The paths, below a root: `/` on a node, a folder of their own in tests."""

    root: Path = Path("/")

    @property
    def boot(self) -> Path:
        """The FAT partition, which a laptop reads; read-only but while something is written."""
        return self.root / "boot/firmware"

    @property
    def card_file(self) -> Path:
        """The one file that a technician writes."""
        return self.boot / "gunfire-node.toml"

    @property
    def error_file(self) -> Path:
        """What is wrong with it, in words."""
        return self.boot / "gunfire-node-error.txt"

    @property
    def request_file(self) -> Path:
        """What the fleet's authority is asked for, where the node cannot reach it."""
        return self.boot / "gunfire-node-request.json"

    @property
    def response_file(self) -> Path:
        """What the authority answered, carried back."""
        return self.boot / "gunfire-node-response.json"

    @property
    def settings_file(self) -> Path:
        """The daemon's settings."""
        return self.root / "etc/gunfire-node/gunfire-node.toml"

    @property
    def authority_file(self) -> Path:
        """The fleet's CA certificate."""
        return self.root / "etc/gunfire-node/ca.crt"

    @property
    def mqtt_certificate(self) -> Path:
        """The certificate that the broker knows this node by."""
        return self.root / "etc/gunfire-node/mqtt.crt"

    @property
    def mqtt_key(self) -> Path:
        """Its key."""
        return self.root / "var/lib/gunfire-node/mqtt.key"

    @property
    def signing_certificate(self) -> Path:
        """The certificate over the key that detections are signed with."""
        return self.root / "etc/gunfire-node/signing.crt"

    @property
    def signing_key(self) -> Path:
        """The daemon's own key."""
        return self.root / "var/lib/gunfire-node/node.key"

    @property
    def memory(self) -> Path:
        """What first boot, enrolment and update remember; root's alone."""
        return self.root / "data/setup"

    @property
    def releases(self) -> Path:
        """Releases that were pulled, and the link `current` to the one in use."""
        return self.root / "data/releases"

    @property
    def factory(self) -> Path:
        """The release that the image came with, in the read-only root."""
        return self.root / "usr/lib/gunfire-node/releases"

    @property
    def reports(self) -> Path:
        """What the services beside the daemon have to say, for it to tell."""
        return self.root / "run/gunfire-node-setup"

    @property
    def status_file(self) -> Path:
        """What the daemon says of itself."""
        return self.root / "run/gunfire-node/status.json"
