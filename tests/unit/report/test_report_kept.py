"""What the report says of evidence that is missing or broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.evidence import FOLDER
from tests.report.kept import ReportError, read
from tests.report.since import tracked
from tests.unit.report.evidence_folder import CLAIM, draw, keep, measured

WITHOUT_VALUE = {key: value for key, value in CLAIM.items() if key != "value"}


def test_a_target_in_parts_and_one_without_are_read_alike(tmp_path: Path) -> None:
    keep(tmp_path, "bench", measured())
    keep(tmp_path, "image-test", {"parts": {"power": measured(), "clocks": measured()}})

    bench, image = read(tmp_path)

    assert [*bench.parts] == [""]
    assert bench.command_for("") == "make bench"
    assert [*image.parts] == ["power", "clocks"]
    assert image.command_for("power") == ".venv/bin/python -m tests.image_test --only power"


def test_the_projects_own_evidence_is_whole() -> None:
    assert read(FOLDER, tracked(FOLDER))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"target": "bench",\n "command"', "is no JSON (line 2: Expecting"),
        (b"", "is no JSON (line 1"),
        (b"\xff\xfe", "is not UTF-8 (at byte 0)"),
        (b"[]", "is not a table as `publish` writes it (Input should be a valid dictionary"),
        (b'{"target": "bench", "command": "make bench"}', "(commit: Field required)"),
        (b'{"target": "bench", "command": "make bench", "parts": []}', "(parts: Input should be"),
    ],
)
def test_a_broken_file_is_named_with_what_to_do(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "bench.json"
    file.write_bytes(text)

    with pytest.raises(ReportError) as raised:
        read(tmp_path)

    assert str(raised.value).startswith(f"{file} ")
    assert said in str(raised.value)
    assert "`make bench`" in str(raised.value)
    assert "`git checkout -- " in str(raised.value)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (measured(CLAIM, WITHOUT_VALUE), "claims.1.value: Field required"),
        (measured(CLAIM | {"value": "fast"}), "claims.0.value: Input should be a valid number"),
        ({"parts": {"power": measured(WITHOUT_VALUE)}}, "parts.power.claims.0.value: Field"),
        (
            measured(details=[{"title": "Cuts", "columns": ["a", "b"], "rows": [["1"]]}]),
            "row 1 of the table 'Cuts' has 1 cells for 2 columns",
        ),
    ],
)
def test_what_is_wrong_in_a_file_is_told_by_its_place(
    tmp_path: Path, record: dict[str, Any], said: str
) -> None:
    keep(tmp_path, "bench", record)

    with pytest.raises(ReportError) as raised:
        read(tmp_path)

    assert said in str(raised.value)


def test_a_picture_without_its_table_tells_that_the_table_is_missing(tmp_path: Path) -> None:
    keep(tmp_path, "field", measured())
    draw(tmp_path / "field-city.png")
    draw(tmp_path / "timing.png")

    with pytest.raises(ReportError, match=r"timing\.json is missing: .*`make timing`"):
        read(tmp_path)


def test_a_table_that_git_knows_and_that_is_gone_is_told(tmp_path: Path) -> None:
    keep(tmp_path, "field", measured())

    with pytest.raises(ReportError, match=r"units\.json is missing: .*`make units`"):
        read(tmp_path, [tmp_path / "field.json", tmp_path / "units.json", tmp_path / "field.png"])


def test_a_folder_without_tables_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"holds no table: .*`make bench`"):
        read(tmp_path)
