"""The node's memory, in processes of their own: what is locked or set stays so until the end."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

BEGIN: Final = """
import ctypes, logging, mmap, os, re, resource
from node.memory import lock_memory
logging.basicConfig(level=logging.INFO, format="%(message)s")
def sizes():
    return re.findall(r"^(Vm\\w+):\\s+(\\d+) kB$", open("/proc/self/status").read(), re.M)
"""
END: Final = """
print(lock_memory())
print(*(f"{name}={kb}" for name, kb in sizes()))
"""
ROOM_KB: Final = 1 << 18
# Another call than the one that is tried, for more than a system gives by default.
MAY_LOCK: Final = """
libc = ctypes.CDLL(None)
room = libc.mmap
room.restype = ctypes.c_void_p
libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
print(libc.mlock(room(None, ctypes.c_size_t(1 << 28), 3, 0x22, -1, 0), 1 << 28))
"""
UNPRIVILEGED: Final = """
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
_, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
limit = {}
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit if hard < 0 else min(limit, hard),) * 2)
"""


def run(*parts: str) -> tuple[str, dict[str, int], str]:
    """Lock a process's memory; give the answer, what of it is where in kB, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", "".join((BEGIN, *parts))], capture_output=True, text=True, check=True
    )
    answer, *sizes = done.stdout.split()
    return answer, {name: int(kb) for name, kb in (size.split("=") for size in sizes)}, done.stderr


@pytest.mark.parametrize(
    ("megabytes", "steady", "of_its_own"),
    [(2, "", 1), (2, "steady_heap()", 0), (8, "steady_heap()", 1)],
)
def test_a_second_of_sound_is_in_the_heap_from_the_start(
    megabytes: int, steady: str, of_its_own: int
) -> None:
    program = f"""
import ctypes
from node.memory import steady_heap
{steady}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
class Told(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks")]
    _fields_ += [(f"_{{n}}", ctypes.c_size_t) for n in range(6)]
libc.mallinfo2.restype = Told
before = libc.mallinfo2().hblks
libc.malloc({megabytes} << 20)
print(libc.mallinfo2().hblks - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == of_its_own


def test_all_memory_is_locked_and_what_is_never_used_takes_none() -> None:
    if run(MAY_LOCK)[0] != "0":
        pytest.skip("nobody here may lock so much memory: needs CAP_IPC_LOCK")
    answer, memory, said = run(f"room = mmap.mmap(-1, {ROOM_KB} << 10)", END)
    assert (answer, said) == ("True", "")
    assert memory["VmLck"] > ROOM_KB
    assert memory["VmRSS"] < ROOM_KB / 2


@pytest.mark.parametrize(
    "limit", ["65536", "1024 * (8192 + next(int(kb) for name, kb in sizes() if name == 'VmSize'))"]
)
def test_under_a_bound_nothing_is_locked_and_the_node_says_so_and_goes_on(limit: str) -> None:
    more = "room = mmap.mmap(-1, 1 << 26)\n"
    answer, memory, said = run(UNPRIVILEGED.format(limit), END.replace("print(*", f"{more}print(*"))
    assert (answer, memory["VmLck"]) == ("False", 0)
    assert "memory is not locked" in said
    assert "LimitMEMLOCK=infinity" in said
