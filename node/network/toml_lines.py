"""A TOML file with the line of each value, so that a fault in it can be pointed at."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, Final

from node.errors import SettingsError

LARGEST_BYTES: Final = 2**24

_TABLE: Final = re.compile(r"""\s*(\[\[?)\s*([\w.\s"'-]+?)\s*\]""")
_KEY: Final = re.compile(r"""\s*([\w.\s"'-]+?)\s*=""")


def read_toml(path: Path, what: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a TOML file; give its values, and for each (as `table.key`) "FILE, line N".

    Of an array of tables the tables are counted from 0, as `node.2.id`.

    Parameters
    ----------
    what
        What the file holds, for the advice where there is none.

    Raises
    ------
    SettingsError
        It cannot be read, or is no TOML.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise SettingsError(f"{path}: has more than {LARGEST_BYTES >> 20} MiB: is it {what}?")
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a mark first
        values = tomllib.loads(text)
    except SettingsError:
        raise
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}; name {what}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text; write it anew as TOML") from None
    except (ValueError, RecursionError) as error:
        at = re.search(r" \(at line (\d+), column \d+\)$", str(error))
        place = f"{path}, line {at[1]}" if at else f"{path}"
        said = str(error)[: at.start()] if at else str(error)
        raise SettingsError(f"{place}: is not TOML: {said}; mend it: it is to be {what}") from None
    return values, _places(text, path)


def _places(text: str, path: Path) -> dict[str, str]:
    """Find the lines; where a text is written in a way not known here, some are left out."""
    found: dict[str, str] = {}
    counts: Counter[str] = Counter()
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{path}, line {number}"
        if head := _TABLE.match(line):
            table = _plain(head[2])
            if head[1] == "[[":
                counts[table] += 1
                table = f"{table}.{counts[table] - 1}"
            found.setdefault(table, place)
        elif key := _KEY.match(line):
            name = _plain(key[1])
            found.setdefault(f"{table}.{name}" if table else name, place)
    return found


def _plain(name: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
