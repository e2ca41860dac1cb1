"""Peak resident memory of one workload in a process of its own, in bytes: WORKLOAD RECORDING."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from tests.bench.workload import WORKLOADS

if __name__ == "__main__":
    WORKLOADS[sys.argv[1]](Path(sys.argv[2]))()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
