"""What the update asks of systemd: start daemon or machine anew, and say how often it has ended.

The seam to whoever runs the daemon; `FakeManager` is the shipped fake.
"""

from __future__ import annotations

import logging
import subprocess
from typing import Final, Protocol

from node.errors import ProvisioningError
from provisioning.update.trial import MOST_ENDS

log = logging.getLogger(__name__)

NODE: Final = "gunfire-node.service"
FIRST_BOOT: Final = "gunfire-node-first-boot.service"
_TIMEOUT_S: Final = 120.0


class Manager(Protocol):
    """Who runs the daemon."""

    def restart(self) -> None:
        """Have the daemon started anew, by the release in use."""

    def reboot(self) -> None:
        """Have the machine started anew."""

    def ends(self) -> int:
        """Say how often it has ended since; `MOST_ENDS` where it is given up."""


class Systemd:
    """systemd, by systemctl(1)."""

    def restart(self) -> None:
        """Have first boot's service and the daemon started anew; nothing is waited for.

        Its count of starts begins anew too: those of one release are not the other's.
        """
        units = [NODE]
        if self._shown(FIRST_BOOT, "LoadState") == "loaded":
            units.insert(0, FIRST_BOOT)
        _systemctl("reset-failed", *units)
        _systemctl("--no-block", "restart", *units)

    def reboot(self) -> None:
        """Have the machine started anew; this process ends with it."""
        _systemctl("--no-block", "reboot")

    def ends(self) -> int:
        """Say how often it has ended by itself since it was started anew."""
        if "failed" in (self._shown(NODE, "ActiveState"), self._shown(FIRST_BOOT, "ActiveState")):
            return MOST_ENDS
        ended = self._shown(NODE, "NRestarts")
        return int(ended) if ended.isdigit() else 0

    @staticmethod
    def _shown(unit: str, name: str) -> str:
        return _systemctl("show", "--value", f"--property={name}", unit)


class FakeManager:
    """Starts nothing, and counts; for tests."""

    def __init__(self) -> None:
        self.restarts = self.reboots = 0
        self.ended = 0

    def restart(self) -> None:
        """Count it."""
        self.restarts += 1
        self.ended = 0

    def reboot(self) -> None:
        """Count it."""
        self.reboots += 1

    def ends(self) -> int:
        """Say what was set last."""
        return self.ended


def _systemctl(*words: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - no shell; the words are ours
            ["systemctl", *words],  # noqa: S607 - where that is, the system says
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProvisioningError(f"systemd does not answer ({error}); boot the node anew") from None
    if done.returncode:
        log.warning("systemctl %s: %s", " ".join(words), done.stderr.strip())
    return done.stdout.strip()
