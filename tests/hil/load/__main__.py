"""`make soak`, its third part: an hour of New Year's Eve, in real time."""

from __future__ import annotations

from typing import Final

from tests.hil.__main__ import NOTE
from tests.parts import run_apart

PARTS: Final = ("load.an_hour",)

if __name__ == "__main__":
    run_apart("hil", __doc__, PARTS, NOTE, command="make soak")
