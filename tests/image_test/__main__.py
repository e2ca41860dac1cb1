"""`make image-test`: the image, booted under QEMU, from a bare card to a verified node."""

from typing import Final

from tests.parts import run_apart

PARTS: Final = ("building", "journey", "clocks", "mistakes", "updates", "refused", "power")
NOTE: Final = (
    "The image as built, its card written by gunfire-card, booted by QEMU's `virt` board (arm64, "
    "emulated) with nothing typed: its kernel, systemd, gpsd on a serial line, chrony, kernel PPS "
    "and PyAudio are the image's own; the Pi's firmware, DTB, pins and radio are not in it. The "
    "fleet's server and Mosquitto, on the shipped files, run outside. As the power comes on the "
    "clock says 2023."
)

if __name__ == "__main__":
    run_apart("image-test", __doc__, PARTS, NOTE)
