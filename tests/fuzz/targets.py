"""Every target, by its name."""

from __future__ import annotations

from typing import Final

from tests.fuzz import of_clock, of_messages, of_outbox, of_recordings, of_settings
from tests.fuzz.engine import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (
        *of_settings.TARGETS,
        *of_messages.TARGETS,
        *of_clock.TARGETS,
        *of_recordings.TARGETS,
        *of_outbox.TARGETS,
    )
}
