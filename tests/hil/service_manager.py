"""The end of sd_notify(3) that a service manager holds: a socket, and what was said into it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self


class ServiceManager:
    """Listens to one node; entered as a context.

    Parameters
    ----------
    folder
        For its socket.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.heard: list[str] = []

    def __enter__(self) -> Self:
        self._socket.bind(str(self._path))
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        """What a service finds in its environment."""
        return {"NOTIFY_SOCKET": str(self._path)}

    def words(self, seconds: float = 0.0) -> Iterator[str]:
        """Yield what is said, for so long; without waiting, what has been said."""
        until = time.monotonic() + seconds
        while True:
            self._socket.settimeout(max(1e-3, until - time.monotonic()))
            try:
                word = self._socket.recv(4096).decode()
            except TimeoutError:
                return
            self.heard.append(word)
            yield word

    def wait_for(self, start: str, seconds: float) -> str:
        """Give the next word that begins so; it has to come within so many seconds."""
        for word in self.words(seconds):
            if word.startswith(start):
                return word
        raise AssertionError(f"{start!r} was not said in {seconds:g} s; said: {self.heard}")
