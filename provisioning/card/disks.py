"""Which disk may be written to: a card in a reader, never what the laptop lives on.

Asked of `lsblk`, part of util-linux; what it says is judged by `refusal`, which is pure.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.cli._shared import printable
from node.errors import ProvisioningError

_COLUMNS: Final = "NAME,PATH,TYPE,RM,HOTPLUG,RO,SIZE,VENDOR,MODEL,TRAN,FSTYPE,LABEL,MOUNTPOINTS"
_SYSTEM: Final = ("/", "/boot", "/boot/efi", "/usr", "/var", "/home", "[SWAP]")
_SYSFS: Final = Path("/sys/block")
# Larger is a disk full of somebody's work rather than a card.
LARGEST_CARD_BYTES: Final = 2 * 10**12
# A larger one has to be named: it may be where somebody keeps copies.
LARGEST_PROPOSED_BYTES: Final = 260 * 10**9


@dataclass(frozen=True)
class Target:
    """Where an image goes.

    Attributes
    ----------
    path
        Device or file.
    size_bytes
        Of the device; None for a file, which grows.
    about
        Model and size, for whoever confirms.
    """

    path: Path
    size_bytes: int | None
    about: str

    @property
    def is_device(self) -> bool:
        """Whether something is erased."""
        return self.size_bytes is not None


def target_of(path: Path, image_bytes: int | None) -> Target:
    """Look at a target, and refuse what is no card.

    Raises
    ------
    ProvisioningError
        It may not be written to; says why, and what to do.
    """
    if "@@" in os.path.realpath(path):
        raise ProvisioningError(
            f"{path}: mtools takes what follows @@ for an offset; name another without @@"
        )
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if str(path).startswith("/dev/"):
            raise ProvisioningError(
                f"{path}: there is no such disk; put the card in, and look with `lsblk`"
            ) from None
        if not path.parent.is_dir():
            raise ProvisioningError(f"{path}: there is no folder {path.parent}") from None
        return Target(path, None, "a new file")
    except OSError as error:
        raise ProvisioningError(f"{path}: {error.strerror}; name the card's device") from None
    if stat.S_ISREG(mode):
        return Target(path, None, f"a file of {path.stat().st_size / 1e6:.0f} MB")
    if not stat.S_ISBLK(mode):
        raise ProvisioningError(f"{path}: is neither a disk nor a file; name the card's device")
    disk = look(path)
    if why := refusal(disk, image_bytes):
        raise ProvisioningError(f"{path}: {why}")
    return Target(path, _size(disk), about(disk))


def look(path: Path) -> Mapping[str, Any]:
    """Ask lsblk for a disk, with what lies on it."""
    path = Path(os.path.realpath(path))
    try:
        return _lsblk("--", str(path))[0]
    except (OSError, subprocess.CalledProcessError, ValueError, LookupError) as error:
        raise ProvisioningError(
            f"{path}: lsblk does not say what it is ({error}); is it the card's device?"
        ) from None


def cards() -> list[Mapping[str, Any]]:
    """Ask lsblk for the disks that can be taken out, with what lies on them."""
    try:
        disks = _lsblk()
    except (OSError, subprocess.CalledProcessError, ValueError, LookupError) as error:
        raise ProvisioningError(
            f"lsblk does not say which disks there are ({error}); name the card's by --to"
        ) from None
    return [disk for disk in removable(disks) if not _is_soldered(str(disk["name"]))]


def removable(disks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Give of all disks those that can be taken out, as far as lsblk knows."""
    return [d for d in disks if d["type"] == "disk" and (d.get("rm") or d.get("hotplug"))]


def _is_soldered(name: str) -> bool:
    """Whether it is an eMMC of this machine, which lsblk takes for one that can be taken out."""
    name = re.sub(r"(boot|gp)\d+$|rpmb$", "", name)  # its hardware's own parts
    try:
        return (_SYSFS / name / "device" / "type").read_text("ascii").strip() == "MMC"
    except (OSError, UnicodeDecodeError):
        return False


def not_proposed(disk: Mapping[str, Any], image_bytes: int | None) -> str:
    """Say why a disk is not proposed as the card, unless it is named; nothing where it is."""
    if why := refusal(disk, image_bytes):
        return why
    if _size(disk) > LARGEST_PROPOSED_BYTES:
        return "is larger than cards are that nodes have; name it by --to if it is meant"
    return ""


def about(disk: Mapping[str, Any]) -> str:
    """Say model, size, and what lies on it, for whoever confirms."""
    names = (str(disk.get(key) or "").strip() for key in ("vendor", "model"))
    said = f"{' '.join(filter(None, names)) or disk['type']}, {_size(disk) / 1e9:.1f} GB"
    holds = [
        " ".join(str(part[key]) for key in ("label", "fstype") if part.get(key))
        for part in _below(disk)
    ]
    found = ", ".join(filter(None, holds))
    return printable(f"{said}, with {found}" if found else said)


def _size(disk: Mapping[str, Any]) -> int:
    return int(disk.get("size") or 0)


def _lsblk(*which: str) -> list[Mapping[str, Any]]:
    done = subprocess.run(  # noqa: S603 - a path that is a block device, or none
        ["lsblk", "--json", "--bytes", "--tree", "--output", _COLUMNS, *which],  # noqa: S607
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # labels that other systems gave
        check=True,
    )
    disks = json.loads(done.stdout)["blockdevices"]
    assert isinstance(disks, list)  # noqa: S101
    return disks


def refusal(disk: Mapping[str, Any], image_bytes: int | None) -> str:
    """Say why a disk may not be written to, and what to do; nothing where it may."""
    kind = str(disk["type"])
    if kind == "part":
        return "is a partition; name the whole disk, without the number at its end"
    if kind not in ("disk", "loop"):
        return f"is a {kind} and no card; name the card's device"
    mounted = sorted(set(_mounted(disk)))
    if any(point in _SYSTEM for point in mounted):
        return f"holds {', '.join(mounted)} of this machine; name the card's device"
    if kind == "disk" and not (disk.get("rm") or disk.get("hotplug")):
        return "is not removable, so it is no card in a reader; name the card's device"
    if disk.get("ro"):
        return "is read-only; push the lock at the card's side"
    if mounted:
        which = " ".join(map(shlex.quote, mounted))
        return f"is mounted at {', '.join(mounted)}; unmount it: sudo umount {which}"
    if others := sorted({str(d["type"]) for d in _below(disk)} - {"disk", "loop", "part"}):
        return f"is in use ({', '.join(others)}); name the card's device"
    size = _size(disk)
    if size == 0:
        return "holds no card; put one into the reader"
    if size > LARGEST_CARD_BYTES:
        return f"has {size / 1e12:.1f} TB and is no card; name the card's device"
    if image_bytes is not None and size < image_bytes:
        return f"has {size / 1e9:.1f} GB, the image {image_bytes / 1e9:.1f} GB; take a larger card"
    return ""


def _below(disk: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield disk
    for child in disk.get("children") or ():
        yield from _below(child)


def _mounted(disk: Mapping[str, Any]) -> Iterator[str]:
    for part in _below(disk):
        yield from (str(point) for point in part.get("mountpoints") or () if point)
