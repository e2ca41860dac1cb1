"""A soak of most of an hour, in less than a minute: a good node passes, planted faults are found.

Shorter than can tell a megabyte a day: that is what the long one is for. Half a minute each, and so
of the bench's kind, not run unless asked for:

    pytest -m hil tests/unit/hil_soak
"""

import shutil
from pathlib import Path

import pytest

from tests.evidence import Claim
from tests.hil.soak import judge, series
from tests.hil.soak.judge import Outcome
from tests.hil.soak.simulated import Form, run

pytestmark = [
    pytest.mark.hil,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        shutil.which("mosquitto", path="/usr/sbin:/usr/bin") is None,
        reason="needs mosquitto (apt: mosquitto)",
    ),
]
HOURS = 0.7


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("library") / "sounds"


def soak(folder: Path, library: Path, *plants: str) -> tuple[Outcome, dict[str, Claim]]:
    """Give what a short soak claims, by the first words of the claim."""
    form = Form(HOURS, microphones=1, sample_rate_hz=16_000, plants=plants)
    outcome, samples = run(form, folder, lambda _: None, library)
    assert series.load(folder) == samples
    return outcome, {claim.claim[:24]: claim for claim in judge.claims(outcome, samples)}


def test_a_good_node_loses_nothing_and_leaves_nothing_open(tmp_path: Path, library: Path):
    outcome, claims = soak(tmp_path, library)

    assert outcome.tally.shots >= 5
    of_memory = {name for name in claims if name.startswith("growth")}
    assert [
        name for name, claim in claims.items() if not claim.holds and name not in of_memory
    ] == []


@pytest.mark.parametrize(
    ("plants", "claims_broken"),
    [
        (("much memory", "thread", "lost"), {"growth", "threads", "shots"}),
        (("doubled",), {"numbers"}),
    ],
)
def test_planted_faults_are_found(
    tmp_path: Path, library: Path, plants: tuple[str, ...], claims_broken: set[str]
):
    outcome, claims = soak(tmp_path, library, *plants)

    broken = {name for name, claim in claims.items() if not claim.holds}
    assert {name.split()[0] for name in broken} == claims_broken
    if "much memory" in plants:
        minutes = 60 * HOURS * 3 / 4  # after the warm-up
        assert claims["growth of memory of its "].value == pytest.approx(2 * minutes, rel=0.2)
    assert not outcome.is_evidence
