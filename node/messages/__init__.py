"""The public words of a node: what a detection and a status say, and how they are written.

What the stages found comes in, a frozen message and its JSON go out; the outbox and the broker
are next. docs/look-up/messages.md tells subscribers the same.
"""

from node.messages.build import Origin, build_detection, build_status, numbered
from node.messages.detection import Detection, Local, Position
from node.messages.identity import event_id, recording_boot_id
from node.messages.schema import json_schema
from node.messages.status import OutboxStatus, Status
from node.messages.topics import node_topic, subscription
from node.messages.wire import (
    parse_detection,
    parse_status,
    replay_json,
    to_json,
    with_transport,
)

__all__ = [
    "Detection",
    "Local",
    "Origin",
    "OutboxStatus",
    "Position",
    "Status",
    "build_detection",
    "build_status",
    "event_id",
    "json_schema",
    "node_topic",
    "numbered",
    "parse_detection",
    "parse_status",
    "recording_boot_id",
    "replay_json",
    "subscription",
    "to_json",
    "with_transport",
]
