"""`make timing`: time, direction and rounds against simulated truth and recorded live fire."""

from typing import Final

from tests.parts import run

PARTS: Final = (
    "pps", "host", "seconds", "onset", "gaps", "direction", "airborne", "calibrate", "rounds",
    "live_rounds",
)  # fmt: skip
NOTE: Final = (
    "Simulated truth through the public interface of each stage; what was chosen was chosen on "
    "other runs, other seeds and other firing points than are told here. The simulation leaves out "
    "turbulence, wind, walls close behind an array and a card's own faults: figures of it are for "
    "comparison and regression, and the live-fire rows are the judge. Nothing here was measured on "
    "a real receiver, card or array."
)

if __name__ == "__main__":
    run("timing", __doc__, PARTS, NOTE)
