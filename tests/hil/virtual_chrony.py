"""A real chronyd that leaves the machine's clock alone, disciplined by a simulated GPS with pulse.

Its two SOCK reference clocks are what gpsd and the kernel feed on a node (systemd/chrony).
"""

from __future__ import annotations

import random
import shutil
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from tests.hil.process import end_with_us
from tests.hil.virtual_receiver import free_port

SAMPLE: Final = struct.Struct("@qqdiiii")  # refclock_sock.c
MAGIC: Final = 0x534F434B
JITTER_S: Final = 2e-6


def chronyd_path() -> str | None:
    return shutil.which("chronyd") or shutil.which("chronyd", path="/usr/sbin")


def missing_tools() -> str | None:
    """Say what is missing to run a chronyd."""
    return None if chronyd_path() and shutil.which("chronyc") else "chrony (apt: chrony)"


class VirtualChrony:
    """A chronyd with its feeder.

    Attributes
    ----------
    offset_s
        True time minus the machine's.
    pulse
        Whether the receiver puts out its pulse.
    command
        What asks this chronyd how it does.
    """

    def __init__(self, folder: Path, offset_s: float) -> None:
        self.offset_s = offset_s
        self.pulse = True
        self._folder = folder
        # The folder of the command socket may be nobody else's.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self.command = ("chronyc", "-h", f"{folder}/command.sock", "-c", "-n", "tracking")
        self._closing = threading.Event()
        self._feeder = threading.Thread(target=self._feed, name="virtual-gps")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        configuration = self._folder / "chrony.conf"
        configuration.write_text(
            f"bindcmdaddress {self._folder}/command.sock\n"
            f"cmdport {free_port()}\nport 0\nuser root\npidfile {self._folder}/chronyd.pid\n"
            f"refclock SOCK {self._folder}/nmea.sock refid NMEA precision 1e-2 poll 1 noselect\n"
            f"refclock SOCK {self._folder}/pps.sock refid PPS precision 1e-6 poll 1 filter 2 "
            "lock NMEA\n"
        )
        self.start()
        self._feeder.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._feeder.join()
        self.stop()

    def start(self) -> None:
        path = chronyd_path()
        assert path
        self._process = subprocess.Popen(
            [path, "-x", "-d", "-f", self._folder / "chrony.conf"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=end_with_us,
        )

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(10)
            for left in ("chronyd.pid", "command.sock"):
                (self._folder / left).unlink(missing_ok=True)

    def send(self, number: int) -> None:
        """Send it a signal: SIGSTOP hangs it, SIGCONT lets it go on."""
        assert self._process
        self._process.send_signal(number)

    def _feed(self) -> None:
        rng = random.Random(1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            while not self._closing.wait(1 - time.time() % 1 + 0.12):
                second = int(time.time())
                if self.pulse:
                    off_s = self.offset_s + rng.gauss(0, JITTER_S)
                    self._say(line, "pps.sock", second - off_s, off_s, pulse=1)
                off_s = self.offset_s + rng.gauss(0, 1e-3)
                self._say(line, "nmea.sock", second - off_s, off_s, pulse=0)

    def _say(
        self, line: socket.socket, name: str, local_s: float, offset_s: float, pulse: int
    ) -> None:
        whole = int(local_s // 1)
        micro = int((local_s - whole) * 1e6)
        offset_s += whole + micro * 1e-6 - local_s
        sample = SAMPLE.pack(whole, micro, offset_s, pulse, 0, 0, MAGIC)
        with suppress(OSError):  # chronyd is being started anew
            line.sendto(sample, str(self._folder / name))
