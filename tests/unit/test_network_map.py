"""The map: what a stranger is to see on it."""

import math
import uuid
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import pytest

from node.errors import GunfireNodeError
from node.messages import Incident
from node.messages.incident import Ellipse, IncidentRound, SourceLocal, SourcePosition, Witness
from node.network.map import Spot, Truth, draw, radius_m
from node.types import Grade

SHOT: Spot = (60.0, -35.0)
NODES: dict[str, Spot] = {
    "roof-1": (-400.0, 330.0),
    "roof-2": (-110.0, 280.0),
    "roof-3": (170.0, 350.0),
    "roof-4": (430.0, 270.0),
    "roof-5": (-300.0, 80.0),
}


def witness(node_id: str, late_s: float = 0.0, doubt: str | None = None) -> Witness:
    return Witness(
        node_id=node_id, event_id=str(uuid.uuid4()), residual_s=late_s, used=doubt is None,
        doubt=doubt,
    )  # fmt: skip


def incident(
    at: Spot = SHOT,
    *,
    rounds: int = 1,
    grade: Grade = "gunfire",
    nodes: Sequence[Witness] | None = None,
    **changed: object,
) -> Incident:
    utc = "2026-07-04T20:15:02.000000000Z"
    source = SourceLocal(
        frame="town", x_m=at[0], y_m=at[1], z_m=None,
        ellipse_95=Ellipse(major_m=4.0, minor_m=2.0, bearing_deg=30.0),
    )  # fmt: skip
    made = Incident(
        schema="gunfire.incident/1", incident_id=str(uuid.uuid4()), revision=0, type="new",
        site="town", utc=utc, sigma_s=0.001, position=None, local=source, round_count=rounds,
        rounds=(IncidentRound(utc=utc, position=None, local=source),) * rounds, grade=grade,
        nodes=tuple(nodes) if nodes else tuple(map(witness, NODES)), silent_nodes=(),
        review="pending",
    )  # fmt: skip
    return made.model_copy(update=changed)


def words_of(path: Path, *args: object, **kwargs: object) -> str:
    """Draw, and give what is written on the picture."""
    with mpl.rc_context({"svg.fonttype": "none"}):
        draw(*args, path / "map.svg", **kwargs)  # type: ignore[arg-type]
    return (path / "map.svg").read_text("utf-8")


def test_circles_of_nodes_that_are_right_pass_through_the_source():
    for name, node in NODES.items():
        assert radius_m(witness(name), node, SHOT, 340.0) == pytest.approx(math.dist(node, SHOT))


def test_the_circle_of_a_clock_that_is_a_second_off_misses_it_by_a_seconds_sound():
    node = NODES["roof-1"]
    radius = radius_m(witness("roof-1", 1.0), node, SHOT, 340.0)
    assert radius is not None
    assert radius - math.dist(node, SHOT) == pytest.approx(340.0)
    unknown = witness("roof-1").model_copy(update={"residual_s": None})
    assert radius_m(unknown, node, SHOT, 340.0) is None


def test_the_map_names_nodes_and_incidents_with_grade_and_rounds(tmp_path: Path):
    words = words_of(tmp_path, [incident(rounds=3, grade="probable_gunfire")], NODES)
    assert "A: probable gunfire, 3 rounds" in words
    assert all(name in words for name in NODES)
    assert "by 5 nodes" in words
    assert "± 4.0 × 2.0 m" in words
    assert "true place" not in words  # nobody has said what is true


def test_the_map_shows_how_far_off_the_truth_and_which_shot_was_missed(tmp_path: Path):
    truth = [Truth((63.0, -31.0)), Truth((-300.0, -250.0)), Truth((20.0, 300.0), False, "cracker")]
    words = words_of(tmp_path, [incident()], NODES, truth=truth)
    assert "5.0 m off" in words
    assert words.count("a shot, not found") == 1
    assert "cracker" in words


def test_the_map_says_which_node_is_not_believed_and_why(tmp_path: Path):
    nodes = [*map(witness, list(NODES)[1:]), witness("roof-1", 1.0, "its clock is 1 s ahead")]
    words = words_of(tmp_path, [incident(nodes=nodes)], NODES)
    assert "roof-1: its clock is 1 s ahead" in words
    assert "node not believed" in words
    assert "not believed" not in words_of(tmp_path, [incident()], NODES)
    told = words_of(tmp_path, [incident()], NODES, doubts={"roof-2": "stands elsewhere"})
    assert "roof-2: stands elsewhere" in told


def test_nodes_that_did_not_hear_the_shot_are_told_from_those_that_did(tmp_path: Path):
    heard = list(map(witness, list(NODES)[:3]))
    assert "did not hear A" in words_of(tmp_path, [incident(nodes=heard)], NODES)
    assert "did not hear A" not in words_of(tmp_path, [incident()], NODES)


def test_of_revisions_the_highest_is_drawn_and_what_was_taken_back_is_not(tmp_path: Path):
    first = incident()
    later = first.model_copy(update={"revision": 1, "type": "update", "round_count": 2})
    words = words_of(tmp_path, [later, first], NODES)
    assert "A: gunfire, 2 rounds" in words
    assert "1 round" not in words
    gone = first.model_copy(update={"revision": 2, "type": "cancel"})
    assert "gunfire, " not in words_of(tmp_path, [first, later, gone], NODES)


def test_what_was_no_shot_is_drawn_only_where_the_truth_does_not_say_it(tmp_path: Path):
    calm = incident(grade="not_gunfire")
    assert "A: not gunfire" in words_of(tmp_path, [calm], NODES)
    truth = [Truth(SHOT, False, "backfire")]
    assert "not gunfire" not in words_of(tmp_path, [calm], NODES, truth=truth)


def test_latitudes_are_laid_on_the_plane_that_is_given(tmp_path: Path):
    local = incident()
    assert local.local is not None
    globe = SourcePosition(
        lat_deg=39.0, lon_deg=-99.0, alt_m=None, ellipse_95=local.local.ellipse_95
    )
    there = local.model_copy(update={"position": globe, "local": None})
    asked = []

    def plane(lat_deg: float, lon_deg: float) -> Spot:
        asked.append((lat_deg, lon_deg))
        return SHOT

    assert "A: gunfire" in words_of(tmp_path, [there], NODES, plane=plane)
    assert asked == [(39.0, -99.0)]
    assert "A: gunfire" not in words_of(tmp_path, [there], NODES)


def test_a_hundred_incidents_and_none_make_a_picture_too(tmp_path: Path):
    many = [incident((10.0 * k - 500, 5.0 * k - 250)) for k in range(100)]
    for name, incidents in (("many.png", many), ("none.png", [])):
        draw(incidents, NODES, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    draw([], {}, tmp_path / "empty.png")
    assert "AA: " not in words_of(tmp_path, many, NODES)  # there is no room for words


def test_a_picture_that_cannot_be_written_is_told_in_a_line(tmp_path: Path):
    with pytest.raises(GunfireNodeError, match="cannot be written"):
        draw([incident()], NODES, tmp_path / "no" / "map.png")
    with pytest.raises(GunfireNodeError, match="cannot be written"):
        draw([incident()], NODES, tmp_path / "map.docx")
