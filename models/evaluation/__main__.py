"""`python -m models.evaluation --data DIR`: judge the shipped model, print and keep the figures."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from dataclasses import astuple, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models.evaluation.figures import area_under_roc, calibration_error, threshold_at
from models.evaluation.recordings import held_out, pieces
from models.evaluation.yamnet import Yamnet
from node.classify import TfliteClassifier
from node.types import LABELS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said of every piece, as arrays over pieces."""

    probabilities: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    live: npt.NDArray[np.bool_]
    sources: npt.NDArray[np.str_]
    yamnet: npt.NDArray[np.float64] | None
    seconds: float
    spent_s: float


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of the table."""

    claim: str
    value: float
    unit: str
    bar: float | None
    at_least: bool = True

    @property
    def holds(self) -> bool | None:
        """Say whether the value is on the right side of its bar; None where there is no bar."""
        if self.bar is None:
            return None
        return self.value >= self.bar if self.at_least else self.value <= self.bar


@click.command(help="Judge the shipped model on held-out groups. Example: --data ../shared/data")
@click.option(
    "--data", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True
)
@click.option("--model", type=click.Path(path_type=Path), help="Another model than the shipped.")
@click.option(
    "--part",
    type=click.Choice(["test", "calibrate", "train", "all"]),
    default="test",
    show_default=True,
    help="Which groups; 'all' for a folder that training never saw.",
)
@click.option(
    "--yamnet",
    type=click.Path(path_type=Path),
    help="yamnet.tflite; ../peers beside the data if there.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Where the figures go as JSON.")
def main(data: Path, model: Path | None, part: str, yamnet: Path | None, out: Path | None) -> None:
    """Judge every piece, work out the figures, print them, write them."""
    peer_path = yamnet or data.resolve().parent / "peers" / "yamnet.tflite"
    classifier = TfliteClassifier.load(model)
    judged = judge(classifier, data, part, Yamnet(peer_path) if peer_path.exists() else None)
    claims = figures(judged, classifier)
    show(claims, judged)
    if out is None and part == "test" and model is None:
        out = ROOT / "docs" / "evidence" / "evaluate.json"
    if out is not None:
        write(out, claims, part, classifier)


def judge(classifier: TfliteClassifier, data: Path, part: str, peer: Yamnet | None) -> Judged:
    """Put every piece through the way of `gunfire-node classify`, and through the peer."""
    rows, labels, live, sources, other = [], [], [], [], []
    seconds = spent = 0.0
    for clip in track(held_out(data, part), "recordings"):
        for piece in pieces(clip):
            start = time.perf_counter()
            verdict = classifier.classify_stream([piece.frames], piece.rate_hz).judgement
            spent += time.perf_counter() - start
            seconds += len(piece.frames) / piece.rate_hz
            rows.append(astuple(verdict.scores))
            labels.append([*LABELS].index(clip.label))  # type: ignore[arg-type]
            live.append(piece.live)
            sources.append(clip.source)
            if peer:
                other.append(peer.gunfire(piece.frames, piece.rate_hz))
    return Judged(
        probabilities=np.array(rows),
        labels=np.array(labels),
        live=np.array(live),
        sources=np.array(sources),
        yamnet=np.array(other) if peer else None,
        seconds=seconds,
        spent_s=spent,
    )


def figures(judged: Judged, classifier: TfliteClassifier) -> list[Claim]:
    """Work out the table, ours and the peer's."""
    claims = _ranking("", judged.probabilities[:, 0], judged)
    scores, labels = judged.probabilities[:, 0], judged.labels
    identity = classifier.identity
    city = scores[labels != 0]
    confidence = judged.probabilities.max(axis=1)
    claims += [
        Claim(
            "city sounds at or above the shipped threshold of gunfire",
            float((city >= identity.gunfire_threshold).mean()),
            "share",
            0.02,
            at_least=False,
        ),
        Claim(
            "city sounds at or above the shipped threshold of probable gunfire",
            float((city >= identity.probable_threshold).mean()),
            "share",
            0.08,
            at_least=False,
        ),
        Claim(
            "live fire at or above the shipped threshold of gunfire",
            float((scores[judged.live] >= identity.gunfire_threshold).mean()),
            "share",
            None,
        ),
        Claim(
            "live fire at or above the shipped threshold of probable gunfire",
            float((scores[judged.live] >= identity.probable_threshold).mean()),
            "share",
            None,
        ),
        Claim(
            "expected calibration error of the best class",
            calibration_error(confidence, judged.probabilities.argmax(axis=1) == labels),
            "",
            0.05,
            at_least=False,
        ),
        Claim(
            "expected calibration error of scores.gunfire",
            calibration_error(scores, labels == 0),
            "",
            0.05,
            at_least=False,
        ),
        Claim("faster than real time, one core", judged.seconds / judged.spent_s, "×", 100),
    ]
    if judged.yamnet is not None:
        claims += _ranking("YAMNet: ", judged.yamnet, judged)
    return claims


def _ranking(who: str, scores: npt.NDArray[np.float64], judged: Judged) -> list[Claim]:
    """Give the figures that need a score of gunfire only."""
    labels = judged.labels
    city, guns, fireworks = scores[labels != 0], scores[labels == 0], scores[labels == 1]
    live = scores[judged.live]
    urban = judged.sources == "urbansound8k_acii"
    close = scores[(labels == 0) & ~judged.live & ~urban]
    urban_guns, urban_other = scores[urban & (labels == 0)], scores[urban & (labels != 0)]
    claims = []
    for rate, bar in ((0.01, 0.70), (0.05, 0.92)):
        cut = threshold_at(city, rate)
        at = f"at {rate:.0%} false alarms on city sounds"
        mine = bar if not who else None
        claims += [
            Claim(f"{who}live fire heard {at}", _share(live, cut), "share", mine),
            Claim(f"{who}close-range shots heard {at}", _share(close, cut), "share", None),
            Claim(f"{who}UrbanSound8K gunshots heard {at}", _share(urban_guns, cut), "share", None),
            Claim(
                f"{who}fireworks called gunfire {at}",
                _share(fireworks, cut),
                "share",
                0.05 if not who else None,
                at_least=False,
            ),
        ]
    return [
        *claims,
        Claim(
            f"{who}AUC gunfire against fireworks",
            area_under_roc(guns, fireworks),
            "",
            0.94 if not who else None,
        ),
        Claim(f"{who}AUC live fire against fireworks", area_under_roc(live, fireworks), "", None),
        Claim(f"{who}AUC gunfire against city sounds", area_under_roc(guns, city), "", None),
        Claim(f"{who}AUC UrbanSound8K gunshots", area_under_roc(urban_guns, urban_other), "", None),
    ]


def _share(scores: npt.NDArray[np.float64], cut: float) -> float:
    return float((scores >= cut).mean()) if len(scores) else float("nan")


def show(claims: list[Claim], judged: Judged) -> None:
    """Print the table."""
    counts = ", ".join(f"{int((judged.labels == i).sum())} {n}" for i, n in enumerate(LABELS))
    table = Table(title=f"{len(judged.labels)} held-out sounds: {counts}")
    for column in ("claim", "value", "bar", "holds"):
        table.add_column(column, justify="left" if column == "claim" else "right")
    for claim in claims:
        bar = "" if claim.bar is None else f"{'≥' if claim.at_least else '≤'} {claim.bar:g}"
        holds = {True: "yes", False: "no", None: ""}[claim.holds]
        table.add_row(claim.claim, f"{claim.value:.3f} {claim.unit}".strip(), bar, holds)
    Console().print(table)


def write(out: Path, claims: list[Claim], part: str, classifier: TfliteClassifier) -> None:
    """Write the evidence, with what it takes to make it again at its head."""
    lines: list[dict[str, Any]] = [
        {
            "claim": claim.claim,
            "value": None if np.isnan(claim.value) else round(claim.value, 4),
            "unit": claim.unit,
            "bar": claim.bar,
            "holds": claim.holds,
        }
        for claim in claims
    ]
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    head = {
        "command": "make evaluate DATA=../shared/data",
        "part": part,
        "commit": commit or None,
        "model_sha256": classifier.identity.sha256,
        "versions": {
            "gunfire-node": version("gunfire-node"),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([head, *lines], indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
