"""What each part of `make faults` hands over: its claims, and the tables below them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.evidence import Claim, Detail

Tell = Callable[[str], None]
"""Told what is being measured, for the progress line."""


@dataclass(frozen=True)
class Part:
    """One part of the table."""

    claims: tuple[Claim, ...]
    details: tuple[Detail, ...] = ()
