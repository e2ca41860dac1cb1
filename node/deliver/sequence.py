"""A second memory of the numbers given out, so that none is ever given twice.

`seq` counts a node's detections for life and stands in the outbox's database. Should that file be
lost or corrupt, this small one beside it still says up to where numbers may have been used: it
holds a ceiling that is raised, durably, before the first number above it is given out.
"""

import os
import re
from pathlib import Path
from typing import Final

RESERVE: Final = 1000
"""Numbers covered by one raise: one small write to the card per thousand detections."""


class SequenceCeiling:
    """The file that holds the ceiling.

    Parameters
    ----------
    path
        The file; it need not exist.

    Attributes
    ----------
    value
        No number above it was ever given out; None where the file is absent or unreadable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.value = self._read()

    def cover(self, seq: int) -> None:
        """Make sure, durably, that `seq` lies at or below the ceiling.

        Raises
        ------
        OSError
            If the file cannot be written; the old ceiling stands.
        """
        if self.value is not None and seq <= self.value:
            return
        ceiling = seq + RESERVE - 1
        fresh = self._path.with_name(self._path.name + ".new")
        with fresh.open("w", encoding="ascii") as file:
            # Twice, so that a flipped bit is noticed.
            file.write(f"{ceiling} {ceiling}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        sync_folder(self._path.parent)
        self.value = ceiling

    def _read(self) -> int | None:
        try:
            text = self._path.read_text("ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        match = re.fullmatch(r"(\d{1,18}) \1\n", text)
        return None if match is None else int(match[1])


def sync_folder(folder: Path) -> None:
    """Make a folder's entries (files made, renamed, removed) survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
