"""`make report`: all evidence as one page of HTML, complete in itself."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.evidence import FOLDER, ROOT
from tests.report.kept import ReportError
from tests.report.page import MOST_BYTES, file_name, render

BUILD: Final = ROOT / "build" / "report"

_MORE: Final = f"""\
It is written to build/report/gunfire-node-report-<commit>.html, and takes no more than
{MOST_BYTES / 1e6:.0f} MB. If evidence is missing or broken, a sentence names the file, and the
exit code is 2.

example: python -m tests.report -o evidence.html
"""


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Make the report, print where it lies."""
    parser = ArgumentParser(
        prog="python -m tests.report",
        description=__doc__,
        epilog=_MORE,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it to FILE")
    given: Path | None = parser.parse_args(arguments).output
    try:
        text = render(folder)
        file = given or BUILD / file_name()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    except ReportError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"{error.filename} cannot be written ({error.strerror}): name another file with -o.",
            file=sys.stderr,
        )
        return 2
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
