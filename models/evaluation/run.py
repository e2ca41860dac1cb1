"""Stage one, run: a table a fold, made again only where the network or the sound has changed.

`models.evaluation.__main__` calls it; the tables are read by stage two (`frozen`, `claims`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models.evaluation import events, predictions, table
from models.evaluation.judges import Judges, load
from models.evaluation.peers import Scores
from models.evaluation.table import Table
from models.training import corpus
from models.training.corpus import Clip
from models.training.splits import FOLDS

SAVED: Final = Path(__file__).parent / "predictions"
"""The predictions that are kept with the code: figures can be worked out of them anywhere."""
KINDS: Final = {
    "recordings": predictions.RECORDINGS,
    "events": events.EVENTS,
    "backfires": predictions.BACKFIRES,
}
_ABOUT: Final = "about.json"


@dataclass(frozen=True)
class Predictions:
    """The three tables over all folds, and what made them."""

    recordings: Table
    events: Table
    backfires: Table
    about: dict[str, Any]


def saved(folder: Path) -> Predictions:
    """Read the tables of a folder.

    Raises
    ------
    FileNotFoundError
        A table is missing; the error names it.
    """
    made = json.loads((folder / _ABOUT).read_text("utf-8"))
    names = sorted(made["folds"])
    read = {k: [table.read(_file(folder, k, name)) for name in names] for k in KINDS}
    # A folder without simulated backfires in one fold has them in none.
    return Predictions(about=made, **{k: table.joined(parts) for k, parts in read.items()})


def cross_validate(data: Path, clips: list[Clip], cache: Path, peers: Scores, to: Path) -> None:
    """Let each fold's network judge what that fold held out."""
    for fold in range(FOLDS):
        judges = load(cache / "folds" / str(fold) / "gunfire.tflite")
        held = [clip for clip in clips if clip.fold == fold]
        fold_of_run(data, held, fold, judges, peers, to)


def fold_of_run(
    data: Path, clips: list[Clip], fold: int, judges: Judges, peers: Scores, to: Path
) -> None:
    """Write the three tables of some recordings, unless they are there and were made of the same.

    Parameters
    ----------
    fold
        Goes into the tables and their names; any number where one network judges all.
    """
    mark = _mark(data, clips, judges, peers)
    about = to / _ABOUT
    made = json.loads(about.read_text("utf-8")) if about.exists() else {"folds": {}}
    name = str(fold)
    files = [_file(to, kind, name) for kind in KINDS]
    if made["folds"].get(name) == mark and all(file.exists() for file in files):
        return
    rows = {
        "recordings": predictions.of_recordings(data, clips, fold, judges, peers),
        "events": events.of_events(data, clips, fold, judges),
        "backfires": predictions.of_backfires(clips, fold, judges, peers),
    }
    for file, (kind, columns) in zip(files, KINDS.items(), strict=True):
        table.write(file, rows[kind], columns)
    made["folds"][name] = mark
    about.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", "utf-8")


def _mark(data: Path, clips: list[Clip], judges: Judges, peers: Scores) -> dict[str, str]:
    """Say what a fold's tables hang on."""
    code = hashlib.sha256()
    here = Path(__file__).parent
    for module in ("events", "predictions", "recordings", "judges", "table"):
        code.update((here / f"{module}.py").read_bytes())
    code.update((here.parent / "training" / "corpus.py").read_bytes())
    for part in ("classify", "detect"):
        for file in sorted((here.parents[1] / "node" / part).glob("*.py")):
            code.update(file.read_bytes())
    return {
        "model_sha256": judges.int8.identity.sha256,
        "networks_sha256": judges.version,
        "data_sha256": corpus.version(data, clips),
        "code_sha256": code.hexdigest(),
        "peers": " ".join(sorted(peers.names)),
    }


def _file(folder: Path, kind: str, name: str) -> Path:
    return folder / f"{kind}-{name}.csv"
