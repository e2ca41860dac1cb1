"""The words that subscribers hang on, held by frozen examples.

The JSON files beside this one are what version 1 of each schema says. They are not regenerated: a
test that fails here has found a change that would break someone's software. Adding a key that may
be absent is no such change, and then the example stays as it is; renaming, retyping or dropping one
needs a new schema number and a new topic version.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509 import load_pem_x509_certificate
from jsonschema import Draft202012Validator, ValidationError

from node import messages
from node.messages import json_schema, to_json
from node.messages.schema import MODELS, SchemaName
from node.messages.topics import CHANNELS

HERE = Path(__file__).parent
LOOK_UP = HERE.parents[1] / "docs" / "look-up"


def example(name: SchemaName) -> Any:
    return json.loads((HERE / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", MODELS)
def test_the_frozen_example_is_read_and_written_back_unchanged(name: SchemaName) -> None:
    text = (HERE / f"{name}.json").read_text("utf-8")
    parse = getattr(messages, f"parse_{name}")
    assert json.loads(to_json(parse(text))) == json.loads(text)


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
        # ok, degraded, failed: dashboards colour by these very words.
        "condition": [],
        # Alerting goes by a check's name and verdict; what its figure says may change.
        "checks": ["advice", "figure", "name", "verdict"],
        "board": [
            "enclosure_c", "enclosure_open", "maintenance", "processor_c", "throttled",
            "under_voltage",
        ],
    }  # fmt: skip


def test_the_keys_of_a_node_are_these() -> None:
    assert {key: sorted(_keys(value)) for key, value in example("node").items()} == {
        "schema": [],
        "site": [],
        "node_id": [],
        "boot_id": [],
        "utc": [],
        "firmware": [],
        # A locator takes the nodes' places from here; without its sigma a place is worth nothing.
        "position": ["alt_m", "lat_deg", "lon_deg", "sigma_m"],
        "local": ["frame", "sigma_m", "x_m", "y_m", "z_m"],
        # What a direction rests on: an auditor works it out again from these places.
        "array": ["channels", "microphones", "name", "sample_rate_hz"],
        "model": ["name", "sha256", "version"],
        # Verifiers collect certificates from here; which of them count, the fleet's CA says.
        "key": ["algorithm", "certificate", "key_id", "public_key"],
        # What a city promised its people about sound is checked against these.
        "privacy": ["publish_rejected", "snippet_seconds", "snippets"],
        "signature": [],
    }
    assert sorted(_keys(example("node")["array"]["microphones"])) == ["x_m", "y_m", "z_m"]


def test_the_keys_of_a_checkpoint_are_these() -> None:
    assert {key: sorted(_keys(value)) for key, value in example("checkpoint").items()} == {
        "schema": [],
        "site": [],
        "node_id": [],
        "boot_id": [],
        "utc": [],
        # A log that ends before `seq`, or whose message of that number has another hash than
        # `head`, was cut or altered: `verify` rests on these two.
        "seq": [],
        "head": [],
        # What is missing and is said to be missing; all else that is missing was taken away.
        "gaps": ["count", "from_seq", "reason", "to_seq"],
        "key_id": [],
        "signature": [],
    }


def test_the_keys_of_a_snippet_are_these() -> None:
    # The owner's own tool decrypts by these, years later perhaps.
    assert {key: sorted(_keys(value)) for key, value in example("snippet").items()} == {
        "schema": [],
        "site": [],
        "node_id": [],
        # Which detection it belongs to.
        "event_id": [],
        "revision": [],
        # The detection carries the same hash under its signature: so the sound is the node's.
        "sha256": [],
        "seconds": [],
        "media": [],
        "encryption": [],
        "data": [],
    }


def test_the_keys_of_an_incident_are_these() -> None:
    assert {key: sorted(_keys(value)) for key, value in example("incident").items()} == {
        "schema": [],
        # Unique by (incident_id, revision), as a detection is by (event_id, revision).
        "incident_id": [],
        "revision": [],
        "type": [],
        "site": [],
        # When and where, at the source. A place goes nowhere without its ellipse.
        "utc": [],
        "sigma_s": [],
        "position": ["alt_m", "ellipse_95", "lat_deg", "lon_deg"],
        "local": ["ellipse_95", "frame", "x_m", "y_m", "z_m"],
        "round_count": [],
        "rounds": ["local", "position", "utc"],
        "cadence_rpm": [],
        # The judgement, and the figures from which a policy of one's own may make another.
        "grade": [],
        "scores": ["backfire", "fireworks", "gunfire", "other"],
        # For a dispatcher; programs must not parse it, and so it may change.
        "why": [],
        # Who heard it and how well that fits, and who should have and did not: the evidence for
        # and against, which a court will ask for.
        "nodes": ["doubt", "event_id", "grade", "node_id", "residual_s", "used"],
        "silent_nodes": [],
        "review": [],
    }
    ellipse = example("incident")["position"]["ellipse_95"]
    assert sorted(ellipse) == ["bearing_deg", "major_m", "minor_m"]


def test_an_incident_of_before_scores_and_reasons_were_told_is_one_still() -> None:
    document = example("incident")
    for key in ("cadence_rpm", "scores", "why"):
        del document[key]
    for witness in document["nodes"]:
        del witness["grade"], witness["doubt"]
    Draft202012Validator(json_schema("incident")).validate(document)
    incident = messages.parse_incident(json.dumps(document))
    assert (incident.scores, incident.why, incident.nodes[0].doubt) == (None, None, None)


def test_a_status_may_tell_an_area_and_has_no_such_key_where_it_does_not() -> None:
    document = example("status")
    assert b"area" not in to_json(messages.parse_status(json.dumps(document)))
    document["area"] = {"lat_deg": 40.44, "lon_deg": -80.0, "sigma_m": 322.4}
    assert json.loads(to_json(messages.parse_status(json.dumps(document)))) == document


@pytest.mark.parametrize("name", MODELS)
def test_keys_of_the_future_are_passed_over_wherever_they_stand(name: SchemaName) -> None:
    document = example(name)
    _add_everywhere(document)
    assert json.dumps(document).count("of_the_future") > 0
    Draft202012Validator(json_schema(name)).validate(document)
    parse = getattr(messages, f"parse_{name}")
    assert json.loads(to_json(parse(json.dumps(document)))) == example(name)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("detection", "label"), ["gunfire", "fireworks", "backfire", "other"]),
        (("detection", "grade"), ["gunfire", "probable_gunfire", "not_gunfire"]),
        (("detection", "type"), ["new", "update", "cancel"]),
        (("detection", "clock", "source"), ["pps", "gps", "ntp", "free"]),
        (("status", "state"), ["online", "degraded", "offline"]),
        (("node", "key", "algorithm"), ["Ed25519"]),
        (("checkpoint", "gaps", 0, "reason"), ["dropped", "lost"]),
        (("snippet", "media"), ["audio/flac"]),
        (("snippet", "encryption"), ["age"]),
        (("incident", "type"), ["new", "update", "cancel"]),
        (("incident", "grade"), ["gunfire", "probable_gunfire", "not_gunfire"]),
        (("incident", "review"), ["pending", "confirmed", "dismissed", "not_required"]),
    ],
)
def test_the_words_that_a_field_may_hold_are_these(path: tuple[Any, ...], words: list[str]) -> None:
    name, *inside = path
    validator = Draft202012Validator(json_schema(name))
    for word in words:
        document = example(name)
        _put(document, inside, word)
        validator.validate(document)
    document = example(name)
    _put(document, inside, "another")
    with pytest.raises(ValidationError):
        validator.validate(document)


@pytest.mark.parametrize("name", MODELS)
def test_the_frozen_example_validates_against_the_schema_that_the_package_prints(
    name: SchemaName,
) -> None:
    schema = json_schema(name)
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(example(name))


@pytest.mark.parametrize("name", MODELS)
def test_the_schema_under_docs_is_the_one_that_the_package_prints(name: SchemaName) -> None:
    kept = json.loads((LOOK_UP / f"{name}.schema.json").read_text("utf-8"))
    assert kept == json_schema(name), "run: make docs"


@pytest.mark.parametrize("name", MODELS)
def test_every_field_has_a_sentence_and_the_page_for_subscribers_names_it(name: SchemaName) -> None:
    schema = json_schema(name)
    page = (LOOK_UP / "messages.md").read_text("utf-8")
    for model in (schema, *schema.get("$defs", {}).values()):
        for field, rules in model["properties"].items():
            assert rules.get("description", "").endswith("."), field
            assert f"`{field}`" in page, field


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("detection", ["cadence_rpm"], -1),
        ("detection", ["clock", "bound_s"], -1e-6),
        ("detection", ["direction", "elevation_deg"], 90.5),
        ("detection", ["direction", "elevation_deg"], -91),
        ("health", ["receiver", "position_sigma_m"], -1),
        ("incident", ["position", "alt_m"], 9001),
        ("incident", ["cadence_rpm"], -1),
    ],
)
def test_bounds_of_what_may_be_null_stand_in_the_published_schema(
    name: SchemaName, path: list[Any], value: float
) -> None:
    # pydantic writes some in words of its own, which validators of JSON Schema pass over.
    document = example(name)
    validator = Draft202012Validator(json_schema(name))
    validator.validate(document)
    _put(document, path, value)
    with pytest.raises(ValueError, match=re.escape(".".join(path))):
        getattr(messages, f"parse_{name}")(json.dumps(document))
    assert not validator.is_valid(document)


@pytest.mark.parametrize("file", sorted(LOOK_UP.glob("*.json")), ids=lambda file: file.name)
def test_no_bound_is_written_in_words_that_validators_do_not_know(file: Path) -> None:
    assert not re.search(r'"(ge|gt|le|lt|multiple_of)":', file.read_text("utf-8"))


def test_the_drawing_of_the_topics_says_what_the_code_does() -> None:
    page = (LOOK_UP / "messages.md").read_text("utf-8")
    drawn = re.findall(r"─ (\w+) +QoS (\d)(, retained)? +(open|restricted)", page)
    assert set(drawn) == {
        (
            channel.name,
            str(channel.qos),
            ", retained" * channel.retained,
            "restricted" if channel.restricted else "open",
        )
        for channel in CHANNELS
    }


def test_the_frozen_node_and_checkpoint_bear_signatures_that_hold() -> None:
    # Whoever has verified a log once must be able to do so again: the signed form never changes.
    node = example("node")
    key = load_pem_x509_certificate(node["key"]["certificate"].encode()).public_key()
    assert isinstance(key, Ed25519PublicKey)
    assert base64.b64encode(key.public_bytes_raw()).decode() == node["key"]["public_key"]
    assert hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16] == node["key"]["key_id"]
    for message in (node, example("checkpoint")):
        form = rfc8785.dumps({k: v for k, v in message.items() if k != "signature"})
        key.verify(base64.b64decode(message["signature"]), form)


def test_the_frozen_checkpoint_holds_the_hash_of_the_frozen_detection() -> None:
    detection, checkpoint = example("detection"), example("checkpoint")
    signed = {k: v for k, v in detection.items() if k not in ("transport", "signature")}
    assert checkpoint["seq"] == detection["seq"]
    assert checkpoint["head"] == hashlib.sha256(rfc8785.dumps(signed)).hexdigest()


def _keys(value: Any) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return list(value[0])
    return list(value) if isinstance(value, dict) else []


def _add_everywhere(value: Any) -> None:
    if isinstance(value, list):
        for part in value:
            _add_everywhere(part)
    elif isinstance(value, dict):
        for part in value.values():
            _add_everywhere(part)
        value["of_the_future"] = {"what": 1}


def _put(document: Any, path: list[Any], word: str | float) -> None:
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = word
