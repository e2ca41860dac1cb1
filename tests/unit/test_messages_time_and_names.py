"""UTC on the wire, names of events, topics."""

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node.messages import event_id, node_topic, recording_boot_id, subscription
from node.messages.fields import moment_ns
from node.messages.identity import NAMESPACE
from node.utc import parse_utc_ns, utc_text

LAST_NS = 2**63 - 1


@given(st.integers(0, LAST_NS))
@example(0)
@example(LAST_NS)
@example(999_999_999)
def test_utc_goes_to_text_and_back_without_losing_a_nanosecond(ns: int) -> None:
    text = utc_text(ns)
    assert len(text) == len("2018-12-19T02:26:59.007000000Z")
    assert parse_utc_ns(text) == moment_ns(text) == ns


@pytest.mark.parametrize(
    "text",
    [
        "2018-02-29T00:00:00.000000000Z",
        "2018-12-19T24:00:00.000000000Z",
        "2018-12-19T02:26:61.000000000Z",
        "1969-12-31T23:59:59.999999999Z",
        "2262-04-11T23:47:16.854775808Z",
        "2018-12-19T02:26:59.00700000٣Z",
        "٢018-12-19T02:26:59.007000000Z",
    ],
)
def test_no_moment_of_a_message_is_read_that_is_none(text: str) -> None:
    with pytest.raises(ValueError) as as_any:  # noqa: PT011 - compared below
        parse_utc_ns(text)
    with pytest.raises(ValueError) as as_moment:  # noqa: PT011 - compared below
        moment_ns(text)
    assert str(as_moment.value) == str(as_any.value)


def test_a_leap_second_of_a_message_is_read_as_any() -> None:
    text = "2016-12-31T23:59:60.500000000Z"
    assert moment_ns(text) == parse_utc_ns(text)


@given(st.integers(0, LAST_NS), st.integers(0, LAST_NS))
def test_texts_sort_as_their_times_do(a: int, b: int) -> None:
    assert (a < b) == (utc_text(a) < utc_text(b))


@given(st.datetimes(datetime(1970, 1, 1), datetime(2262, 1, 1)))
def test_the_text_is_what_datetime_says(moment: datetime) -> None:
    aware = moment.replace(tzinfo=UTC)
    assert utc_text(parse_utc_ns(f"{moment.isoformat(timespec='microseconds')}Z")).startswith(
        aware.strftime("%Y-%m-%dT%H:%M:%S.%f")
    )


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("2018-12-19T02:26:59.007Z", 1545186419_007000000),
    ],
)
def test_shorter_fractions_are_read_too(text: str, ns: int) -> None:
    assert parse_utc_ns(text) == ns


@pytest.mark.parametrize("ns", [-1, LAST_NS + 1])
def test_a_time_that_64_bits_cannot_hold_is_refused(ns: int) -> None:
    with pytest.raises(ValueError, match="lies outside"):
        utc_text(ns)


def test_an_event_is_named_by_node_boot_and_first_sample_and_by_nothing_else() -> None:
    boot = recording_boot_id("node-1", 1_600_000_000_000_000_000)
    # Written out: a change here would give every event a second name.
    assert boot == "02f7915f-7823-5c85-b668-a97df03fe3d8"
    assert event_id("node-1", "b6e0f5c4-0000-4000-8000-000000000000", 96_012) == (
        "c2791f86-8cfe-5d7c-84fc-910688f45a05"
    )
    name = event_id("node-1", boot, 96_012)
    assert name == str(uuid.uuid5(NAMESPACE, f"event/node-1/{boot}/96012"))
    others = {
        event_id("node-2", boot, 96_012),
        event_id("node-1", recording_boot_id("node-1", 0), 96_012),
        event_id("node-1", boot, 96_013),
    }
    assert len(others | {name}) == 4


def test_topics_are_those_that_subscribers_hang_on() -> None:
    assert node_topic("pittsburgh", "SCP-00", "detection") == (
        "gunfire/v1/pittsburgh/SCP-00/detection"
    )
    assert node_topic("pittsburgh", "SCP-00", "status") == "gunfire/v1/pittsburgh/SCP-00/status"
    assert subscription("detection") == "gunfire/v1/+/+/detection"


@pytest.mark.parametrize("level", ["", "a/b", "+", "#", "x" * 65, "-a"])
def test_a_name_that_is_not_one_level_of_a_topic_is_refused(level: str) -> None:
    with pytest.raises(ValueError, match="one level of a topic"):
        node_topic("site", level, "detection")


@pytest.mark.parametrize("level", ["", "a/b", "#", "++", "x" * 65, "-a", "a\n"])
def test_a_filter_of_what_no_node_can_be_called_is_refused(level: str) -> None:
    with pytest.raises(ValueError, match=r"neither '\+' nor one level of a topic"):
        subscription("status", level)
    with pytest.raises(ValueError, match=r"neither '\+' nor one level of a topic"):
        subscription("status", "+", level)
    assert subscription("status", "a.b", "n-1") == "gunfire/v1/a.b/n-1/status"
