"""A release's archive: what may be in one, read without trust; and what it says of itself.

Read by the owner before he signs it, and by a node while it unpacks it. Refused is whatever could
reach beyond the release's own folder, or is none of: folder, file, symbolic link.
"""

from __future__ import annotations

import ast
import io
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Final, Literal

import zstandard

from node.errors import ProvisioningError
from provisioning.update.release import ARCHITECTURES, PYTHONS, VERSION, Facts, parts_of

MOST_ENTRIES: Final = 60_000
MOST_BYTES: Final = 2**30
_MOST_WINDOW: Final = 2**27  # what `zstd --long` needs: 128 MB of a node's memory
_LONGEST: Final = 1024
_LONGEST_PART: Final = 255  # of ext4, in bytes
_LATEST_S: Final = 2**32
# What tar says of its files, and reads into memory: at once, and for each. A name of 1024 bytes
# takes 2560.
_MOST_SAID: Final = 2**16
_SAID_OF_EACH: Final = 3 * 2**10
# A virtual environment's own links to Debian's interpreter.
_INTERPRETER: Final = re.compile(r"/usr/bin/python3(?:\.[0-9]{1,2})?")
_PACKAGES: Final = r"lib/python(3\.[0-9]{1,2})/site-packages"
_METADATA: Final = re.compile(rf"{_PACKAGES}/gunfire_node-({VERSION})\.dist-info/METADATA")
_TABLES: Final = re.compile(rf"{_PACKAGES}/node/deliver/tables\.py")
_COMPILED: Final = re.compile(r".*\.cpython-3[0-9]+-([a-z0-9_]+)-linux-gnu\.so")
NEEDED: Final = ("bin/python", "bin/gunfire-node", "pyvenv.cfg")


@dataclass(frozen=True)
class Entry:
    """A folder, file or link of an archive.

    Attributes
    ----------
    path
        Within the release.
    mode
        0755 or 0644: whose it is and what else it is allowed is not the archive's to say.
    target
        Of a link.
    size, mtime_s
        Of a file, in bytes; when it was written: what Python has compiled is good for that alone.
    content
        Of a file; to be read before the next entry is asked for.
    """

    path: PurePosixPath
    kind: Literal["folder", "file", "link"]
    mode: int = 0o755
    target: str = ""
    size: int = 0
    mtime_s: float = 0.0
    content: IO[bytes] | None = None


def entries(archive: Path, most_bytes: int = MOST_BYTES) -> Iterator[Entry]:
    """Yield what is in an archive, each folder before what is in it.

    Raises
    ------
    ProvisioningError
        It cannot be read, holds what it may not, or more than so many bytes.
    """
    try:
        with archive.open("rb") as packed:
            yield from _entries(archive.name, packed, most_bytes)
    except (tarfile.TarError, zstandard.ZstdError, EOFError, ValueError) as error:
        if isinstance(error, ProvisioningError):
            raise
        raise ProvisioningError(
            f"{archive.name}: is damaged, or no archive ({error}); build it anew"
        ) from None


def facts_of(archive: Path) -> Facts:
    """Look into an archive, and give what it says of itself.

    Raises
    ------
    ProvisioningError
        It is not what its name says, or could not be used on a node.
    """
    named = parts_of(archive.name)
    versions: set[str] = set()
    pythons: set[str] = set()
    machines: set[str] = set()
    formats: set[int] = set()
    missing = set(NEEDED)
    size = 0
    for entry in entries(archive):
        path = str(entry.path)
        missing.discard(path)
        size += entry.size
        if (match := _METADATA.fullmatch(path)) is not None:
            pythons.add(match[1])
            versions.add(match[2])
        elif (match := _COMPILED.fullmatch(path)) is not None:
            machines.add(ARCHITECTURES.get(match[1], match[1]))
        elif _TABLES.fullmatch(path) and entry.content is not None:
            formats.add(_outbox_format(archive.name, entry.content.read()))
    if missing:
        raise ProvisioningError(
            f"{archive.name}: has no {min(missing)}; a release is a virtual environment that "
            "gunfire-node is installed in, with its folders at the top of the archive"
        )
    found = {
        "version": versions,
        "debian": {PYTHONS.get(python, f"Python {python}") for python in pythons},
        "architecture": machines,
    }
    for what, values in found.items():
        if values != {named[what]}:
            raise ProvisioningError(
                f"{archive.name}: its {what} is {' and '.join(sorted(values)) or 'not told'} "
                "inside; build it anew, and leave its name as it is"
            )
    if len(formats) != 1:
        raise ProvisioningError(f"{archive.name}: does not tell its outbox's format; build it anew")
    return Facts(**named, outbox_format=formats.pop(), unpacked_bytes=max(1, size))


def _entries(name: str, packed: IO[bytes], most_bytes: int) -> Iterator[Entry]:
    unpacked = _Bounded(
        name,
        zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW).stream_reader(
            packed, read_across_frames=True
        ),
    )
    left = most_bytes
    seen: set[PurePosixPath] = set()
    folders = {PurePosixPath()}
    with tarfile.open(fileobj=unpacked, mode="r|") as tar:
        for member in tar:
            if len(seen) >= MOST_ENTRIES:
                raise ProvisioningError(f"{name}: holds more than {MOST_ENTRIES} files")
            path = _path(name, member.name)
            if path == PurePosixPath():
                if not member.isdir():
                    raise ProvisioningError(f"{name}: something in it has no name; build it anew")
                unpacked.allow(0)
                continue
            for folder in reversed(path.parents):
                if folder in seen and folder not in folders:
                    raise ProvisioningError(f"{name}: {path} lies below what is no folder")
                if folder not in folders:
                    folders.add(folder)
                    seen.add(folder)
                    yield Entry(folder, "folder")
            if path in seen:
                if member.isdir() and path in folders:
                    unpacked.allow(0)
                    continue
                raise ProvisioningError(f"{name}: {path} is in it twice")
            seen.add(path)
            entry = _entry(name, path, member, tar)
            if entry.kind == "folder":
                folders.add(path)
            left -= entry.size
            if left < 0:
                raise ProvisioningError(f"{name}: holds more than {most_bytes} bytes")
            unpacked.allow(entry.size)
            yield entry


class _Bounded(io.RawIOBase):
    """Hands a stream on to tar, which would take what it says of its files at any length."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        super().__init__()
        self._name = name
        self._stream = stream
        self._left = _MOST_SAID

    def allow(self, size: int) -> None:
        """Let a file of this size pass, and what is said of the next one."""
        blocks = -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        self._left = min(self._left + _SAID_OF_EACH, _MOST_SAID) + blocks

    def read(self, size: int = -1) -> bytes:
        """Read; tarfile asks for 10 KB at a time."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ProvisioningError(
                f"{self._name}: says more of its files than names need; build it anew"
            )
        return data


def _entry(name: str, path: PurePosixPath, member: tarfile.TarInfo, tar: tarfile.TarFile) -> Entry:
    if member.isdir():
        return Entry(path, "folder")
    if member.issym():
        _check_link(name, path, member.linkname)
        return Entry(path, "link", target=member.linkname)
    if member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
        if not 0 <= member.mtime < _LATEST_S:  # so is nan
            raise ProvisioningError(
                f"{name}: {path} was written at {member.mtime} s, which no node can give it; "
                "build it anew"
            )
        mode = 0o755 if member.mode & stat.S_IXUSR else 0o644
        return Entry(
            path, "file", mode, "", member.size, float(member.mtime), tar.extractfile(member)
        )
    raise ProvisioningError(f"{name}: {path} is no file, folder or symbolic link")


def _path(name: str, told: str) -> PurePosixPath:
    path = PurePosixPath(told)
    if path.is_absolute() or ".." in path.parts or "\0" in told or _is_long(told):
        raise ProvisioningError(f"{name}: {told[:80]!r} would lie outside of the release's folder")
    if any(len(os.fsencode(part)) > _LONGEST_PART for part in path.parts):
        raise ProvisioningError(
            f"{name}: a name in {told[:80]!r} is longer than {_LONGEST_PART} bytes; build it anew"
        )
    return path


def _is_long(told: str) -> bool:
    return len(os.fsencode(told)) > _LONGEST


def _check_link(name: str, path: PurePosixPath, target: str) -> None:
    """See that a link leads to something within: up first, through real folders, then down."""
    if _INTERPRETER.fullmatch(target):
        return
    parts = PurePosixPath(target).parts
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    inside = up <= len(path.parent.parts) and ".." not in parts[up:]
    if not parts or target.startswith("/") or "\0" in target or _is_long(target) or not inside:
        raise ProvisioningError(
            f"{name}: the link {path} leads to {target[:80]!r}, outside of the release's folder"
        )


def _outbox_format(name: str, source: bytes) -> int:
    """Find `FORMAT` in node/deliver/tables.py, without running it."""
    try:
        for statement in ast.parse(source).body:
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and statement.target.id == "FORMAT"
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, int)
            ):
                return statement.value.value
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    raise ProvisioningError(f"{name}: does not tell its outbox's format; build it anew")
