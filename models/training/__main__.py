"""`python -m models.training --data DIR`: train, calibrate and write the shipped model."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from models.training import corpus, fit, pictures
from models.training.calibrate import finish

ROOT = Path(__file__).parents[1]


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )


@click.command(help="Train, calibrate and write the shipped model. Example: --data ../shared/data")
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True
)
@click.option("--tiers", default="ABC", show_default=True, help="Licence tiers to learn from.")
@click.option("--shards", default=80, show_default=True, help="Shards of 1000 pictures.")
@click.option("--epochs", default=10, show_default=True)
@click.option("--workers", default=2, show_default=True, help="Processes that draw pictures.")
@click.option("--seed", default=1, show_default=True)
@click.option("--version", "model_version", default="0.1.0", show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=ROOT / "cache")
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "gunfire.tflite")
def main(
    data: Path,
    tiers: str,
    shards: int,
    epochs: int,
    workers: int,
    seed: int,
    model_version: str,
    cache: Path,
    out: Path,
) -> None:
    """Run the stages in order; each later one takes what the one before wrote."""
    clips = corpus.read_manifest(data, tiers)
    data_version = corpus.version(data, clips)
    folder = cache / f"{data_version[:12]}-{_code_version()[:8]}"
    fresh = multiprocessing.get_context("spawn")
    with _progress() as bar:
        task = bar.add_task("pictures", total=shards)
        jobs = [(data, tiers, folder, seed, range(w, shards, workers)) for w in range(workers)]
        with ProcessPoolExecutor(workers, mp_context=fresh) as pool:
            waiting = {pool.submit(pictures.draw_shards, *job) for job in jobs}
            while waiting:
                done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for job in done:
                    job.result()
                bar.update(task, completed=len(list(folder.glob(f"{seed}-*.npz"))))
        bar.update(task, completed=shards)
    learn = pictures.load(folder, seed, shards)
    tf = fit.tensorflow(seed)
    with _progress() as bar:
        task = bar.add_task("network", total=epochs * (len(learn.labels) // fit.BATCH))
        network = fit.train(
            tf,
            learn,
            epochs,
            seed,
            lambda done, loss: _tell(bar, task, done, loss),
        )
    out.write_bytes(fit.to_int8(tf, network, learn.images))
    facts = {
        "data_sha256": data_version,
        "tiers": tiers,
        "pictures": shards * pictures.SHARD,
        "epochs": epochs,
        "seed": seed,
        "tensorflow": tf.__version__,
    }
    # A process of its own: tflite-runtime fails where TensorFlow's symbols are loaded.
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        pool.submit(finish, out, clips, model_version, facts).result()


def _tell(bar: Progress, task: TaskID, done: int, loss: float) -> None:
    """Move the bar; where there is no terminal, write a line now and then."""
    bar.update(task, completed=done, description=f"network, loss {loss:.3f}")
    if not bar.console.is_terminal and done % 500 == 0:
        bar.console.print(f"{done} batches, loss {loss:.3f}")


def _code_version() -> str:
    """Hash what decides how a picture looks, so that a change of it starts a new cache."""
    digest = hashlib.sha256()
    training = Path(__file__).parent
    node = ROOT.parent / "node"
    for file in (
        *(training / f"{name}.py" for name in ("corpus", "moments", "pictures", "splits")),
        training / "surroundings.py",
        node / "classify" / "features.py",
        *sorted((node / "simulate").glob("[fps]*.py")),
    ):
        digest.update(file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
