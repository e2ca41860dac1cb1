"""Files that matter: whether others may use a private one, and what a cut of power leaves."""

import os
import stat
from pathlib import Path
from typing import Final

Mark = tuple[int, int, int]

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def open_to_others(path: Path, mode: int) -> bool:
    """Say whether others than its owner may use a private file of this mode.

    systemd lets a service read its credentials by an access list, whose mask shows as the group's
    right to read: there, and only there, that is nobody else's.
    """
    allowed = stat.S_IRGRP if _is_credential(path) else 0
    return bool(mode & _OTHERS & ~allowed)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries (files made, renamed, removed) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mark(path: Path) -> Mark | None:
    """Give what changes when a file does: its time of change, size and inode; None without one."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _is_credential(path: Path) -> bool:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(folder) and path.resolve().is_relative_to(Path(str(folder)).resolve())
