"""What each part of `make timing` hands over: its claims, a picture, and the tables below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.evidence import Claim, Detail

Tell = Callable[[str], None]
"""Told what is being measured, for the progress line."""


@dataclass(frozen=True)
class Part:
    """One part of the table.

    Attributes
    ----------
    claims
        Its rows.
    draw
        Draws its picture into one matplotlib `Axes`, title and labels included.
    details
        Tables below the claims.
    """

    claims: tuple[Claim, ...]
    draw: Callable[[Any], None]
    details: tuple[Detail, ...] = ()
