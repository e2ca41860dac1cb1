"""What is timed: our whole pipeline over a recording, as `gunfire-node replay` runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from node.classify import TfliteClassifier
from node.replay import Replay
from node.settings import DetectSettings


def workload(recording: Path) -> Callable[[], int]:
    """Give a function that runs the pipeline over a recording and counts its detections."""
    replay = Replay(TfliteClassifier.load(), DetectSettings())
    return lambda: sum(1 for _ in replay.detections(recording))
