"""The program as a process, and what the kernel says of one that runs."""

import sys
from pathlib import Path

GUNFIRE_NODE = (sys.executable, "-c", "from node.cli import main; main()")
"""What a shell starts as `gunfire-node`; arguments follow."""


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
