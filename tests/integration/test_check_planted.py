"""`gunfire-node check` on a node on the bench: a good one, and with one or two faults of each kind.

Faults that do not touch each other are planted together here; one at a time, and all of them, they
are in `make units` (tests/units/planted.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.hil import virtual_card, virtual_chrony, virtual_receiver
from tests.hil.virtual_card import build_plugin
from tests.units.good_node import Bench, Checked
from tests.units.planted import good
from tests.units.planted_faults import FAULTS, Fault
from tests.units.surroundings import surroundings

MISSING = [
    tool
    for part in (virtual_card, virtual_chrony, virtual_receiver)
    if (tool := part.missing_tools())
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]

TOGETHER = (
    (),
    ("card absent", "receiver without a fix", "second opinion off by 5 s", "broker of another CA",
     "model spoilt", "signing key readable by others", "pins not to be had"),
    ("microphone silent", "microphone humming", "chronyd not running",
     "surveyed 5 km away", "client certificate expired", "signing key spoilt", "lid open"),
    ("no pulse in its channel", "gpsd not running", "broker takes nothing of this name",
     "certificate of another node"),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Future[Checked]]]:
    """Check a node with each set of faults, two at a time."""
    folder = tmp_path_factory.mktemp("bench")
    with (
        surroundings(folder, build_plugin(folder)) as around,
        ThreadPoolExecutor(2) as pool,
    ):

        def check(number: int, names: tuple[str, ...]) -> Checked:
            place: Path = folder / f"node-{number}"
            place.mkdir()
            bench = Bench(place, around)
            for name in names:
                BY_NAME[name].plant(bench)
            return bench.check()

        yield [pool.submit(check, number, names) for number, names in enumerate(TOGETHER)]


def test_a_good_node_passes_without_a_warning_and_its_light_is_well(
    answers: list[Future[Checked]],
) -> None:
    done = answers[0].result()
    assert good(done) == []
    assert done.report["running"] is None
    assert {"sound card", "microphone 3", "pulse", "receiver", "clock", "second opinion", "broker",
            "signing key", "board", "position"} < done.lines.keys()  # fmt: skip


@pytest.mark.parametrize(
    ("number", "fault"),
    [(n, BY_NAME[name]) for n, names in enumerate(TOGETHER) for name in names],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_a_fault_is_told_with_its_next_step_and_light(
    answers: list[Future[Checked]], number: int, fault: Fault
) -> None:
    done = answers[number].result()
    assert list(fault.complaints_of_line(done)) == []
    assert done.code == 1
    assert done.seconds < 60


def test_the_light_says_the_gravest_of_several(answers: list[Future[Checked]]) -> None:
    assert answers[1].result().light == (2, 1)
    assert answers[2].result().light == (2, 5)
