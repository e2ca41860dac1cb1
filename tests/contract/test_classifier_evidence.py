"""What is claimed of the classifier, worked out again of the saved predictions, without a sound.

Subscribers and courts read these figures: one that nobody can work out again is worth nothing. The
predictions are committed; calibration, thresholds and every figure must follow from them.
"""

import json

import pytest

from models.evaluation import claims, frozen, run
from node.classify import sidecar
from node.classify.classifier import shipped_model
from tests.evidence import FOLDER


@pytest.fixture(scope="module")
def predictions():
    return run.saved(run.SAVED)


def test_the_told_figures_are_those_of_the_saved_predictions(predictions):
    told = {c["claim"]: c for c in json.loads((FOLDER / "evaluate.json").read_text())["claims"]}

    worked_out = claims.table(predictions, claims.judges(predictions))

    assert len(worked_out) > 30
    for claim in worked_out:
        assert claim.value == pytest.approx(told[claim.claim]["value"], rel=1e-6), claim.claim
        assert claim.holds == told[claim.claim]["holds"], claim.claim


def test_the_shipped_file_carries_what_is_fitted_to_the_saved_predictions(predictions):
    card = sidecar.read(shipped_model().with_suffix(".json"))

    fields = frozen.fitted(predictions)

    for grade, cut in fields["thresholds"].items():
        assert getattr(card.thresholds, grade) == pytest.approx(cut, rel=1e-3)
    for name in ("calibration", "stream_calibration"):
        for part in ("scale", "bias"):
            assert getattr(getattr(card, name), part) == pytest.approx(fields[name][part], abs=5e-3)


def test_no_fold_model_learnt_from_what_it_judged(predictions):
    table = predictions.recordings
    for fold in set(table["fold"]):
        mine = set(table["group"][(table["fold"] == fold) & (table["label"] != "other")])
        others = set(table["group"][(table["fold"] != fold) & (table["label"] != "other")])
        assert not mine & others
