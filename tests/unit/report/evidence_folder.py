"""A small folder of evidence for the tests of the report, and a page taken to pieces."""

from __future__ import annotations

import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

from PIL import Image

CLAIM: Final = {"claim": "late", "value": 0.25, "unit": "s", "bar": "<= 0.5", "holds": True}
VOID: Final = ("meta", "link", "img", "input")


def measured(*claims: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Give what is kept of one measurement."""
    kept = {"commit": "0000000", "versions": {"python": "3.11.7"}, "machine": "x86_64, Linux"}
    return kept | {"claims": list(claims or [CLAIM])} | more


def keep(folder: Path, target: str, record: dict[str, Any]) -> Path:
    """Write a target's file as `publish` does."""
    head = {"target": target, "command": f"make {target}", "note": "Of a test."}
    file = folder / f"{target}.json"
    file.write_text(json.dumps(head | record, ensure_ascii=False), "utf-8")
    return file


def draw(file: Path) -> None:
    """Write a picture."""
    Image.new("RGBA", (30, 20), (10, 20, 200, 120)).save(file)


class Pieces(HTMLParser):
    """A page's elements, and what a reader of it needs of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.texts: dict[str, str] = {}
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th", "caption"} & set(self.open):
            self.cells[-1] += data
        if self.open and self.open[-1] in ("style", "script"):
            self.texts[self.open[-1]] = data

    def all(self, tag: str) -> list[dict[str, str]]:
        """Give the attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, attribute: str) -> Counter[str]:
        """Count what an attribute says."""
        return Counter(its[attribute] for _, its in self.elements if attribute in its)
