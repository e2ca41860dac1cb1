"""An image as it lies on the laptop: packed or not, with checksum and map beside it."""

from __future__ import annotations

import hashlib
import lzma
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import zstandard

from node.errors import ProvisioningError

CHUNK_BYTES: Final = 4 * 2**20
_MBR_BYTES: Final = 512
_FAT: Final = frozenset({0x0B, 0x0C, 0x0E})
_SECTOR_BYTES: Final = 512
# A window of zstd beyond this is no image of ours.
_MOST_WINDOW: Final = 2**27
# RFC 8878, section 3.1: the longest head of a frame, its frames to be skipped, its repeated bytes.
_HEAD_BYTES: Final = 18
_SKIPPED: Final = 0x184D2A50
_REPEATED: Final = 1
# What provisioning/image/genimage.cfg calls the FAT partition, where FAT32 keeps it.
_LABEL: Final = b"GUNFIRE    "
_LABEL_AT: Final = 71


@dataclass(frozen=True)
class Span:
    """A stretch of an image that is used; with the checksum that its map gives, if it does."""

    start: int
    end: int
    sha256: str | None = None


@dataclass(frozen=True)
class Image:
    """An image.

    Attributes
    ----------
    path
        Its file.
    packed_bytes
        Size of that file.
    size_bytes
        Size once unpacked; None where nothing tells before it is.
    spans
        What of it is used; None where no map lies beside it, and all is.
    """

    path: Path
    packed_bytes: int
    size_bytes: int | None
    spans: tuple[Span, ...] | None

    @classmethod
    def of(cls, path: Path) -> Image:
        """Look at an image.

        Raises
        ------
        ProvisioningError
            It is not there or cut short, or what lies beside it is not of it.
        """
        try:
            packed = path.stat().st_size
            with path.open("rb"):
                pass
        except OSError as error:
            raise ProvisioningError(
                f"{path}: cannot be read: {error.strerror}; name the image that `make image` made"
            ) from None
        size, spans = _size(path), None
        bmap = _beside(path, ".bmap")
        if bmap is not None:
            mapped, spans = _read_bmap(bmap)
            if size is not None and mapped != size:
                raise ProvisioningError(
                    f"{bmap}: is the map of another image ({mapped} bytes, not {size}); fetch both "
                    "anew, or take it away"
                )
            size = mapped
        return cls(path, packed, size, spans)

    def chunks(self, read: Callable[[int], None]) -> Iterator[bytes]:
        """Give it unpacked, piece by piece; `read` is told how many packed bytes were taken.

        Raises
        ------
        ProvisioningError
            It is cut short or broken, or not as large as it tells.
        """
        taken = size = 0
        with self.path.open("rb") as raw, _unpacked(raw, self.path.suffix) as stream:
            while True:
                try:
                    chunk = _filled(stream)
                except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
                    raise _broken(self.path, error) from None
                read(raw.tell() - taken)
                taken = raw.tell()
                if not chunk:
                    break
                size += len(chunk)
                yield chunk
        if self.size_bytes not in (None, size):
            raise ProvisioningError(
                f"{self.path}: is {size} bytes, not the {self.size_bytes} that are told; fetch it "
                "anew"
            )

    @property
    def files(self) -> tuple[Path, ...]:
        """The image, and what lies beside it."""
        bmap = _beside(self.path, ".bmap")
        return (self.path, self._sums, *([bmap] if bmap else ()))

    @property
    def _sums(self) -> Path:
        return self.path.with_name(self.path.name + ".sha256")

    def need_ours(self) -> None:
        """See that it is a node's image, by its first partition.

        Raises
        ------
        ProvisioningError
            It is something else.
        """
        at, fat, sector = 0, None, b""
        for chunk in self.chunks(lambda _: None):
            fat = fat_offset(chunk, self.path) if fat is None else fat
            if fat < at + len(chunk):
                sector = chunk[fat - at : fat - at + _SECTOR_BYTES]
                break
            at += len(chunk)
        if sector[_LABEL_AT : _LABEL_AT + len(_LABEL)] != _LABEL:
            raise ProvisioningError(
                f"{self.path}: is no node's image, as its first partition is not labelled "
                f"{_LABEL.decode().strip()}; name the image that `make image` made"
            )

    def check_sum(self, read: Callable[[int], None]) -> bool:
        """Compare it to the checksum beside it; False where there is none.

        Raises
        ------
        ProvisioningError
            It is another.
        """
        file = self._sums
        try:
            said = re.match(rb"([0-9a-fA-F]{64})\b", file.read_bytes())
        except FileNotFoundError:
            return False
        if said is None:
            raise ProvisioningError(f"{file}: holds no SHA-256; fetch it anew, or take it away")
        digest = hashlib.sha256()
        with self.path.open("rb") as raw:
            while chunk := raw.read(CHUNK_BYTES):
                digest.update(chunk)
                read(len(chunk))
        if digest.hexdigest() != said[1].decode().lower():
            raise ProvisioningError(
                f"{self.path}: is not what {file.name} says, so it is broken or another; fetch "
                "both anew"
            )
        return True


def fat_offset(mbr: bytes, name: Path) -> int:
    """Give where the first FAT partition begins, in bytes, by an image's first sector.

    Raises
    ------
    ProvisioningError
        There is none.
    """
    if len(mbr) >= _MBR_BYTES and mbr[510:512] == b"\x55\xaa":
        for at in range(446, 510, 16):
            if mbr[at + 4] in _FAT:
                return int.from_bytes(mbr[at + 8 : at + 12], "little") * _SECTOR_BYTES
    raise ProvisioningError(
        f"{name}: has no FAT partition for the first-boot file; is it the node's image?"
    )


@contextmanager
def _unpacked(raw: IO[bytes], kind: str) -> Iterator[IO[bytes]]:
    if kind == ".zst":
        unpacker = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW)
        with unpacker.stream_reader(raw, read_size=2**18, read_across_frames=True) as stream:
            yield cast("IO[bytes]", stream)
    elif kind == ".xz":
        with lzma.open(raw) as stream:
            yield cast("IO[bytes]", stream)
    else:
        yield raw


def _filled(stream: IO[bytes]) -> bytes:
    """Read a whole chunk, or what is left."""
    parts, left = [], CHUNK_BYTES
    while left:
        part = stream.read(left)
        if not part:
            break
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _beside(path: Path, ending: str) -> Path | None:
    """Find `x.img.bmap`, `x.img.zst.bmap` or `x.bmap` beside `x.img.zst`."""
    plain = path.with_suffix("") if path.suffix in (".zst", ".xz") else path
    for one in (path.with_name(path.name + ending), plain.with_name(plain.name + ending)):
        if one.exists():
            return one
    other = plain.with_suffix(ending)
    return other if other.exists() else None


def _broken(path: Path, error: Exception) -> ProvisioningError:
    return ProvisioningError(f"{path}: is broken or cut short ({error}); fetch it anew")


def _size(path: Path) -> int | None:
    """Give the size once unpacked, if it tells; see that its end is there, before a card is erased.

    Raises
    ------
    ProvisioningError
        It is cut short or broken.
    """
    try:
        if path.suffix == ".zst":
            return _zst_size(path)
        if path.suffix == ".xz":
            return _xz_size(path)
    except (EOFError, zstandard.ZstdError) as error:
        raise _broken(path, error) from None
    return path.stat().st_size


def _zst_size(path: Path) -> int | None:
    """Walk all frames and blocks: the library takes a file that is cut short for a whole one."""
    size: int | None = 0
    at, end = 0, path.stat().st_size
    with path.open("rb") as raw:

        def number(at: int, length: int) -> int:
            raw.seek(at)
            return int.from_bytes(raw.read(length), "little")

        while at < end or not end:
            if number(at, 4) & ~0xF == _SKIPPED:
                at += 8 + number(at + 4, 4)
                continue
            raw.seek(at)
            head = raw.read(_HEAD_BYTES)
            frame = zstandard.get_frame_parameters(head)
            at += zstandard.frame_header_size(head)
            last = 0
            while not last:
                if at >= end:
                    raise EOFError("its end is missing")
                block = number(at, 3)
                last, kind, length = block & 1, block >> 1 & 3, block >> 3
                at += 3 + (1 if kind == _REPEATED else length)
            at += 4 * frame.has_checksum
            told = frame.content_size != zstandard.CONTENTSIZE_UNKNOWN
            size = size + frame.content_size if told and size is not None else None
    if at > end:
        raise EOFError("its end is missing")
    return size


def _xz_size(path: Path) -> int | None:
    try:
        done = subprocess.run(  # noqa: S603 - a file that exists
            ["xz", "--robot", "--list", "--", str(path)],  # noqa: S607
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:  # there is no xz; whether it is whole shows as it is unpacked
        return None
    if done.returncode:
        raise EOFError(done.stderr.strip().rpartition(": ")[2])
    totals = [line for line in done.stdout.splitlines() if line.startswith("totals")]
    return int(totals[0].split("\t")[4])


def _read_bmap(path: Path) -> tuple[int, tuple[Span, ...]]:
    """Read a map of bmaptool's (format 2.0)."""
    try:
        data = path.read_bytes()
        if b"<!ENTITY" in data:
            raise ValueError("entities")
        tree = ET.fromstring(data.decode("utf-8"))  # noqa: S314 - no entities
        said = str(tree.findtext("BmapFileChecksum", "")).strip()
        if not said:
            raise ValueError("it has no checksum")
        # Taken with noughts in its own place.
        blank = data.replace(said.encode(), b"0" * len(said))
        if hashlib.sha256(blank).hexdigest() != said:
            raise ValueError("its checksum is another")
        size = int(str(tree.findtext("ImageSize")))
        block = int(str(tree.findtext("BlockSize")))
        spans: list[Span] = []
        for element in tree.iterfind("BlockMap/Range"):
            first, _, last = str(element.text).strip().partition("-")
            start, end = int(first) * block, min((int(last or first) + 1) * block, size)
            if not (spans[-1].end if spans else 0) <= start < end:
                raise ValueError(f"its range {first}-{last or first} is empty or out of turn")
            spans.append(Span(start, end, element.get("chksum")))
    except (OSError, ValueError, ET.ParseError) as error:
        raise ProvisioningError(
            f"{path}: is no map of an image ({error}); fetch it anew, or take it away"
        ) from None
    return size, tuple(spans)
