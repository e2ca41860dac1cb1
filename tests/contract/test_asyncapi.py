"""The AsyncAPI document is valid by the initiative's own parser, and says what the code does.

Subscribers' tools make clients from it, and a broker's keeper an access list.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from node.messages import incident_topic, node_topic
from node.messages.topics import CHANNELS
from tests.docs import EXAMPLES, LOOK_UP
from tests.evidence import ROOT

DOCUMENT = LOOK_UP / "asyncapi.json"
NODE_MODULES = ROOT / ".venv" / "npm" / "node_modules"


def document() -> Any:
    return json.loads(DOCUMENT.read_text("utf-8"))


def validate(file: Path) -> subprocess.CompletedProcess[str]:
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "@asyncapi" / "parser").is_dir():
        reason = "AsyncAPI's parser is not installed: make .venv/asyncapi (needs npm)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return subprocess.run(
        [node, EXAMPLES / "asyncapi" / "validate.cjs", file],
        env=os.environ | {"NODE_PATH": str(NODE_MODULES)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_initiatives_own_parser_finds_neither_error_nor_warning() -> None:
    done = validate(DOCUMENT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"valid: AsyncAPI 3.0.0, {len(CHANNELS)} channels" in done.stdout


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("operations", "send_detection", "bindings", "mqtt", "qos"), 3),
        (("channels", "node", "messages", "node", "$ref"), "#/components/messages/nobody"),
        (("components", "schemas", "Node", "properties", "utc", "type"), "moment"),
        (("components", "securitySchemes", "certificate", "type"), "trust"),
    ],
)
def test_that_parser_refuses_the_document_once_it_is_spoilt(
    tmp_path: Path, path: tuple[Any, ...], value: Any
) -> None:
    spoilt = document()
    place = spoilt
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = tmp_path / "asyncapi.json"
    file.write_text(json.dumps(spoilt), "utf-8")
    assert validate(file).returncode == 1


def test_its_addresses_are_the_topics_that_the_code_publishes_on() -> None:
    for channel in CHANNELS:
        address = document()["channels"][channel.name]["address"]
        topic = address.format(site="riverside", node="node-0001")
        if channel.name == "incident":
            assert topic == incident_topic("riverside")
        else:
            assert topic == node_topic("riverside", "node-0001", channel.name)


def test_every_channel_has_an_operation_with_its_qos_and_retention() -> None:
    operations = document()["operations"]
    assert {name: o["bindings"]["mqtt"]["qos"] for name, o in operations.items()} == {
        f"send_{channel.name}": channel.qos for channel in CHANNELS
    }
    kept = {name for name, o in operations.items() if o["bindings"]["mqtt"]["retain"]}
    # A detection that is retained would raise its alarm again at each subscriber's start.
    assert kept == {"send_status", "send_node"}
    assert all(operation["action"] == "send" for operation in operations.values())


def test_only_the_status_is_open_and_it_places_no_node() -> None:
    channels = document()["channels"]
    openly = {name for name, c in channels.items() if c["tags"] == [{"name": "open"}]}
    assert openly == {"status"}
    schemas = document()["components"]["schemas"]
    assert "position" not in schemas["Status"]["properties"]
    # An operator may hand incidents on: where a shot was fired, never where a node stands.
    assert schemas["Incident"]["properties"]["position"]["anyOf"][0] == {
        "$ref": "#/components/schemas/SourcePosition"
    }
    assert not {"position", "local"} & schemas["Witness"]["properties"].keys()


def test_every_reference_inside_it_leads_somewhere() -> None:
    whole = document()
    for reference in _references(whole):
        place = whole
        for key in reference.removeprefix("#/").split("/"):
            place = place[key]


def test_the_example_of_each_message_fits_its_schema() -> None:
    whole = document()
    for message in whole["components"]["messages"].values():
        validator = Draft202012Validator(message["payload"] | {"components": whole["components"]})
        (example,) = message["examples"]
        validator.validate(example["payload"])
        # And it is held to the schema, not passed because the reference led nowhere.
        assert not validator.is_valid(example["payload"] | {"site": "a/b"})


def test_each_server_asks_for_a_certificate() -> None:
    schemes = document()["components"]["securitySchemes"]
    for server in document()["servers"].values():
        assert server["protocol"] in ("secure-mqtt", "wss")
        (scheme,) = server["security"]
        assert schemes[scheme["$ref"].rsplit("/", 1)[1]]["type"] == "X509"


def test_the_access_list_that_we_ship_opens_no_restricted_topic_to_everybody() -> None:
    lines = (ROOT / "provisioning" / "broker" / "acl").read_text("utf-8").splitlines()
    patterns = [line.split() for line in lines if line.startswith("pattern")]
    written = {topic for _, access, topic in patterns if access == "write"}
    by_nodes = {c.name for c in CHANNELS if c.name != "incident"}
    assert written == {f"gunfire/v1/+/%u/{name}" for name in by_nodes}
    readable = {topic.rsplit("/", 1)[1] for _, access, topic in patterns if access == "read"}
    assert readable <= {channel.name for channel in CHANNELS if not channel.restricted}


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for part in value.values() for found in _references(part)]
    if isinstance(value, list):
        return [found for part in value for found in _references(part)]
    return []
