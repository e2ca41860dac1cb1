"""Write image and first-boot file to a card, and read all of it back.

What is compared is what was written: each stretch of the image by its SHA-256, as it was read and
as the card gives it again with the caches emptied, then the file on the FAT partition byte by byte.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from node.errors import ProvisioningError
from provisioning.card.disks import Target
from provisioning.card.image import CHUNK_BYTES, Image, Span, fat_offset
from provisioning.first_boot_file import NAME

Told = Callable[[int], None]
_BLKFLSBUF: Final = 0x1261  # <linux/fs.h>: write the device's cache out and forget it
_HALF: Final = "the card is half written and starts no node: write it again"


def need_mtools() -> None:
    """See that what writes to a FAT partition is there.

    Raises
    ------
    ProvisioningError
        It is not.
    """
    if shutil.which("mcopy") is None:
        raise ProvisioningError("mcopy is missing; run: sudo apt-get install -y mtools")


@contextmanager
def placed(target: Target) -> Iterator[Target]:
    """Give where to write: a card itself; a file under another name, until it is whole.

    Raises
    ------
    KeyboardInterrupt
        Somebody stops it; says what has become of the card.
    ProvisioningError
        There is no room for a file.
    """
    if target.is_device:
        try:
            yield target
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{target.path}: {_HALF}") from None
        return
    path = target.path.resolve()
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    except OSError as error:
        raise ProvisioningError(
            f"{path}: cannot be written: {error.strerror}; name another by --to"
        ) from None
    os.close(descriptor)
    try:
        yield replace(target, path=Path(name))
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_image(image: Image, target: Target, read: Told) -> tuple[Span, ...]:
    """Write what is used of an image; give what was written, each stretch with its SHA-256.

    Raises
    ------
    ProvisioningError
        Image or card is broken, the card too small or in use.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if target.is_device else os.O_CREAT | os.O_TRUNC)
    try:
        descriptor = os.open(target.path, flags, 0o600)  # O_EXCL: not while anything has it mounted
    except OSError as error:
        advice = {
            errno.EBUSY: "it is in use; unmount it, and close what shows it",
            errno.EACCES: "run this with sudo",
            errno.EROFS: "push the lock at the card's side",
        }.get(error.errno or 0, "put the card in anew")
        raise ProvisioningError(f"{target.path}: {error.strerror}; {advice}") from None
    try:
        return tuple(_copy(image, descriptor, target, read))
    except (OSError, ProvisioningError) as error:
        said = str(error)
        if isinstance(error, OSError):
            advice = "take a larger card" if error.errno == errno.ENOSPC else "take another card"
            said = f"{target.path}: cannot be written: {error.strerror}; {advice}"
        raise ProvisioningError(f"{said}; {_HALF}" if target.is_device else said) from None
    finally:
        os.close(descriptor)


def _copy(image: Image, descriptor: int, target: Target, read: Told) -> Iterator[Span]:
    spans = image.spans or (Span(0, 2**63),)
    digests = [hashlib.sha256() for _ in spans]
    at, first = 0, 0
    for chunk in image.chunks(read):
        end = at + len(chunk)
        while first < len(spans) and spans[first].end <= at:
            first += 1
        for i in range(first, len(spans)):
            span = spans[i]
            if span.start >= end:
                break
            part = chunk[max(span.start - at, 0) : span.end - at]
            digests[i].update(part)
            # A file's holes read as zeros; a card's do not.
            if target.is_device or part.count(0) != len(part):
                _write_all(descriptor, part, max(span.start, at))
        at = end
    if not target.is_device:
        os.ftruncate(descriptor, at)
    os.fsync(descriptor)
    for span, digest in zip(spans, digests, strict=True):
        if span.sha256 not in (None, digest.hexdigest()):
            raise ProvisioningError(
                f"{image.path}: differs from its map (.bmap) at byte {span.start}; fetch both anew"
            )
        yield Span(span.start, min(span.end, at), digest.hexdigest())


def _write_all(descriptor: int, part: bytes, at: int) -> None:
    left = memoryview(part)
    while left:
        done = os.pwrite(descriptor, left, at)
        left, at = left[done:], at + done


def compare_image(target: Target, spans: tuple[Span, ...], read: Told) -> None:
    """Read back what was written.

    Raises
    ------
    ProvisioningError
        The card gives something else.
    """
    with target.path.open("rb", buffering=0) as card:
        _forget_cache(card.fileno())
        for span in spans:
            digest = hashlib.sha256()
            at = span.start
            while at < span.end:
                try:
                    part = os.pread(card.fileno(), min(CHUNK_BYTES, span.end - at), at)
                except OSError as error:
                    raise ProvisioningError(
                        f"{target.path}: cannot be read back at byte {at}: {error.strerror}; the "
                        "card is bad: take another"
                    ) from None
                if not part:
                    break
                digest.update(part)
                at += len(part)
                read(len(part))
            if digest.hexdigest() != span.sha256:
                raise ProvisioningError(
                    f"{target.path}: does not read back as it was written, between bytes "
                    f"{span.start} and {span.end}: the card is bad, or less large than it says; "
                    "take another"
                )


def put_file(target: Target, text: bytes) -> None:
    """Put the first-boot file onto the FAT partition, and read it back.

    Raises
    ------
    ProvisioningError
        There is no such partition, it is full, or it gives something else.
    """
    with target.path.open("rb") as card:
        offset = fat_offset(card.read(512), target.path)
    where = f"{target.path}@@{offset}"
    _mtools(["mcopy", "-n", "-o", "-i", where, "-", f"::{NAME}"], text, target)
    with target.path.open("rb+", buffering=0) as card:
        os.fsync(card.fileno())
        _forget_cache(card.fileno())
    back = _mtools(["mcopy", "-n", "-i", where, f"::{NAME}", "-"], b"", target)
    if back != text:
        raise ProvisioningError(
            f"{target.path}: {NAME} does not read back as it was written ({len(back)} of "
            f"{len(text)} bytes): its first partition is full, or the card is bad; take another "
            "image or card"
        )


def _mtools(command: list[str], text: bytes, target: Target) -> bytes:
    done = subprocess.run(  # noqa: S603 - our own words and the target's name
        command, input=text, capture_output=True, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    )
    if done.returncode:
        said = " ".join(done.stderr.decode(errors="replace").split())
        raise ProvisioningError(
            f"{target.path}: {NAME} cannot be put onto its first partition ({said}); write the "
            "card again"
        )
    return done.stdout


def _forget_cache(descriptor: int) -> None:
    """Have what follows read from the card, not from memory."""
    if stat.S_ISBLK(os.fstat(descriptor).st_mode):
        fcntl.ioctl(descriptor, _BLKFLSBUF)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def spans_bytes(spans: tuple[Span, ...]) -> int:
    """Give how much that is."""
    return sum(span.end - span.start for span in spans)
