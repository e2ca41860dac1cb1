"""Building, writing and reading detections and statuses."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from node.messages import (
    Detection,
    Local,
    Origin,
    OutboxStatus,
    build_detection,
    build_status,
    json_schema,
    numbered,
    parse_detection,
    parse_status,
    replay_json,
    to_json,
    with_transport,
)
from node.types import (
    ClockQuality,
    Direction,
    Event,
    Impulse,
    Instant,
    Judgement,
    ModelIdentity,
    Rounds,
    Scores,
)
from node.utc import utc_text

ORIGIN = Origin(
    site="pittsburgh",
    node_id="SCP-00-BNG-5545",
    boot_id="02f7915f-7823-5c85-b668-a97df03fe3d8",
    firmware="0.1.0",
    local=Local(frame="survey", x_m=-8757.39749, y_m=-1749.5, z_m=-23.2, sigma_m=None),
)
ONSET_NS = 1_545_186_419_007_000_001
IMPULSE = Impulse(onset_sample=84_012.25, sigma_samples=3, snr_db=20.123, peak_dbfs=-3.456)
ONE_SHOT = Rounds(shots=(0,), is_minimum=False)
JUDGEMENT = Judgement(Scores(0.9, 0.05, 0.03, 0.02), "gunfire", False, "gunfire")
CLOCK = ClockQuality("ntp", 1e-3)
MODEL = ModelIdentity("gunfire", "1", "a" * 64, 0.7, 0.35)


def build(
    impulses: tuple[Impulse, ...] = (IMPULSE,),
    lost_samples: int = 0,
    judgement: Judgement = JUDGEMENT,
    clock: ClockQuality = CLOCK,
    rounds: Rounds = ONE_SHOT,
    direction: Direction | None = None,
    revision: int = 0,
) -> Detection:
    instants = [Instant(ONSET_NS + 10**8 * shot, 1e-4) for shot in rounds.shots]
    return build_detection(
        ORIGIN,
        Event(impulses, lost_samples),
        rounds,
        instants,
        judgement,
        clock,
        MODEL,
        direction=direction,
        sample_rate_hz=12_000,
        channels=1,
        revision=revision,
    )


def test_every_key_is_there_and_null_where_the_value_is_not_known() -> None:
    document = json.loads(to_json(build()))
    for key in ("cadence_rpm", "position", "direction", "snippet", "prev_hash", "signature"):
        assert document[key] is None
    assert document["transport"] is None
    assert document["rounds"][0]["peak_db_spl"] is None
    assert document["clock"]["bound_s"] is None
    assert list(document) == list(json_schema("detection")["properties"])


def test_the_event_is_named_by_its_first_whole_sample_and_timed_by_its_first_round() -> None:
    detection = build((IMPULSE, replace(IMPULSE, onset_sample=90_000.0)))
    assert detection.onset_utc == detection.rounds[0].utc == utc_text(ONSET_NS)
    assert detection.event_id == build((replace(IMPULSE, onset_sample=84_012.9),)).event_id


def test_the_rounds_are_the_shots_among_the_arrivals() -> None:
    echo = replace(IMPULSE, snr_db=9.0)
    burst = (IMPULSE, echo, IMPULSE, echo, IMPULSE)
    three = build(burst, rounds=Rounds((0, 2, 4), is_minimum=False, cadence_rpm=612.34))
    assert (three.round_count, three.round_count_is_minimum, three.cadence_rpm) == (3, False, 612.3)
    assert [r.snr_db for r in three.rounds] == [20.12] * 3
    assert [r.utc for r in three.rounds] == [utc_text(ONSET_NS + 10**8 * k) for k in (0, 2, 4)]


def test_a_count_that_may_be_too_small_says_so() -> None:
    assert build(rounds=Rounds((0,), is_minimum=True)).round_count_is_minimum


def test_a_direction_is_told_with_its_error_and_what_cannot_be_known_is_null() -> None:
    flat = build(direction=Direction(359.996, None, 1.234))
    assert json.loads(to_json(flat))["direction"] == {
        "azimuth_deg": 360.0,
        "elevation_deg": None,
        "sigma_deg": 1.23,
        "airborne_probability": None,
    }
    aloft = build(direction=Direction(12.0, 41.5, 0.8, airborne_probability=0.98))
    assert aloft.direction is not None
    assert (aloft.direction.elevation_deg, aloft.direction.airborne_probability) == (41.5, 0.98)


def test_later_knowledge_is_an_update_of_the_same_event() -> None:
    first, again = build(), build(revision=2)
    assert (first.type, again.type, again.revision) == ("new", "update", 2)
    assert first.event_id == again.event_id


def test_a_loss_inside_the_event_makes_its_count_a_minimum() -> None:
    assert not build().round_count_is_minimum
    torn = build(lost_samples=500)
    assert torn.round_count_is_minimum
    assert torn.audio.lost_samples == 500


def test_one_clipped_impulse_says_so_for_the_event() -> None:
    assert not build().audio.clipped
    assert build((IMPULSE, replace(IMPULSE, clipped=True))).audio.clipped


def test_instants_that_do_not_fit_the_shots_are_a_defect() -> None:
    with pytest.raises(ValueError, match="0 instants for 1 shots"):
        build_detection(
            ORIGIN, Event((IMPULSE,)), ONE_SHOT, [], JUDGEMENT, CLOCK, MODEL,
            direction=None, sample_rate_hz=1, channels=1,
        )  # fmt: skip


@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_neither_nan_nor_infinity_gets_into_a_message(spoilt: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        build((replace(IMPULSE, snr_db=spoilt),))
    with pytest.raises(ValidationError, match="finite"):
        build(clock=replace(CLOCK, sigma_s=spoilt))


def test_scores_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValidationError, match="sum to"):
        build(judgement=replace(JUDGEMENT, scores=Scores(0.9, 0.9, 0, 0)))


finite = st.floats(-1e6, 1e6)


@given(
    snr_db=finite,
    peak_dbfs=finite,
    sigma_s=st.floats(0, 1e6),
    weights=st.lists(st.floats(0.001, 1), min_size=4, max_size=4),
)
def test_a_message_equals_its_own_text_read_back_and_the_text_is_the_same_each_time(
    snr_db: float, peak_dbfs: float, sigma_s: float, weights: list[float]
) -> None:
    total = sum(weights)
    detection = build(
        (replace(IMPULSE, snr_db=snr_db, peak_dbfs=peak_dbfs),),
        clock=replace(CLOCK, sigma_s=sigma_s),
        judgement=replace(JUDGEMENT, scores=Scores(*(w / total for w in weights))),
    )
    text = to_json(detection)
    assert parse_detection(text) == detection
    assert to_json(parse_detection(text)) == text
    assert b"-0.0," not in text
    Draft202012Validator(json_schema("detection")).validate(json.loads(text))


def test_numbers_are_rounded_to_digits_that_mean_something() -> None:
    document = json.loads(to_json(build((replace(IMPULSE, snr_db=20.123456789, peak_dbfs=-0.0),))))
    assert document["rounds"][0]["snr_db"] == 20.12
    assert str(document["rounds"][0]["peak_dbfs"]) == "0.0"
    assert document["local"]["x_m"] == -8757.397


def test_a_replay_leaves_out_what_only_sending_and_signing_can_add_and_still_validates() -> None:
    document = json.loads(replay_json(build()))
    assert not {"transport", "prev_hash", "signature"} & document.keys()
    Draft202012Validator(json_schema("detection")).validate(document)
    assert parse_detection(replay_json(build())) == build()


@given(delayed=st.booleans(), utc=st.integers(0, 2**63 - 1))
def test_sending_adds_transport_and_changes_nothing_else(delayed: bool, utc: int) -> None:
    text = to_json(build())
    sent = with_transport(text, utc, delayed)
    document = json.loads(sent)
    assert document.pop("transport") == {"published_utc": utc_text(utc), "delayed": delayed}
    before = json.loads(text)
    del before["transport"]
    assert document == before
    prefix = text[: text.index(b'"transport"')]
    assert sent.startswith(prefix)


def test_the_outbox_number_is_put_in_without_touching_the_rest() -> None:
    assert numbered(build(), 7) == build().model_copy(update={"seq": 7})
    assert json.loads(to_json(numbered(build(), 7)))["seq"] == 7


def changed(**changes: Any) -> bytes:
    return json.dumps(json.loads(to_json(build())) | changes).encode()


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "the document"),
        (b"[]", "the document"),
        (b"\xff\xfe", "the document"),
        (changed(schema="gunfire.detection/2"), "schema"),
        (changed(seq=0), "seq"),
        (changed(seq="1"), "seq"),
        (changed(onset_utc="2018-12-19T02:26:59.007000002Z"), "first round"),
        (changed(onset_utc="2018-12-19T02:26:59.007Z"), "onset_utc"),
        (changed(onset_utc="2018-12-32T02:26:59.007000000Z"), "onset_utc"),
        (changed(rounds=[]), "rounds"),
        (changed(label="thunder"), "label"),
        (changed(node_id="a/b"), "node_id"),
        (changed(event_id="x"), "event_id"),
    ],
)
def test_what_is_not_a_detection_is_refused_in_one_line_that_names_the_field(
    payload: bytes, why: str
) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse_detection(payload)
    assert "\n" not in str(caught.value)


def test_a_detection_with_keys_of_the_future_is_read_and_the_keys_are_passed_over() -> None:
    document = json.loads(to_json(build()))
    document["wind"] = {"speed_m_s": 3.0}
    document["clock"]["temperature_c"] = 21.5
    document["rounds"][0]["calibre"] = None
    assert parse_detection(json.dumps(document)) == build()
    Draft202012Validator(json_schema("detection")).validate(document)


def test_no_detection_is_made_with_a_key_that_the_contract_does_not_name() -> None:
    with pytest.raises(ValidationError, match="wind"):
        Detection.model_validate(json.loads(to_json(build())) | {"wind": 3.0})


def test_a_status_tells_how_the_node_is_and_the_last_will_only_what_it_can_know() -> None:
    now = build_status(
        ORIGIN,
        "degraded",
        utc_ns=ONSET_NS,
        reasons=["outbox /x: no space left on its disk: free some"],
        clock=CLOCK,
        lost_samples=500,
        outbox=OutboxStatus(depth=3, dropped=0),
    )
    will = build_status(ORIGIN, "offline", utc_ns=ONSET_NS, reasons=["cut off"])
    for status in (now, will):
        Draft202012Validator(json_schema("status")).validate(json.loads(to_json(status)))
        assert parse_status(to_json(status)) == status
    assert json.loads(to_json(will))["clock"] is None
    assert will.boot_id == now.boot_id


def test_a_length_that_rounds_to_zero_is_no_length() -> None:
    document = json.loads(to_json(build())) | {"snippet": {"sha256": "a" * 64, "seconds": 1e-12}}
    with pytest.raises(ValueError, match=r"snippet.seconds: .*rounds to zero"):
        parse_detection(json.dumps(document))


@pytest.mark.parametrize("spoilt", [b"[1]", b'"text"', b"null", b"{", b"[" * 100_000, b"\xff"])
def test_what_a_disk_has_spoilt_is_stamped_by_a_value_error(spoilt: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        with_transport(spoilt, ONSET_NS, delayed=False)
