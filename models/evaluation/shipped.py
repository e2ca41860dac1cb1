"""From the fold models' verdicts to the shipped file: the last step of `make train`.

Each fold's model judges its fold; calibration and thresholds fitted to all of that go into the
.json of the model that learnt from everything.
"""

from __future__ import annotations

from pathlib import Path

from models.evaluation import frozen, peers, recordings, run
from models.training.calibrate import install


def freeze(data: Path, tiers: str, cache: Path, model: Path, predictions_folder: Path) -> None:
    """Freeze a model's calibration and thresholds by the fold models in `cache`.

    Parameters
    ----------
    data
        The folder that all of them learnt from.
    tiers
        Licence tiers of it that they learnt from; nothing else is fitted to either.
    cache
        Where `folds/` is, and the peers' scores are kept.
    model
        The .tflite whose .json is completed.
    predictions_folder
        Where the verdicts are saved.
    """
    scores = peers.Scores(cache / "peers.csv", peers.installed(data.resolve().parent / "peers"))
    clips = [clip for clip in recordings.read_folder(data) if clip.tier in tiers]
    run.cross_validate(data, clips, cache, scores, predictions_folder)
    predictions = run.saved(predictions_folder)
    install(
        model,
        frozen.fitted(predictions),
        {
            "by": "verdicts of the fold models on what each had not learnt from",
            "pieces": int(frozen.is_audible(predictions.recordings).sum()),
            "events": int((predictions.events["event"] > 0).sum()),
            "fold_models_sha256": [
                predictions.about["folds"][fold]["model_sha256"]
                for fold in sorted(predictions.about["folds"])
            ],
        },
    )
