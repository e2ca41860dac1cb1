"""A locator that notes what it is told: for the tests of what stands round the real one."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from node.messages import Detection, Incident, parse_incident
from node.messages.detection import Local, Position
from node.network.locator_process import Works, _serve
from node.network.medium import Weather

CONTRACT = Path(__file__).parents[1] / "contract"
EXAMPLE: dict[str, Any] = json.loads((CONTRACT / "incident.json").read_text("utf-8"))


def incident(name: str, revision: int = 0, site: str = "city") -> Incident:
    """Make one; the same name gives the same id."""
    return parse_incident(
        json.dumps(
            EXAMPLE
            | {
                "incident_id": str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
                "revision": revision,
                "type": "update" if revision else "new",
                "site": site,
            }
        )
    )


def serve_here(
    monkeypatch: pytest.MonkeyPatch,
    orders: Connection,
    answers: Connection,
    make: Callable[[], Works],
) -> None:
    """Do what a locator's process does, in this one, until nobody is left to order."""
    monkeypatch.setattr("node.network.locator_process.signal.signal", lambda *_: None)
    monkeypatch.setattr("node.network.warm.warm", lambda: None)
    _serve(orders, answers, make)


class NotingLocator:
    """Notes the calls; gives an incident for each detection."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, str], Position | Local] = {}
        self.ups: dict[tuple[str, str], bool] = {}
        self.weathers: dict[str, Weather] = {}
        self.pushed: list[Detection] = []
        self.moments: list[int] = []
        self.finished = 0
        self.doubts: dict[tuple[str, str], str] = {}

    def place(self, site: str, node_id: str, place: Position | Local) -> None:
        self.places[site, node_id] = place

    def up(self, site: str, node_id: str, up: bool) -> None:
        self.ups[site, node_id] = up

    def weather(self, site: str, weather: Weather) -> None:
        self.weathers[site] = weather

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        return self.hear(detection, now_ns)

    def work(self, now_ns: int) -> list[Incident] | None:
        return None

    def hear(self, detection: Detection, now_ns: int) -> list[Incident]:
        self.pushed.append(detection)
        self.moments.append(now_ns)
        return [incident(detection.event_id, detection.revision, detection.site)]

    def tick(self, now_ns: int) -> list[Incident]:
        self.moments.append(now_ns)
        return []

    def finish(self) -> list[Incident]:
        self.finished += 1
        return []
