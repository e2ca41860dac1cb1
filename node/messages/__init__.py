"""The public words of a node: what a detection, a status and a health say, and how written.

What the stages found comes in, a frozen message and its JSON go out; the outbox and the broker
are next. docs/look-up/messages.md tells subscribers the same.
"""

from node.messages.build import Origin, build_detection, build_health, build_status, numbered
from node.messages.detection import Detection, Local, Position
from node.messages.health import (
    ArrayHealth,
    ChronyHealth,
    Health,
    ReceiverHealth,
    SampleClockHealth,
)
from node.messages.identity import event_id, recording_boot_id
from node.messages.schema import json_schema
from node.messages.status import OutboxStatus, Status
from node.messages.topics import node_topic, subscription
from node.messages.wire import (
    parse_detection,
    parse_health,
    parse_status,
    replay_json,
    to_json,
    with_transport,
)

__all__ = [
    "ArrayHealth",
    "ChronyHealth",
    "Detection",
    "Health",
    "Local",
    "Origin",
    "OutboxStatus",
    "Position",
    "ReceiverHealth",
    "SampleClockHealth",
    "Status",
    "build_detection",
    "build_health",
    "build_status",
    "event_id",
    "json_schema",
    "node_topic",
    "numbered",
    "parse_detection",
    "parse_health",
    "parse_status",
    "recording_boot_id",
    "replay_json",
    "subscription",
    "to_json",
    "with_transport",
]
