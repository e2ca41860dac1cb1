"""How pictures are put before the network: cut, varied, and the hard ones more often."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from models.training import fit
from models.training.__main__ import is_made, main
from models.training.pictures import SLACK, Pictures
from models.training.teacher import FAMILIES
from node.classify import features

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"


def pictures(count):
    draw = np.random.default_rng(0)
    shape = (count, features.FRAMES + SLACK, features.BANDS)
    images = draw.integers(0, 256, shape).astype(np.uint8)
    heard = draw.integers(0, 256, (count, len(FAMILIES))).astype(np.uint8)
    return Pictures(images, np.arange(count) % 4, heard)


def test_a_cut_has_the_size_of_the_network_and_its_loudest_point_at_one():
    cut = fit.augmented(pictures(16).images, np.random.default_rng(1))

    assert cut.shape == (16, features.FRAMES, features.BANDS)
    assert cut.max(axis=(1, 2)) == pytest.approx(np.ones(16), abs=1e-6)
    assert cut.min() >= 0


def test_no_two_cuts_of_a_picture_are_alike():
    draw = np.random.default_rng(1)
    one, two = (fit.augmented(pictures(1).images, draw) for _ in range(2))

    assert not np.array_equal(one, two)


def test_every_picture_is_seen_in_the_first_epoch():
    count = 4 * fit.BATCH
    rows = np.concatenate([rows for rows, *_ in fit.Batches(pictures(count), 1, seed=0)])

    assert np.array_equal(np.sort(rows), np.arange(count))


def test_a_batch_carries_what_the_teacher_heard_in_its_own_pictures():
    learn = pictures(2 * fit.BATCH)
    for rows, _, _, heard in fit.Batches(learn, 1, seed=0):
        assert np.array_equal(np.rint(255 * heard), learn.heard[rows])


def test_what_the_network_gets_wrong_comes_back_more_often():
    count, wrong = 4 * fit.BATCH, 7
    batches = fit.Batches(pictures(count), 10, seed=0)
    seen = np.zeros(count)
    for rows, *_ in batches:
        np.add.at(seen, rows, 1)
        batches.missed(rows, np.where(rows == wrong, 2.5, 0.01).astype(np.float32))

    assert seen[wrong] > 5 * np.median(seen)
    assert seen.sum() == 10 * count


def test_a_model_is_kept_only_if_it_was_made_the_same_way(tmp_path):
    model = tmp_path / "gunfire.tflite"
    facts = {"seed": 1, "epochs": 20}
    assert not is_made(model, facts)

    model.write_bytes(b"x")
    model.with_suffix(".json").write_text(json.dumps({"training": {**facts, "groups": []}}))

    assert is_made(model, facts)
    assert not is_made(model, facts | {"epochs": 21})


@pytest.mark.parametrize(
    ("manifest", "tiers", "told"),
    [
        (None, "ABC", "manifest.csv: unreadable (No such file or directory)"),
        ("path,label\n", "ABC", "manifest.csv: has no column"),
        ("path,label,sound,source,group,licence_tier,licence,seconds\n", "X", "--tiers X"),
    ],
)
def test_a_folder_with_nothing_to_learn_from_is_told(tmp_path, manifest, tiers, told):
    if manifest is not None:
        (tmp_path / "manifest.csv").write_text(manifest)

    done = CliRunner().invoke(main, ["--data", str(tmp_path), "--tiers", tiers])

    assert done.exit_code == 2
    assert told in done.output
    assert "Traceback" not in done.output


def test_a_further_folder_that_is_none_is_told(tmp_path):
    manifest = "path,label,sound,source,group,licence_tier,licence,seconds\n"
    for name in ("data", "more"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "manifest.csv").write_text(manifest)

    done = CliRunner().invoke(
        main, ["--data", str(tmp_path / "data"), "--more", str(tmp_path / "more")]
    )

    assert done.exit_code == 2
    assert f"{tmp_path / 'more' / 'manifest.csv'}: unreadable" in done.output


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="needs TensorFlow: make .venv/train")
@pytest.mark.skipif(not (DATA / "manifest.csv").exists(), reason=f"no recordings at {DATA}")
def test_a_small_model_can_be_trained_by_the_command(tmp_path):
    further = tmp_path / "further"
    further.mkdir()
    soundfile.write(further / "shot.wav", np.exp(-np.arange(9000) / 500), 12_000)
    (further / "manifest.csv").write_text(
        "path,label,sound,source,group,licence_tier,licence,seconds\n"
        "shot.wav,gunfire,gunshot,further,FP4 again,A,CC0,0.75\n"
    )
    command = ("-m", "models.training", "--data", str(DATA), "--more", str(further))
    settings = ("--only", "0", "--shards", "1", "--epochs", "2", "--cache", str(tmp_path))
    told = subprocess.run(
        [sys.executable, *command, *settings], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert told.returncode == 0, told.stderr[-2000:]
    folder = tmp_path / "folds" / "0"
    card = json.loads((folder / "gunfire.json").read_text())
    assert card["input"]["shape"] == [1, features.FRAMES, features.BANDS, 1]
    assert "FP1" not in card["training"]["groups"]
    assert {"FP2", "FP4 again"} <= set(card["training"]["groups"])
    assert (folder / "gunfire.tflite").stat().st_size < 300_000
    assert (folder / "gunfire.float.tflite").exists()
