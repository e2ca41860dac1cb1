"""What the bench's tests share: they run on a rig where one is named, else without hardware."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hil import container, rig_bench, suite
from tests.hil.rig_bench import RigBench
from tests.hil.rig_command import RigError
from tests.hil.unit_stage import Installed, installed


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""

    def rank(item: pytest.Item) -> int:
        found = (i for i, name in enumerate(suite.FIRST) if name in item.nodeid)
        return next(found, len(suite.FIRST))

    items.sort(key=rank)


@pytest.fixture(scope="session")
def product() -> Iterator[Installed]:
    """Install this checkout into a container."""
    if missing := container.missing():
        pytest.skip(f"the virtual bench needs {missing}")
    if place := os.environ.get(suite.PRODUCT):
        yield Installed.at(Path(place))
        return
    with installed() as product:
        yield product


@pytest.fixture(scope="session")
def rig() -> Iterator[RigBench | None]:
    """Take over the rig of GUNFIRE_RIG_HOST for as long as tests run; None where none is named."""
    if not os.environ.get("GUNFIRE_RIG_HOST"):
        yield None
        return
    if missing := rig_bench.missing():
        pytest.skip(missing)
    try:
        with rig_bench.rig_bench() as rig:
            yield rig
    except RigError as error:
        pytest.fail(str(error), pytrace=False)
