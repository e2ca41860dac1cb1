"""Releases for the image's tests: what `make release` packed, under other versions; one deaf."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import zstandard

import node
from tests.hil.guest import BUILD
from tests.hil.release_server import pack

# It starts well by hand, and under systemd finds no sound card.
DEAF: Final = {
    "deaf.pth": "import os; 'NOTIFY_SOCKET' in os.environ and __import__('deaf')\n",
    "deaf.py": "import pyaudio\npyaudio.PyAudio.get_device_count = lambda self: 0\n",
}


def packed() -> Path:
    """Give what `make release` packed."""
    return BUILD / f"gunfire-node-{node.__version__}-trixie-arm64.tar.zst"


def under(folder: Path, version: str, more: Mapping[str, str] | None = None) -> Path:
    """Pack it anew under another version, with other files among its packages."""
    folder.mkdir(parents=True, exist_ok=True)
    return pack(folder / packed().name.replace(node.__version__, version), _members(version, more))


def _members(
    version: str, more: Mapping[str, str] | None
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    known = f"gunfire_node-{node.__version__}.dist-info"
    packages = ""
    with (
        packed().open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            if known in member.name:
                packages = member.name.partition(known)[0]
            content = b""
            if member.isfile():
                inside = archive.extractfile(member)
                assert inside is not None
                content = inside.read()
            if member.name.endswith(f"{known}/METADATA"):
                content = content.replace(
                    f"Version: {node.__version__}".encode(), f"Version: {version}".encode()
                )
            member.name = member.name.replace(known, known.replace(node.__version__, version))
            yield member, content
    for name, text in (more or {}).items():
        info = tarfile.TarInfo(packages + name)
        info.mode = 0o644
        yield info, text.encode()
