"""Nothing is left to be compiled when the first shot comes."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys

from node.network.warm import warm

warm()


def compiled():
    return {
        f"{name}.{what}": len(one.signatures)
        for name, module in sorted(sys.modules.items()) if name.startswith("node.network.")
        for what, one in vars(module).items()
        if hasattr(one, "py_func") and one.py_func.__module__ == name
    }


before = compiled()
assert sum(before.values()) > 10, before

from dataclasses import replace

from tests.field.city import TWO, Conditions, shots
from tests.field.load import bear

bear(60, 8.0, warm_s=4.0)
for conditions in (Conditions(6), Conditions(4, bearings=False), TWO):
    shots(conditions, 10)
later = {name: (before[name], many) for name, many in compiled().items() if many != before[name]}
sys.exit(f"compiled at a shot: {later}" if later else 0)
"""


def test_all_that_a_city_needs_is_compiled_before_its_first_shot() -> None:
    """In a process of its own: what other tests compiled would hide what is missing."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
