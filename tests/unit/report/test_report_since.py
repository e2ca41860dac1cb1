"""What the report says of the time since a table was measured, asked of a real git."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.report import since as since_module
from tests.report.since import checkout, since


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name + "\n", "utf-8")


def commit(folder: Path) -> str:
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x", "--date", "2026-02-03T04:05:06Z")
    return git(folder, "rev-parse", "--short", "HEAD")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(since_module, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2026-02-03T04:05:06Z")
    git(tmp_path, "init", "-q")
    put(tmp_path, "node/a.py", "models/m.json", "tests/field/city.py")
    return tmp_path


def test_folders_that_changed_are_counted_and_the_others_named(project: Path) -> None:
    measured = commit(project)
    put(project, "node/b.py", "node/c.py", "tests/unit/test_b.py", "docs/b.md")
    commit(project)

    its = since(measured)

    assert (its.day, its.commits) == ("2026-02-03", 1)
    assert its.sentence("tests/field") == (
        "Changed since: 2 files of node/ and 1 file of tests/ (none of them in tests/field/); "
        "nothing in models/, provisioning/ and systemd/."
    )


def test_a_change_of_the_code_that_measures_is_told(project: Path) -> None:
    measured = commit(project)
    (project / "tests/field/city.py").write_text("other", "utf-8")  # not committed, and counts

    assert "1 file of tests/ (1 of them in tests/field/)" in since(measured).sentence("tests/field")


def test_the_same_commit_has_nothing_changed(project: Path) -> None:
    its = since(commit(project) + "+changes")

    assert its.uncommitted
    assert its.sentence("").startswith("Nothing has changed since in node/, models/, provisioning/")


@pytest.mark.parametrize("name", ["1234567", "", "--all", "no such"])
def test_a_commit_that_is_not_there_is_told_so(project: Path, name: str) -> None:
    commit(project)

    its = since(name)

    assert its.changed("node") is None
    assert "cannot be told here" in its.sentence("tests/field")


def test_the_checkout_tells_of_changes_and_of_a_new_table(project: Path) -> None:
    name = commit(project)
    put(project, "docs/notes.md", "node/untracked.py")
    assert checkout() == since_module.Checkout(name, "2026-02-03", uncommitted=False)

    put(project, "docs/evidence/hil.json")
    assert checkout().uncommitted


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(since_module, "ROOT", tmp_path)

    assert checkout().commit == ""
    assert since("641fc44").files is None


def test_without_the_program_git_there_is_no_commit(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = commit(project)
    monkeypatch.setenv("PATH", str(project))

    assert checkout().commit == ""
    assert since(name).files is None
