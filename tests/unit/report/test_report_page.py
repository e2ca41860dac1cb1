"""What the page holds, and that anyone can read it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from tests.evidence import FOLDER, figure
from tests.report import page as page_module
from tests.report.kept import ReportError, read
from tests.report.page import MOST_BYTES, TEMPLATE, render
from tests.report.words import interval, numeric, unit, words
from tests.unit.report.evidence_folder import CLAIM, Pieces, draw, keep, measured

LEAST_CONTRAST: Final = 4.5
"""Of text against its ground: WCAG 2.2, 1.4.3."""


@cache
def own_page() -> str:
    return render(FOLDER)


@cache
def own_pieces() -> Pieces:
    return Pieces(own_page())


def plain(text: str) -> str:
    """Give what is read of a text."""
    return html.unescape(words(text).striptags())


def test_every_claim_and_every_row_below_is_in_the_page() -> None:
    wanted: Counter[str] = Counter()
    for target in read(FOLDER):
        for one in target.parts.values():
            wanted.update(" ".join(plain(claim.claim).split()) for claim in one.claims)
            wanted.update(figure(claim.value) for claim in one.claims)
            wanted.update(interval(claim.interval) for claim in one.claims if claim.interval)
            wanted.update(plain(claim.bar) for claim in one.claims if claim.bar)
            for detail in one.details:
                cells = [detail.title, *detail.columns, *(c for row in detail.rows for c in row)]
                wanted.update(" ".join(plain(cell).split()) for cell in cells)

    missing = wanted - Counter(" ".join(cell.split()) for cell in own_pieces().cells)

    assert not missing


def pixels(source: Path | io.BytesIO) -> bytes:
    with Image.open(source) as picture:
        return picture.convert("RGB").tobytes()


def test_every_picture_is_in_the_page_to_the_pixel_with_words_for_it() -> None:
    pictures = own_pieces().all("img")

    drawn = Counter(pixels(file) for file in FOLDER.glob("*.png"))
    shown = Counter(
        pixels(io.BytesIO(base64.b64decode(its["src"].removeprefix("data:image/webp;base64,"))))
        for its in pictures
    )
    assert shown == drawn
    assert all(its["alt"].startswith("Plots of ") for its in pictures)
    assert all(int(its["width"]) > int(its["height"]) / 2 > 0 for its in pictures)


def test_a_picture_without_a_ground_is_laid_on_white(tmp_path: Path) -> None:
    keep(tmp_path, "timing", measured())
    draw(tmp_path / "timing.png")

    (its,) = Pieces(render(tmp_path)).all("img")

    assert (its["width"], its["height"]) == ("30", "20")
    shown = io.BytesIO(base64.b64decode(its["src"].partition(",")[2]))
    assert pixels(shown)[:3] == bytes((140, 144, 229))


def test_the_page_is_small_enough_to_go_with_a_release() -> None:
    assert len(own_page().encode("utf-8")) <= MOST_BYTES


def test_the_page_asks_nothing_of_another_address() -> None:
    pieces = own_pieces()
    for attribute in ("src", "href", "action", "srcset", "poster", "data"):
        for address in pieces.values(attribute):
            assert address.startswith(("data:", "#"))
    assert "@import" not in pieces.texts["style"]
    assert "url(" not in pieces.texts["style"]
    assert not re.search(r"fetch|XMLHttp|import|WebSocket|beacon", pieces.texts["script"])


@pytest.mark.parametrize("element", ["style", "script"])
def test_the_pages_policy_lets_its_own_style_and_script_pass_and_no_other(element: str) -> None:
    policy = own_pieces().all("meta")[1]["content"]
    digest = hashlib.sha256(own_pieces().texts[element].encode("utf-8")).digest()

    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"{element}-src 'sha256-{base64.b64encode(digest).decode('ascii')}'" in policy


def test_every_link_leads_to_one_place_of_the_page() -> None:
    ids = own_pieces().values("id")

    assert max(ids.values()) == 1
    for name in ("aria-labelledby", "aria-describedby", "for", "data-for"):
        assert own_pieces().values(name).keys() <= ids.keys()
    links = {its["href"].removeprefix("#") for its in own_pieces().all("a")}
    assert links <= ids.keys()


def test_the_page_is_there_for_those_who_hear_it() -> None:
    pieces = own_pieces()
    tables = len(pieces.all("table"))

    assert pieces.all("html") == [{"lang": "en"}]
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert landmark in {name for name, _ in pieces.elements}
    assert len(pieces.all("caption")) == tables
    assert all("scope" in its for its in pieces.all("th"))
    assert all("tabindex" in its for its in pieces.all("div") if its.get("class") == "wide")
    assert all("aria-labelledby" in its for its in pieces.all("section") if "id" in its)
    assert len([its for its in pieces.all("input") if its["type"] == "search"]) == 1


def test_what_needs_the_script_is_not_shown_without_it() -> None:
    assert [its["id"] for its in own_pieces().all("form") if "hidden" in its] == ["filter"]


def test_those_that_fall_short_stand_first(tmp_path: Path) -> None:
    short = CLAIM | {"claim": "too late", "value": 0.75, "holds": False}
    figure_alone = CLAIM | {"claim": "cost", "bar": ""}
    keep(tmp_path, "bench", measured(CLAIM, figure_alone))
    keep(tmp_path, "timing", {"parts": {"pulse": measured(CLAIM, short)}})

    text = render(tmp_path)

    assert "2 of 3 claims hold the bar that was set for" in text
    assert re.search(r"1\s+falls\s+short", text)
    assert "Told without a bar: 1 more." in text
    assert text.index("too late") < text.index('id="bench"')
    assert 'aria-label="to the table timing: pulse"' in text


def test_rows_marked_as_never_verified_on_hardware_are_listed_at_the_head(tmp_path: Path) -> None:
    marked = CLAIM | {"claim": "pins, not verified on hardware"}
    rows = [["LED", "Not verified on hardware"], ["button", "by hand"]]
    details = [{"title": "Pins", "columns": ["pin", "how"], "rows": rows}]
    keep(tmp_path, "hil", {"parts": {"pins": measured(marked, details=details)}})

    head = render(tmp_path).partition('id="origin"')[0]

    assert '<a href="#hil-pins">hil: pins</a>: pins, not verified on hardware s' in head
    assert "LED · Not verified on hardware" in head
    assert "by hand" not in head


def test_a_note_that_admits_what_was_not_real_is_repeated_at_the_head(tmp_path: Path) -> None:
    keep(tmp_path, "units", measured() | {"note": "All is real. Nothing here was run on a Pi."})
    keep(tmp_path, "bench", measured(machine="aarch64, Linux"))

    head = render(tmp_path).partition('id="origin"')[0]

    assert "</a>: Nothing here was run on a Pi.</li>" in head
    assert "1 of 2 tables was measured on an ARM machine" in head


def test_versions_that_differ_are_told_with_their_tables(tmp_path: Path) -> None:
    keep(tmp_path, "bench", measured(versions={"numpy": "1.26.4"}))
    keep(tmp_path, "units", measured(versions={"numpy": "2.0.0"}))

    cells = Pieces(render(tmp_path)).cells

    at = cells.index("numpy")
    assert cells[at : at + 3] == ["numpy", "1.26.4", "bench"]
    assert cells[at + 3 : at + 6] == ["numpy", "2.0.0", "units"]


def test_a_text_is_never_taken_for_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> & `a<b`"
    details = [{"title": evil, "columns": [evil, "b"], "rows": [[evil, evil]]}]
    record = measured(CLAIM | {"claim": evil, "unit": evil, "bar": evil}, details=details)
    keep(tmp_path, "bench", record | {"note": evil, "machine": evil, "commit": evil})

    text = render(tmp_path)

    assert len(Pieces(text).all("script")) == 1
    assert "<code>a&lt;b</code>" in text


def test_a_picture_that_no_part_draws_is_shown_at_the_end(tmp_path: Path) -> None:
    keep(tmp_path, "timing", measured())
    draw(tmp_path / "timing.png")
    draw(tmp_path / "timing-more.png")

    text = render(tmp_path)

    assert text.index('id="timing"') < text.index("evidence/timing.png") < text.index("-more.png")
    assert text.index('id="pictures"') < text.index("-more.png")


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    keep(tmp_path, "timing", measured())
    (tmp_path / "timing.png").write_bytes(b"no picture")

    with pytest.raises(ReportError, match=r"timing\.png cannot be read as a picture"):
        render(tmp_path)


def test_a_page_above_its_bound_is_refused_with_its_largest_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "MOST_BYTES", 1000)
    keep(tmp_path, "timing", measured())
    draw(tmp_path / "timing.png")

    with pytest.raises(ReportError, match=r"largest picture is docs/evidence/timing\.png"):
        render(tmp_path)


def test_an_interval_has_its_column_only_where_it_was_worked_out(tmp_path: Path) -> None:
    keep(tmp_path, "bench", measured(CLAIM | {"interval": [-0.1, 0.4]}))
    keep(tmp_path, "units", measured())

    cells = Pieces(render(tmp_path)).cells

    assert cells.count("-0.1 – 0.4") == 1
    assert cells.count("95 %") == 1


def test_units_and_comparisons_are_set_as_signs() -> None:
    assert unit("us") == "µs"
    assert words("error <= 3 sigma") == "error ≤ 3 sigma"


def test_columns_of_figures_are_known() -> None:
    rows = [("a", "1,024", "12 ms", "2 of 3 shots", "–"), ("b", "–", "≤ 4.5 s", "3", "")]

    assert numeric(rows) == [False, True, True, False, False]
    assert numeric([]) == []


def luminance(colour: str) -> float:
    """Relative luminance: WCAG 2.2."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
def test_every_colour_of_text_stands_out_from_every_ground(scheme: int) -> None:
    style = (TEMPLATE / "page.css").read_text("utf-8")
    block = re.findall(r":root \{(.*?)\}", style, re.S)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
    for ground in ("paper", "panel", "short-panel"):
        for text in ("ink", "soft", "link", "holds", "short"):
            pair = sorted(luminance(colours[name]) for name in (ground, text))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= LEAST_CONTRAST, (ground, text)


def test_a_record_as_it_is_kept_today_has_no_field_that_the_page_leaves_out() -> None:
    known = {"target", "command", "note", "parts", "commit", "versions", "machine", "claims"}
    for file in FOLDER.glob("*.json"):
        record = json.loads(file.read_text("utf-8"))
        for one in record.get("parts", {"": record}).values():
            assert {*record, *one} <= known | {"details"}
            for claim in one["claims"]:
                assert {*claim} <= {"claim", "value", "unit", "bar", "holds", "interval"}
