"""A subscriber that hears a node all the while, and remembers when it heard what."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Self

from node.deliver import BrokerAddress
from node.messages import Detection, Health, Status
from node.network import Subscription
from node.utc import parse_utc_ns

NAME: Final = "operator"
"""Of its certificate: who may read what nodes hear and how they are (provisioning/broker/acl)."""
_LOOK_S: Final = 0.5


class Told(NamedTuple):
    """A message, and when it came (CLOCK_MONOTONIC, s)."""

    at_s: float
    message: Detection | Status | Health


class Ear:
    """All that a node says at a broker; a context manager.

    Its session outlives its connection: what comes while the broker is away comes later.
    """

    def __init__(self, address: BrokerAddress, node_id: str) -> None:
        self._words = Subscription(
            address,
            kinds=("detection", "status", "health"),
            node_id=node_id,
            client_id=NAME,
            session_expiry_s=86_400,
        )
        self._news = threading.Condition()
        self._told: list[Told] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="ear")

    def __enter__(self) -> Self:
        self._words.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._thread.join()
        self._words.close()

    @property
    def repeated(self) -> int:
        """How often a detection came again, which no reader of the subscription sees."""
        return self._words.repeated

    def told(self, since_s: float = 0.0) -> list[Told]:
        """Give what came since a moment."""
        with self._news:
            return [told for told in self._told if told.at_s >= since_s]

    def detections(self, since_s: float = 0.0) -> list[Detection]:
        """Give the detections that came since a moment."""
        return [t.message for t in self.told(since_s) if isinstance(t.message, Detection)]

    def status(self) -> Status | None:
        """Give the last word on how the node is."""
        said = [t.message for t in self.told() if isinstance(t.message, Status)]
        return said[-1] if said else None

    def wait(self, claim: Callable[[], object], seconds: float) -> bool:
        """Wait until a claim holds; say whether it came to."""
        until_s = time.monotonic() + seconds
        with self._news:
            while not (so := claim()) and (left_s := until_s - time.monotonic()) > 0:
                self._news.wait(min(left_s, _LOOK_S))
        return bool(so)

    def _listen(self) -> None:
        while not self._closing.is_set():
            word = self._words.next(_LOOK_S)
            if word is not None and isinstance(word.message, Detection | Status | Health):
                with self._news:
                    self._told.append(Told(time.monotonic(), word.message))
                    self._news.notify_all()


def onset_utc_ns(detection: Detection) -> int:
    """Give the time of a detection's first round."""
    return parse_utc_ns(detection.onset_utc)
