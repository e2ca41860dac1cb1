"""`python -m models.training --data DIR`: train the fold models and the shipped one."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from models.evaluation.recordings import DataError, read_folder
from models.evaluation.run import SAVED
from models.evaluation.shipped import freeze
from models.training import corpus, fit, pictures
from models.training.calibrate import describe
from models.training.drawing import draw_shards
from models.training.splits import FOLDS

ROOT = Path(__file__).parents[1]
MODELS = (*(str(fold) for fold in range(FOLDS)), "shipped")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )


@click.command(
    help="Train the model of each fold, which knows all but that fold, and the shipped one, which "
    "knows all and takes its calibration and thresholds from the verdicts of the others. Pictures "
    "and models that are there already are not made again. Example: --data ../shared/data"
)
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True
)
@click.option(
    "--more",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A further folder laid out alike: learnt from, and not judged by. May be given again.",
)
@click.option("--tiers", default="ABC", show_default=True, help="Licence tiers to learn from.")
@click.option(
    "--teacher",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAMNet to learn from beside the labels; by default ../peers/yamnet.tflite of the data.",
)
@click.option("--only", multiple=True, type=click.Choice(MODELS), help="Of these models alone.")
@click.option("--shards", default=24, show_default=True, help="Shards of 1000 pictures a fold.")
@click.option("--epochs", default=10, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Processes that draw pictures.")
@click.option("--seed", default=1, show_default=True)
@click.option("--version", "model_version", default="0.3.0", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=ROOT / "cache")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "gunfire.tflite")
@click.option(
    "--predictions",
    type=click.Path(path_type=Path),
    default=SAVED,
    help="Where the verdicts of the fold models are saved.",
)
def main(
    data: Path,
    more: tuple[Path, ...],
    tiers: str,
    teacher: Path | None,
    only: tuple[str, ...],
    shards: int,
    epochs: int,
    workers: int,
    seed: int,
    model_version: str,
    cache: Path,
    out: Path,
    predictions: Path,
) -> None:
    """Run the stages in order; each later one takes what the one before wrote."""
    try:
        known = read_folder(data)
        for folder in more:
            read_folder(folder)
    except DataError as error:
        raise click.UsageError(str(error)) from error
    if not any(clip.tier in tiers for clip in known):
        raise click.UsageError(f"--tiers {tiers}: no recording of {data / 'manifest.csv'} is of it")
    yamnet = teacher or data.resolve().parent / "peers" / "yamnet.tflite"
    if not yamnet.is_file():
        raise click.UsageError(f"{yamnet}: no YAMNet there to learn from; name it as --teacher")
    sources = (data, *more)
    clips = [clip for source in sources for clip in corpus.read_manifest(source, tiers)]
    teacher_version = hashlib.sha256(yamnet.read_bytes()).hexdigest()
    data_version = corpus.version(data, clips)
    code_version = _code_version()
    folder = cache / f"{data_version[:12]}-{code_version[:8]}-{teacher_version[:8]}"
    _draw(sources, tiers, yamnet, folder, seed, shards, workers)
    facts = {
        "data_sha256": data_version,
        "code_sha256": code_version,
        "teacher_sha256": teacher_version,
        "fit_sha256": _fit_version(),
        "tiers": tiers,
        "pictures_per_fold": shards * pictures.SHARD,
        "epochs": epochs,
        "seed": seed,
    }
    tf = fit.tensorflow(seed)
    for name in only or MODELS:
        held = None if name == "shipped" else int(name)
        path = out if held is None else cache / "folds" / name / "gunfire.tflite"
        if is_made(path, facts):
            continue
        learnt = [fold for fold in range(FOLDS) if fold != held]
        learn = pictures.load(folder, seed, learnt, shards)
        with _progress() as bar:
            task = bar.add_task(f"model {name}", total=fit.steps(learn, epochs))
            network = fit.train(tf, learn, epochs, seed, partial(_tell, bar, task))
        chosen = fit.examples(learn)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fit.to_int8(tf, network, chosen))
        path.with_name(f"{path.stem}.float.tflite").write_bytes(fit.to_float(tf, network))
        groups = sorted({clip.group for clip in clips if clip.fold in learnt})
        told: dict[str, Any] = {**facts, "tensorflow": tf.__version__, "groups": groups}
        _apart(describe, path, model_version, told)
    if not only:
        _apart(freeze, data, tiers, cache, out, predictions)


def _apart(work: Callable[..., None], *given: Any) -> None:
    """Run in a process of its own: tflite-runtime fails where TensorFlow's symbols are loaded."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(work, *given).result()


def _draw(
    sources: Sequence[Path],
    tiers: str,
    yamnet: Path,
    folder: Path,
    seed: int,
    shards: int,
    workers: int,
) -> None:
    """Draw the pictures that are not there yet, a worker taking every n-th shard of a fold."""
    spawn = multiprocessing.get_context("spawn")
    # On Ctrl-C a worker ends at once: Python's own handler would make it take the next job.
    drawing = ProcessPoolExecutor(workers, spawn, signal.signal, (signal.SIGINT, signal.SIG_DFL))
    with _progress() as bar, drawing as pool:
        task = bar.add_task("pictures, shards", total=FOLDS * shards)
        waiting = {
            pool.submit(
                draw_shards,
                sources,
                tiers,
                yamnet,
                folder,
                seed,
                fold,
                range(worker, shards, workers),
            )
            for fold in range(FOLDS)
            for worker in range(workers)
        }
        while waiting:
            done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
            for job in done:
                job.result()
            bar.update(task, completed=len(list(folder.glob(f"{seed}-*.npz"))))


def _tell(bar: Progress, task: TaskID, done: int, loss: float) -> None:
    """Move the bar; where there is no terminal, write a line now and then."""
    bar.update(task, completed=done)
    if not bar.console.is_terminal and done % 500 == 0:
        bar.console.print(f"{done} batches, loss {loss:.3f}")


def is_made(model: Path, facts: dict[str, Any]) -> bool:
    """Say whether a model is there already, made of the same data, code and settings."""
    described = model.with_suffix(".json")
    if not model.exists() or not described.exists():
        return False
    training = json.loads(described.read_text())["training"]
    return all(training.get(name) == fact for name, fact in facts.items())


def _fit_version() -> str:
    """Hash what decides how a network learns."""
    digest = hashlib.sha256()
    for name in ("fit", "network"):
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


def _code_version() -> str:
    """Hash what decides how a picture looks, so that a change of it starts a new cache."""
    digest = hashlib.sha256()
    training = Path(__file__).parent
    node = ROOT.parent / "node"
    apart = {"__init__", "__main__", "calibrate", "debian", "drawing", "fit", "network"}
    for file in (
        *sorted(path for path in training.glob("*.py") if path.stem not in apart),
        node / "classify" / "features.py",
        *sorted((node / "simulate").glob("[fps]*.py")),
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
