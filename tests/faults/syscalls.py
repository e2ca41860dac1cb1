"""All bytes that a process and its children hand to the kernel, by strace.

`trace` runs a command and gives what went into each file and socket, in order, and every call by
which bytes could leave unseen: a file mapped for writing, a copy inside the kernel, an io_uring.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

WRITES: Final = (
    "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg",
)  # fmt: skip
UNSEEN: Final = (
    "sendfile", "splice", "vmsplice", "tee", "copy_file_range", "io_uring_setup", "io_submit",
    "process_vm_writev", "mq_timedsend", "msgsnd", "shmat",
)  # fmt: skip
"""Calls that move bytes without showing them."""

_LONGEST: Final = 2**24
_CALL: Final = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$", re.S)
_INTO: Final = re.compile(r"(\d+)(?:<(.*?)>(?:\(deleted\))?)?, (.*)$", re.S)
_TEXT: Final = re.compile(r'(?<!inet_addr\()"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_MAPPED: Final = re.compile(r"PROT_WRITE.*MAP_SHARED.*, \d+<((?:\\x[0-9a-f]{2})*)>")


@dataclass
class Trace:
    """What a traced run handed to the kernel.

    Attributes
    ----------
    written
        For each file or socket, by its name, the bytes of every call.
    unseen
        Calls that could have carried bytes without showing them, as strace writes them.
    """

    written: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    unseen: list[str] = field(default_factory=list)

    def sent(self) -> list[bytes]:
        """Give what went to the network."""
        return [
            data
            for name, pieces in self.written.items()
            if name.startswith("socket:") or "TCP" in name or "UDP" in name
            for data in pieces
        ]

    def stored(self) -> list[bytes]:
        """Give what went into files on disk; pipes and the like are neither here nor there."""
        return [
            data
            for name, pieces in self.written.items()
            if name.startswith("/") and not name.startswith(("/dev/", "/proc/", "/sys/"))
            for data in pieces
        ]


def why_not() -> str | None:
    """Say why nothing can be traced here; None where it can."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed"
    tried = subprocess.run(
        [strace, "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )
    return None if tried.returncode == 0 else f"no tracing here: {tried.stderr.strip()[:200]}"


def trace(
    command: Sequence[str | Path],
    scratch: Path,
    environment: Mapping[str, str],
    log: Path,
    timeout_s: float,
) -> Trace:
    """Run a command to its end, its log going to a file, and give what it wrote.

    Raises
    ------
    subprocess.CalledProcessError
        If it failed; its log says why.
    """
    out = scratch / "strace.txt"
    calls = ",".join((*WRITES, *UNSEEN, "mmap"))
    with log.open("wb") as stderr:
        subprocess.run(
            [
                "strace", "-f", "--seccomp-bpf", "-qq", "-yy", "-xx", "-s", str(_LONGEST),
                "-e", f"trace={calls}", "-e", "signal=none", "-o", str(out), *map(str, command),
            ],
            check=True, stderr=stderr, stdout=stderr, env=dict(environment), timeout=timeout_s,
        )  # fmt: skip
    found = Trace()
    with out.open() as lines:
        for line in lines:
            _take(line, found)
    out.unlink()
    return found


def _take(line: str, found: Trace) -> None:
    call = _CALL.match(line)
    if call is None:
        return  # the rest of a call that another thread's came into: its bytes were shown before
    name, arguments = call.groups()
    into = _INTO.match(arguments)
    if name in WRITES and into is not None:
        number, where, rest = into.groups()
        for text, cut in _TEXT.findall(rest):
            if cut:
                raise ValueError(f"strace cut a {name} short")
            found.written[_plain(where) or f"fd {number}"].append(_bytes(text))
    elif name == "mmap":
        mapped = _MAPPED.search(arguments)
        if mapped and not _plain(mapped[1]).startswith("/dev/"):
            found.unseen.append(f"mmap of {_plain(mapped[1])}")
    else:
        found.unseen.append(f"{name}({arguments.strip()}")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _plain(where: str | None) -> str:
    if where is None or not where.startswith("\\x"):
        return where or ""
    return _bytes(where).decode(errors="replace")


def python(module: str, *arguments: str | Path) -> list[str | Path]:
    """Give the command that runs one of our modules."""
    return [sys.executable, "-m", module, *arguments]
