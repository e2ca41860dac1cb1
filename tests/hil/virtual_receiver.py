"""A GNSS receiver without a sky: NMEA in real time on a pseudo-terminal, and a real gpsd on it.

What a real one cannot be asked to do it does at once: lose its fix, name a wrong second, fall
silent, be somewhere else.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
import tty
from datetime import UTC, datetime
from functools import reduce
from operator import xor
from typing import Final, Self

from tests.hil.process import end_with_us

LATE_S: Final = 0.12
SATELLITES: Final = ("01", "03", "06", "09", "12", "17", "19", "22", "28")


def missing_tools() -> str | None:
    """Say what is missing to run a gpsd."""
    return None if gpsd_path() else "gpsd (apt: gpsd)"


def gpsd_path() -> str | None:
    return shutil.which("gpsd") or shutil.which("gpsd", path="/usr/sbin")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class VirtualReceiver:
    """Writes GGA, GSA, GSV, RMC and ZDA once a second.

    Attributes
    ----------
    fix, silent, off_s, north_m
        May be changed while it runs: whether it has a fix, whether it says anything, by how much
        its time is wrong, how far north of its place it is.
    """

    def __init__(self) -> None:
        self.fix = True
        self.silent = False
        self.off_s = 0.0
        self.north_m = 0.0
        self._controller, self._terminal = os.openpty()
        tty.setraw(self._controller)
        tty.setraw(self._terminal)
        os.set_blocking(self._controller, False)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="virtual-receiver")

    @property
    def device(self) -> str:
        return os.ttyname(self._terminal)

    def __enter__(self) -> Self:
        os.chmod(self.device, 0o666)  # noqa: S103 - gpsd leaves root behind
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._thread.join()
        os.close(self._controller)
        os.close(self._terminal)

    def _run(self) -> None:
        while True:
            second = int(time.time()) + 1
            if self._closing.wait(max(0.0, second + LATE_S - time.time())):
                return
            if not self.silent:
                self._write(self._sentences(second + self.off_s))

    def _write(self, text: str) -> None:
        try:
            os.write(self._controller, text.encode())
            os.read(self._controller, 4096)  # what gpsd asks of it
        except BlockingIOError:
            pass

    def _sentences(self, utc_s: float) -> str:
        when = datetime.fromtimestamp(utc_s, UTC)
        clock, day = when.strftime("%H%M%S.00"), when.strftime("%d%m%y")
        minutes = 51.0 + self.north_m / 1852.0
        place = f"47{minutes:09.6f},N,10612.00000,E" if self.fix else ",,,"
        mode, letter = (3, "A") if self.fix else (1, "V")
        fixed = "1,09,0.9,1310.0,M,-30.0,M" if self.fix else "0,00,99.9,,M,,M"
        used = ",".join(SATELLITES) + ",,," if self.fix else "," * 11
        views = [SATELLITES[i : i + 4] for i in range(0, 9, 4)]
        sentences = [f"GPGGA,{clock},{place},{fixed},,", f"GPGSA,A,{mode},{used},1.6,0.9,1.3"]
        for number, view in enumerate(views, 1):
            seen = ",".join(f"{s},45,{int(s) * 11:03d},42" for s in view)
            sentences.append(f"GPGSV,{len(views)},{number},09,{seen}")
        sentences.append(f"GPRMC,{clock},{letter},{place},0.0,0.0,{day},,,{letter}")
        sentences.append(f"GPZDA,{clock},{when:%d,%m,%Y},00,00")
        return "".join(f"${s}*{reduce(xor, s.encode()):02X}\r\n" for s in sentences)


class Gpsd:
    """A gpsd of our own on a loopback port; may be stopped, hung, and started anew."""

    def __init__(self, device: str, port: int | None = None) -> None:
        self._device = device
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        path = gpsd_path()
        assert path
        self._process = subprocess.Popen(
            [path, "-N", "-n", "-b", "-S", str(self.port), self._device],
            stderr=subprocess.DEVNULL,
            preexec_fn=end_with_us,
        )

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(10)

    def send(self, number: int) -> None:
        """Send it a signal: SIGSTOP hangs it, SIGCONT lets it go on."""
        assert self._process
        self._process.send_signal(number)
