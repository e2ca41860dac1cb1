"""`python -m tests.report`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report import __main__ as command
from tests.report.__main__ import main
from tests.unit.report.evidence_folder import keep, measured


def test_the_page_is_written_where_it_is_wanted_and_its_path_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, "bench", measured())
    file = tmp_path / "new" / "evidence.html"

    assert main(["-o", str(file)], tmp_path) == 0

    assert file.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert capsys.readouterr().out == f"{file}\n"


def test_its_own_place_is_named_by_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "BUILD", tmp_path / "build")
    keep(tmp_path, "bench", measured())

    assert main([], tmp_path) == 0

    (file,) = (tmp_path / "build").iterdir()
    assert file.match("gunfire-node-report-*.html")
    assert capsys.readouterr().out == f"{file}\n"


def test_the_same_evidence_gives_the_same_bytes(tmp_path: Path) -> None:
    keep(tmp_path, "bench", measured())
    files = [tmp_path / "a.html", tmp_path / "b.html"]

    for file in files:
        main(["-o", str(file)], tmp_path)

    assert files[0].read_bytes() == files[1].read_bytes()


def test_broken_evidence_gives_a_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bench.json").write_text("{", "utf-8")

    assert main(["-o", str(tmp_path / "evidence.html")], tmp_path) == 2

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"{tmp_path}/bench.json is no JSON (line 1")
    assert not (tmp_path / "evidence.html").exists()


def test_a_place_that_cannot_be_written_gives_a_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path, "bench", measured())

    assert main(["-o", str(tmp_path)], tmp_path) == 2

    assert capsys.readouterr().err.endswith("(Is a directory): name another file with -o.\n")


def test_help_has_an_example_and_the_bound(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])

    told = capsys.readouterr().out
    assert "example: python -m tests.report -o" in told
    assert "2 MB" in told
