"""Who holds a sound card or an outbox, as the kernel tells it, and what to do then."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOUND_SERVERS: Final = ("pipewire", "pulseaudio", "jackd", "jackdbus", "wireplumber")
PROC: Final = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """The program that has a card's input open."""

    pid: int
    program: str
    card: str

    @property
    def figure(self) -> str:
        """Say what kind of thing it is."""
        kind = {"server": "the sound server", "node": "another gunfire-node", "": "the program"}
        return f"{self.card} is held by {kind[self._kind]} ({self.program}, pid {self.pid})"

    @property
    def advice(self) -> str:
        """Say how the card becomes free."""
        if self._kind == "server":
            return (
                f"a node needs no sound server: `systemctl --user stop {self.program}.socket "
                f"{self.program}.service`, or take it out of this machine"
            )
        if self._kind == "node":
            return (
                "it hangs, or has another health.status_file than these settings: `systemctl "
                "restart gunfire-node`, or end it"
            )
        return f"end it (`kill {self.pid}`), then test again"

    @property
    def _kind(self) -> str:
        if self.program.startswith("gunfire"):
            return "node"
        return "server" if self.program in SOUND_SERVERS else ""


def holder_of(device: str, proc: Path = PROC) -> Holder | None:
    """Find who else has a card's input open.

    Parameters
    ----------
    device
        What capture.device says; a card whose name it is a part of. "default" may be any.
    proc
        Where procfs is.
    """
    wanted = device.casefold()
    for status in sorted((proc / "asound").glob("card*/pcm*c/sub*/status")):
        told = re.search(r"^owner_pid\s*:\s*(\d+)", _text(status), re.MULTILINE)
        info = _text(status.with_name("info"))
        names = re.findall(r"^(?:id|name)\s*: (.*)$", info, re.MULTILINE)
        card = _card_name(proc, status.parts[-4])
        fits = wanted == "default" or any(
            wanted in name.casefold() or name.casefold() in wanted
            for name in [*names, card]
            if name
        )
        if told is None or not fits or int(told[1]) == os.getpid():
            continue
        pid = int(told[1])
        return Holder(pid, _program(proc, pid), card or device)
    return None


def outbox_user(path: Path, proc: Path = PROC) -> int | None:
    """Find the process that has an outbox open: a node that runs by the same settings."""
    try:
        wanted = path.stat()
    except OSError:
        return None
    for open_file in proc.glob("[0-9]*/fd/*"):
        try:
            # By the file, not by its name, which is another's in a container.
            same = os.path.samestat(open_file.stat(), wanted)
        except OSError:
            continue  # it is another user's, or has ended
        if same and int(open_file.parts[-3]) != os.getpid():
            return int(open_file.parts[-3])
    return None


def _card_name(proc: Path, folder: str) -> str:
    number = folder.removeprefix("card")
    found = re.search(
        rf"^\s*{number} \[.*?\]: .*? - (.*)$", _text(proc / "asound/cards"), re.MULTILINE
    )
    return found[1].strip() if found else ""


def _program(proc: Path, pid: int) -> str:
    words = _text(proc / str(pid) / "cmdline").split("\0")
    if any("gunfire-node" in word for word in words[:3]):
        return "gunfire-node"
    return _text(proc / str(pid) / "comm").strip() or "unknown"


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""
