"""What docs/evidence/ keeps: read, and checked so that a broken file is told by name."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError, model_validator

from tests.evidence import ROOT, Claim, Detail

_TARGET: Final = re.compile(r"[a-z0-9-]+")


class ReportError(Exception):
    """The report cannot be made; the message is a sentence that says why, and what to do."""


class Measured(BaseModel):
    """A table, or one part of it, as it was measured at one commit."""

    commit: str
    machine: str
    versions: dict[str, str]
    claims: tuple[Claim, ...]
    details: tuple[Detail, ...] = ()
    command: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _cells_stand_under_columns(self) -> Measured:
        for detail in self.details:
            for number, row in enumerate(detail.rows, 1):
                if len(row) != len(detail.columns):
                    raise ValueError(
                        f"row {number} of the table '{detail.title}' has {len(row)} cells "
                        f"for {len(detail.columns)} columns"
                    )
        return self


class _Head(BaseModel):
    target: str
    command: str
    note: str = ""


@dataclass(frozen=True)
class Target:
    """What one `make` target measures.

    Attributes
    ----------
    parts
        By name; a target that has none is one part without a name.
    """

    name: str
    command: str
    note: str
    parts: dict[str, Measured]

    @property
    def package(self) -> str:
        """The folder of tests/ that measures it, if it is one of these."""
        return self.name.replace("-", "_")

    def command_for(self, part: str) -> str:
        """Give the command that measures a part anew."""
        if not part:
            return self.command
        if own := self.parts[part].command:
            return own
        return f".venv/bin/python -m tests.{self.package} --only {part}"


def read(folder: Path, expected: Collection[Path] = ()) -> list[Target]:
    """Read every table of a folder.

    Parameters
    ----------
    folder
        docs/evidence/, or one like it.
    expected
        Files that have to be there: what git knows of.

    Raises
    ------
    ReportError
        If a file is missing, broken, or not of this form.
    """
    files = sorted(folder.glob("*.json"))
    missing = {path for path in expected if path.suffix == ".json" and not path.exists()}
    missing |= {
        picture.with_suffix(".json")
        for picture in folder.glob("*.png")
        if not any(belongs(picture, file) for file in {*files, *missing})
    }
    if missing:
        file = min(missing)
        raise ReportError(f"{_shown(file)} is missing: {_mend(file)}.")
    if not files:
        raise ReportError(
            f"{_shown(folder)} holds no table: measure one (`make bench` is the shortest), "
            "or get the folder back with `git checkout -- docs/evidence`."
        )
    return [_read(file) for file in files]


def belongs(picture: Path, table: Path) -> bool:
    """Tell whether a picture shows a table, or a part of it."""
    return picture.stem == table.stem or picture.stem.startswith(table.stem + "-")


def _read(file: Path) -> Target:
    try:
        record = json.loads(file.read_text("utf-8"))
        head = _Head.model_validate(record)
        parts = record.get("parts")
        if parts is None:
            # note and command are the target's; its one part has none of its own
            measured = {"": Measured.model_validate(record | {"note": "", "command": ""})}
        else:
            measured = _parts(parts)
    except OSError as error:
        raise _broken(file, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _broken(file, f"is not UTF-8 (at byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise _broken(file, f"is no JSON (line {error.lineno}: {error.msg})") from error
    except ValidationError as error:
        raise _broken(file, f"is not a table as `publish` writes it ({_first(error)})") from error
    return Target(head.target, head.command, head.note, measured)


def _parts(parts: Any) -> dict[str, Measured]:
    class Parts(BaseModel):
        parts: dict[str, Measured]

    return Parts.model_validate({"parts": parts}).parts


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    what = first["msg"].removeprefix("Value error, ")
    return f"{where}: {what}" if where else what


def _broken(file: Path, what: str) -> ReportError:
    return ReportError(f"{_shown(file)} {what}: {_mend(file)}.")


def _mend(file: Path) -> str:
    # a name goes into a command only where it looks like a target of make
    measure = f"measure it anew with `make {file.stem}`" if _TARGET.fullmatch(file.stem) else ""
    restore = f"get it back with `git checkout -- {_shown(file)}`"
    return f"{restore}, or {measure}" if measure else restore


def _shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
