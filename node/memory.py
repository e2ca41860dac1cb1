"""The node's memory, kept where it is: a program that takes all there is shall not cost sound."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import resource
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_LOCK: Final = 1 | 2 | 4  # sys/mman.h: MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_CAP_IPC_LOCK: Final = 14  # linux/capability.h
_PROCESS: Final = Path("/proc/self/status")


def steady_heap() -> None:
    """Have the heap be from the start what it would be after an hour (mallopt(3)).

    By itself malloc asks the kernel for a block of its own from a size on that it raises to that of
    the largest it was ever given back. A node gave back one of 2 MB for the first time after
    53 minutes, as Python made its table of names anew: from then on seconds of sound were in the
    heap, which grew by 2 MB as if something leaked.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(_MMAP_THRESHOLD, 4 << 20)  # some seconds of sound
    libc.mallopt(_TRIM_THRESHOLD, 8 << 20)  # twice that, as malloc has it by itself


def lock_memory() -> bool:
    """Have the kernel take no page from this process that it has once used (mlockall(2)).

    Short of memory, the kernel takes a program's code first, since it can be read anew: from a slow
    card, while nobody takes the sound. What is never used is not read for it (MCL_ONFAULT).

    Returns
    -------
    bool
        Whether it is so. Without the limit that the unit sets (LimitMEMLOCK=), or root, the node
        works as ever, and the log says what that may cost.
    """
    if not _is_unbounded():
        # Under a bound that holds the process now, whatever it asks for later would be refused.
        return _refused("the limit of locked memory is too low")
    if ctypes.CDLL(None, use_errno=True).mlockall(_LOCK) != 0:
        return _refused(os.strerror(ctypes.get_errno()))
    return True


def _is_unbounded() -> bool:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    may = re.search(r"^CapEff:\s+(\w+)$", _PROCESS.read_text("utf-8"), re.M)
    privileged = may is not None and bool(int(may[1], 16) >> _CAP_IPC_LOCK & 1)
    return soft == resource.RLIM_INFINITY or privileged


def _refused(why: str) -> bool:
    log.warning(
        "memory is not locked (%s): where another program takes all of it, sound may be lost; "
        "gunfire-node.service locks it, by LimitMEMLOCK=infinity",
        why,
    )
    return False
