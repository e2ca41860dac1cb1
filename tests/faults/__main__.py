"""`make faults`: every fault that we know of, and what arrives all the same."""

from __future__ import annotations

import importlib
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.evidence import publish, show
from tests.faults.part import Part

ORDER: Final = (
    "delivery", "kills", "writes", "clock", "disk", "beyond", "drain", "verify", "privacy", "fuzz",
)  # fmt: skip
PARTS: Final = tuple(name for name in ORDER if Path(__file__).with_name(f"{name}.py").is_file())
SILENT_S: Final = 20.0
"""Between two lines of progress that go into a file."""
NOTE: Final = (
    "The daemon as shipped, with its model, its outbox on disk, its key and its sender, in a "
    "process of its own, hears shots of the simulator thirty times faster than real time (eight "
    "times under libfaketime) from a card that does not wait. The broker is a real Mosquitto, the "
    "network a proxy on loopback. Received is what a subscriber that the broker remembers has got, "
    "de-duplicated by event_id and revision. Keep-alive is 5 s and the longest pause before "
    "another try 1 s, so that faults pass quickly. A disk that lies about what it has saved is "
    "not among the faults."
)


def main() -> None:
    """Measure, print, write docs/evidence/faults.json."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="measure this part; nothing is written"
    )
    only = parser.parse_args().only
    chosen = only or list(PARTS)
    parts: dict[str, Part] = {}
    console, silent_until_s = Console(stderr=True), [0.0]
    with console.status("starting") as status:
        for number, name in enumerate(chosen, 1):
            began_s = time.monotonic()
            place = f"{number} of {len(chosen)}: {name}"

            def tell(what: str, place: str = place, began_s: float = began_s) -> None:
                now_s = time.monotonic()
                line = f"{place}: {what} ({now_s - began_s:.0f} s)"
                status.update(line)
                if not console.is_terminal and now_s >= silent_until_s[0]:
                    console.print(line)
                    silent_until_s[0] = now_s + SILENT_S

            tell("starting")
            parts[name] = importlib.import_module(f"tests.faults.{name}").measure(tell)
            console.print(f"{place}: {time.monotonic() - began_s:.0f} s")
    claims = [claim for part in parts.values() for claim in part.claims]
    details = [detail for part in parts.values() for detail in part.details]
    if only:
        show("make faults", claims, details)
        return
    publish("faults", "make faults", claims, NOTE, details)


if __name__ == "__main__":
    main()
