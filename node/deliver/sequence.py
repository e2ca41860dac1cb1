"""A second memory of the numbers given out, so that none is ever given twice.

`seq` counts a node's detections for life and stands in the outbox's database. Should that file be
lost or corrupt, this small one beside it still says up to where numbers may have been used: it
holds a ceiling that is raised, durably, before the first number above it is given out, and lowered
to the last number where an outbox is closed in good order. It says too from where on messages may
have waited in the lost file (the floor), and which gaps there were already, so that what was lost
can be told as narrowly as is known.
"""

import errno
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from node.deliver.gaps import Gap
from node.files import sync_folder

RESERVE: Final = 1000
"""Numbers covered by one raise: one small write to the card per thousand detections."""

# The last word is missing where an earlier version wrote the line.
_FIRST_LINE: Final = re.compile(r"ceiling (\d{1,18}) floor (\d{1,18})(?: (open|closed))?")
_GAP_LINE: Final = re.compile(r"(\d{1,18}) (\d{1,18}) (\d{1,18}|-) (dropped|lost)")
# Versions before signing wrote the ceiling alone, twice so that a flipped bit is noticed.
_OLD_FORM: Final = re.compile(r"([1-9]\d{0,17}) \1\n")


class Kept(NamedTuple):
    """What the file says.

    Attributes
    ----------
    ceiling
        No number above it was ever given out.
    floor
        No message below it waited when the ceiling was raised.
    gaps
        Those there were then.
    state
        `closed`: the ceiling is the last number given out; `open`: it may be one below, and the
        database's log is there; None: as an earlier version left it, which did not say.
    """

    ceiling: int
    floor: int
    gaps: tuple[Gap, ...]
    state: str | None = None


class SequenceCeiling:
    """The file that holds the ceiling.

    Parameters
    ----------
    path
        The file; it need not exist.

    Attributes
    ----------
    kept
        What it says; None where the file is absent or unreadable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kept = self._read()

    def cover(self, seq: int, state: Callable[[], tuple[int, tuple[Gap, ...]]]) -> None:
        """Make sure, durably, that `seq` lies at or below the ceiling.

        Parameters
        ----------
        state
            Gives floor and gaps; asked only if there is something to be written.

        Raises
        ------
        OSError
            If the file cannot be written; the old ceiling stands.
        """
        if self.kept is not None and seq <= self.kept.ceiling:
            return
        self._write(Kept(seq + RESERVE - 1, *state(), "open"))

    def close(self, last_seq: int, state: Callable[[], tuple[int, tuple[Gap, ...]]]) -> None:
        """Lower the ceiling to the last number, unless it stands there.

        Raises
        ------
        OSError
            If the file cannot be written; the old ceiling stands.
        """
        if self.kept is not None and self.kept.state != "closed":
            self._write(Kept(last_seq, *state(), "closed"))

    def _write(self, kept: Kept) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        with fresh.open("w", encoding="ascii") as file:
            file.write(_written(kept))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        sync_folder(self._path.parent)
        self.kept = kept

    def _read(self) -> Kept | None:
        try:
            text = self._path.read_text("ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            return None
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return None  # a bad sector: as spoilt as any, and the next raise writes another file
        old = _OLD_FORM.fullmatch(text)
        return Kept(int(old[1]), 1, ()) if old else _parsed(text)


def _written(kept: Kept) -> str:
    lines = [f"ceiling {kept.ceiling} floor {kept.floor} {kept.state}"]
    lines += [
        f"{gap.from_seq} {gap.to_seq} {'-' if gap.count is None else gap.count} {gap.reason}"
        for gap in kept.gaps
    ]
    body = "".join(f"{line}\n" for line in lines)
    return f"{body}sha256 {_sum(body)}\n"  # a flipped bit is noticed


def _parsed(text: str) -> Kept | None:
    body, _, tail = text.rpartition("sha256 ")
    first, *rest = body.split("\n")[:-1] or [""]
    match, gaps = _FIRST_LINE.fullmatch(first), [_GAP_LINE.fullmatch(line) for line in rest]
    if tail != f"{_sum(body)}\n" or match is None or None in gaps:
        return None
    return Kept(
        int(match[1]), int(match[2]), tuple(_gap(found) for found in gaps if found), match[3]
    )


def _gap(match: re.Match[str]) -> Gap:
    count = None if match[3] == "-" else int(match[3])
    return Gap(int(match[1]), int(match[2]), count, "lost" if match[4] == "lost" else "dropped")


def _sum(body: str) -> str:
    return hashlib.sha256(body.encode("ascii")).hexdigest()
