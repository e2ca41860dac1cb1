"""Node, checkpoint, snippet, incident: what is refused, and what the builders make."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.messages import (
    Array,
    Gap,
    Microphone,
    Origin,
    Position,
    Privacy,
    build_checkpoint,
    build_node,
    build_status,
    incident_topic,
    parse_checkpoint,
    parse_incident,
    parse_node,
    parse_snippet,
    to_json,
)
from node.types import ModelIdentity

CONTRACT = Path(__file__).parents[1] / "contract"
ORIGIN = Origin(
    site="riverside",
    node_id="node-0001",
    boot_id="02f7915f-7823-5c85-b668-a97df03fe3d8",
    firmware="0.1.0",
    position=Position(lat_deg=40.4406248, lon_deg=-79.9958864, alt_m=231.4, sigma_m=0.8),
)
NOW_NS = 1_545_186_419_007_000_001


def test_a_checkpoint_before_the_first_detection_can_be_told() -> None:
    first = build_checkpoint(
        ORIGIN, utc_ns=NOW_NS, seq=0, head="0" * 64, gaps=[], key_id="0123456789abcdef"
    )
    assert parse_checkpoint(to_json(first)) == first
    assert first.signature is None


def test_a_node_without_a_key_says_so() -> None:
    node = build_node(
        ORIGIN,
        utc_ns=NOW_NS,
        array=Array(
            name="mono",
            channels=1,
            sample_rate_hz=48_000,
            microphones=(Microphone(x_m=0, y_m=0, z_m=0),),
        ),
        model=ModelIdentity("gunfire", "1", "a" * 64, 0.7, 0.35),
        key=None,
        privacy=Privacy(snippets=False, snippet_seconds=0, publish_rejected=True),
    )
    assert parse_node(to_json(node)) == node
    assert json.loads(to_json(node))["key"] is None


@given(lat_deg=st.floats(-90, 90), lon_deg=st.floats(-180, 180))
def test_the_area_of_a_status_is_the_position_to_a_hundredth_of_a_degree(
    lat_deg: float, lon_deg: float
) -> None:
    position = Position(lat_deg=lat_deg, lon_deg=lon_deg, alt_m=0, sigma_m=0.8)
    status = build_status(replace(ORIGIN, position=position), "online", utc_ns=NOW_NS)
    area = json.loads(to_json(status))["area"]
    for key, value in (("lat_deg", lat_deg), ("lon_deg", lon_deg)):
        assert abs(area[key] - value) <= 0.005 + 1e-7
        assert area[key] == round(area[key], 2)
    # A hundredth of a degree of a meridian is 1.1 km at most: over the root of 12.
    assert 320 < area["sigma_m"] < 325


def test_a_node_without_a_position_has_no_area_to_tell() -> None:
    status = build_status(replace(ORIGIN, position=None), "online", utc_ns=NOW_NS)
    assert "area" not in json.loads(to_json(status))


@pytest.mark.parametrize(("count", "to_seq"), [(None, 4), (7, 10)])
def test_a_gap_that_runs_backward_or_holds_more_than_its_numbers_is_no_gap(
    count: int | None, to_seq: int
) -> None:
    with pytest.raises(ValueError, match=r"lies after|is more than"):
        Gap(from_seq=5, to_seq=to_seq, count=count, reason="dropped")


def example(name: str, **changes: Any) -> str:
    return json.dumps(json.loads((CONTRACT / f"{name}.json").read_text("utf-8")) | changes)


def test_a_snippet_whose_sound_is_not_the_one_that_it_names_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not a snippet: .*sha256 is not that of the data"):
        parse_snippet(example("snippet", data="YWdlLWVuY3J5cHRpb24="))


@pytest.mark.parametrize("data", ["YWdl?Q==", "YWdlQ", "YWd=lQ==", "", "YWdl\n"])
def test_a_snippet_that_is_not_base64_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match="data"):
        parse_snippet(example("snippet", data=data))


def test_an_array_that_does_not_place_each_channel_is_refused() -> None:
    array = json.loads(example("node"))["array"] | {"channels": 5}
    with pytest.raises(ValueError, match="4 microphones for 5 channels"):
        parse_node(example("node", array=array))


def test_an_incident_that_could_not_be_placed_can_be_told_and_one_without_a_shot_cannot() -> None:
    assert parse_incident(example("incident", position=None, local=None)).position is None
    with pytest.raises(ValueError, match="rounds"):
        parse_incident(example("incident", rounds=[]))


@pytest.mark.parametrize("text", ["", "two\nlines", "\x1b[2Jcleared", "\u202ebackwards", "x" * 501])
def test_an_incidents_sentence_is_one_line_that_steers_no_terminal(text: str) -> None:
    with pytest.raises(ValueError, match="why"):
        parse_incident(example("incident", why=text))


def test_incidents_go_to_their_sites_topic() -> None:
    assert incident_topic("riverside") == "gunfire/v1/riverside/incident"
    with pytest.raises(ValueError, match="one level of a topic"):
        incident_topic("a/b")
