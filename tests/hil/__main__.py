"""`make hil`: one suite on the bench without hardware, in real time.

The exit code is 1 where a claim does not hold. Ctrl-C, or SIGTERM, ends it in good order.
"""

from __future__ import annotations

import signal
from typing import Final

from tests.parts import run_apart

PARTS: Final = ("suite", "load.fleet", "load.new_year")
NOTE: Final = (
    "A node as it is installed, under a real systemd in a container, hears in real time through "
    "PortAudio and PyAudio. Its card is an ALSA plug-in with a clock of its own, its receiver "
    "writes NMEA to a real gpsd, chronyd follows SOCK reference clocks and leaves the machine's "
    "clock alone, Mosquitto stands on the shipped files with mutual TLS behind a proxy that "
    "breaks the network, pins are gpiozero's mock. Nodes have a card's priority (nice -10), since "
    "the virtual card is part of their process. Nothing here is verified on hardware: "
    "docs/do/build-a-rig.md is the bench that does it."
)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has those behind it ignore the first
        signal.signal(number, signal.default_int_handler)
    short = [claim.claim for claim in run_apart("hil", __doc__, PARTS, NOTE) if not claim.holds]
    if short:
        raise SystemExit(f"does not hold: {'; '.join(short)}")
