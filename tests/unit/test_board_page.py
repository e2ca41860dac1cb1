"""docs/do/read-the-light.md says of every code what the code says."""

import itertools
import re
from pathlib import Path

import pytest

from node.board.light import Code, pattern

PAGE = Path(__file__).parents[2] / "docs" / "do" / "read-the-light.md"
SIGN_S = 0.125


def rhythm(code: Code) -> str:
    """Draw a rhythm, a sign each 0.125 s: █ lit, · dark."""
    ends_s = list(itertools.accumulate(beat.seconds for beat in pattern(code)))
    signs = []
    for i in range(round(ends_s[-1] / SIGN_S)):
        at_s = (i + 0.5) * SIGN_S
        beat = next(b for b, end_s in zip(pattern(code), ends_s, strict=True) if at_s < end_s)
        signs.append("█" if beat.on else "·")
    return "".join(signs)


def row(code: Code) -> str:
    """Make a fault's row of the page's table."""
    long = " ".join("—" * code.long)
    short = " ".join("•" * code.short)
    return f"| **{code.long}–{code.short}** | {long} {short} | {code.meaning} | {code.first} |"


@pytest.mark.parametrize("code", [code for code in Code if code.is_fault])
def test_every_fault_stands_in_the_table_as_the_code_has_it(code: Code) -> None:
    assert row(code) in PAGE.read_text("utf-8").splitlines()


@pytest.mark.parametrize("code", [code for code in Code if not code.is_fault])
def test_every_other_code_stands_there_too(code: Code) -> None:
    page = PAGE.read_text("utf-8")
    assert f"| {code.meaning} | {code.first} |" in page


def test_the_page_has_no_fault_that_the_code_has_not() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| \*\*\d", line)]
    assert set(rows) <= {row(code) for code in Code}


@pytest.mark.parametrize(
    "code", [Code.WELL, Code.STARTING, Code.MAINTENANCE, Code.SELF_TEST, Code.NO_BROKER, Code.KEY]
)
def test_the_rhythms_are_drawn_as_they_are_played(code: Code) -> None:
    assert rhythm(code) in PAGE.read_text("utf-8")
