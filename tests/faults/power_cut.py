"""What a disk may hold after a cut of power, worked out from the calls that wrote to it.

POSIX promises of a file what was synced by fsync(2), and of its name what the folder's fsync has
made last. Of all else a disk may have kept any part, by sectors, and the last one torn. Here a
rename or a removal that was not synced may have happened or not.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

SECTOR: Final = 512

_CALL: Final = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += +(-?\d+)")
_FILE: Final = re.compile(r"^\d+<((?:\\x[0-9a-f]{2})*)>(?:\(deleted\))?(?:, )?(.*)$")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_NUMBER: Final = re.compile(r"(\d+)$")

Files = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True)
class Call:
    """One call that wrote, or told; `file` is a name in the folder, empty for the folder itself."""

    name: str
    file: str
    data: bytes = b""
    offset: int | None = None
    to: str = ""
    told: list[Any] | None = None


def read_calls(trace: str, folder: Path) -> list[Call]:
    """Read what `strace -f -y -xx` wrote, of the files in one folder and of what was told."""
    calls = []
    for line in trace.splitlines():
        match = _CALL.match(line)
        if match is None or int(match[3]) < 0:
            continue
        call = _read_call(match[1], match[2], folder)
        if call is not None:
            calls.append(call)
    return calls


def _read_call(name: str, arguments: str, folder: Path) -> Call | None:
    texts = [_bytes(text) for text in _TEXT.findall(arguments)]
    if name in ("rename", "unlink"):
        names = [Path(text.decode()).name for text in texts]
        return Call(name, names[0], to=names[-1] if name == "rename" else "")
    match = _FILE.match(arguments)
    if match is None:
        return None
    path, rest = Path(_bytes(match[1]).decode()), match[2]
    if name == "writev":
        return Call(name, "", told=json.loads(texts[0]))
    if path == folder:
        return Call(name, "")
    if path.parent != folder:
        return None
    number = _NUMBER.search(rest)
    offset = int(number[1]) if number and name in ("pwrite64", "ftruncate") else None
    return Call(name, path.name, texts[0] if texts else b"", offset)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass
class _File:
    synced: bytes = b""
    pending: list[Call] = field(default_factory=list)

    def content(self, calls: list[Call] | None = None) -> bytes:
        data = bytearray(self.synced)
        for call in self.pending if calls is None else calls:
            _apply(data, call)
        return bytes(data)


def _apply(data: bytearray, call: Call) -> None:
    if call.name == "ftruncate":
        assert call.offset is not None
        del data[call.offset :]
        data.extend(bytes(call.offset - len(data)))
        return
    at = len(data) if call.offset is None else call.offset
    data.extend(bytes(max(0, at - len(data))))
    data[at : at + len(call.data)] = call.data


class Disk:
    """A folder's files, what of them is synced and what is not."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = {name: _File(content) for name, content in files.items()}
        self._synced_names = dict(self._files)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Begin with what is in a folder, all of it synced."""
        return cls({file.name: file.read_bytes() for file in folder.iterdir()})

    def take(self, call: Call) -> None:
        """Do what a call did."""
        if call.name == "rename":
            self._files[call.to] = self._files.pop(call.file)
        elif call.name == "unlink":
            self._files.pop(call.file, None)
        elif not call.file:
            self._synced_names = dict(self._files)
        elif call.name in ("fsync", "fdatasync"):
            file = self._files.setdefault(call.file, _File())
            file.synced, file.pending = file.content(), []
        else:
            self._files.setdefault(call.file, _File()).pending.append(call)

    def after_a_cut(self, rng: random.Random, tears: int) -> Iterator[Files]:
        """Give the files as they may be: all kept, nothing kept, and some parts of it."""
        for names in self._namings():
            yield tuple((name, file.content()) for name, file in names.items())
            yield tuple((name, file.synced) for name, file in names.items())
            if any(file.pending for file in names.values()):
                for _ in range(tears):
                    yield tuple((name, _torn(file, rng)) for name, file in names.items())

    def at_each_byte(self, name: str) -> Iterator[Files]:
        """Give the files cut at each byte of what was written last to one of them."""
        file = self._files[name]
        others = tuple((n, f.content()) for n, f in self._files.items() if n != name)
        for count, call in enumerate(file.pending):
            for length in range(len(call.data)):
                part = Call(call.name, name, call.data[:length], call.offset)
                yield (*others, (name, file.content([*file.pending[:count], part])))

    def _namings(self) -> Iterator[dict[str, _File]]:
        yield self._files
        # A file that was made and synced itself is found by its name on any file system of today,
        # and so it is here; a renaming or a removal may be forgotten.
        if any(
            self._synced_names[name] is not self._files.get(name) for name in self._synced_names
        ):
            yield {**self._files, **self._synced_names}


def _torn(file: _File, rng: random.Random) -> bytes:
    kept: list[Call] = []
    for call in file.pending:
        if call.name == "ftruncate":
            if rng.random() < 0.5:
                kept.append(call)
            continue
        at = call.offset
        for first in range(0, len(call.data), SECTOR):
            sector = call.data[first : first + SECTOR]
            if rng.random() < 0.5:
                length = rng.randrange(len(sector)) + 1 if rng.random() < 0.1 else len(sector)
                begin = (len(file.synced) if at is None else at) + first
                kept.append(Call(call.name, call.file, sector[:length], begin))
    return file.content(kept)
