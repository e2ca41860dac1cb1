"""How the microphones stand."""

from pathlib import Path

import numpy as np
import pytest

from node.capture import load_geometry
from node.errors import SceneError


def test_mono_fits_any_number_of_channels_and_tells_no_direction() -> None:
    for channels in (1, 4):
        geometry = load_geometry("mono", channels)
        assert geometry.positions_m.shape == (channels, 3)
        assert geometry.is_point


def test_the_tetrahedrons_edges_are_200_mm_and_its_top_is_the_last_channel() -> None:
    geometry = load_geometry("tetrahedron_200mm", 4)
    apart = np.linalg.norm(geometry.positions_m[:, None] - geometry.positions_m[None], axis=-1)
    assert np.allclose(apart[~np.eye(4, dtype=bool)], 0.2)
    assert np.allclose(geometry.positions_m.mean(axis=0), 0)
    assert geometry.positions_m[:, 2].argmax() == 3
    assert geometry.positions_m[0, 1] > 0
    assert not geometry.is_point


def test_the_squares_sides_are_65_mm() -> None:
    positions = load_geometry("square_65mm", 4).positions_m
    sides = np.linalg.norm(positions - np.roll(positions, 1, axis=0), axis=1)
    assert np.allclose(sides, 0.065)


def test_a_geometry_cannot_be_changed_by_whoever_gets_it() -> None:
    geometry = load_geometry("square_65mm", 4)
    with pytest.raises(ValueError, match="read-only"):
        geometry.positions_m[0, 0] = 1


def test_a_file_gives_its_own_array(tmp_path: Path) -> None:
    path = tmp_path / "mast.toml"
    path.write_text('name = "mast"\npositions_m = [[0, 0, 0], [0.1, 0, 0.5]]\n')
    geometry = load_geometry(path, 2)
    assert geometry.name == "mast"
    assert geometry.positions_m.tolist() == [[0, 0, 0], [0.1, 0, 0.5]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("positions_m = [[0, 0]]", "positions_m.0"),
        ("positions_m = [[0, 0, 0], [0, 0, 0]]", "channels 0 and 1"),
        ("positions_m = [[0, 0, 0], [65, 0, 400]]", "millimetres"),
        ("positions_m = [[0, 0, nan], [1, 0, 0]]", "positions_m.0.2"),
        ("positions = [[0, 0, 0]]", "positions"),
        ("positions_m = []", "positions_m"),
        ("positions_m = [[", "not TOML"),
        pytest.param("positions_m = " + "[" * 5000, "not TOML", id="nested too deep"),
        pytest.param("positions_m = " + "9" * 5000, "not TOML", id="too many digits"),
        ("positions_m = [[0, 0, 0]]", "1 microphones, the source 2 channels"),
    ],
)
def test_a_file_of_another_form_is_refused_in_a_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(SceneError) as caught:
        load_geometry(path, 2)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="tetrahedron_200mm"):
        load_geometry("cube", 4)
    with pytest.raises(SceneError, match="No such file"):
        load_geometry(tmp_path / "nowhere.toml", 4)


def test_an_array_of_another_number_of_channels_is_refused() -> None:
    with pytest.raises(SceneError, match="4 microphones, the source 2 channels"):
        load_geometry("square_65mm", 2)
