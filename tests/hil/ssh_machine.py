"""A machine reached by OpenSSH's own `ssh`: what `tests.hil.bench.Machine` asks of a rig's node.

One connection stands (its ControlMaster), and commands go through it in some ms each. It is made
anew where the machine was without power meanwhile.
"""

from __future__ import annotations

import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from tests.hil.container import NODE
from tests.hil.process import end_with_us
from tests.hil.rig_command import RigError

REACH_S: Final = 120.0
"""A Pi boots in half a minute, and checks its card first after a cut of power."""
_CONNECT_S: Final = 5
_END_S: Final = 5.0
_POLL_S: Final = 0.02
_AGAIN_S: Final = 0.5
_OPTIONS: Final = (
    *("-T", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
    *("-o", f"ConnectTimeout={_CONNECT_S}"),
    # So that a connection to a machine without power is given up.
    *("-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=3"),
)
_ENVIRONMENT: Final = (
    *("env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"),
    *("SYSTEMD_COLORS=0", "SYSTEMD_PAGER="),
)
_WRITE: Final = """
mkdir -p "$(dirname "$1")"
umask 077
cat >"$1.part"
chmod "$2" "$1.part"
mv "$1.part" "$1"
"""


class SshMachine:
    """A machine on which we are root, or may become it by sudo; a context manager.

    Parameters
    ----------
    host
        As `ssh` takes it.
    ssh
        The program, and options of one's own.

    Raises
    ------
    RigError
        On entering, if it does not answer, or does not let us be root.
    """

    def __init__(self, host: str, ssh: Sequence[str] = ("ssh",)) -> None:
        self.host = host
        self._ssh = tuple(ssh)
        self._become: tuple[str, ...] = ()
        self._master: subprocess.Popen[str] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="gunfire-rig-")
        self._socket = f"{self._scratch.name}/master"

    def __enter__(self) -> Self:
        try:
            self.reach(patience_s=0.0)
            if self._ask("id", "-u").stdout.strip() != "0":
                self._become = ("sudo", "-n")
                if self._ask("id", "-u").stdout.strip() != "0":
                    raise RigError(
                        f"{self.host} is not root, and sudo there asks for a password: let that "
                        "user sudo without one, or name root in GUNFIRE_RIG_HOST"
                    )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.hang_up()
        self._scratch.cleanup()

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout_s: float = 120.0,
        text: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command there as root, with a text to read.

        Raises
        ------
        AssertionError
            If it ends with anything but 0, and that is checked.
        RigError
            If the machine does not answer.
        """
        self.reach()
        done = self._ask(*command, timeout_s=timeout_s, text=text)
        if check and done.returncode:
            raise AssertionError(
                f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file, whole or not at all."""
        self.run("sh", "-ec", _WRITE, "sh", inside, f"{mode:o}", text=text)

    def systemctl(self, *words: str) -> str:
        """Run systemctl, and give what it says."""
        return self.run("systemctl", *words).stdout.strip()

    def journal(self, unit: str = NODE) -> str:
        """Give what a unit has logged since the boot."""
        return self.run("journalctl", "--boot", "--output=cat", "--unit", unit).stdout

    def reach(self, patience_s: float = REACH_S) -> None:
        """See that the connection stands; make it until it does.

        Raises
        ------
        RigError
            If it does not come to that.
        """
        give_up_s = time.monotonic() + patience_s
        while self._master is None or self._master.poll() is not None:
            said = self._connect()
            if not said:
                return
            if time.monotonic() > give_up_s:
                raise RigError(
                    f"GUNFIRE_RIG_HOST={self.host} does not let us in: {said}; try, until it says "
                    f"`ok` and asks nothing: {shlex.join(self._ssh)} {self.host} echo ok"
                )
            time.sleep(_AGAIN_S)

    def hang_up(self) -> None:
        """End the connection, whatever has become of the machine."""
        master, self._master = self._master, None
        if master is not None:
            _end(master)
        Path(self._socket).unlink(missing_ok=True)

    def _connect(self) -> str:
        """Make the connection; give why there is none."""
        self.hang_up()
        # In a group of its own Ctrl-C does not end it: something is to be given back.
        master = subprocess.Popen(
            [*self._ssh, *_OPTIONS, "-M", "-N", "-S", self._socket, self.host],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=end_with_us,
        )
        give_up_s = time.monotonic() + 2 * _CONNECT_S
        while master.poll() is None and time.monotonic() < give_up_s:
            if Path(self._socket).exists():  # which it makes once it was let in
                self._master = master
                return ""
            time.sleep(_POLL_S)
        return _end(master).strip().rpartition("\n")[2] or "no answer"

    def _ask(
        self, *command: str, timeout_s: float = 120.0, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        line = shlex.join((*self._become, *_ENVIRONMENT, *command))
        return subprocess.run(
            [*self._ssh, *_OPTIONS, "-S", self._socket, self.host, line],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )


def _end(master: subprocess.Popen[str]) -> str:
    """End a connection's process; give what it said."""
    master.terminate()
    try:
        return master.communicate(timeout=_END_S)[1]
    except subprocess.TimeoutExpired:
        master.kill()
        return master.communicate()[1]
