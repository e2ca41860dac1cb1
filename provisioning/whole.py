"""Files that are there whole or not at all, also after a cut of power; and the FAT partition's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from node.files import sync_folder
from provisioning.places import Places


def write_whole(path: Path, data: str | bytes, mode: int = 0o644, group: str | None = None) -> None:
    """Put a file in place of the one before; a cut leaves one or the other.

    Parameters
    ----------
    group
        Whose it is beside root's, where there is such a group.

    Raises
    ------
    OSError
        It could not be written; the one before is as it was.
    """
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            if group is not None:
                with suppress(LookupError, PermissionError):
                    shutil.chown(fresh, group=group)
            with suppress(PermissionError):  # FAT has no modes but those it was mounted with
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def fat_writable(places: Places) -> Iterator[None]:
    """Have the FAT partition writable meanwhile, and on the card what was written when it ends.

    Where it is so anyway, or no partition of its own, it stays as it is.

    Raises
    ------
    OSError
        It cannot be made writable: the card's lock, a broken card.
    """
    locked = os.path.ismount(places.boot) and _is_read_only(places.boot)
    if locked:
        _remount(places.boot, "rw")
        if _is_read_only(places.boot):
            raise OSError(f"{places.boot} stays read-only, though mount says it does not")
    try:
        yield
    finally:
        if locked:
            os.sync()
            _remount(places.boot, "ro")


def _is_read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def _remount(folder: Path, how: str) -> None:
    # Without fstab, whose `ro` wins where a unit sees no devices: mount then ends with 0, and the
    # partition stays as it was.
    options = f"remount,{how},noexec,nosuid,nodev"
    done = subprocess.run(  # noqa: S603 - our own words
        ["/usr/bin/mount", "--options-source", "disable", "-o", options, str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise OSError(f"{folder} does not become {how}: {done.stderr.strip()}")
