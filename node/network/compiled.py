"""Numba, for what loops over arrivals: in numpy nearly all of the cost was that of the calls.

See docs/decisions/0030-locating.md.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeVar, cast

from numba import config, njit

_Function = TypeVar("_Function", bound=Callable[..., object])
_HERE: Final = Path(__file__).parent
_SETTINGS: Final = vars(config)


def compiled(function: _Function) -> _Function:
    """Compile at the first call, and keep that beside the package or in the user's cache."""
    before = _SETTINGS["CACHE_DIR"]
    _SETTINGS["CACHE_DIR"] = _folder()  # read as the function is wrapped
    try:
        return cast("_Function", njit(cache=True, error_model="numpy")(function))
    except RuntimeError:  # neither can be written: it is compiled in every process
        return cast("_Function", njit(error_model="numpy")(function))
    finally:
        _SETTINGS["CACHE_DIR"] = before


@lru_cache(maxsize=1)
def _folder() -> str:
    """Name a folder that is another for each version of the package.

    Numba looks whether a function's own file has changed, and not what that calls or takes its
    constants from.
    """
    of_all = hashlib.sha256()
    for file in sorted(_HERE.glob("*.py")):
        of_all.update(f"{file.name} {file.stat().st_size} ".encode() + file.read_bytes())
    beside = _HERE / "__pycache__"
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    base = beside if os.access(beside if beside.exists() else _HERE, os.W_OK) else home
    return str(base / "gunfire-node-compiled" / of_all.hexdigest()[:16])
