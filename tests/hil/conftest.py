"""What the bench's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hil import container
from tests.hil.unit_stage import Installed, installed


@pytest.fixture(scope="session")
def product() -> Iterator[Installed]:
    """Install this checkout into a container."""
    if missing := container.missing():
        pytest.skip(f"the virtual bench needs {missing}")
    with installed() as product:
        yield product
