"""The AsyncAPI 3 document of all topics, from the models and the table of channels.

`make docs` writes it to docs/look-up/asyncapi.json; AsyncAPI's own parser checks it in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from node.messages.fields import TOPIC_LEVEL
from node.messages.schema import MODELS, SchemaName
from node.messages.topics import CHANNELS, ROOT, Channel

_CONTRACT_VERSION: Final = "1.0.0"

_BINDING: Final = "0.2.0"

_PURPOSES: Final[dict[SchemaName, str]] = {
    "detection": "One event as one node heard it.",
    "status": "How a node is, and roughly where; also its last will.",
    "health": "Once a minute: the figures behind a status.",
    "node": "A node's birth certificate: position, microphones, model, key, privacy.",
    "checkpoint": "How far a node's chain of detections has come, signed.",
    "snippet": "The encrypted sound of one event, where the owner has switched it on.",
    "incident": "What several nodes' detections add up to.",
}

_BROKER: Final = {"broker": {"description": "Host name of the broker."}}

_PARAMETERS: Final = {
    "site": "Name of the site",
    "node": "Name of the node, the common name of its certificate",
}


def asyncapi(examples: Mapping[SchemaName, Any]) -> dict[str, Any]:
    """Make the document.

    Parameters
    ----------
    examples
        A message of each kind, as parsed JSON, to show beside its schema.
    """
    _, definitions = models_json_schema(
        [(model, "validation") for model in MODELS.values()],
        by_alias=True,
        ref_template="#/components/schemas/{model}",
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "gunfire-node",
            "version": _CONTRACT_VERSION,
            "description": "What acoustic gunshot sensors, and the network that locates by them, "
            "publish over MQTT. The operations are the publishers'; a subscriber receives what "
            "they send. Nothing subscribes to commands. Keys may be added to a message, so pass "
            "over those that you do not know; none goes or changes its meaning under the same "
            "`schema`. docs/look-up/messages.md says what the fields mean.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "fleet": {
                "host": "{broker}:8883",
                "protocol": "secure-mqtt",
                "protocolVersion": "5",
                "description": "The fleet's broker: TLS 1.2 or later, a certificate on both sides. "
                "MQTT 3.1.1 is spoken too.",
                "variables": _BROKER,
                "security": [{"$ref": "#/components/securitySchemes/certificate"}],
                "bindings": {
                    "mqtt": {
                        "lastWill": {
                            "topic": f"{ROOT}/{{site}}/{{node}}/status",
                            "qos": 1,
                            "retain": True,
                            "message": "A status whose state is offline.",
                        },
                        "bindingVersion": _BINDING,
                    }
                },
            },
            "browser": {
                "host": "{broker}:8884",
                "protocol": "wss",
                "description": "The same broker for browsers: MQTT over websockets, the same "
                "certificates.",
                "variables": _BROKER,
                "security": [{"$ref": "#/components/securitySchemes/certificate"}],
            },
        },
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": {f"send_{channel.name}": _operation(channel) for channel in CHANNELS},
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "title": model.__name__,
                    "summary": _PURPOSES[name],
                    "contentType": "application/json",
                    "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
                    "examples": [{"name": f"{name}_example", "payload": examples[name]}],
                }
                for name, model in MODELS.items()
            },
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "certificate": {
                    "type": "X509",
                    "description": "A client certificate of the fleet's CA. Its common name is the "
                    "name that the access list goes by: a node publishes under its own name only.",
                }
            },
        },
    }


def _channel(channel: Channel) -> dict[str, Any]:
    by_node = channel.name != "incident"
    access = "restricted" if channel.restricted else "open"
    readers = (
        "Only for subscribers whom the access list names."
        if channel.restricted
        else "For whoever the broker lets in."
    )
    return {
        "address": f"{ROOT}/{{site}}/" + ("{node}/" if by_node else "") + channel.name,
        "title": channel.name.capitalize(),
        "description": f"{_PURPOSES[channel.name]} {readers}",
        "messages": {channel.name: {"$ref": f"#/components/messages/{channel.name}"}},
        "parameters": {
            name: {
                "description": f"{what}: {TOPIC_LEVEL}",
                "location": f"$message.payload#/{'node_id' if name == 'node' else name}",
            }
            for name, what in _PARAMETERS.items()
            if by_node or name != "node"
        },
        "tags": [{"name": access}],
    }


def _operation(channel: Channel) -> dict[str, Any]:
    who = "The network" if channel.name == "incident" else "A node"
    how = "retained" if channel.retained else "not retained"
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": f"{who} publishes with QoS {channel.qos}, {how}.",
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{channel.name}"}],
        "bindings": {
            "mqtt": {"qos": channel.qos, "retain": channel.retained, "bindingVersion": _BINDING}
        },
    }
