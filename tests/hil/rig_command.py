"""Commands that a rig's owner names in the environment: relays, the player, the witness."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO, Final

from tests.hil.process import end_with_us

RUN_S: Final = 30.0
_END_S: Final = 5.0
_BEGIN_S: Final = 0.3


class RigError(Exception):
    """Something about a rig is not as it has to be; says what, and what to do."""


class Command:
    """A command, split into words as a shell would.

    Parameters
    ----------
    variable, line
        Where it was named, for whoever reads an error, and how.

    Raises
    ------
    RigError
        If a shell could not split it.
    """

    def __init__(self, variable: str, line: str) -> None:
        self._variable, self._line = variable, line
        try:
            self._words = shlex.split(line)
        except ValueError as error:
            raise self._error((), str(error)) from None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> IO[bytes]:
        """What it writes, where it was started with `piped`; whoever reads it closes it."""
        assert self._process
        assert self._process.stdout
        return self._process.stdout

    def run(self, *words: str) -> None:
        """Run it to its end.

        Raises
        ------
        RigError
            If it cannot be run, does not end or fails.
        """
        try:
            done = subprocess.run(
                [*self._words, *words], capture_output=True, text=True, timeout=RUN_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise self._error(words, str(error)) from None
        if done.returncode:
            said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise self._error(words, f"ended with {done.returncode}: {said}")

    def start(self, *words: str, piped: bool = False) -> None:
        """Start it, and let it run.

        Raises
        ------
        RigError
            If it cannot be run, or ends at once.
        """
        try:
            # A group of its own, since a player is often a shell that has a program play.
            self._process = subprocess.Popen(
                [*self._words, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=end_with_us,
            )
        except OSError as error:
            raise self._error(words, str(error)) from None
        time.sleep(_BEGIN_S)
        self.see(*words)

    def see(self, *words: str) -> None:
        """See that it still runs.

        Raises
        ------
        RigError
            If it does not.
        """
        if self._process is not None and (code := self._process.poll()) is not None:
            raise self._error(words, f"ended with {code}, and was to go on")

    def end(self) -> None:
        """End it, and what it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                break
            try:
                process.wait(_END_S)
                break
            except subprocess.TimeoutExpired:
                continue
        process.wait()

    def _error(self, words: tuple[str, ...], why: str) -> RigError:
        line = " ".join([self._line, *words])
        return RigError(f"{self._variable}: `{line}`: {why}; try it by hand")


@dataclass
class Relay:
    """Something that a command takes away and gives back, given `off` or `on`."""

    command: Command

    def off(self) -> None:
        self.command.run("off")

    def on(self) -> None:
        self.command.run("on")
