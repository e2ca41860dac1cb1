"""Files of the fleet's folder: whole or not at all, for their owner alone where they are secret."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from node.errors import ProvisioningError
from node.files import sync_folder
from node.timing.host import utc_now_ns

SECRET: Final = 0o600
PUBLIC: Final = 0o644
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FORM: Final = "%Y-%m-%dT%H:%M:%SZ"


def now() -> datetime:
    """Give the time, in whole seconds: certificates know no others."""
    return _EPOCH + timedelta(seconds=utc_now_ns() // 10**9)


def text_of(moment: datetime) -> str:
    """Write a moment as RFC 3339, in seconds."""
    return moment.astimezone(UTC).strftime(_FORM)


def moment_of(text: str) -> datetime:
    """Read what `text_of` wrote; raises ValueError."""
    return datetime.strptime(text, _FORM).replace(tzinfo=UTC)


def write(path: Path, data: bytes, mode: int) -> None:
    """Put a file in place of another, on the disk when this returns.

    It belongs to whom its folder belongs to, so that an administrator's command beside a server
    that runs as somebody else leaves nothing that the server cannot read.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(fresh, flags, SECRET), "wb") as file:
            own(file.fileno(), path.parent)
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ProvisioningError(f"{path}: cannot be written: {error.strerror}") from None


def own(descriptor: int, folder: Path) -> None:
    """Have a file belong to its folder's owner, where we may say so."""
    if os.geteuid() == 0:
        found = folder.stat()
        os.fchown(descriptor, found.st_uid, found.st_gid)


@contextmanager
def locked(path: Path, held: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock's file; where somebody else does, call `held`, and wait."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, SECRET)
    except OSError as error:
        raise ProvisioningError(
            f"{path}: cannot be opened: {error.strerror}: is this the fleet's folder "
            "(--fleet), and yours to write?"
        ) from None
    try:
        own(descriptor, path.parent)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int) -> None:
    """Make a folder that is not there, its parents' owner's."""
    if path.is_dir():
        return
    try:
        path.mkdir(mode=mode, parents=True)
        path.chmod(mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            own(descriptor, path.parent)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ProvisioningError(f"{path}: cannot be made: {error.strerror}") from None


def read(path: Path, advice: str) -> bytes:
    """Read a file; raises ProvisioningError with what to do about it."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProvisioningError(f"{path}: cannot be read: {error.strerror}: {advice}") from None
