"""`gunfire-node classify`: whole files to scores, for evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from node.capture import RecordingSource
from node.classify import StreamJudgement, TfliteClassifier
from node.cli._shared import Failures, config_file, progress, recordings, total_s
from node.errors import GunfireNodeError
from node.settings import load


@click.command("classify")
@recordings
@click.option("--jsonl", is_flag=True, help="One line of JSON a file instead of a sentence.")
@click.option("--model", type=click.Path(path_type=Path), help="Another model (.tflite).")
@config_file
def command(files: tuple[Path, ...], jsonl: bool, model: Path | None, path: Path | None) -> None:
    """Score whole recordings: the clearest moments of each, with no trigger in between.

    Example: gunfire-node classify shots/*.flac --jsonl
    """
    classifier = TfliteClassifier.load(model or load(path).settings.classify.model)
    failures = Failures()
    with progress(total_s(files), "classifying") as advance:
        for file in files:
            try:
                heard = _classify(classifier, file, advance)
            except GunfireNodeError as error:
                failures.tell(error)
            else:
                click.echo(_line(file, heard) if jsonl else _sentence(file, heard))
    failures.exit()


def _classify(
    classifier: TfliteClassifier, file: Path, advance: Callable[[float], None]
) -> StreamJudgement:
    with RecordingSource(file, block_frames=65536) as source:

        def blocks() -> Iterator[npt.NDArray[np.float32]]:
            for block in source.blocks():
                yield block.samples()
                advance(len(block.frames) / block.sample_rate_hz)

        return classifier.classify_stream(blocks(), source.sample_rate_hz)


def _scores(heard: StreamJudgement) -> dict[str, float]:
    scores = heard.judgement.scores
    return {
        "gunfire": round(scores.gunfire, 6),
        "fireworks": round(scores.fireworks, 6),
        "backfire": round(scores.backfire, 6),
        "other": round(scores.other, 6),
    }


def _line(file: Path, heard: StreamJudgement) -> str:
    judgement = heard.judgement
    return json.dumps(
        {
            "file": str(file),
            "scores": _scores(heard),
            "label": judgement.label,
            "abstained": judgement.abstained,
            "grade": judgement.grade,
            "events": heard.events,
        }
    )


def _sentence(file: Path, heard: StreamJudgement) -> str:
    scores = "  ".join(f"{label} {score:.2f}" for label, score in _scores(heard).items())
    grade = heard.judgement.grade.replace("_", " ")
    return f"{file.name}: {grade}  {scores}  ({heard.events} events)"
