"""A fleet about a broker as it is shipped: who has which certificate, and until when."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.evidence import ROOT
from tests.hil.fleet_ca import DAY, Files, FleetCa

SHIPPED: Final = ROOT / "provisioning" / "broker"
BEFORE: Final = 30 * DAY
"""How long ago certificates begin: a life's clock is some days behind the host's."""
SHORTLY: Final = dt.timedelta(minutes=1)


class Fleet:
    """A CA, a node, an auditor, a broker, and the broker's configuration.

    Parameters
    ----------
    folder
        Where certificates and keys lie.
    node_id
        The node's name.

    Attributes
    ----------
    port
        Of 127.0.0.1, where the broker speaks MQTT over TLS.
    node, auditor
        Where their certificates and keys lie, whatever is put in place of the first ones.
    configuration
        provisioning/broker/mosquitto.conf, but for folders, the port and the websockets.
    """

    addresses: Sequence[str] = ("127.0.0.1",)
    """Of the broker, as its certificate names it."""

    def __init__(self, folder: Path, node_id: str) -> None:
        self._ca = FleetCa(folder)
        self._node_id = node_id
        self.ca_file = self._ca.certificate_file
        self.node = self._issue(node_id, node_id)
        self.auditor = self._issue("auditor", "auditor")
        self._broker = self._issue("broker", "broker", self.addresses)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.configuration = self._configuration()

    def files(self) -> dict[str, Any]:
        """Give what the node's settings name."""
        return {
            "ca_file": self.ca_file, "cert_file": self.node.certificate, "key_file": self.node.key,
        }  # fmt: skip

    def issue_node(self) -> Files:
        """Issue the node another certificate and key, which are to be put in place of its own."""
        return self._issue(self._node_id, "next")

    def revoke_node(self) -> None:
        """Revoke the node's certificate; the broker knows once it reads its files again."""
        self._ca.revoke(self.node.certificate)

    def certify_broker(self, *, expired: bool = False) -> None:
        """Put another certificate and key in place of the broker's."""
        end = dt.datetime.now(dt.UTC) - SHORTLY if expired else None
        put(self._issue("broker", "next", self.addresses, end), self._broker)

    def list_revoked(self, *, expired: bool = False) -> None:
        """Put another list of what is revoked in place of the last; one that was to be followed."""
        self._ca.write_crl(dt.datetime.now(dt.UTC) - SHORTLY if expired else None)

    def _issue(
        self,
        name: str,
        file_name: str,
        addresses: Sequence[str] = (),
        not_after: dt.datetime | None = None,
    ) -> Files:
        return self._ca.issue(
            name,
            file_name=file_name,
            addresses=addresses,
            not_before=dt.datetime.now(dt.UTC) - BEFORE,
            not_after=not_after,
        )

    def _configuration(self) -> str:
        shipped = (SHIPPED / "mosquitto.conf").read_text("utf-8")
        text, websockets, _ = shipped.partition("# MQTT over websockets")
        assert websockets
        for theirs, ours in {
            "/etc/mosquitto/gunfire/acl": SHIPPED / "acl",
            "/etc/mosquitto/gunfire/ca.crt": self.ca_file,
            "/etc/mosquitto/gunfire/crl.pem": self._ca.crl_file,
            "/etc/mosquitto/gunfire/broker.crt": self._broker.certificate,
            "/etc/mosquitto/gunfire/broker.key": self._broker.key,
            "listener 8883": f"listener {self.port} 127.0.0.1",
        }.items():
            assert theirs in text, theirs
            text = text.replace(theirs, str(ours))
        return text


def put(new: Files, old: Files) -> None:
    """Put a certificate and its key in place of others."""
    new.certificate.replace(old.certificate)
    new.key.replace(old.key)
