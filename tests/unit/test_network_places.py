"""NODES.toml: read as `simulate` writes it; each fault with its file, line, node and mend."""

from pathlib import Path

import pytest

from node.errors import SettingsError
from node.messages.detection import Local, Position
from node.network.places import read_places
from node.simulate import packaged
from node.simulate.render import _nodes_toml

GOOD = """site = "riverside"

[[node]]
id = "roof-1"
lat_deg = 40.4406248
lon_deg = -79.9958864
alt_m = 231.4
sigma_m = 0.8

[[node]]
id = "roof-2"
x_m = 1
y_m = 2.5
z_m = 3.0
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "NODES.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_list_gives_places_on_earth_and_in_a_frame(tmp_path: Path) -> None:
    places = read_places(written(tmp_path, GOOD))
    assert places.sites == {"riverside"}
    assert sorted(places.nodes("riverside")) == ["roof-1", "roof-2"]
    assert places.of("riverside", "roof-1") == Position(
        lat_deg=40.4406248, lon_deg=-79.9958864, alt_m=231.4, sigma_m=0.8
    )
    assert places.of("riverside", "roof-2") == Local(
        frame="riverside", x_m=1, y_m=2.5, z_m=3, sigma_m=None
    )
    assert places.of("elsewhere", "roof-1") is None
    assert places.of("riverside", "roof-3") is None


def test_a_list_without_a_site_is_of_whatever_site_is_heard(tmp_path: Path) -> None:
    places = read_places(written(tmp_path, GOOD.partition("\n")[2]))
    assert not places.sites
    assert places.of("anywhere", "roof-1") is not None


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("[[node]]", "[[knot]]", "line 3", "knot: no such key; there are site, frame, node"),
        ("lat_deg = 40.4406248", "", "line 3", "node roof-1: lat_deg is missing"),
        ("40.4406248", "97.0", "line 5", "node roof-1: lat_deg = 97.0: input should be less"),
        ("40.4406248", '"40.44"', "line 5", "lat_deg = '40.44': give a number"),
        ("40.4406248", "nan", "line 5", "lat_deg = nan: give a number"),
        ("231.4", "inf", "line 7", "alt_m = inf: input should be"),
        ("x_m = 1", "x_m = inf", "line 12", "x_m = inf: input should be a finite number"),
        ("x_m = 1", "x_m = 1e300", "line 12", "x_m = 1e+300: no place is so far off"),
        ("sigma_m = 0.8", "sigma_m = -1", "line 8", "sigma_m = -1: input should be greater"),
        ("sigma_m = 0.8", "", "line 3", "sigma_m is missing; give the standard error"),
        ("sigma_m = 0.8", "x_m = 1", "line 3", "is given a place twice"),
        ("sigma_m", "sigma", "line 8", "sigma: no such key; there are alt_m, frame"),
        ('"roof-2"', '"roof-1"', "line 10", "node roof-1 is listed already, at "),
        ('"roof-2"', '"a/b"', "line 11", "id = 'a/b': is no name of a topic"),
        ('id = "roof-2"', "", "line 10", "a node without a name"),
        ('"riverside"', "7", "line 1", "site = 7: is no name of a topic"),
        ("y_m = 2.5", "y_m = ", "line 13", "is not TOML: Invalid value; mend it"),
    ],
)
def test_a_fault_is_told_with_its_line_and_what_to_do(
    tmp_path: Path, old: str, new: str, where: str, what: str
) -> None:
    path = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(SettingsError) as caught:
        read_places(path)
    told = str(caught.value)
    assert any(line.startswith(f"{path}, {where}: ") for line in told.splitlines()), told
    assert what in told


def test_of_many_faults_the_first_ten_are_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        read_places(written(tmp_path, "[[node]]\n" * 30))
    assert len(str(caught.value).splitlines()) == 11


@pytest.mark.parametrize("text", ["", "node = 3", "node = []", "[node]\nid = 'a'", "node = ['x']"])
def test_what_lists_no_node_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="node"):
        read_places(written(tmp_path, text))


def test_a_list_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"No such file.*name the list of nodes"):
        read_places(tmp_path / "none.toml")
    path = tmp_path / "NODES.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not UTF-8"):
        read_places(path)


def test_what_simulate_writes_is_read(tmp_path: Path) -> None:
    scene = packaged("street")
    places = read_places(written(tmp_path, _nodes_toml(scene)))
    assert {node_id: places.of("street", node_id) for node_id in places.nodes("street")} == {
        node.id: Local(
            frame="street", x_m=node.x_m, y_m=node.y_m, z_m=node.z_m, sigma_m=node.sigma_m
        )
        for node in scene.nodes
    }


def test_a_file_that_is_far_too_long_for_a_list_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "NODES.toml"
    with path.open("wb") as file:
        file.truncate(2**24 + 1)
    with pytest.raises(SettingsError) as caught:
        read_places(path)
    assert str(caught.value).count(str(path)) == 1
    assert "has more than 16 MiB: is it the list of nodes" in str(caught.value)
