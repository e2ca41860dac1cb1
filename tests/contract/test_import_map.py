"""Who may import whom (design, "Folders"): stages know nothing of each other."""

import subprocess
import sys

from tests.evidence import ROOT


def test_the_import_map_of_the_design_holds() -> None:
    # A process of its own: import-linter sets up logging anew and silences everybody else's.
    program = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as m; m()"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
