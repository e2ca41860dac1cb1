"""Whether the supply holds: under-voltage and throttling, as the kernel knows them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# Below, and with enough voltage, the firmware does not slow the cores down.
MAY_THROTTLE_C: Final = 75.0
_CAPPED_OR_THROTTLED: Final = 0b0110  # vcgencmd get_throttled: bits 1 and 2


@dataclass(frozen=True, slots=True)
class PowerReading:
    """The supply now; None is what the kernel does not tell.

    Attributes
    ----------
    under_voltage
        Whether the supply fell below 4.63 V in the last seconds.
    throttled
        Whether the cores are slowed down for it, or for heat.
    """

    under_voltage: bool | None
    throttled: bool | None


def power(sys_root: Path, soc_c: float | None) -> PowerReading:
    """Read what the kernel knows.

    Parameters
    ----------
    sys_root
        Where sysfs is.
    soc_c
        How warm the chip is.
    """
    under_voltage = _under_voltage(sys_root)
    # The first look at this file puts a warning into the kernel's log (it is deprecated, and has no
    # successor), so that it is only looked at with a reason.
    if not under_voltage and soc_c is not None and soc_c < MAY_THROTTLE_C:
        return PowerReading(under_voltage, throttled=None if under_voltage is None else False)
    return PowerReading(under_voltage, _throttled(sys_root))


def _under_voltage(sys_root: Path) -> bool | None:
    for name in sorted((sys_root / "class/hwmon").glob("hwmon*/name")):
        if _text(name) == "rpi_volt":
            return {"0": False, "1": True}.get(_text(name.parent / "in0_lcrit_alarm") or "")
    return None


def _throttled(sys_root: Path) -> bool | None:
    # soc:firmware up to the Pi 4, soc@…:firmware on a Pi 5.
    for path in sorted((sys_root / "devices/platform").glob("soc*/soc*:firmware/get_throttled")):
        text = _text(path) or ""
        if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text):
            return bool(int(text, 16) & _CAPPED_OR_THROTTLED)
    return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
