"""`make timing`: time, direction and rounds against simulated truth and recorded live fire."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from typing import Final

from matplotlib.figure import Figure
from rich.console import Console

from tests.evidence import FOLDER, publish, show
from tests.timing import (
    airborne,
    calibrate,
    direction,
    host,
    live_rounds,
    onset,
    pps,
    rounds,
    seconds,
)
from tests.timing.part import Part, Tell

PARTS: Final[dict[str, Callable[[Tell], Part]]] = {
    "pps": pps.measure,
    "host": host.measure,
    "seconds": seconds.measure,
    "onset": onset.measure,
    "direction": direction.measure,
    "airborne": airborne.measure,
    "calibrate": calibrate.measure,
    "rounds": rounds.measure,
    "live_rounds": live_rounds.measure,
}
COLUMNS: Final = 2
NOTE: Final = (
    "Simulated truth through the public interface of each stage; what was chosen was chosen on "
    "other runs, other seeds and other firing points than are told here. The simulation leaves out "
    "turbulence, wind, walls close behind an array and a card's own faults: figures of it are for "
    "comparison and regression, and the live-fire rows are the judge. Nothing here was measured on "
    "a real receiver, card or array."
)


def main() -> None:
    """Measure, print, write docs/evidence/timing.json and its picture."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="measure this part; nothing is written"
    )
    only = parser.parse_args().only
    chosen = only or list(PARTS)
    parts: dict[str, Part] = {}
    with Console(stderr=True).status("measuring") as status:
        for number, name in enumerate(chosen, 1):
            place = f"{number} of {len(chosen)}: {name}"
            status.update(place)
            parts[name] = PARTS[name](lambda what, place=place: status.update(f"{place}: {what}"))
    claims = [claim for part in parts.values() for claim in part.claims]
    details = [detail for part in parts.values() for detail in part.details]
    if only:
        show("make timing", claims, details)
        return
    _draw(list(parts.values()))
    publish("timing", "make timing", claims, NOTE, details)


def _draw(parts: list[Part]) -> None:
    rows = -(-len(parts) // COLUMNS)
    figure = Figure(figsize=(7 * COLUMNS, 4.2 * rows), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for part, place in zip(parts, axes, strict=False):
        part.draw(place)
    for empty in axes[len(parts) :]:
        empty.set_axis_off()
    FOLDER.mkdir(parents=True, exist_ok=True)
    figure.savefig(FOLDER / "timing.png", dpi=80)


if __name__ == "__main__":
    main()
