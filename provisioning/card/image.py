"""An image as it lies on the laptop: packed or not, with checksum and map beside it."""

from __future__ import annotations

import hashlib
import lzma
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
            It is not there, or what lies beside it is not of it.
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
            It is cut short or broken.
        """
        taken = 0
        with self.path.open("rb") as raw, _unpacked(raw, self.path.suffix) as stream:
            while True:
                try:
                    chunk = _filled(stream)
                except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError) as error:
                    raise ProvisioningError(
                        f"{self.path}: is broken or cut short ({error}); fetch it anew"
                    ) from None
                read(raw.tell() - taken)
                taken = raw.tell()
                if not chunk:
                    return
                yield chunk

    def check_sum(self, read: Callable[[int], None]) -> bool:
        """Compare it to the checksum beside it; False where there is none.

        Raises
        ------
        ProvisioningError
            It is another.
        """
        file = self.path.with_name(self.path.name + ".sha256")
        try:
            said = re.match(r"([0-9a-fA-F]{64})\b", file.read_text("utf-8"))
        except FileNotFoundError:
            return False
        if said is None:
            raise ProvisioningError(f"{file}: holds no SHA-256; fetch it anew, or take it away")
        digest = hashlib.sha256()
        with self.path.open("rb") as raw:
            while chunk := raw.read(CHUNK_BYTES):
                digest.update(chunk)
                read(len(chunk))
        if digest.hexdigest() != said[1].lower():
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


def _size(path: Path) -> int | None:
    if path.suffix == ".zst":
        with path.open("rb") as raw, suppress(zstandard.ZstdError):
            size = zstandard.frame_content_size(raw.read(64))
            return size if size > 0 else None
        return None
    if path.suffix == ".xz":
        with suppress(OSError, subprocess.CalledProcessError, ValueError, IndexError):
            done = subprocess.run(  # noqa: S603 - a file that exists
                ["xz", "--robot", "--list", "--", str(path)],  # noqa: S607
                capture_output=True,
                text=True,
                check=True,
            )
            totals = [line for line in done.stdout.splitlines() if line.startswith("totals")]
            return int(totals[0].split("\t")[4])
        return None
    return path.stat().st_size


def _read_bmap(path: Path) -> tuple[int, tuple[Span, ...]]:
    """Read a map of bmaptool's (format 2.0)."""
    try:
        text = path.read_text("utf-8")
        if "<!ENTITY" in text:
            raise ValueError("entities")
        tree = ET.fromstring(text)  # noqa: S314 - no entities, and it came with the image
        size = int(str(tree.findtext("ImageSize")))
        block = int(str(tree.findtext("BlockSize")))
        kind = str(tree.findtext("ChecksumType")).strip()
        spans = []
        for element in tree.iterfind("BlockMap/Range"):
            first, _, last = str(element.text).strip().partition("-")
            chksum = element.get("chksum") if kind == "sha256" else None
            end = min((int(last or first) + 1) * block, size)
            spans.append(Span(int(first) * block, end, chksum))
    except (OSError, ValueError, ET.ParseError) as error:
        raise ProvisioningError(
            f"{path}: is no map of an image ({error}); fetch it anew, or take it away"
        ) from None
    return size, tuple(spans)
