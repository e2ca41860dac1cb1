"""Which board this is: what tells a card that moved, or was copied, from one that stayed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from provisioning.places import Places

# Drivers of network cards are loaded while first boot runs.
NIC_WITHIN_S: Final = 10.0
_LOOK_S: Final = 0.1
_PERMANENT: Final = "0"  # addr_assign_type (sysfs-class-net)
# What makers leave in DMI where they did not fill it in.
_NO_SERIAL: Final = frozenset(
    {"", "0", "none", "default string", "not specified", "to be filled by o.e.m.", "system serial"}
)


def machine_id(places: Places, wait_s: float = NIC_WITHIN_S) -> str | None:
    """Give a name that stays with this board; None where it has none.

    The board's serial number (device tree, else DMI); else the address of its first network card
    that is no virtual one, waited for a little.
    """
    for kind, file in (
        ("board", "proc/device-tree/serial-number"),
        ("dmi", "sys/class/dmi/id/board_serial"),
        ("dmi", "sys/class/dmi/id/product_serial"),
    ):
        serial = _read(places.root / file)
        if serial.lower() not in _NO_SERIAL and set(serial) != {"0"}:
            return f"{kind}:{serial}"
    until_s = time.monotonic() + wait_s
    while True:
        address = _first_address(places.root / "sys/class/net")
        if address or time.monotonic() >= until_s:
            return f"mac:{address}" if address else None
        time.sleep(_LOOK_S)


def _first_address(folder: Path) -> str:
    for card in sorted(folder.glob("*")):
        if (card / "device").exists() and _read(card / "addr_assign_type") == _PERMANENT:
            address = _read(card / "address").lower()
            if address.strip("0:"):
                return address
    return ""


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace").strip(" \n\0")
    except OSError:
        return ""
