"""Every fault that we know how to bring about, and what the node makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.hil import suite
from tests.hil.bench import Bench, missing_parts
from tests.hil.fault import strike
from tests.hil.fault_table import BENCHES, Row
from tests.hil.rig_bench import RigBench
from tests.hil.unit_stage import Installed
from tests.hil.virtual_bench import virtual_bench

ROWS = [
    pytest.param(
        name,
        row,
        id=f"{name}: {row.name}",
        marks=[pytest.mark.alone] if row.alone else [],
    )
    for name, setup in BENCHES.items()
    for row in setup.rows
]


@pytest.fixture(scope="module")
def bench(rig: RigBench | None, request: pytest.FixtureRequest) -> Iterator[dict[str, Bench]]:
    """Begin benches as they are asked for, one at a time; of rigs there is one, for all of it."""
    if rig is not None:
        yield dict.fromkeys(BENCHES, rig)
        return
    product: Installed = request.getfixturevalue("product")
    wavclock_plugin: Path = request.getfixturevalue("wavclock_plugin")

    class Benches(dict[str, Bench]):
        def __init__(self) -> None:
            super().__init__()
            self.opened = ExitStack()

        def __missing__(self, name: str) -> Bench:
            self.opened.close()
            self.clear()
            begun = virtual_bench(name, product, wavclock_plugin, **BENCHES[name].options)
            self[name] = self.opened.enter_context(begun)
            return self[name]

    benches = Benches()
    with benches.opened:
        yield benches


# paho leaves a socket whose handshake failed to Python, which closes it and says so.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
@pytest.mark.hil
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("on", "row"), ROWS)
def test_a_fault_is_told_in_time_and_loses_nothing_that_was_heard(
    bench: dict[str, Bench], on: str, row: Row
) -> None:
    on_bench = bench[on]
    if missing := missing_parts(on_bench, row.needs):
        pytest.skip(missing)
    outcome = strike(on_bench, row)
    suite.record(
        on,
        {
            "fault": row.name,
            "to_tell": bool(row.told),
            "by": row.by,
            "bound_s": row.told_s,
            "recovers_s": row.recovers_s,
            "untold_bearings": row.untold_bearings,
            **asdict(outcome),
        },
    )
    assert not outcome.complaints, outcome
