"""The evaluation's second stage, on predictions made by hand; and what it says of bad folders."""

import math

import numpy as np
import pytest
from click.testing import CliRunner

from models.evaluation import claims, events, frozen, predictions, table
from models.evaluation.__main__ import main
from models.evaluation.figures import area, poisson_upper, share
from models.evaluation.frozen import Frozen
from models.evaluation.peers import PEERS
from models.evaluation.recordings import DataError, read_folder
from models.evaluation.run import Predictions
from models.evaluation.table import Table, as_row
from models.evaluation.views import of_peer
from models.training.splits import FOLDS
from node.classify.sidecar import Calibration, Thresholds
from node.types import LABELS

PLAIN = Calibration(scale=(1, 1, 1, 1), bias=(0, 0, 0, 0))
HALF = Frozen(PLAIN, PLAIN, Thresholds(gunfire=0.5, probable=0.3))
HEADER = "path,label,sound,source,group,licence_tier,licence,seconds\n"


def logs(label, sure):
    """Give log-evidence by which a class has `sure` of the probability."""
    odds = np.full(len(LABELS), math.log((1 - sure) / (len(LABELS) - 1)))
    odds[LABELS.index(label)] = math.log(sure)
    return odds


def row(label, said, fold=0, *, sure=0.94, live=0, peer=0.0, **more):
    ours = {**as_row("int8", logs(said, sure)), **as_row("float", logs(said, sure))}
    low = {f"low_{name}": value for name, value in ours.items()}
    return {
        **{"path": f"{label}{fold}.flac", "piece": 0, "label": label, "sound": label},
        **{
            "source": "s",
            "group": f"{label}-{fold}",
            "tier": "A",
            "fold": fold,
            "live": live,
            "audible": 1,
        },
        **{"seconds": 5.0, "range_m": 200.0 if live else math.nan, "snr_db": 20.0},
        **ours,
        **low,
        **dict.fromkeys(PEERS, peer),
        **{f"low_{name}": peer for name in PEERS},
        **more,
    }


def made(recordings, heard=()):
    return Predictions(
        Table.of(recordings, predictions.RECORDINGS),
        Table.of(heard, events.EVENTS),
        Table.of([], predictions.BACKFIRES),
        {"folds": {}},
    )


def told(recordings, heard=()):
    """Give the claims on predictions, by their text."""
    given = made(recordings, heard)
    seen = claims.judges(given, dict.fromkeys(range(FOLDS), HALF))
    return {claim.claim: claim for claim in claims.table(given, seen)}


def test_recall_counts_recordings_and_not_pieces():
    shots = [row("gunfire", said, live=1, path=f"{n}.flac", piece=piece)
             for n, pieces in enumerate([("gunfire", "other"), ("other", "other")])
             for piece, said in enumerate(pieces)]  # fmt: skip
    quiet = [row("other", "other", path=f"q{n}") for n in range(200)]

    claim = told([*shots, *quiet])["live fire heard"]

    assert claim.value == 0.5
    assert not claim.holds


def test_recall_bought_by_false_alarms_does_not_hold():
    shots = [row("gunfire", "gunfire", live=1)]
    city = [row("other", "gunfire" if n < 3 else "other", path=f"q{n}") for n in range(100)]

    rows = told([*shots, *city])

    assert rows["city sounds, fireworks among them, called gunfire"].value == pytest.approx(0.03)
    assert rows["live fire heard"].value == 1.0
    assert not rows["live fire heard"].holds


def test_background_called_gunfire_is_counted_with_its_hours():
    listened = {"path": "a", "event": 0, "label": "other", "sound": "rain", "source": "s",
                "group": "g", "tier": "A", "fold": 0, "what": "background", "seconds": 7200.0,
                "impulses": 0}  # fmt: skip
    false = {**listened, "event": 1, **as_row("int8", logs("gunfire", 0.9))}
    false |= as_row("float", logs("gunfire", 0.9))

    rows = told([row("gunfire", "gunfire", live=1), row("other", "other")], [listened, false])

    claim = rows["background through the pipeline, called gunfire"]
    assert claim.value == 1
    assert "2.00 h" in claim.unit
    assert not claim.holds


def test_a_peer_is_given_as_many_false_alarms_as_ours():
    city = [row("other", "other", path=f"q{n}", peer=n / 100) for n in range(100)]
    shot = row("gunfire", "gunfire", live=1, peer=0.95)

    strict, generous = (of_peer(made([shot, *city]), "yamnet", rate) for rate in (0.01, 0.10))

    assert strict.pieces.called.tolist() == [False] * 100 + [True]
    assert generous.pieces.called[0]
    assert generous.pieces.called.sum() == 11


def heard_too(rows):
    """Give an event for every recording, of the same evidence."""
    kept = ("path", "label", "sound", "source", "group", "tier", "fold")
    return [
        {k: v for k, v in r.items() if k in kept or k.startswith(("int8", "float"))}
        | {"event": 1, "what": r["label"], "seconds": 1.0, "impulses": 1}
        for r in rows
    ]


def test_thresholds_of_a_fold_do_not_hang_on_its_own_recordings():
    def some(in_fold_0):
        rows = [row("other", said, fold, sure=0.5 + 0.004 * n, path=f"{fold}-{n}")
                for fold in (0, 1, 2) for n in range(100)
                for said in [in_fold_0 if fold == 0 else "other"]]  # fmt: skip
        rows += [row("gunfire", "gunfire", fold, path=f"g{fold}") for fold in (0, 1, 2)]
        return frozen.of_folds(made(rows, heard_too(rows)), "int8")

    quiet, loud = some("other"), some("gunfire")

    assert quiet[0] == loud[0]
    assert quiet[1] != loud[1]


def test_nothing_is_fitted_to_shots_that_nothing_is_left_of():
    rows = [row("other", "other", sure=0.5 + 0.004 * n, path=f"q{n}") for n in range(100)]
    rows += [row("gunfire", "gunfire", live=1, path=f"g{n}") for n in range(20)]
    silent = [row("gunfire", "other", live=1, audible=0, path=f"s{n}") for n in range(20)]

    fitted = frozen.fitted(made(rows, heard_too(rows)))

    assert frozen.fitted(made([*rows, *silent], heard_too(rows))) == fitted
    heard = [{**r, "audible": 1} for r in silent]
    assert frozen.fitted(made([*rows, *heard], heard_too(rows))) != fitted


def test_intervals_are_over_groups_and_not_over_files():
    flags = np.repeat([True, False], 50)
    many = share(flags, np.arange(100).astype(str))
    few = share(flags, np.repeat(["a", "b"], 50))

    assert many.value == few.value == 0.5
    assert few.interval == (0.0, 1.0)
    assert many.interval[0] > 0.35


def test_the_interval_of_an_area_spans_groups_that_differ():
    found = area(
        np.array([0.9, 0.9, 0.1, 0.1]), np.array(["a", "a", "b", "b"]),
        np.array([0.5, 0.5]), np.array(["c", "d"]),
    )  # fmt: skip

    assert found.value == 0.5
    assert found.interval == (0.0, 1.0)


def test_the_bound_of_no_events_is_three_over_the_hours():
    assert poisson_upper(0, 10.0) == pytest.approx(0.2996, abs=1e-3)


def test_a_table_is_read_back_as_it_was_written(tmp_path):
    rows = [row("gunfire", "gunfire", 3, live=1), row("other", "other")]
    table.write(tmp_path / "r.csv", rows, predictions.RECORDINGS)

    read = table.read(tmp_path / "r.csv")

    assert read["fold"].tolist() == [3, 0]
    assert read["label"].tolist() == ["gunfire", "other"]
    assert math.isnan(read["range_m"][1])
    assert read.logs("int8") == pytest.approx(
        np.array([logs("gunfire", 0.94), logs("other", 0.94)]), abs=1e-3
    )


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (None, "unreadable"),
        ("path,label\n", "has no column"),
        (HEADER + "a.wav,gunfire,s,s,g,A,CC0,many\n", "no length"),
        (HEADER + "a.wav,gunfire,s,s,g,Z,CC0,1.0\n", "not A, B or C"),
        (HEADER + "a.wav,gunfire,s,s\n", "number of values"),
    ],
)
def test_a_folder_that_is_none_is_told_by_its_manifest(tmp_path, content, wanted):
    if content is not None:
        (tmp_path / "manifest.csv").write_text(content)

    with pytest.raises(DataError, match=wanted) as caught:
        read_folder(tmp_path)

    assert "manifest.csv" in str(caught.value)


def test_the_command_ends_with_2_and_one_line_on_a_bad_folder(tmp_path):
    (tmp_path / "manifest.csv").write_text(HEADER + "gone.wav,gunfire,s,s,g,A,CC0,1.0\n")

    done = CliRunner().invoke(main, ["--data", str(tmp_path)])

    assert done.exit_code == 2
    assert "gone.wav" in done.output
