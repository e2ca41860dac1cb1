"""The owner's side of the image's tests: a fleet, its server, its broker, and who listens.

All of it as a city would run it: `gunfire-fleet` by its command line, Mosquitto on the shipped
files, `gunfire-node watch` under the auditor's name as the log for `gunfire-node verify`. The guest
reaches this machine's loopback under an address of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

from tests.hil.guest import HOST
from tests.hil.process import GUNFIRE_NODE
from tests.hil.shipped_broker import ShippedBroker
from tests.hil.virtual_receiver import free_port

SITE: Final = "riverside"
FLEET: Final = (sys.executable, "-c", "from provisioning.fleet.cli import main; main()")
CARD: Final = (sys.executable, "-c", "from provisioning.card.cli import main; main()")
"""What a shell starts as `gunfire-fleet` and `gunfire-card`; arguments follow."""
LOGGED: Final = ("detection", "node", "checkpoint", "status")
_READY_S: Final = 30.0


class Office:
    """A fleet with a broker that nodes reach.

    Parameters
    ----------
    folder
        For the fleet's folder, the log and what the servers say.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fleet_folder = folder / "fleet"
        self.log = folder / "log.jsonl"
        self._server: subprocess.Popen[bytes] | None = None
        self._watch: list[subprocess.Popen[bytes]] = []
        self._clock: tuple[str, ...] = ()
        folder.mkdir(parents=True)
        self.fleet("init", "--name", HOST, "--name", "localhost", "--site", SITE)
        self.fleet("issue", "auditor")
        self.broker = ShippedBroker(
            folder,
            ca=self.ca,
            crl=self.fleet_folder / "crl.pem",
            certificate=self.fleet_folder / "broker.crt",
            key=self.fleet_folder / "broker.key",
        )
        self.port = free_port()

    @property
    def ca(self) -> Path:
        return self.fleet_folder / "ca.crt"

    def fleet(self, *arguments: str | Path) -> str:
        """Run gunfire-fleet, and give what it prints."""
        done = subprocess.run(
            [*self._clock, *FLEET, "--fleet", str(self.fleet_folder), *map(str, arguments)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"gunfire-fleet {arguments}: {done.stderr}")
        return done.stdout

    def __enter__(self) -> Self:
        self._say_where()
        self._open()
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    @contextmanager
    def later(self, days: int) -> Iterator[float]:
        """Have all here live so many days later; gives them in s.

        What the owner's timers would have renewed meanwhile is renewed.
        """
        self._close()
        self._clock = ("faketime", "-f", f"+{days}d")
        try:
            self.fleet("renew")
            self.fleet("issue", "auditor")
            self._open()
            yield days * 86400.0
        finally:
            self._close()
            self._clock = ()
            self._open()

    def _open(self) -> None:
        self.broker.start(self._clock)
        with (self.folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    *(*self._clock, *FLEET, "--fleet", str(self.fleet_folder)),
                    *("serve", "--host", "127.0.0.1", "--port", str(self.port)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        _until(self._serves, _READY_S)
        self._listen()

    def _close(self) -> None:
        for process in (*self._watch, *((self._server,) if self._server else ())):
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        self._watch.clear()
        self.broker.end()

    def words(self) -> list[dict[str, Any]]:
        """Give what the auditor has heard so far, as it came."""
        if not self.log.exists():
            return []
        lines = self.log.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line]

    def wait(
        self,
        schema: str,
        node_id: str,
        deadline_s: float,
        where: Callable[[dict[str, Any]], bool] = lambda _: True,
        after: int = 0,
    ) -> dict[str, Any]:
        """Wait for a node to say something, behind the first so many words of the log.

        Raises
        ------
        TimeoutError
            It does not.
        """
        until_s = time.monotonic() + deadline_s
        while time.monotonic() < until_s:
            for word in self.words()[after:]:
                of_kind = word["schema"].startswith(f"gunfire.{schema}/")
                if of_kind and word["node_id"] == node_id and where(word):
                    return word
            time.sleep(0.5)
        last = [word for word in self.words()[after:] if word["schema"].startswith("gunfire.st")]
        raise TimeoutError(f"no such {schema} of {node_id}; its last status: {last[-1:]}")

    def verify(self) -> dict[str, Any]:
        """Have the log verified, from each node's first word on."""
        done = subprocess.run(
            [
                *(*GUNFIRE_NODE, "verify", self.log, "--ca", self.ca),
                *("--crl", self.fleet_folder / "crl.pem", "--first-seq", "1", "--json"),
            ],
            capture_output=True,
            text=True,
        )
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def member(self, name: str) -> dict[str, Any]:
        """Give what the inventory says of a name."""
        said: dict[str, Any] = json.loads(self.fleet("list", "--json"))["members"][name]
        return said

    def use_revocations(self) -> None:
        """Have the broker begin anew with its files, as the shipped path unit does."""
        self.broker.end()
        self.broker.start(self._clock)

    def watch(self) -> None:
        """Have `gunfire-fleet watch` run from now on."""
        self._start(
            [*FLEET, "--fleet", self.fleet_folder, "watch", "--broker", self._url], "watch.log"
        )

    @contextmanager
    def verifying(self, node_id: str, within_s: int) -> Iterator[subprocess.Popen[str]]:
        """Have `gunfire-fleet verify` run; whoever enters waits for it."""
        with subprocess.Popen(
            [
                *(*FLEET, "--fleet", self.fleet_folder, "verify", node_id),
                *("--broker", self._url, "--timeout", str(within_s)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as running:
            try:
                yield running
            finally:
                running.terminate()

    @property
    def _url(self) -> str:
        return f"mqtts://localhost:{self.broker.port}"

    def _say_where(self) -> None:
        """Write into fleet.toml where nodes find broker and server."""
        file = self.fleet_folder / "fleet.toml"
        text = file.read_text("utf-8")
        for shipped, here in ((":8883", f":{self.broker.port}"), (":8885", f":{self.port}")):
            assert shipped in text, file
            text = text.replace(shipped, here)
        file.write_text(text, "utf-8")

    def _serves(self) -> bool:
        assert self._server is not None
        if self._server.poll() is not None:
            raise RuntimeError((self.folder / "server.log").read_text())
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _listen(self) -> None:
        settings = self.folder / "auditor.toml"
        settings.write_text(
            f'[mqtt]\nurl = "{self._url}"\nca_file = "{self.ca}"\n'
            f'cert_file = "{self.fleet_folder / "auditor.crt"}"\n'
            f'key_file = "{self.fleet_folder / "auditor.key"}"\n'
        )
        kinds = [part for kind in LOGGED for part in ("--kind", kind)]
        self._start(
            [
                *(*GUNFIRE_NODE, "watch", "--config", settings, "--name", "auditor", "--jsonl"),
                *kinds,
            ],
            "log.jsonl",
        )

    def _start(self, command: list[str | Path], output: str) -> None:
        with (
            (self.folder / output).open("ab") as out,
            (self.folder / f"{output}.err").open("ab") as err,
        ):
            self._watch.append(
                subprocess.Popen(
                    [*self._clock, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=os.environ | {"PYTHONUNBUFFERED": "1"},
                )
            )


def _until(holds: Callable[[], bool], deadline_s: float) -> None:
    until_s = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > until_s:
            raise TimeoutError(holds.__name__)
        time.sleep(0.1)
