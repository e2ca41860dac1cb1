"""docs/do/locate-shots.md says what `locate` does: settings, list of nodes, refusals."""

import re
from pathlib import Path
from typing import get_args

from node.network.admission import Kind
from node.network.locate_settings import InputSettings, load_locator
from node.network.medium import Weather
from node.network.places import read_places
from tests.evidence import ROOT

PAGE = (ROOT / "docs" / "do" / "locate-shots.md").read_text("utf-8")
BLOCKS = [block for _, block in re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)]


def rows(head: str) -> dict[str, str]:
    """Give the table under a head: first cell to the rest."""
    table = PAGE.split(head, 1)[1].split("\n\n", 1)[0]
    found = re.findall(r"^\| (`.*?`) \| (.*) \|$", table, re.M)
    return {name: rest for names, rest in found for name in re.findall(r"`(\w+)`", names)}


def test_each_kind_of_refusal_is_explained_and_no_other() -> None:
    assert set(rows("| it says | it means |")) == {*get_args(Kind), "elsewhere"}


def test_the_settings_of_inputs_and_their_defaults_are_these() -> None:
    told = rows("| `[inputs]` | default | |")
    assert set(told) == set(InputSettings.model_fields)
    for name, rest in told.items():
        default = InputSettings.model_fields[name].default
        shown = {None: "–", False: "false"}.get(default) or f"{default:g}"
        assert shown in re.split(r"[ ,|]+", rest), name


def test_the_list_of_nodes_is_one(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "[[node]]" in block]
    path = tmp_path / "NODES.toml"
    path.write_text(block, "utf-8")
    assert list(read_places(path).nodes("riverside")) == ["roof-1"]


def test_the_weather_is_one(tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "[weather]" in block]
    path = tmp_path / "locate.toml"
    path.write_text(block, "utf-8")
    assert load_locator(path).settings.weather.weather == Weather(12.5, 4.0, 250.0)
