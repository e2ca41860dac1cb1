"""How warm it is: in the enclosure by a DS18B20 on the 1-wire bus, and in the chip."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Final, Self

READ_EVERY_S: Final = 30.0
_BUS: Final = Path("bus/w1/devices")
_SOC: Final = Path("class/thermal/thermal_zone0/temp")
# DS18B20 datasheet: what it can measure, and what it holds from power-on to its first conversion.
_LEAST_MC: Final = -55_000
_MOST_MC: Final = 125_000
_POWER_ON_MC: Final = 85_000


class Thermometer:
    """Reads a DS18B20 now and then, on a thread of its own: each reading takes 0.75 s.

    Parameters
    ----------
    fitted
        Whether there is one; if not, nothing is read.
    name
        Its name on the bus (`28-…`); the first one's if None.
    sys_root
        Where sysfs is.
    """

    def __init__(self, fitted: bool, name: str | None, sys_root: Path) -> None:
        self._fitted = fitted
        self._name = name
        self._sys_root = sys_root
        self._celsius: float | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="thermometer", daemon=True)

    def __enter__(self) -> Self:
        if self._fitted:
            self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        # Not waited for: a bus that hangs would hold the node's end up.
        self._closing.set()

    @property
    def celsius(self) -> float | None:
        """The latest reading; None if it failed, or there is none yet."""
        return self._celsius

    def _run(self) -> None:
        while not self._closing.is_set():
            self._celsius = enclosure_c(self._name, self._sys_root)
            self._closing.wait(READ_EVERY_S)


def enclosure_c(name: str | None, sys_root: Path) -> float | None:
    """Read the thermometer in degrees Celsius; None if it gives nothing to be believed."""
    sensors = sorted((sys_root / _BUS).glob(name or "28-*"))
    # A wrong check sum fails to be read (EIO).
    milli_c = _integer(sensors[0] / "temperature") if sensors else None
    if milli_c is None or milli_c == _POWER_ON_MC or not _LEAST_MC <= milli_c <= _MOST_MC:
        return None
    return milli_c / 1000


def soc_c(sys_root: Path) -> float | None:
    """Read the chip's own thermometer in degrees Celsius; None if there is none."""
    milli_c = _integer(sys_root / _SOC)
    return None if milli_c is None or not -60_000 <= milli_c <= 200_000 else milli_c / 1000


def _integer(path: Path) -> int | None:
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else None
