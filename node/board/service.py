"""What the node says to the service manager that started it (sd_notify(3)).

Before it hears, the unit is `activating`; `ready` makes it `active`, so that "active" means that
sound has been heard. From then on `alive` has to come within the unit's `WatchdogSec`.

The protocol is a datagram of a few words, and sd_notify(3) itself gives these lines in place of a
library: libsystemd is not needed for it.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

log = logging.getLogger(__name__)

MOST_STATUS: Final = 200  # characters that `systemctl status` shows in a line


class Service:
    """The service manager, or nobody where the node was started by hand."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        watchdog = environment.get("WATCHDOG_USEC", "")
        self._watchdog_us = int(watchdog) if watchdog.isascii() and watchdog.isdigit() else 0
        self._ready = self._patient = False
        self._status = ""

    @property
    def supervised(self) -> bool:
        """Whether a service manager listens, which starts the node anew when it ends."""
        return bool(self._address)

    def ready(self) -> None:
        """Say, once it is taken, that the node hears; a busy manager's queue may be full."""
        self._ready = self._ready or self._say("READY=1")

    def alive(self) -> None:
        """Say that audio has advanced: the watchdog's food, and nothing else of a loop's is."""
        self._hurry()
        self._say("WATCHDOG=1")

    def wait(self, seconds: float) -> None:
        """Ask for so many seconds more before the start counts as failed."""
        if not self._ready:
            self._say(f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Have the watchdog wait so many seconds meanwhile, counted from both ends, if it is on.

        For what may keep the node from taking sound, but not from hearing it.
        """
        if not (self._ready and 0 < self._watchdog_us < seconds * 1e6):
            yield
            return
        self._patient = True
        self._say(f"WATCHDOG_USEC={seconds * 1e6:.0f}")
        try:
            yield
        finally:
            self._hurry()

    def _hurry(self) -> None:
        """Have the watchdog wait no longer than the unit says; again until that is taken."""
        if self._patient:
            self._patient = not self._say(f"WATCHDOG_USEC={self._watchdog_us}")

    def status(self, sentence: str) -> None:
        """Say in a line how the node does, for `systemctl status`."""
        line = " ".join(sentence.split())[:MOST_STATUS]
        if line != self._status:
            self._status = line
            self._say(f"STATUS={line}")

    def stopping(self) -> None:
        """Say that the node ends in order."""
        self._say("STOPPING=1")

    def _say(self, words: str) -> bool:
        """Say it; False if nobody has taken it."""
        if not self._address:
            return False
        address = self._address
        if address.startswith("@"):  # an abstract socket
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto(words.encode(errors="replace"), address)
        except OSError as error:
            log.debug("the service manager does not hear %s: %s", words, error)
            return False
        return True
