"""What a node must never do, to be planted in one: a soak that does not find it is worth nothing.

Each plant is made in the node's own process before it begins, for a run of so many seconds, and is
called after each minute of its street with the seconds that were heard.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from node.keeper import Keeper
from node.messages import Detection

Plant = Callable[[float], None]

SURE: Final = 0.7
"""What is meddled with scores so much as gunfire at least: among several there is a shot."""
MEDDLED: Final = 4


def _memory(bytes_a_minute: int) -> Callable[[float], Plant]:
    def plant(run_s: float) -> Plant:
        kept: list[bytes] = []

        def leak(at_s: float) -> None:
            kept.append(os.urandom(bytes_a_minute))  # written, and so really there

        return leak

    return plant


def _descriptor(run_s: float) -> Plant:
    kept: list[int] = []

    def leak(at_s: float) -> None:
        if len(kept) < at_s // 3600:
            kept.append(os.open(os.devnull, os.O_RDONLY))

    return leak


def _thread(run_s: float) -> Plant:
    for_ever = threading.Event()
    kept: list[threading.Thread] = []

    def leak(at_s: float) -> None:
        if not kept and at_s >= run_s / 2:
            kept.append(threading.Thread(target=for_ever.wait, daemon=True))
            kept[0].start()

    return leak


Meddle = Callable[[Detection], list[Detection]]


def _meddler(meddle: Meddle) -> Callable[[float], Plant]:
    """Stand between pipeline and outbox, and from a third of the run on give other than comes."""

    def plant(run_s: float) -> Plant:
        take = Keeper.take
        due = False
        events: set[str] = set()

        def meddled(keeper: Keeper, detections: list[Detection]) -> None:
            for detection in detections:
                sure = due and detection.scores.gunfire >= SURE
                if sure and len(events) < MEDDLED:
                    events.add(detection.event_id)
                meddles = detection.event_id in events
                take(keeper, meddle(detection) if meddles else [detection])

        Keeper.take = meddled  # type: ignore[method-assign, assignment]

        def wait(at_s: float) -> None:
            nonlocal due
            due = at_s >= run_s / 3

        return wait

    return plant


def _lost(detection: Detection) -> list[Detection]:
    return []


def _doubled(detection: Detection) -> list[Detection]:
    # Of the same event the outbox takes no second.
    return [detection, detection.model_copy(update={"event_id": str(uuid4())})]


PLANTS: Final[dict[str, Callable[[float], Plant]]] = {
    "memory": _memory(2_000_000 // 1440),
    "much memory": _memory(2_000_000),
    "descriptor": _descriptor,
    "thread": _thread,
    "lost": _meddler(_lost),
    "doubled": _meddler(_doubled),
}
"""By name: 2 MB of memory a day, and a minute; a descriptor an hour; a thread, in the middle; shots
that were heard and are thrown away; such that are told as two events each."""
