"""Each mistake in the first-boot file: the laptop's tool and the node name line and mend."""

from __future__ import annotations

import re
import time
from typing import Final

from tests.evidence import Claim, Detail
from tests.hil.guest import Card
from tests.image_test.bench import ON_S, Bench, bench
from tests.parts import Part, Tell
from tests.unit.provisioning.mistakes import MISTAKES, spoilt

ERROR: Final = "gunfire-node-error.txt"
TRIED: Final = 14
"""So many are tried on a node that boots: a boot takes most of a minute."""


def measure(tell: Tell) -> Part:
    """Give every mistake to the laptop, and some of each kind to a node."""
    with bench("mistakes") as stage:
        return _measure(stage, tell)


def _measure(stage: Bench, tell: Tell) -> Part:
    blank = stage.card("node-0001")
    rows: list[tuple[str, str, str, str]] = []
    laptop = node = 0
    every = max(1, len(MISTAKES) // TRIED)
    # Whether a CA has ended a machine whose clock says 2023 cannot know.
    tried = [name for name in list(MISTAKES)[::every] if "ended" not in name][:TRIED]
    for name in MISTAKES:
        text, line, mend = spoilt(name)
        tell(name)
        told = stage.refused_by_laptop(text)
        by_laptop = _names(told, line, mend)
        laptop += by_laptop
        if name not in tried:
            continue
        words = _on_node(stage, blank, text)
        by_node = _names(words, line, mend)
        node += by_node
        rows.append((name, str(line), "yes" if by_laptop else told, "yes" if by_node else words))
    return Part(
        (
            Claim("kinds of mistake", len(MISTAKES), "", "≥ 12", len(MISTAKES) >= 12),
            Claim("line and mend named by gunfire-card check", laptop, "", f"= {len(MISTAKES)}",
                  laptop == len(MISTAKES)),
            Claim("tried on a node that boots", len(tried), "", "≥ 12", len(tried) >= 12),
            Claim("line and mend written back to the card by the node", node, "",
                  f"= {len(tried)}", node == len(tried)),
        ),
        (Detail("On the node", ("mistake", "line", "laptop", "node"), tuple(rows)),),
    )  # fmt: skip


def _names(told: str, line: int, mend: str) -> bool:
    return re.search(rf"\bline {line}\b", told) is not None and mend in told


def _on_node(stage: Bench, blank: Card, text: str) -> str:
    """Boot a card with that file, and give what the node writes back."""
    card = blank.copy(stage.folder / "spoilt.img")
    card.write("gunfire-node.toml", text.encode())
    until_s = time.monotonic() + ON_S
    with stage.guest(card):
        while time.monotonic() < until_s:
            if words := card.read(ERROR):
                return words.decode()
            time.sleep(1.0)
    return "nothing"
