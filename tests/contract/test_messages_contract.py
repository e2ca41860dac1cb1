"""The words that subscribers hang on, held by frozen examples.

detection.json, status.json and health.json beside this file are what a node of version 1 of each
schema publishes. They are not regenerated: a test that fails here has found a change that would
break someone's software. Adding a key that may be absent is no such change, and then the example
stays as it is; renaming, retyping or dropping one needs a new schema number and a new topic
version.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from node.messages import json_schema, parse_detection, parse_health, parse_status, to_json
from node.messages.schema import SchemaName

HERE = Path(__file__).parent
LOOK_UP = HERE.parents[1] / "docs" / "look-up"


def example(name: SchemaName) -> Any:
    return json.loads((HERE / f"{name}.json").read_text("utf-8"))


def test_the_frozen_detection_is_read_and_written_back_unchanged() -> None:
    text = (HERE / "detection.json").read_text("utf-8")
    assert json.loads(to_json(parse_detection(text))) == json.loads(text)


def test_the_frozen_status_is_read_and_written_back_unchanged() -> None:
    text = (HERE / "status.json").read_text("utf-8")
    assert json.loads(to_json(parse_status(text))) == json.loads(text)


def test_the_frozen_health_is_read_and_written_back_unchanged() -> None:
    text = (HERE / "health.json").read_text("utf-8")
    assert json.loads(to_json(parse_health(text))) == json.loads(text)


def test_the_keys_of_a_detection_are_these() -> None:
    assert {key: sorted(_keys(value)) for key, value in example("detection").items()} == {
        # Which form this is: a subscriber chooses its parser by it.
        "schema": [],
        # What makes a message unique, and which one wins: de-duplication, here and in every
        # subscriber, is by (event_id, revision).
        "event_id": [],
        "revision": [],
        "type": [],
        # Who says so, and in which run: a subscriber joins these with the topic, the status and
        # the node's certificate.
        "site": [],
        "node_id": [],
        "boot_id": [],
        # For life and without gaps but for those told: whoever holds the log proves by it that
        # nothing is missing.
        "seq": [],
        # The measurement. Location by time differences needs each time with its error, and
        # nothing else in this message: `sigma_s` is as much part of it as `utc`.
        "onset_utc": [],
        "rounds": ["peak_db_spl", "peak_dbfs", "sigma_s", "snr_db", "utc"],
        "round_count": [],
        "round_count_is_minimum": [],
        "cadence_rpm": [],
        # The judgement. Alerting policies and audits are written against the label's and the
        # grade's exact words, and recompute the grade from scores and thresholds.
        "label": [],
        "abstained": [],
        "grade": [],
        "scores": ["backfire", "fireworks", "gunfire", "other"],
        "thresholds": ["gunfire", "probable"],
        # What the times may be trusted for; a solver weighs or leaves out nodes by it.
        "clock": ["bound_s", "holdover_s", "second_confirmed", "sigma_s", "source"],
        # Where from: one of the two is filled, both keys are always there.
        "position": ["alt_m", "lat_deg", "lon_deg", "sigma_m"],
        "local": ["frame", "sigma_m", "x_m", "y_m", "z_m"],
        "direction": ["airborne_probability", "azimuth_deg", "elevation_deg", "sigma_deg"],
        # Lost samples are told with every detection: the commonest clock fault is a lost buffer.
        "audio": ["channels", "clipped", "lost_samples", "sample_rate_hz"],
        # Which model and software judged: a finding is worth what its model's card says.
        "model": ["name", "sha256", "version"],
        "firmware": [],
        "snippet": ["seconds", "sha256"],
        # The chain and the signature cover all but `transport`; `verify` rests on these names.
        "prev_hash": [],
        "signature": [],
        # Outside the signature. `delayed` keeps old news from raising an alarm.
        "transport": ["delayed", "published_utc"],
    }


def test_the_keys_of_a_status_are_these() -> None:
    assert {key: sorted(_keys(value)) for key, value in example("status").items()} == {
        "schema": [],
        "site": [],
        "node_id": [],
        # The last will carries it too: an offline of an older run must not hide a newer online.
        "boot_id": [],
        "utc": [],
        # online, degraded, offline: dashboards colour by these very words.
        "state": [],
        # Sentences for a technician; programs must not parse them, and so they may change.
        "reasons": [],
        "clock": ["bound_s", "holdover_s", "second_confirmed", "sigma_s", "source"],
        "firmware": [],
        "lost_samples": [],
        # What has not arrived yet, and what never will.
        "outbox": ["depth", "dropped"],
    }


def test_the_keys_of_a_health_are_these() -> None:
    # Dashboards plot these figures by name; a key that went would leave a line at zero.
    assert {key: sorted(_keys(value)) for key, value in example("health").items()} == {
        "schema": [],
        "site": [],
        "node_id": [],
        "boot_id": [],
        "utc": [],
        "uptime_s": [],
        "clock": ["bound_s", "holdover_s", "second_confirmed", "sigma_s", "source"],
        "sample_clock": [
            "host_steps", "method", "missed", "pulses", "rate_ppm", "reason", "refused",
        ],
        "chrony": [
            "offset_s", "reference", "root_delay_s", "root_dispersion_s", "stratum",
            "synchronised",
        ],
        "receiver": [
            "fix", "position_sigma_m", "pps_seen", "satellites_seen", "satellites_used",
            "utc_valid",
        ],
        "array": [
            "channels", "floor_dbfs", "lost_samples", "order_proven", "order_reason",
            "sample_rate_hz",
        ],
        "outbox": ["depth", "dropped"],
        "firmware": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("label",), ["gunfire", "fireworks", "backfire", "other"]),
        (("grade",), ["gunfire", "probable_gunfire", "not_gunfire"]),
        (("type",), ["new", "update", "cancel"]),
        (("clock", "source"), ["pps", "gps", "ntp", "free"]),
    ],
)
def test_the_words_that_a_field_may_hold_are_these(path: tuple[str, ...], words: list[str]) -> None:
    validator = Draft202012Validator(json_schema("detection"))
    for word in words:
        document = example("detection")
        _put(document, path, word)
        validator.validate(document)
    document = example("detection")
    _put(document, path, "another")
    with pytest.raises(ValidationError):
        validator.validate(document)


@pytest.mark.parametrize("name", ["detection", "status", "health"])
def test_the_frozen_example_validates_against_the_schema_that_the_package_prints(
    name: SchemaName,
) -> None:
    schema = json_schema(name)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(example(name))


@pytest.mark.parametrize("name", ["detection", "status", "health"])
def test_the_schema_under_docs_is_the_one_that_the_package_prints(name: SchemaName) -> None:
    kept = json.loads((LOOK_UP / f"{name}.schema.json").read_text("utf-8"))
    assert kept == json_schema(name), "run: make docs"


@pytest.mark.parametrize("name", ["detection", "status", "health"])
def test_every_field_has_a_sentence_and_the_page_for_subscribers_names_it(name: SchemaName) -> None:
    schema = json_schema(name)
    page = (LOOK_UP / "messages.md").read_text("utf-8")
    for model in (schema, *schema.get("$defs", {}).values()):
        for field, rules in model["properties"].items():
            assert rules.get("description", "").endswith("."), field
            assert f"`{field}`" in page, field


def _keys(value: Any) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return list(value[0])
    return list(value) if isinstance(value, dict) else []


def _put(document: Any, path: tuple[str, ...], word: str) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = word
