"""A look inside a guest without a login: a unit, added for one boot, says things on the console."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from tests.hil.guest import Guest

_MARK: Final = "@@said "
UNIT: Final = """\
[Unit]
DefaultDependencies=no
[Service]
StandardOutput=tty
TTYPath=/dev/ttyAMA0
ExecStart=/bin/sh -c 'while sleep 5; do for f in \\
node/status node-setup/enrolment node-setup/update; \\
do echo "@@said $f $(cat /run/gunfire-$f.json 2>/dev/null)"; done; done'
"""
UNITS: Final = {"said.service": UNIT}


def said(guest: Guest) -> dict[str, Any]:
    """Give what node, enrolment and update said last, as far as they have."""
    found: dict[str, Any] = {}
    for line in guest.console.splitlines():
        name, _, text = line.partition(_MARK)[2].partition(" ")
        if text:
            try:
                found[name.partition("/")[2]] = json.loads(text)
            except ValueError:  # cut through by a line of the kernel's
                continue
    return found


def wait_inside(
    guest: Guest, deadline_s: float, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Wait until what they say is so.

    Raises
    ------
    TimeoutError
        It never is; with what they said last.
    """
    until_s = time.monotonic() + deadline_s
    while time.monotonic() < until_s:
        now = said(guest)
        try:
            if holds(now):
                return now
        except KeyError:
            pass  # not said yet
        time.sleep(1.0)
    raise TimeoutError(f"last said inside: {said(guest)}\n{guest.console[-1500:]}")
