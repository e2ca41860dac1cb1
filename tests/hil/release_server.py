"""An owner's web server on loopback, with TLS: serves releases, and misbehaves when it is told.

And releases to serve that are small: an interpreter that is a script, and the files that are looked
at.
"""

from __future__ import annotations

import io
import ssl
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Self

import zstandard

import node
from tests.hil.fleet_ca import FleetCa

Answer = Callable[[bytes], bytes | Iterable[bytes]]
"""Of a path: what is sent in place of the file. Pieces are sent until the connection is closed."""
MACHINES: Final = {"arm64": "aarch64", "amd64": "x86_64"}
# Only where systemd runs it: it starts well by hand.
SUPERVISED: Final = "import os; 'NOTIFY_SOCKET' in os.environ and "
DEAF: Final = {
    "deaf.pth": SUPERVISED + "__import__('deaf')\n",
    "deaf.py": "import pyaudio\npyaudio.PyAudio.get_device_count = lambda self: 0\n",
}
"""What makes a release that finds no sound card."""
PYTHONS: Final = {"trixie": "3.13", "bookworm": "3.11"}


class ReleaseServer:
    """Serves a folder by HTTPS; a context manager.

    Attributes
    ----------
    answers
        What is done to a file, by the end of its path.
    asked
        The paths that were asked for.
    """

    def __init__(self, folder: Path, ca: FleetCa) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                file = folder / self.path.lstrip("/")
                if ".." in self.path or not file.is_file():
                    self.send_error(404)
                    return
                content: bytes | Iterable[bytes] = file.read_bytes()
                for end, answer in server.answers.items():
                    if self.path.endswith(end):
                        content = answer(file.read_bytes())
                self.send_response(200)
                with suppress(OSError):
                    if isinstance(content, bytes):
                        self.send_header("Content-Length", str(len(content)))
                        self.end_headers()
                        self.wfile.write(content)
                    else:
                        self.end_headers()
                        for piece in content:
                            self.wfile.write(piece)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        files = ca.issue("releases", addresses=["127.0.0.1"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.certificate, files.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def pack(archive: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """Write an archive of whatever members."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        archive.open("wb") as file,
        zstandard.ZstdCompressor(level=1).stream_writer(file) as packed,
        tarfile.open(fileobj=packed, mode="w|") as tar,
    ):
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def renumbered(
    members: Iterable[tuple[tarfile.TarInfo, bytes]],
    version: str,
    more: Mapping[str, str] | None = None,
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Give this program's own release under another version, with more among its packages."""
    known = f"gunfire_node-{node.__version__}.dist-info"
    packages = ""
    for info, content in members:
        before, found, _ = info.name.partition(known)
        if found:
            packages = before
        if info.name.endswith(f"{known}/METADATA"):
            content = content.replace(
                f"Version: {node.__version__}".encode(), f"Version: {version}".encode()
            )
        info.name = info.name.replace(known, known.replace(node.__version__, version))
        yield info, content
    for name, text in (more or {}).items():
        yield member(packages + name), text.encode()


def member(
    name: str, *, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644
) -> tarfile.TarInfo:
    """Make the head of an archive's member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, target, mode, 1_700_000_000
    return info


def small_release(
    folder: Path,
    version: str,
    *,
    debian: str = "trixie",
    architecture: str = "arm64",
    inside: dict[str, str] | None = None,
    script: str | None = None,
    more: Iterable[tuple[tarfile.TarInfo, bytes]] = (),
) -> Path:
    """Pack a release whose interpreter is a script that says its version.

    `inside` has what it says of itself differ from its name: version, debian, architecture or
    outbox_format.
    """
    said = {
        "version": version,
        "debian": debian,
        "architecture": architecture,
        "outbox_format": "2",
        **(inside or {}),
    }
    packages = f"./lib/python{PYTHONS[said['debian']]}/site-packages"
    compiled = PYTHONS[said["debian"]].replace(".", "")
    script = f"#!/bin/sh\necho {version}\n" if script is None else script
    members = [
        (member("./", kind=tarfile.DIRTYPE, mode=0o755), b""),
        (member("./bin", kind=tarfile.DIRTYPE, mode=0o755), b""),
        (member("./bin/python", mode=0o755), script.encode()),
        (member("./bin/python3", kind=tarfile.SYMTYPE, target="/usr/bin/python3"), b""),
        (member("./bin/gunfire-node", mode=0o755), b"#!/bin/sh\n"),
        (member("./pyvenv.cfg"), b"home = /usr/bin\n"),
        (member("./lib64", kind=tarfile.SYMTYPE, target="lib"), b""),
        (member(f"{packages}/gunfire_node-{said['version']}.dist-info/METADATA"), b"\n"),
        (
            member(f"{packages}/node/deliver/tables.py"),
            f"from typing import Final\nFORMAT: Final = {said['outbox_format']}\n".encode(),
        ),
        (
            member(
                f"{packages}/x.cpython-{compiled}-{MACHINES[said['architecture']]}-linux-gnu.so"
            ),
            version.encode(),
        ),
        *more,
    ]
    return pack(folder / f"gunfire-node-{version}-{debian}-{architecture}.tar.zst", members)
