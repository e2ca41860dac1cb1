"""What is timed: our whole pipeline over a recording, as `gunfire-node replay` runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import soundfile

from node.classify import TfliteClassifier
from node.replay import Replay
from node.settings import DetectSettings


def workload(recording: Path) -> Callable[[], int]:
    """Give a function that runs the pipeline over a recording and counts its detections.

    Four channels are the street's array, and directions are told.
    """
    array = "tetrahedron_200mm" if soundfile.info(recording).channels == 4 else None
    replay = Replay(TfliteClassifier.load(), DetectSettings(), array=array)
    return lambda: sum(1 for _ in replay.detections(recording))
