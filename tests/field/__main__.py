"""`make field`: recorded live fire, and simulated cities, through the whole system."""

from typing import Final

from tests.parts import run_apart

PARTS: Final = (
    "hearing", "live_fire", "city", "association", "liars", "load", "broker_load", "muzzle",
)  # fmt: skip
NOTE: Final = (
    "Live fire: ShotSpotter Tech Note 098 (arXiv 2108.07377, CC BY 4.0), real pistol shots at 44 "
    "to 1366 m in a hilly city; truth is its survey, good to 2.5 m. The parts on simulated cities "
    "are for comparison and regression: their streets are a formula."
)

if __name__ == "__main__":
    run_apart("field", __doc__, PARTS, NOTE, data=True)
