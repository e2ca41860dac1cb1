"""Who may import whom (design, "Folders"): stages know nothing of each other."""

from importlinter import cli


def test_the_import_map_of_the_design_holds() -> None:
    assert cli.lint_imports(no_cache=True) == cli.EXIT_STATUS_SUCCESS
