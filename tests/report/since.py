"""What git says of the report's commit, and of the time since each table was measured."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.evidence import ROOT

PLACES: Final = ("node", "models", "provisioning", "systemd", "tests")
"""What a figure may hang on; the same folders that `commit_now` watches."""
CHANGES: Final = "+changes"
"""What `commit_now` appends where the files differed from the commit."""


@dataclass(frozen=True)
class Since:
    """How old a measurement is.

    Attributes
    ----------
    commit
        As the table names it.
    day
        Of that commit; empty where it is not known here.
    commits
        Made since, up to the one that is checked out.
    files
        That differ now, under `PLACES`. None where git, or that commit, is not there.
    """

    commit: str
    day: str = ""
    commits: int = 0
    files: tuple[str, ...] | None = None

    @property
    def uncommitted(self) -> bool:
        """Whether files differed from the commit while it was measured."""
        return self.commit.endswith(CHANGES)

    def changed(self, place: str) -> int | None:
        """Count the files of a folder that differ now; None where that is not known."""
        if self.files is None:
            return None
        return sum(file.startswith(place + "/") for file in self.files)

    def sentence(self, own: str) -> str:
        """Say it in words.

        Parameters
        ----------
        own
            The folder with the code that measures the table, within tests/; empty if none.
        """
        if self.files is None:
            return "What has changed since cannot be told here: git, or that commit, is not there."
        counts = {place: self.changed(place) or 0 for place in PLACES}
        within = f" ({self.changed(own) or 'none'} of them in {own}/)" if own else ""
        told = [
            f"{count} {'file' if count == 1 else 'files'} of {place}/"
            + (within if place == "tests" else "")
            for place, count in counts.items()
            if count
        ]
        same = [f"{place}/" for place, count in counts.items() if not count]
        if not told:
            return f"Nothing has changed since in {_listed(same)}."
        rest = f"; nothing in {_listed(same)}" if same else ""
        return f"Changed since: {_listed(told)}{rest}."


@dataclass(frozen=True)
class Checkout:
    """The commit that the report is made from; empty where git is not there."""

    commit: str = ""
    day: str = ""
    uncommitted: bool = False


def checkout() -> Checkout:
    """Say which commit is checked out, and whether evidence or what it measures differs from it."""
    commit, day = git("rev-parse", "--short", "HEAD"), git("show", "-s", "--format=%cs", "HEAD")
    if commit is None or day is None:
        return Checkout()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", *PLACES)
    # a new table is not tracked yet, and is in the report all the same
    kept = git("status", "--porcelain", "--", "docs/evidence")
    return Checkout(commit, day, bool(changed or kept))


def since(commit: str) -> Since:
    """Say what has happened since a commit."""
    name = commit.removesuffix(CHANGES)
    day = git("show", "-s", "--format=%cs", "--end-of-options", name + "^{commit}")
    files = git("diff", "--name-only", "--end-of-options", name, "--", *PLACES)
    commits = git("rev-list", "--count", "--end-of-options", f"{name}..HEAD")
    if day is None or files is None or commits is None:
        return Since(commit)
    return Since(commit, day, int(commits), tuple(files.splitlines()))


def tracked(folder: Path) -> list[Path]:
    """List the files of a folder that git knows of; none where git is not there."""
    files = git("ls-files", "--", str(folder)) if folder.is_relative_to(ROOT) else None
    return [ROOT / name for name in (files or "").splitlines()]


def git(*arguments: str) -> str | None:
    """Ask git about this project; None if it is not there, or refuses."""
    if not (ROOT / ".git").exists():  # or it would answer for a project that this one lies in
        return None
    try:
        done = subprocess.run(
            ["git", "-c", "core.quotepath=off", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
