"""A Mosquitto of one's own on loopback: for the demo and for tests. Not a broker for a city.

Nothing here reaches beyond 127.0.0.1. With a folder given it keeps its messages there, with the
settings under which an acknowledged message survives the broker's own violent death.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from node.errors import BrokerError

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_START_S: Final = 10.0
_STOP_S: Final = 5.0

# By default Mosquitto saves every half hour, and a PUBACK says nothing of the disk: killed, it lost
# 200 of 200 acknowledged messages that waited for an offline subscriber. Saving on every change,
# none.
_DURABLE: Final = """
persistence true
persistence_location {folder}/
autosave_on_changes true
autosave_interval 1
max_queued_messages 100000
"""


class PrivateBroker:
    """A Mosquitto on a free port of 127.0.0.1; a context manager that starts and ends it.

    On Linux it does not outlive us even if we are killed. It ends with the thread that started it,
    too: start it in one that stays.

    Parameters
    ----------
    folder
        Where to keep messages over a restart, made if absent; nothing is kept without one.
    extra
        Further lines for mosquitto.conf.

    Raises
    ------
    BrokerError
        On entering, if Mosquitto is not installed or does not start.
    """

    def __init__(self, folder: Path | None = None, extra: str = "") -> None:
        self._folder = folder
        self._extra = extra
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Where it listens; the same after a restart."""
        return f"mqtt://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port that it listens on; the same after a restart."""
        return self._port

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it, and wait until it listens."""
        if self._process is not None:
            return
        program = find_mosquitto()
        if self._folder is not None:
            # Without it Mosquitto runs all the same, and forgets.
            self._folder.mkdir(parents=True, exist_ok=True)
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="gunfire-broker-")
            self._port = _free_port()
        scratch = Path(self._scratch.name)
        configuration = scratch / "mosquitto.conf"
        configuration.write_text(self._configuration(), "utf-8")
        with (scratch / "mosquitto.log").open("ab") as log_file:
            self._process = subprocess.Popen(  # noqa: S603 - a program found by name, no shell
                [program, "-c", str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                preexec_fn=_ending_with_us(),
            )
        self._wait_until_it_listens(scratch / "mosquitto.log")

    def stop(self) -> None:
        """End it in good order."""
        self._end(kill=False)

    def kill(self) -> None:
        """End it with SIGKILL, as a cut of power would."""
        self._end(kill=True)

    def reload(self, extra: str) -> None:
        """Have it read other further lines of configuration, without a restart."""
        if self._process is None or self._scratch is None:
            raise BrokerError("the private broker does not run: start it first")
        self._extra = extra
        (Path(self._scratch.name) / "mosquitto.conf").write_text(self._configuration(), "utf-8")
        self._process.send_signal(1)  # SIGHUP

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def _configuration(self) -> str:
        lines = f"listener {self._port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n"
        if self._folder is not None:
            lines += _DURABLE.format(folder=self._folder)
        # Started by root it would give up its rights, and could not write to our folders.
        return f"user root\n{lines}{self._extra}\n"

    def _wait_until_it_listens(self, log_file: Path) -> None:
        give_up_s = time.monotonic() + _START_S
        while time.monotonic() < give_up_s:
            if self._process is None or self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self._port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        self._end(kill=True)
        said = log_file.read_text("utf-8", errors="replace").splitlines()
        errors = [line[line.index("Error") :] for line in said if "Error" in line]
        why = " ".join(errors) or "it does not say why"
        raise BrokerError(f"the private broker does not start: {why}")

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ending_with_us() -> Callable[[], None] | None:
    """Give what makes the child receive SIGTERM when its parent ends, called before its exec."""
    if sys.platform != "linux":
        return None
    # Looked up here: between fork and exec, beside threads that hold locks, nothing may be loaded.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    arguments = (_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
    parent = os.getpid()

    def ask_to_be_told() -> None:
        prctl(*arguments)
        if os.getppid() != parent:  # it ended before it was asked
            os._exit(1)

    return ask_to_be_told


def find_mosquitto() -> str:
    """Find the Mosquitto program; Debian puts it where ordinary users do not look.

    Raises
    ------
    BrokerError
        If it is not installed.
    """
    program = shutil.which("mosquitto") or shutil.which(
        "mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin"
    )
    if program is None:
        raise BrokerError("mosquitto is not installed: run `sudo apt-get install mosquitto`")
    return program


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
