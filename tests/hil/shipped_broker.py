"""A real Mosquitto on the very files of provisioning/broker; only folders and ports are others."""

import contextlib
import re
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from node.network.private_broker import find_mosquitto
from tests.evidence import ROOT
from tests.hil.process import end_with_us
from tests.hil.virtual_receiver import free_port

SHIPPED: Final = ROOT / "provisioning" / "broker"
WAIT_S: Final = 10.0


class ShippedBroker:
    """Mosquitto on the shipped files, on free ports of loopback.

    Parameters
    ----------
    folder
        For what it keeps; its log is `mosquitto.log` there.
    ca, crl, certificate, key
        PEM files: the fleet's, and the broker's own.
    """

    def __init__(self, folder: Path, *, ca: Path, crl: Path, certificate: Path, key: Path) -> None:
        self.port, self.websockets_port = free_port(), free_port()
        text = (SHIPPED / "mosquitto.conf").read_text("utf-8")
        for shipped, here in {
            "/etc/mosquitto/gunfire/acl": SHIPPED / "acl",
            "/etc/mosquitto/gunfire/ca.crt": ca,
            "/etc/mosquitto/gunfire/crl.pem": crl,
            "/etc/mosquitto/gunfire/broker.crt": certificate,
            "/etc/mosquitto/gunfire/broker.key": key,
            "listener 8883": f"listener {self.port} 127.0.0.1",
            # Mosquitto 2.0 heeds an address for websockets with a socket_domain only.
            "listener 8884": f"listener {self.websockets_port}\nsocket_domain ipv4",
        }.items():
            assert shipped in text, shipped
            text = text.replace(shipped, str(here))
        assert not re.search(r"/etc/", re.sub(r"(?m)^#.*$", "", text))
        (folder / "kept").mkdir()
        self._conf = folder / "mosquitto.conf"
        self._conf.write_text(f"user root\npersistence_location {folder}/kept/\n{text}", "utf-8")
        self._log = folder / "mosquitto.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, before: Sequence[str] = ()) -> None:
        """Start it, by another command where one is given, such as `faketime`'s."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*before, find_mosquitto(), "-c", str(self._conf)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_us,
            )  # fmt: skip
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s and self._process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.02)
        raise RuntimeError(f"the broker does not start: {self._log.read_text()}")

    def reload(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(WAIT_S)
            self._process = None
