"""Locked memory, in processes of their own: what is locked stays so until the end."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

LOCK = """
import logging, os, resource
from node.memory import lock_memory
logging.basicConfig(level=logging.INFO, format="%(message)s")
{}
print(lock_memory())
print(open("/proc/self/status").read())
"""
UNPRIVILEGED = """
resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
if os.geteuid() == 0:
    os.setuid(65534)
"""
CAP_IPC_LOCK = 14  # linux/capability.h


def run(before: str) -> tuple[str, dict[str, int], str]:
    """Lock a process's memory; give the answer, what of it is where in kB, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", LOCK.format(before)], capture_output=True, text=True, check=True
    )
    memory = re.findall(r"^(Vm\w+):\s+(\d+) kB$", done.stdout, re.M)
    return done.stdout.split()[0], {name: int(kb) for name, kb in memory}, done.stderr


def may_lock() -> bool:
    capabilities = re.search(r"^CapEff:\s+(\w+)$", Path("/proc/self/status").read_text(), re.M)
    assert capabilities
    return bool(int(capabilities[1], 16) >> CAP_IPC_LOCK & 1) or (
        resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    )


@pytest.mark.skipif(not may_lock(), reason="needs CAP_IPC_LOCK, or an unbounded limit of locks")
def test_all_memory_is_locked_and_what_is_never_used_takes_none() -> None:
    answer, memory, said = run("import mmap; room = mmap.mmap(-1, 1 << 28)")
    assert (answer, said) == ("True", "")
    assert memory["VmLck"] > 1 << 18
    assert memory["VmRSS"] < 1 << 17


def test_where_it_is_refused_the_node_goes_on_and_says_what_would_help() -> None:
    answer, memory, said = run(UNPRIVILEGED)
    assert (answer, memory["VmLck"]) == ("False", 0)
    assert "Cannot allocate memory" in said
    assert "LimitMEMLOCK=infinity" in said
