"""Where a broker is and how to speak to it: a URL and certificates, checked before any use."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from node.deliver.tls import TlsFiles
from node.errors import BrokerError
from node.settings import MqttSettings

_DEFAULT_PORT = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """A broker: host, port, who we are to it, TLS where it is spoken, and the version of MQTT.

    Written out (`str`) it is the URL without user and password, so that it may be logged.
    """

    host: str
    port: int
    username: str | None = None
    password: str | None = None
    tls: TlsFiles | None = None
    protocol: Literal["5", "3.1.1"] = "5"

    @classmethod
    def from_settings(
        cls, settings: MqttSettings, url: str | None = None, *, may_come: bool = False
    ) -> Self:
        """Take a broker's address, by default the preferred one's; raises as `from_url` does."""
        return cls.from_url(
            url or settings.brokers[0],
            ca_file=settings.ca_file,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            protocol=settings.protocol,
            may_come=may_come,
        )

    @classmethod
    def all_from_settings(
        cls, settings: MqttSettings, *, may_come: bool = False
    ) -> tuple[Self, ...]:
        """Take the addresses in order of preference; raises as `from_url` does."""
        return tuple(
            cls.from_settings(settings, url, may_come=may_come) for url in settings.brokers
        )

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        protocol: Literal["5", "3.1.1"] = "5",
        may_come: bool = False,
    ) -> Self:
        """Read mqtt://[user[:password]@]host[:port], or mqtts:// for TLS.

        With `may_come`, files that are not there yet are no fault now, but at each connection: a
        node starts before it is enrolled.

        Raises
        ------
        BrokerError
            If the URL is of another form, or a certificate or key cannot be used.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, 0
        if not host or parts.scheme not in _DEFAULT_PORT or port == 0:
            # The text itself is not repeated: it may hold a password.
            raise BrokerError(
                "mqtt.url: not an address: write mqtt://host:port or mqtts://host:port"
            )
        tls = TlsFiles(ca_file, cert_file, key_file) if parts.scheme == "mqtts" else None
        if tls is not None and not (may_come and tls.missing()):
            tls.context()  # what cannot be used is to be known before anything starts
        return cls(
            host=host,
            port=port or _DEFAULT_PORT[parts.scheme],
            username=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            tls=tls,
            protocol=protocol,
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtt' if self.tls is None else 'mqtts'}://{host}:{self.port}"


def new_client(
    address: BrokerAddress,
    context: ssl.SSLContext | None,
    timeout_s: float,
    client_id: str = "",
    *,
    clean_start: bool = True,
) -> Client:
    """Make a client of paho's for one connection, not connected yet.

    Parameters
    ----------
    context
        For TLS; None where none is spoken.
    timeout_s
        How long to wait for the broker's port.
    client_id
        Our name there; the broker gives us one if empty.
    clean_start
        Whether the broker is to forget an earlier session; in MQTT 5 it is told when connecting.
    """
    speaks_5 = address.protocol == "5"
    client = _UnboundClient(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if speaks_5 else clean_start,
        protocol=MQTTProtocolVersion.MQTTv5 if speaks_5 else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    client.connect_timeout = timeout_s
    client.username_pw_set(address.username, address.password)
    if context is not None:
        client.tls_set_context(context)
    return client


class _UnboundClient(Client):
    """A client that leaves its own address to the kernel.

    paho binds its socket to "any address, any port" first, which says nothing and is forbidden to
    the node: its unit has `SocketBindDeny=any`, so that it can never listen.
    """

    def _create_socket_connection(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=self.connect_timeout)


def explain(error: Exception) -> str:
    """Say why a broker could not be reached, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "check mqtt.ca_file, and that the host's name is the certificate's"
        if "not yet valid" in error.verify_message or "expired" in error.verify_message:
            advice = "check this machine's clock, then the dates of the broker's certificate"
        return f"its certificate is not accepted ({error.verify_message}): {advice}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason}): check mqtts:// against mqtt://, and the certificates"
    if isinstance(error, socket.gaierror):
        return f"its name is not known ({error.strerror}): check mqtt.url and the network"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there: check mqtt.url, and that the broker runs"
    if isinstance(error, ConnectionResetError):
        return "hangs up at once: check mqtt.url, mqtts:// for TLS and mqtt:// for none"
    if isinstance(error, TimeoutError):
        return "does not answer: check mqtt.url, the network and firewalls"
    return f"cannot be reached ({error}): check mqtt.url and the network"


_BUSY: Final = "it is full or overloaded; it is tried again, with pauses"
_LACKING: Final = "a node needs retained messages and QoS 1: set mqtt.url to a broker that has them"
_ELSEWHERE: Final = "its fleet is served by another broker: set mqtt.url to that one"
_ON_REFUSAL: Final = {
    0x84: "set mqtt.protocol to the version of MQTT that it speaks",
    0x88: _BUSY,
    0x89: _BUSY,
    0x97: _BUSY,
    0x9A: _LACKING,
    0x9B: _LACKING,
    0x9C: _ELSEWHERE,
    0x9D: _ELSEWHERE,
    0x9F: _BUSY,
}


def explain_refusal(code: ReasonCode, more: str = "") -> str:
    """Say why a broker has not let us in, and what to do about it.

    `more` is what else to check where it does not know us.
    """
    advice = _ON_REFUSAL.get(code.value, f"check user, password and certificate{more}")
    return f"refused us ({code}): {advice}"


def explain_end(address: BrokerAddress, code: ReasonCode, *, accepted: bool) -> str:
    """Say why a connection may have ended, and what to do about it.

    In TLS 1.3 a broker judges our certificate after the handshake, and paho keeps to itself what
    OpenSSL then says of it: all there is to be seen is that we were not let in.
    """
    if accepted or address.tls is None:
        return f"the connection was lost ({code}): see the network and the broker's log"
    ours = address.tls.cert_file
    advice = (
        "if it asks for a certificate, set mqtt.cert_file and mqtt.key_file"
        if ours is None
        else f"see that mqtt.cert_file {ours} is of a CA that it knows, and not revoked"
    )
    return f"hung up before it let us in: {advice}; see the network and the broker's log"
