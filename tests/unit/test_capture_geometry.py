"""How the microphones stand."""

from pathlib import Path

import numpy as np
import pytest

from node.capture import load_geometry, make_geometry
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


def test_a_file_that_an_editor_began_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mast.toml"
    path.write_text("positions_m = [[0, 0, 0], [0.1, 0, 0.5]]\n", encoding="utf-8-sig")
    assert load_geometry(path, 2).positions_m.tolist() == [[0, 0, 0], [0.1, 0, 0.5]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("positions_m = [[0, 0]]", "positions_m.0"),
        ("positions_m = [[0, 0, 0], [0, 0, 0]]", "channels 0 and 1"),
        (
            "positions_m = [[0, 0, 0], [0, 0, 1], [0, 2, -1.5]]",
            "channels 1 and 2 are 3.20156 m apart, at most 3 m are taken",
        ),
        ("positions_m = [[0, 0, 0], [65, 0, 400]]", "reach 400 m, at most 100 m are taken; give m"),
        (
            "positions_m = [[0, 0, 0], [0.1, 0, 0]]\ndelays_s = [1e-6]",
            "1 delays_s for 2 microphones; give one each",
        ),
        # In microseconds, which are not asked for.
        ("positions_m = [[0, 0, 0], [0.1, 0, 0]]\ndelays_s = [0, 1.2]", "delays_s.1"),
        (
            "positions_m = [[0, 0, 0], [0.1, 0, 0]]\ndelays_s = [0, nan]",
            "delays_s.1: input should be a finite",
        ),
        (
            "positions_m = [[0, 0, 0], [0.1, 0, 0]]\ndelays_s = [0, true]",
            "delays_s.1: input should be a valid number",
        ),
        (
            "positions_m = [[0, 0, 0], [1, 0, 0]]\ndelays_s = [0, 0]\ntiming_sigma_s = '0'",
            "timing_sigma_s: input should be a valid number",
        ),
        (
            "positions_m = [[0, 0, 0], ['0.1', 0, 0]]",
            "positions_m.1.0: input should be a valid number",
        ),
        (
            "positions_m = [[0, 0, 0], [0, true, 0]]",
            "positions_m.1.1: input should be a valid number",
        ),
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
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_array_of_three_metres_is_the_largest_and_need_not_stand_at_zero(tmp_path: Path) -> None:
    path = tmp_path / "roof.toml"
    path.write_text("positions_m = [[0, 10, 20], [0, 10, 23]]\n")
    assert load_geometry(path, 2).positions_m.tolist() == [[0, 10, 20], [0, 10, 23]]


def test_an_unknown_name_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="tetrahedron_200mm"):
        load_geometry("cube", 4)
    with pytest.raises(SceneError, match="No such file"):
        load_geometry(tmp_path / "nowhere.toml", 4)


def test_a_name_that_no_file_can_have_is_refused_in_a_line() -> None:
    with pytest.raises(SceneError, match="cannot read the array") as caught:
        load_geometry("mast\0.toml", 2)
    assert "\n" not in str(caught.value)


def test_an_array_of_another_number_of_channels_is_refused() -> None:
    with pytest.raises(SceneError, match="4 microphones, the source 2 channels"):
        load_geometry("square_65mm", 2)


def test_a_calibrated_file_says_by_how_much_each_channel_is_late(tmp_path: Path) -> None:
    path = tmp_path / "mast.toml"
    path.write_text("positions_m = [[0, 0, 0], [0.1, 0, 0]]\ndelays_s = [0, -1.2e-6]\n")
    geometry = load_geometry(path, 2)
    assert geometry.calibrated
    assert geometry.delays_s.tolist() == [0, -1.2e-6]
    with pytest.raises(ValueError, match="read-only"):
        geometry.delays_s[0] = 1


def test_what_was_placed_by_a_ruler_has_no_delays_and_is_not_calibrated(tmp_path: Path) -> None:
    path = tmp_path / "mast.toml"
    path.write_text("positions_m = [[0, 0, 0], [0.1, 0, 0]]\n")
    for geometry in (load_geometry(path, 2), load_geometry("square_65mm", 4)):
        assert not geometry.calibrated
        assert not geometry.delays_s.any()
        assert len(geometry.delays_s) == geometry.channels


# A microphone 1 m out along each axis of the array: x, y, z.
AXES = make_geometry("axes", np.eye(3), [1e-6, 2e-6, 3e-6])
EAST, NORTH, UP = np.eye(3)


@pytest.mark.parametrize(
    ("heading_deg", "pitch_deg", "roll_deg", "x", "y", "z"),
    [
        (0, 0, 0, EAST, NORTH, UP),
        # Clockwise from above: what pointed north points east, what pointed east points south.
        (90, 0, 0, -NORTH, EAST, UP),
        (-90, 0, 0, NORTH, -EAST, UP),
        (180, 0, 0, -EAST, -NORTH, UP),
        # The nose up: what pointed up points back.
        (0, 90, 0, EAST, UP, -NORTH),
        (0, 30, 0, EAST, (0, np.sqrt(0.75), 0.5), (0, -0.5, np.sqrt(0.75))),
        # The right wing down: what pointed up points right.
        (0, 0, 90, -UP, NORTH, EAST),
        (0, 0, -90, UP, NORTH, -EAST),
        # Heading turns the whole that pitch has raised: its y axis stays up.
        (90, 90, 0, -NORTH, UP, -EAST),
        # Roll is about the array's own y axis, before pitch raises that.
        (0, 90, 90, NORTH, UP, EAST),
        (90, 0, 90, -UP, EAST, -NORTH),
        (90, 90, 90, EAST, UP, -NORTH),
    ],
)
def test_an_array_is_rolled_then_pitched_then_headed(
    heading_deg: float, pitch_deg: float, roll_deg: float, x: object, y: object, z: object
) -> None:
    mounted = AXES.oriented(heading_deg, pitch_deg, roll_deg)
    assert mounted.positions_m == pytest.approx(np.array([x, y, z], float), abs=1e-12)


def test_mounting_an_array_moves_its_microphones_and_nothing_else() -> None:
    mounted = AXES.oriented(30, 20, 10)
    assert (mounted.name, mounted.calibrated) == ("axes", True)
    assert mounted.delays_s.tolist() == [1e-6, 2e-6, 3e-6]
    assert AXES.positions_m.tolist() == np.eye(3).tolist()
    apart = np.linalg.norm(mounted.positions_m[:, None] - mounted.positions_m[None], axis=-1)
    assert apart[~np.eye(3, dtype=bool)] == pytest.approx(np.sqrt(2))
    with pytest.raises(ValueError, match="read-only"):
        mounted.positions_m[0, 0] = 1
