"""Fixtures that several tiers of tests share.

That this file stands here also puts tests/ on the path, so that a test can say
`from hil.virtual_card import VirtualCard`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from hil.virtual_card import VirtualCard, build_plugin, missing_tools
from hypothesis import HealthCheck, settings

# How long an example takes says more of what else the machine does than of what is tested.
settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def wavclock_plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the ALSA plug-in of the virtual sound card, once a session."""
    missing = missing_tools()
    if missing:
        pytest.skip(f"the virtual sound card needs {missing}")
    return build_plugin(tmp_path_factory.mktemp("wavclock"))


@pytest.fixture
def make_card(wavclock_plugin: Path, tmp_path: Path) -> Callable[..., VirtualCard]:
    """Make a virtual sound card: `make_card(frames, sample_rate_hz, bits=32, ppm=25)`."""

    def make(*args: object, **kwargs: object) -> VirtualCard:
        return VirtualCard(tmp_path / "card", wavclock_plugin, *args, **kwargs)

    return make
