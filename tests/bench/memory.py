"""Peak resident memory of one workload in a process of its own, in bytes: WORKLOAD RECORDING."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def _peak_bytes() -> int:
    # Not getrusage: its maximum is handed down from the process that started this one.
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    importlib.import_module(f"tests.bench.{sys.argv[1]}").workload(Path(sys.argv[2]))()
    print(_peak_bytes())
