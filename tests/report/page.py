"""The page: what the tables hold, counted and put into the template."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tests.evidence import ROOT, Claim, figure
from tests.report import hardware
from tests.report.kept import Measured, ReportError, Target, read
from tests.report.pictures import Picture, embed
from tests.report.since import PLACES, Since, checkout, since, tracked
from tests.report.words import heading, interval, numeric, slug, unit, words

TEMPLATE: Final = Path(__file__).parent / "template"
MOST_BYTES: Final = 2_000_000
"""Of the whole page: it goes with a release, and by mail."""


@dataclass(frozen=True)
class Tally:
    """How many claims hold, fall short of their bar, and have none."""

    holds: int
    short: int
    no_bar: int

    @property
    def with_bar(self) -> int:
        """How many were judged."""
        return self.holds + self.short


@dataclass(frozen=True)
class Table:
    """One part of a target, with all that the page shows of it."""

    target: Target
    part: str
    measured: Measured
    since: Since
    picture: Picture | None

    @property
    def name(self) -> str:
        """As the page heads it."""
        return heading(self.target.name, self.part)

    @property
    def slug(self) -> str:
        """Its address within the page."""
        return slug(self.target.name, self.part)

    @property
    def command(self) -> str:
        """What measures it anew."""
        return self.target.command_for(self.part)

    @property
    def own(self) -> str:
        """The folder with the code that measures it; empty if it is none of tests/."""
        folder = f"tests/{self.target.package}"
        return folder if (ROOT / folder).is_dir() else ""

    @property
    def tally(self) -> Tally:
        """Its claims, counted."""
        return tally(self.measured.claims)

    @property
    def intervals(self) -> bool:
        """Whether any figure has its interval."""
        return any(claim.interval for claim in self.measured.claims)


def verdict(claim: Claim) -> str:
    """Judge a claim: `holds`, `short`, or `no bar`, which holds by itself."""
    if not claim.holds:
        return "short"
    return "holds" if claim.bar else "no bar"


def tally(claims: tuple[Claim, ...]) -> Tally:
    """Count claims by their verdict."""
    counts = Counter(map(verdict, claims))
    return Tally(counts["holds"], counts["short"], counts["no bar"])


def file_name() -> str:
    """Name the page's file, by the commit that it is made from."""
    here = checkout()
    stem = here.commit + ("-changes" if here.uncommitted else "")
    return f"gunfire-node-report-{stem or version('gunfire-node')}.html"


def render(folder: Path) -> str:
    """Make the page from a folder of evidence.

    Raises
    ------
    ReportError
        If evidence is missing or broken, or the page gets larger than `MOST_BYTES`.
    """
    targets = read(folder, tracked(folder))
    tables, others = _tables(targets, folder)
    text = (
        _environment()
        .get_template("page.html")
        .render(
            version=version("gunfire-node"),
            here=checkout(),
            targets=targets,
            tables=tables,
            others=others,
            tally=tally(tuple(claim for table in tables for claim in table.measured.claims)),
            rows=sum(
                len(table.measured.claims) + sum(len(d.rows) for d in table.measured.details)
                for table in tables
            ),
            marked=hardware.marked(targets),
            admitted=hardware.admitted(targets),
            on_a_board=hardware.on_a_board(targets),
            versions=_versions(tables),
            machines=Counter(table.measured.machine for table in tables).most_common(),
            places=PLACES,
            style_hash=_hash("page.css"),
            script_hash=_hash("page.js"),
        )
    )
    size = len(text.encode("utf-8"))
    if size > MOST_BYTES:
        pictures = [table.picture for table in tables if table.picture] + others
        largest = max(pictures, key=lambda picture: len(picture.uri), default=None)
        hint = f"; its largest picture is docs/evidence/{largest.name}" if largest else ""
        raise ReportError(
            f"The page takes {size / 1e6:.1f} MB, and may take {MOST_BYTES / 1e6:.0f}{hint}: draw "
            "it smaller, or raise MOST_BYTES in tests/report/page.py."
        )
    return text


def _tables(targets: list[Target], folder: Path) -> tuple[list[Table], list[Picture]]:
    """Put each part beside its picture; give also the pictures that no part draws."""
    history = cache(since)
    pictures = {file.stem: file for file in sorted(folder.glob("*.png"))}
    tables = []
    for target in targets:
        for part, measured in target.parts.items():
            file = pictures.pop(f"{target.name}-{part}" if part else target.name, None)
            picture = embed(file) if file else None
            tables.append(Table(target, part, measured, history(measured.commit), picture))
    return tables, [embed(file) for file in pictures.values()]


def _versions(tables: list[Table]) -> list[tuple[str, list[tuple[str, list[Table]]]]]:
    """List each package with its versions, and the tables of each: the most usual version first."""
    packages: dict[str, dict[str, list[Table]]] = {}
    for table in tables:
        for package, number in table.measured.versions.items():
            packages.setdefault(package, {}).setdefault(number, []).append(table)
    return [
        (package, sorted(numbers.items(), key=lambda item: -len(item[1])))
        for package, numbers in packages.items()
    ]


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure,
        "interval": interval,
        "numeric": numeric,
        "slug": slug,
        "unit": unit,
        "verdict": verdict,
        "words": words,
    }
    return environment


def _hash(name: str) -> str:
    """Give the hash by which the page's own policy lets a style or script of it pass."""
    # what stands in the page: the template that includes it drops the file's last line end
    text = (TEMPLATE / name).read_text("utf-8").removesuffix("\n")
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
