"""`gunfire-fleet serve`: EST for nodes, and releases and the list of what is revoked as files.

An application of WSGI on cheroot's server, over TLS with the broker's certificate. It is read by
strangers: every length is bounded, and what it decides is decided by `Fleet`.
"""

from __future__ import annotations

import base64
import binascii
import errno
import logging
import math
import mimetypes
import re
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, cast

from cheroot.connections import ConnectionManager
from cheroot.server import HTTPServer
from cheroot.ssl.builtin import BuiltinSSLAdapter
from cheroot.wsgi import Gateway_10, Server
from cryptography import x509

from node.errors import ProvisioningError
from provisioning.est import (
    CA_CERTIFICATES,
    CA_TYPE,
    CERTIFICATES_TYPE,
    KINDS,
    MOST_BYTES,
    REQUEST_TYPE,
    ROOT,
    Kind,
    decode_request,
    encode_certificates,
)
from provisioning.fleet.fleet import Fleet, RefusedError

log = logging.getLogger(__name__)

PORT: Final = 8885
THREADS: Final = 16
TIMEOUT_S: Final = 10
MOST_HEADER_BYTES: Final = 16 * 1024
MOST_CONNECTIONS: Final = 512
"""Half of what descriptors there are by default."""
_AT_ONCE: Final = 16
"""So many silent ones are closed at once where room is wanted."""
_PAUSE_S: Final = 0.1
LONGEST_NAME: Final = 256
# So many wrong tokens within so long, of an address for one name and for all.
FAILURES_S: Final = 600.0
MOST_FAILURES: Final = 5
MOST_FAILURES_OF_ADDRESS: Final = 50
MOST_ADDRESSES: Final = 10_000
_BLOCK_BYTES: Final = 64 * 1024
_PEER: Final = "gunfire.peer"
_REASONS: Final = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_OPERATION: Final = re.compile(
    rf"{re.escape(ROOT)}/({'|'.join(KINDS)})/(simpleenroll|simplereenroll|cacerts|csrattrs)"
)

Start = Callable[[str, list[tuple[str, str]]], object]
Environment = dict[str, Any]


class Failures:
    """Counts wrong tokens, so that whoever guesses is told to wait."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def wait_s(self, address: str, name: str) -> float:
        """Give how long somebody has to wait; 0 for most."""
        with self._lock:
            return max(
                self._left_s((address, name), MOST_FAILURES),
                self._left_s((address, ""), MOST_FAILURES_OF_ADDRESS),
            )

    def note(self, address: str, name: str) -> None:
        """Count a failure."""
        with self._lock:
            for key in ((address, name), (address, "")):
                times = self._seen.setdefault(key, deque(maxlen=MOST_FAILURES_OF_ADDRESS))
                times.append(self._monotonic_s())
                self._seen.move_to_end(key)
            while len(self._seen) > MOST_ADDRESSES:
                self._seen.popitem(last=False)

    def _left_s(self, key: tuple[str, str], most: int) -> float:
        times = self._seen.get(key)
        if times is None:
            return 0.0
        now_s = self._monotonic_s()
        while times and now_s - times[0] > FAILURES_S:
            times.popleft()
        if not times:
            del self._seen[key]
        if len(times) < most:
            return 0.0
        return FAILURES_S - (now_s - times[-most])


class Application:
    """What is answered to whom."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._failures = Failures()
        self._releases = (fleet.folder / "releases").resolve()

    def __call__(self, environment: Environment, start: Start) -> Iterable[bytes]:
        """Answer a request."""
        try:
            return self._answer(environment, start)
        except RefusedError as refusal:
            who = environment.get("REMOTE_ADDR", "")
            log.warning("refused %s (%d): %s", who, refusal.status, refusal.why)
            return _say(start, refusal.status, f"{refusal.why}\n")
        except ProvisioningError as error:
            log.error("%s", error)
            return _say(start, 503, "the fleet's folder cannot be used; see the server's log\n")
        except Exception:
            log.exception("fault in an answer")
            return _say(start, 500, "a fault; see the server's log\n")

    def _answer(self, environment: Environment, start: Start) -> Iterable[bytes]:
        if environment.get("HTTP_TRANSFER_ENCODING"):
            raise RefusedError(411, "say how long the request is, and send it in one piece")
        path, method = str(environment["PATH_INFO"]), str(environment["REQUEST_METHOD"])
        if match := _OPERATION.fullmatch(path):
            kind, operation = cast("Kind", match[1]), match[2]
            if operation.startswith("simple"):
                _only(method, "POST")
                certificate = self._certify(environment, kind, operation)
                return _say(start, 200, encode_certificates([certificate]), CERTIFICATES_TYPE)
            path = CA_CERTIFICATES if operation == "cacerts" else path
        _only(method, "GET", "HEAD")
        if path == CA_CERTIFICATES:
            authority = self._fleet.authority.certificate
            return _say(start, 200, encode_certificates([authority]), CA_TYPE)
        if path.endswith("/csrattrs"):
            return _say(start, 204, b"")
        if path == "/crl.pem":
            return _file(start, self._fleet.folder / "crl.pem", method)
        if path.startswith("/releases/"):
            return _file(start, self._release(path.removeprefix("/releases/")), method)
        raise RefusedError(404, "there is nothing here")

    def _certify(self, environment: Environment, kind: Kind, operation: str) -> x509.Certificate:
        who = str(environment.get("REMOTE_ADDR", ""))
        body = _body(environment)
        if operation == "simplereenroll":
            der = environment.get(_PEER)
            if not der:
                raise RefusedError(
                    401, "renewal is for who shows a certificate of this fleet; this one is none"
                )
            peer = x509.load_der_x509_certificate(der)
            name, token = f"{peer.serial_number:x}", ""
        else:
            peer = None
            name, token = _credentials(environment)
        if wait_s := self._failures.wait_s(who, name):
            raise RefusedError(429, f"{who} was refused too often: wait {wait_s / 60:.0f} minutes")
        try:
            if peer is not None:
                certificate = self._fleet.renew(peer, kind, _request(body), who)
            else:
                certificate = self._fleet.enrol(name, token, kind, _request(body), who)
        except RefusedError as refusal:
            if refusal.status in (401, 403):
                self._failures.note(who, name)
            raise
        return self._told(certificate, kind, who)

    def _told(self, certificate: x509.Certificate, kind: Kind, who: str) -> x509.Certificate:
        log.info(
            "certified %s (%s), serial %x, for %s",
            certificate.subject.rfc4514_string(),
            kind,
            certificate.serial_number,
            who,
        )
        return certificate

    def _release(self, name: str) -> Path:
        """Find a file of the releases, and of nothing beside them."""
        parts = name.split("/")
        # Written out, not resolved: what a name means is not a question for the disk.
        if any(not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+~-]*", part) for part in parts):
            raise RefusedError(404, "there is nothing here")
        file = self._releases.joinpath(*parts)
        if not file.resolve().is_relative_to(self._releases):  # a link that leads out
            raise RefusedError(404, "there is nothing here")
        return file


def _only(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise RefusedError(405, f"{' or '.join(allowed)} only")


def _body(environment: Environment) -> bytes:
    """Read a request's body, of a length that was told before."""
    declared = str(environment.get("CONTENT_LENGTH") or "")
    if not declared.isascii() or not declared.isdigit():
        raise RefusedError(411, "say how long the request is")
    # Read whatever it is, within cheroot's bound: who is cut off while sending hears no answer.
    body = bytes(environment["wsgi.input"].read(int(declared)))
    if len(body) > MOST_BYTES:
        raise RefusedError(413, f"a request has {MOST_BYTES} bytes at most")
    if str(environment.get("CONTENT_TYPE", "")).partition(";")[0].strip() != REQUEST_TYPE:
        raise RefusedError(400, f"a request is of the type {REQUEST_TYPE}")
    return body


def _request(body: bytes) -> x509.CertificateSigningRequest:
    try:
        return decode_request(body)
    except ValueError as error:
        raise RefusedError(400, f"the request {error}") from None


def _credentials(environment: Environment) -> tuple[str, str]:
    """Read name and token from HTTP's Basic authentication (RFC 7617)."""
    scheme, _, encoded = str(environment.get("HTTP_AUTHORIZATION", "")).partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError(scheme)
        name, colon, token = base64.b64decode(encoded, validate=True).decode().partition(":")
        if not colon or not 0 < len(name) <= LONGEST_NAME or not 0 < len(token) <= LONGEST_NAME:
            raise ValueError(name)
    except (ValueError, binascii.Error):
        raise RefusedError(401, "give the node's name and its token") from None
    return name, token


def _say(
    start: Start, status: int, body: bytes | str, kind: str = "text/plain; charset=utf-8"
) -> list[bytes]:
    data = body.encode("utf-8", "replace") if isinstance(body, str) else body
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(data))),
        ("Cache-Control", "no-store"),
    ]
    if kind in (CERTIFICATES_TYPE, CA_TYPE):
        headers.append(("Content-Transfer-Encoding", "base64"))
    if status == 401:
        headers.append(("WWW-Authenticate", 'Basic realm="gunfire-fleet"'))
    if status == 429:
        headers.append(("Retry-After", str(round(FAILURES_S))))
    start(f"{status} {_REASONS[status]}", headers)
    return [data]


def _file(start: Start, path: Path, method: str) -> Iterable[bytes]:
    try:
        if not path.is_file():
            raise FileNotFoundError
        file = path.open("rb")
    except OSError:
        raise RefusedError(404, "there is nothing here") from None
    size = path.stat().st_size
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    start("200 OK", [("Content-Type", kind), ("Content-Length", str(size))])
    if method == "HEAD":
        file.close()
        return []
    return _blocks(file, size)


def _blocks(file: Any, size: int) -> Iterator[bytes]:
    """Give a file's bytes, no more than were promised should it grow."""
    with file:
        while size > 0 and (block := file.read(min(_BLOCK_BYTES, size))):
            size -= len(block)
            yield block


class _Adapter(BuiltinSSLAdapter):
    """TLS whose handshake is made by the thread that serves, with the certificate of today.

    cheroot makes it where connections are accepted: one silent client would keep all others out.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._certificate, self._key = fleet.folder / "broker.crt", fleet.folder / "broker.key"
        try:
            super().__init__(str(self._certificate), str(self._key))
        except (OSError, ssl.SSLError) as error:
            raise ProvisioningError(
                f"{self._certificate} with {self._key}: cannot be used ({error}): gunfire-fleet "
                "issue broker"
            ) from None
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.load_verify_locations(str(fleet.folder / "ca.crt"))
        self._mark = self._certificate.stat().st_mtime_ns

    def wrap(self, sock: Any) -> tuple[Any, dict[str, Any]]:
        """Wrap a socket, without a word to the other side yet."""
        try:
            mark = self._certificate.stat().st_mtime_ns
            if mark != self._mark:  # renewed
                self.context.load_cert_chain(self._certificate, self._key)
                self._mark = mark
        except (OSError, ssl.SSLError) as error:
            log.warning("%s is not taken up: %s", self._certificate, error)
        wrapped = self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return wrapped, {}


class _Gateway(Gateway_10):
    """Tells the application which certificate was shown; only one of the fleet's gets so far."""

    def get_environ(self) -> Environment:  # type: ignore[override]
        """Give what WSGI has, and the certificate in DER."""
        environment: Environment = super().get_environ()  # type: ignore[no-untyped-call]
        environment["wsgi.url_scheme"] = "https"
        sock = self.req.conn.socket
        if self.req.chunked_read:
            self.req.close_connection = True  # its rest would be read as another request
        environment[_PEER] = sock.getpeercert(binary_form=True) if sock is not None else None
        return environment


class _Connections(ConnectionManager):
    """Keeps the number of open connections bounded: who has been silent longest goes first.

    cheroot lets an error of accept() out of its loop, in which what has ended is closed: once
    descriptors had run out, none ever came back.
    """

    _selector: Any
    _num_connections: int
    _told_s = -math.inf

    def _from_server_socket(self, server_socket: Any) -> Any:
        if self._open() >= MOST_CONNECTIONS and not self._close_silent():
            time.sleep(_PAUSE_S)  # all of them have sent something, and wait for a thread
            return None
        try:
            return super()._from_server_socket(server_socket)  # type: ignore[misc]
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._close_silent()
                time.sleep(_PAUSE_S)
            if time.monotonic() - self._told_s > TIMEOUT_S:
                self._told_s = time.monotonic()
                log.warning("a connection was not taken: %s", error)
            return None

    def _open(self) -> int:
        return self._num_connections + int(self.server.requests.qsize) + THREADS

    def _close_silent(self) -> bool:
        """Close some that have said nothing yet; says whether there were any."""
        # What has come on one may be in the loop's hands already.
        speaking = {descriptor for descriptor, _ in self._selector.select(0)}
        silent = [
            (connection.last_used, descriptor, connection)
            for descriptor, connection in self._selector.connections
            if connection is not self.server and descriptor not in speaking
        ]
        for _, descriptor, connection in sorted(silent, key=lambda one: one[:2])[:_AT_ONCE]:
            self._selector.unregister(descriptor)
            connection.close()
        return bool(silent)


class _Server(Server):
    """Gives a connection to a thread once something has come on it: silent ones hold none."""

    def prepare(self) -> None:
        """Listen, with connections of a bounded number."""
        super().prepare()
        self._connections._selector.close()  # type: ignore[has-type]
        self._connections = _Connections(self)

    def process_conn(self, conn: Any) -> None:
        """Take a connection that is new, or on which something has come."""
        if conn.last_used is None:
            # Which sets it; `timeout` ends what stays silent.
            self._connections.put(conn)
        else:
            super().process_conn(conn)


def make_server(fleet: Fleet, host: str = "0.0.0.0", port: int = PORT) -> HTTPServer:  # noqa: S104
    """Make a server that listens, until `serve` is called on it; `stop` ends it.

    Raises
    ------
    ProvisioningError
        The port is not to be had, or the broker's certificate cannot be used.
    """
    server = _Server(
        (host, port),
        Application(fleet),
        numthreads=THREADS,
        server_name="gunfire-fleet",
        timeout=TIMEOUT_S,
        request_queue_size=64,
    )
    server.software = "gunfire-fleet"
    server.gateway = _Gateway
    server.max_request_header_size = MOST_HEADER_BYTES
    server.max_request_body_size = 4 * MOST_BYTES
    server.ssl_adapter = _Adapter(fleet)
    server.error_log = _log  # type: ignore[assignment, method-assign]
    try:
        server.prepare()
    except OSError as error:
        raise ProvisioningError(f"{host}:{port}: cannot be listened at: {error}") from None
    return server


def _log(message: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
    """Log what cheroot says, a line each: most is of clients who hang up."""
    log.log(
        level if level > logging.INFO else logging.DEBUG, "%s", " ".join(str(message).split())[:300]
    )
