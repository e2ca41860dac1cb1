"""Releases on a node: folders that are whole or not there, and two links.

`current` leads to the release in use, `good` to the last one that has proven itself: where they
differ, a release is being tried. The release that the image came with lies in the read-only root,
and is neither changed nor removed. What is half done lies in `.incoming`, which nobody runs.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from node.errors import ProvisioningError
from node.files import sync_folder
from provisioning.places import Places
from provisioning.update.archive import NEEDED, Entry, entries
from provisioning.update.release import number
from provisioning.whole import write_whole

Link = Literal["current", "good"]
INCOMING: Final = ".incoming"
BOOTS: Final = ".trial-boots"
"""Boots since a trial began; counted by systemd/image's update-guard, which needs no Python."""
UNBOOTED: Final = ".unbooted"
"""The release before one that has proven itself, but not through a boot yet: update-guard has it
tried once more at the next."""
_BLOCK: Final = 2**20

_libc = ctypes.CDLL(None, use_errno=True)


class Releases:
    """The releases of a node.

    Parameters
    ----------
    places
        Of the node.
    """

    def __init__(self, places: Places) -> None:
        self.folder = places.releases
        self._factory = places.factory

    @property
    def incoming(self) -> Path:
        """What is half done."""
        return self.folder / INCOMING

    @property
    def current(self) -> Path:
        """The release in use.

        Raises
        ------
        ProvisioningError
            There is none: this is no node that was flashed with the image.
        """
        return self._led("current")

    @property
    def good(self) -> Path:
        """The last release that has proven itself."""
        try:
            return self._led("good")
        except ProvisioningError:
            return self._led("current")

    @property
    def boots(self) -> int:
        """How often the machine was booted within this trial."""
        try:
            return int((self.folder / BOOTS).read_text("ascii"))
        except (OSError, ValueError):
            return 0

    def at(self, version: str) -> Path | None:
        """Give the folder of a version; None where it is not here."""
        for folder in (self.folder / version, self._factory / version):
            if _is_whole(folder):
                return folder
        return None

    def before(self, version: str) -> Path | None:
        """Give the highest release below a version."""
        known = [
            (number(folder.name), folder)
            for top in (self._factory, self.folder)
            for folder in (top.iterdir() if top.is_dir() else ())
            if _is_version(folder.name) and _is_whole(folder)
        ]
        below = [item for item in known if item[0] < number(version)]
        return max(below)[1] if below else None

    def lead(self, link: Link, to: Path) -> None:
        """Have a link lead to a release, at once and for good."""
        fresh = self.folder / f".{link}.new"
        with suppress(FileNotFoundError):
            fresh.unlink()
        fresh.symlink_to(to.name if to.parent == self.folder else to)
        fresh.replace(self.folder / link)
        sync_folder(self.folder)

    def begin_counting_boots(self) -> None:
        """Begin a trial's count of boots."""
        self._forget(UNBOOTED)
        self._note(BOOTS, "0")

    def end_counting_boots(self) -> None:
        """End it, if it was begun."""
        self._forget(BOOTS)

    def has_yet_to_boot(self, before: str) -> None:
        """Have the release in use tried once more at the next boot, against the one before."""
        self._note(UNBOOTED, before)

    def tidy(self) -> None:
        """Remove what is half done; where a download or an unpacking was cut off."""
        shutil.rmtree(self.incoming, ignore_errors=True)

    def unpack(self, archive: Path, version: str, most_bytes: int) -> Path:
        """Unpack a verified archive into `.incoming`.

        Raises
        ------
        ProvisioningError
            The archive holds what it may not.
        OSError
            The disk is full, or failed.
        """
        folder = self.incoming / version
        folder.mkdir(mode=0o755, parents=True)
        for entry in entries(archive, most_bytes):
            _place(folder / entry.path, entry)
        for needed in NEEDED:
            if not (folder / needed).exists():
                raise ProvisioningError(f"{archive.name}: has no {needed} that works here")
        return folder

    def keep(self, folder: Path) -> Path:
        """Put an unpacked release among the others, with all of it on the disk first."""
        _sync_disk(self.incoming)
        target = self.folder / folder.name
        if os.path.lexists(target):
            self.remove(target)
        folder.rename(target)
        sync_folder(self.folder)
        return target

    def remove(self, folder: Path) -> None:
        """Remove a release: it is gone at once, however long the removal takes."""
        self.incoming.mkdir(mode=0o700, exist_ok=True)
        doomed = self.incoming / f"old-{folder.name}"
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)
        sync_folder(self.folder)
        shutil.rmtree(doomed, ignore_errors=True)
        with suppress(OSError):  # something is in it
            self.incoming.rmdir()

    def prune(self, *keep: Path) -> None:
        """Remove all pulled releases but these."""
        kept = {folder.resolve() for folder in (*keep, self.current, self.good)}
        for folder in self.folder.iterdir():
            if _is_version(folder.name) and folder.resolve() not in kept:
                self.remove(folder)

    def _note(self, name: str, text: str) -> None:
        write_whole(self.folder / name, f"{text}\n")

    def _forget(self, name: str) -> None:
        with suppress(FileNotFoundError):
            (self.folder / name).unlink()
            sync_folder(self.folder)

    def _led(self, link: Link) -> Path:
        path = self.folder / link
        try:
            folder = path.resolve(strict=True)
        except (OSError, RuntimeError):
            raise ProvisioningError(
                f"{path}: leads to no release; boot the node anew, which mends it"
            ) from None
        if not _is_version(folder.name):
            raise ProvisioningError(f"{path}: leads to {folder}, which is not called by a version")
        return folder


def _is_version(name: str) -> bool:
    try:
        number(name)
    except ProvisioningError:
        return False
    return True


def _is_whole(folder: Path) -> bool:
    return all((folder / needed).exists() for needed in NEEDED)


def _place(path: Path, entry: Entry) -> None:
    """Make one of an archive's entries; its parents are folders that were made here."""
    if entry.kind == "folder":
        path.mkdir(exist_ok=True)
        path.chmod(entry.mode)
    elif entry.kind == "link":
        path.symlink_to(entry.target)
    else:
        assert entry.content is not None  # noqa: S101 - a file has some
        with path.open("xb") as opened:
            while block := entry.content.read(_BLOCK):
                opened.write(block)
        path.chmod(entry.mode)
        os.utime(path, (entry.mtime_s, entry.mtime_s))


def _sync_disk(folder: Path) -> None:
    """Have all that was written to a folder's disk be on it (syncfs(2), which tells its errors)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(folder))
    finally:
        os.close(descriptor)
