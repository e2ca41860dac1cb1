"""`make units`: the node under systemd, as a technician leaves it, and what `check` says of it."""

from typing import Final

from tests.parts import run
from tests.units.quiet import QuietHour

PARTS: Final = ("sandbox", "start", "recovery", "planted", "microphones", "quiet")
NOTE: Final = (
    "The node is installed by provisioning/install into a fresh Debian root, and runs under a real "
    "systemd in a container, in the sandbox of its unit as shipped: one drop-in adds the folder of "
    "the virtual sound card, nothing else is changed. Broker, gpsd and chronyd (which leaves the "
    "clock alone) are real; pins are gpiozero's mock. Nothing here was run on a Pi."
)

if __name__ == "__main__":
    with QuietHour():
        run("units", __doc__, PARTS, NOTE)
