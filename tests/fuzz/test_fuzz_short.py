"""A short run of every fuzz target; the long one, of more than a million inputs, is `make faults`.

A failing input is kept in build/fuzz: `python -m tests.fuzz again FILE` tries it again.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.evidence import ROOT
from tests.fuzz.engine import Tally as Count
from tests.fuzz.engine import Target, attempt, run
from tests.fuzz.plants import PLANTS
from tests.fuzz.targets import TARGETS

SEED = 20_261_128
INPUTS = {"settings": 700, "outbox": 150, "sound": 1000, "gpsd": 800, "chrony": 5000}
OTHERS = 1200


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_no_input_crashes_hangs_or_is_wrongly_accepted(target: Target, tmp_path: Path) -> None:
    tally = run(target, SEED, 0, INPUTS.get(target.name, OTHERS), tmp_path)
    found = [f"{finding.what}: {finding.keep()}" for finding in tally.findings]
    assert not found, "\n".join(found)
    assert 0 < tally.accepted < tally.inputs


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_what_all_inputs_are_made_from_is_accepted(target: Target, tmp_path: Path) -> None:
    corpus, count = target.corpus(), Count()
    for number, data in enumerate(corpus):
        assert attempt(target, number, data, tmp_path, count) is None
    assert count.accepted >= min(len(corpus), 2) - (len(corpus) == 1)


@pytest.mark.parametrize("name", ["chrony-index", "identity-endless", "message-range"])
def test_a_planted_bug_is_found(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "run", PLANTS[name].target, "--plant", name]
    done = subprocess.run(
        [*command, "--inputs", "5000", "--seed", "1", "--most", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["findings"]
