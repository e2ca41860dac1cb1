"""Compiled code is kept for one version of the package and taken for no other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.network import compiled


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the folder of a package of two files, in place of our own."""
    (tmp_path / "arithmetic.py").write_text("REACH_M = 900.0\n", "utf-8")
    (tmp_path / "caller.py").write_text("from arithmetic import REACH_M\n", "utf-8")
    monkeypatch.setattr(compiled, "_HERE", tmp_path)
    compiled._folder.cache_clear()
    yield tmp_path
    compiled._folder.cache_clear()


def folder() -> str:
    """Name the folder as a process that starts now would."""
    compiled._folder.cache_clear()
    return compiled._folder()


def test_the_folder_is_another_when_any_file_of_the_package_differs(package: Path) -> None:
    names = [folder()]
    for file, text in (
        ("arithmetic.py", "REACH_M = 901.0\n"),
        ("caller.py", "from arithmetic import REACH_M as FAR_M\n"),
        ("third.py", "MORE = 1\n"),
    ):
        (package / file).write_text(text, "utf-8")
        names.append(folder())
    assert len(set(names)) == len(names)


def test_the_folder_is_the_same_for_the_same_files_whatever_else_lies_there(package: Path) -> None:
    before = folder()
    (package / "notes.txt").write_text("no code", "utf-8")
    (package / "arithmetic.py").write_text("REACH_M = 900.0\n", "utf-8")
    assert folder() == before


def test_the_folder_is_the_users_where_the_package_cannot_be_written(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Path(folder()).is_relative_to(package / "__pycache__")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(package / "of-user"))
    assert Path(folder()).is_relative_to(package / "of-user")
