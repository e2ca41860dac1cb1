"""`python -m models.evaluation --data DIR`: judge, work the table out, print and keep it.

Over a folder with groups that the shipped model has not learnt from, that model judges them with
its own thresholds. Over the folder that it learnt from, the model of each fold judges what it did
not (`make train` makes them); where there are none, the saved predictions are worked out again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np

from models.evaluation import claims, details, frozen, judges, peers, picture, recordings, run
from models.evaluation.frozen import Frozen
from models.evaluation.run import Predictions
from models.training import corpus
from models.training.corpus import Clip
from models.training.splits import FOLDS
from node.classify import sidecar
from node.classify.classifier import shipped_model
from node.classify.runner import Runner, golden_inputs
from node.classify.sidecar import Sidecar
from node.errors import GunfireNodeError
from tests.evidence import FOLDER, Claim, publish, show

CACHE: Final = Path(__file__).parents[1] / "cache"
MOST_BYTES: Final = 300_000
MOST_MS: Final = 2.0
_CITY: Final = (
    "City sounds are pieces of 5 s of everything that is not gunfire; a row of recall holds only "
    "where no more than 1 % of them are called gunfire. Intervals: bootstrap over recordists and "
    "firing points."
)


class BadInputError(click.ClickException):
    """What was given cannot be evaluated: exit 2."""

    exit_code = 2


@dataclass(frozen=True)
class Evaluation:
    """What is worked out, by whose thresholds (None: the other folds'), and how that is told."""

    predictions: Predictions
    thresholds: Mapping[int, Frozen] | None
    note: str


@click.command(help="Evaluate the classifier. Example: --data ../shared/data")
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True
)
@click.option(
    "--model",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Let this model judge the whole folder; nothing is kept.",
)
@click.option("--cache", type=click.Path(path_type=Path), default=CACHE, help="Fold models, peers.")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    help="Keep the fold models' verdicts there, in place of those that are committed, and the "
    "table nowhere.",
)
@click.option(
    "--peers", "beside", type=click.Path(path_type=Path), help="By default ../peers of the data."
)
def main(
    data: Path, model: Path | None, cache: Path, predictions: Path | None, beside: Path | None
) -> None:
    """Run both stages, print the table, keep it."""
    if model and predictions:
        raise click.UsageError("--predictions are the fold models'; give it without --model")
    try:
        _evaluate(data, model, cache, predictions, beside or data.resolve().parent / "peers")
    except GunfireNodeError as error:
        raise BadInputError(str(error)) from error


def _evaluate(data: Path, model: Path | None, cache: Path, to: Path | None, beside: Path) -> None:
    clips = recordings.read_folder(data)
    if not clips:
        raise recordings.DataError(f"{data / 'manifest.csv'}: lists no recording of any class")
    path = model or shipped_model()
    card = sidecar.read(path.with_suffix(".json"))
    learnt = set(card.training.get("groups", ()))
    new = clips if model else [clip for clip in clips if clip.group not in learnt]
    scores = peers.Scores(cache / "peers.csv", peers.installed(beside))
    if new and to is None:
        done = _one_model(data, clips, new, path, card, cache, scores)
    else:
        done = _folds(data, clips, cache, scores, to or run.SAVED)
    seen = claims.judges(done.predictions, done.thresholds)
    table = [*claims.table(done.predictions, seen), *cost(path, card)]
    lacking = claims.lacking(table)
    note = f"{done.note} {_CITY}"
    if lacking:
        note += f" These recordings cannot carry: {'; '.join(lacking)}."
    below = details.tables(seen)
    command = f"make evaluate DATA={data}"
    if model or to:
        show(command, table, below)
    else:
        picture.draw(seen, FOLDER / "evaluate.png")
        publish("evaluate", command, table, note, below)
    click.echo(note)


def _one_model(
    data: Path,
    clips: list[Clip],
    new: list[Clip],
    path: Path,
    card: Sidecar,
    cache: Path,
    scores: peers.Scores,
) -> Evaluation:
    """Let one model judge what it did not learn from, by its own thresholds."""
    networks = judges.load(path)
    folder = cache / "evaluation" / f"{corpus.version(data, new)[:12]}-{card.sha256[:12]}"
    run.fold_of_run(data, new, 0, networks, scores, folder)
    note = (
        f"Model {card.sha256[:12]} with the calibration and thresholds of its file, on "
        f"{len(new)} of {len(clips)} recordings"
        + (": those of groups that it did not learn from." if len(new) < len(clips) else ".")
    )
    return Evaluation(run.saved(folder), {0: frozen.of_card(card)}, note)


def _folds(
    data: Path, clips: list[Clip], cache: Path, scores: peers.Scores, to: Path
) -> Evaluation:
    """Let each fold's model judge its fold; else go by what is saved."""
    models = [cache / "folds" / str(fold) / "gunfire.tflite" for fold in range(FOLDS)]
    how = "Worked out now by the fold models."
    if all(model.exists() for model in models):
        run.cross_validate(data, clips, cache, scores, to)
    else:
        how = (
            "Worked out of the saved predictions (models/evaluation/predictions): no fold models "
            f"in {cache / 'folds'}; `make train` makes them."
        )
    try:
        predictions = run.saved(to)
    except FileNotFoundError as error:
        raise recordings.DataError(
            f"{error.filename}: no such predictions, and no fold models in {cache / 'folds'}; "
            "`make train` makes them"
        ) from error
    note = (
        f"{FOLDS} composite folds (models/training/splits.py): a model judges only what it did "
        "not learn from, with calibration and thresholds from the predictions of the other "
        f"folds. {how}"
    )
    return Evaluation(predictions, None, note)


def cost(path: Path, card: Sidecar) -> list[Claim]:
    """Weigh the model file, and time it on one core."""
    runner = Runner(path, card)
    picture_ = golden_inputs(card.input.shape)[:1]
    spent = []
    for _ in range(200):
        start = time.perf_counter()
        runner.run(picture_)
        spent.append(time.perf_counter() - start)
    took_ms = 1e3 * float(np.median(spent))
    size = path.stat().st_size
    return [
        Claim("size of the model", size / 1e3, "kB", "≤ 300", size <= MOST_BYTES),
        Claim("one picture through the model, one core", took_ms, "ms", "≤ 2", took_ms <= MOST_MS),
    ]


if __name__ == "__main__":
    main()
