"""Releases for the image's tests: what `make release` packed, under other versions."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import zstandard

import node
from tests.hil.guest import BUILD
from tests.hil.release_server import pack, renumbered


def packed() -> Path:
    """Give what `make release` packed."""
    return BUILD / f"gunfire-node-{node.__version__}-trixie-arm64.tar.zst"


def under(folder: Path, version: str, more: Mapping[str, str] | None = None) -> Path:
    """Pack it anew under another version, with other files among its packages."""
    file = folder / packed().name.replace(node.__version__, version)
    return pack(file, renumbered(_members(), version, more))


def _members() -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with (
        packed().open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            yield member, content.read() if content is not None else b""
