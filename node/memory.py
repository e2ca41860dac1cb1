"""The node's memory, kept where it is: a program that takes all there is must not cost sound."""

from __future__ import annotations

import ctypes
import logging
import os
from typing import Final

log = logging.getLogger(__name__)

_LOCK: Final = 1 | 2 | 4  # sys/mman.h: MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT


def lock_memory() -> bool:
    """Have the kernel take no page from this process that it has once used (mlockall(2)).

    Short of memory, the kernel takes a program's code first, since it can be read anew: from a slow
    card, while nobody takes the sound. What is never used is not read for it (MCL_ONFAULT).

    Returns
    -------
    bool
        Whether it is so. It needs a limit that the unit sets (LimitMEMLOCK=), or root; without,
        the node works as ever, and the log says what it may cost.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_LOCK) == 0:
        return True
    log.info(
        "memory is not locked (%s): where another program takes all of it, sound may be lost; "
        "raise the limit of locked memory (LimitMEMLOCK=infinity)",
        os.strerror(ctypes.get_errno()),
    )
    return False
