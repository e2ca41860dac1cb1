"""How often one microphone counts the rounds of recorded live fire right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from node.classify import TfliteClassifier
from node.messages import Detection
from node.replay import Replay
from node.settings import DetectSettings
from tests.evidence import Claim, Detail
from tests.field.onsets import DATA, recordings
from tests.parts import Part, Tell

# Thresholds were chosen on FP1, FP3 and FP5.
KEPT_BACK: Final = ("FP2", "FP4", "FP6")
BAR: Final = 0.90


def measure(tell: Tell) -> Part:
    """Replay the recordings of the firing points kept back, and count."""
    paths = list(recordings(DATA, KEPT_BACK)) if (DATA / "pittsburgh").is_dir() else []
    if not paths:
        return Part(())
    replay = Replay(TfliteClassifier.load(), DetectSettings())
    table = np.zeros((2, 6), int)  # truth 1 or 3; none told, 1, 2, 3, 4, more
    summed = 0
    for number, path in enumerate(paths, 1):
        tell(f"live fire, {number} of {len(paths)}")
        true = _rounds(path)
        told = list({d.event_id: d for d in replay.detections(path)}.values())
        best = max(told, key=lambda d: (d.grade != "not_gunfire", d.scores.gunfire), default=None)
        table[int(true == 3), min(_count(best), 5)] += 1
        gunfire = [d.round_count for d in told if d.grade != "not_gunfire"]
        summed += sum(gunfire) == true
    exact = (table[0, 1] + table[1, 3]) / len(paths)
    name = "live fire kept back, one microphone: rounds"
    claims = (
        Claim(
            f"{name} exact, of the detection that is most like gunfire ({len(paths)} recordings)",
            100 * float(exact),
            "%",
            f"≥ {100 * BAR:.0f}",
            bool(exact >= BAR),
        ),
        Claim(
            f"{name} of all gunfire detections of the 10 s summed: exact",
            100 * summed / len(paths),
            "%",
        ),
    )
    columns = ("rounds fired", "nothing", "1", "2", "3", "4", "more")
    rows = tuple(
        (name, *map(str, row)) for name, row in zip(("1", "3"), table.tolist(), strict=True)
    )
    detail = Detail("Live fire kept back: rounds told, recordings", columns, rows)
    return Part(claims, (detail,), lambda axes: _draw(axes, table))


def _rounds(path: Path) -> int:
    test = path.parent
    survey = json.loads((test / f"{test.name}.survey.json").read_text("utf-8"))
    return int(survey["num_rounds"])


def _count(detection: Detection | None) -> int:
    return 0 if detection is None else detection.round_count


def _draw(axes: Any, table: np.ndarray[Any, np.dtype[np.int_]]) -> None:
    for row, (true, shift) in enumerate((("1 fired", -0.2), ("3 fired", 0.2))):
        axes.bar(np.arange(6) + shift, table[row], 0.4, label=true)
    axes.set_xticks(range(6), ["none", "1", "2", "3", "4", "more"])
    axes.set(title="Live fire, one microphone", xlabel="rounds told", ylabel="recordings")
    axes.legend()
