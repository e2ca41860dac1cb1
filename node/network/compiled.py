"""Numba, for what loops over arrivals: in numpy nearly all of the cost was that of the calls.

See docs/decisions/0030-locating.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compile at the first call, and keep that beside its file or in the user's cache."""
    try:
        return cast("_Function", njit(cache=True, error_model="numpy")(function))
    except RuntimeError:  # neither can be written: it is compiled in every process
        return cast("_Function", njit(error_model="numpy")(function))
