"""The program as a process, and what the kernel says of one that runs."""

import ctypes
import signal
import sys
from pathlib import Path
from typing import Final

GUNFIRE_NODE = (sys.executable, "-c", "from node.cli import main; main()")
"""What a shell starts as `gunfire-node`; arguments follow."""

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_libc = ctypes.CDLL(None)


def end_with_us(by: signal.Signals = signal.SIGTERM) -> None:
    """Have the process that is about to start end with the thread that starts it, however.

    For `preexec_fn`.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, by)


def resident_bytes(pid: int, *, without: str) -> int:
    """Give what a process has in memory (proc(5), smaps), but for mappings of files so named.

    The virtual card maps the file that it plays into whoever hears it.
    """
    total, counts = 0, True
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        word, _, rest = line.partition(" ")
        if not word.endswith(":"):  # a mapping begins
            counts = not rest.endswith(without)
        elif word == "Rss:" and counts:
            total += int(rest.split()[0]) * 1024
    return total
