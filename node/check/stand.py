"""Keeps the card open while somebody on a ladder works: what it hears goes on, step after step."""

from __future__ import annotations

import threading
from typing import Self

from node.check.mount import MountEar, Tap
from node.errors import DeviceError
from node.types import AudioSource


class Stand:
    """Hears on a thread of its own, in one stream: opened anew, a card may exchange its channels.

    Parameters
    ----------
    source
        The card, not yet entered.
    ear
        What hears.
    """

    def __init__(self, source: AudioSource, ear: MountEar) -> None:
        self._source = source
        self._ear = ear
        self._lock = threading.Lock()
        self._failure: DeviceError | None = None
        self._thread = threading.Thread(target=self._run, name="mount-ear", daemon=True)

    def __enter__(self) -> Self:
        self._source.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._source.close()
        self._thread.join(5.0)
        self._source.__exit__(*exc)

    def tap(self, tap: Tap | None) -> None:
        """Listen for the microphone that is tapped; with None no more."""
        with self._lock:
            self._ear.tap = tap

    def listen_for_claps(self, order_proven: bool) -> None:
        """Have directions told from now on."""
        with self._lock:
            self._ear.listen_for_claps(order_proven)

    def forget_claps(self) -> None:
        """Begin to count claps anew."""
        with self._lock:
            self._ear.claps.clear()

    def raise_failure(self) -> None:
        """Raise what ended the hearing."""
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            for block in self._source.blocks():
                with self._lock:
                    self._ear.take(block)
        except DeviceError as error:
            self._failure = error
