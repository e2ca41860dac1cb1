"""A good run holds in every claim, and each fault that is planted breaks its own and no other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.hil.soak import judge, series
from tests.hil.soak.judge import DAY_S, HOUR_S, MB, Outcome
from tests.hil.soak.ledger import Tally
from tests.hil.soak.pictures import pictures, save
from tests.hil.soak.series import Sample

GOOD = Tally(made=4000, received=4000, again=12, shots=640)
RUN = Outcome("soak-simulated", "a street", 72 * HOUR_S, 72 * HOUR_S, 72 * HOUR_S, 9000.0, GOOD)


def samples(hours: float = 72.0) -> list[Sample]:
    """Give the series of a good run, whose broker is away for half an hour in six."""
    rng = np.random.default_rng(1)
    taken = []
    for number, at_s in enumerate(np.arange(120.0, hours * HOUR_S + 1, 120.0)):
        away = 2.0 <= at_s / HOUR_S % 6 < 2.5
        memory = 65e6 - 5e6 * np.exp(-at_s / HOUR_S) + rng.normal(0, 2e5)
        taken.append(
            Sample(
                at_s=at_s,
                wall_s=at_s / 30,
                waited_s=0.05,
                anonymous_bytes=int(memory),
                resident_bytes=int(memory + 40e6),
                descriptors=9 if away else 10,
                threads=2,
                cpu_s=at_s / 35,
                outbox_depth=20 if away else number % 2,
                outbox_bytes=400_000,
                log_bytes=100 * number,
                clock_source="ntp" if number % 50 == 0 else "pps",
                clock_sigma_s=1.4e-7,
                acknowledged=number,
                received=number,
                again=0,
                missing=0,
                samples_lost=0,
                broker_bytes=0 if away else 8_500_000,
                blocks=700_000 + number % 7,
            )
        )
    return taken


def broken(outcome: Outcome, taken: list[Sample]) -> list[str]:
    return [claim.claim for claim in judge.claims(outcome, taken) if not claim.holds]


def test_a_good_run_holds():
    assert broken(RUN, samples()) == []


def test_two_megabytes_a_day_break_the_claims_on_memory_alone():
    leaking = [
        replace(
            sample,
            anonymous_bytes=sample.anonymous_bytes + int(2 * MB * sample.at_s / DAY_S),
            resident_bytes=sample.resident_bytes + int(2 * MB * sample.at_s / DAY_S),
        )
        for sample in samples()
    ]

    found = broken(RUN, leaking)

    assert len(found) == 2
    assert all("memory" in claim for claim in found)


@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("descriptors", lambda at_s: int(at_s // HOUR_S)),
        ("threads", lambda at_s: int(at_s > 36 * HOUR_S)),
    ],
)
def test_what_stays_open_breaks_its_own_claim(name: str, plant):
    taken = [replace(s, **{name: getattr(s, name) + plant(s.at_s)}) for s in samples()]

    (found,) = broken(RUN, taken)

    assert found.startswith(name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lost": 1}, "lost"),
        ({"doubled": 1}, "two"),
        ({"unlinked": 1}, "signed"),
        ({"unheard": 1}, "shots"),
        ({"waiting": 1}, "wait"),
        ({"made": 0}, "lost"),
        ({"shots": 0}, "shots"),
    ],
)
def test_what_is_lost_or_comes_twice_breaks_its_own_claim(change: dict[str, int], words: str):
    (found,) = broken(replace(RUN, tally=replace(GOOD, **change)), samples())

    assert words in found


def test_samples_that_the_card_lost_break_their_claim():
    taken = samples()
    taken[-1] = replace(taken[-1], samples_lost=4096)

    assert broken(RUN, taken) == ["samples that the card lost"]


def test_a_run_that_was_broken_off_says_so_and_is_judged_as_far_as_it_went():
    outcome = replace(RUN, heard_s=30 * HOUR_S, full_s=72 * HOUR_S)

    (found,) = broken(outcome, samples(30))

    assert found.endswith("heard")
    assert not outcome.is_evidence


def test_a_node_that_was_meddled_with_is_no_evidence():
    assert RUN.is_evidence
    assert not replace(RUN, plants=("memory",)).is_evidence


def test_an_hour_is_judged_by_what_it_grew_in_all_once_it_was_warm():
    hour = replace(RUN, asked_s=HOUR_S, heard_s=HOUR_S)
    taken = [
        replace(sample, at_s=sample.at_s / 72, anonymous_bytes=int(65e6 + 2e5 * (number % 3)))
        for number, sample in enumerate(samples())
    ]
    taken = [replace(s, resident_bytes=s.anonymous_bytes) for s in taken]
    settling = [replace(s, anonymous_bytes=s.anonymous_bytes + int(s.at_s * 300)) for s in taken]
    leaking = [replace(s, anonymous_bytes=s.anonymous_bytes + int(s.at_s * 3000)) for s in taken]

    assert broken(hour, taken) == broken(hour, settling) == []
    assert len(broken(hour, leaking)) == 1


@pytest.mark.parametrize(
    ("run", "asked"),
    [(RUN, "≤ 1 is asked"), (replace(RUN, asked_s=HOUR_S, heard_s=HOUR_S), "≤ 3 is asked")],
)
def test_the_picture_says_of_memory_what_the_claim_says(run: Outcome, asked: str):
    taken = samples(run.heard_s / HOUR_S)
    claim = next(c for c in judge.claims(run, taken) if "of its own alone" in c.claim)
    axes = Figure().subplots()

    pictures(run, taken)[0](axes)

    (said,) = (t.get_text() for t in axes.get_legend().get_texts() if "asked" in t.get_text())
    assert said.startswith(f"{claim.value:+.2f} {claim.unit} (")
    assert said.endswith(asked)


def test_what_is_kept_of_a_run_can_be_judged_and_drawn_anew(tmp_path: Path):
    taken = samples()
    RUN.save(tmp_path)
    series.save(tmp_path, taken)

    again = series.load(tmp_path)
    outcome = judge.load(tmp_path, again)
    save(pictures(outcome, again), tmp_path / "picture.png")

    assert (again, outcome) == (taken, RUN)
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_of_a_run_that_died_the_series_is_judged_but_for_a_torn_line(tmp_path: Path):
    replace(RUN, heard_s=0.0, wall_s=0.0, tally=Tally()).save(tmp_path)
    series.save(tmp_path, samples(12))
    with (tmp_path / series.FILE).open("a") as file:
        file.write('{"at_s": 43')

    taken = series.load(tmp_path)

    assert judge.load(tmp_path, taken).heard_s == taken[-1].at_s == 12 * HOUR_S
