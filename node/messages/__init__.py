"""The public words of a node: what a detection, a status and a health say, and how written.

What the stages found comes in, a frozen message and its JSON go out; the outbox and the broker
are next. docs/look-up/messages.md tells subscribers the same.
"""

from node.messages.build import (
    Origin,
    build_checkpoint,
    build_detection,
    build_health,
    build_node,
    build_status,
    numbered,
)
from node.messages.checkpoint import Checkpoint, Gap
from node.messages.detection import Detection, Local, Position
from node.messages.health import (
    ArrayHealth,
    BoardHealth,
    CheckHealth,
    ChronyHealth,
    Health,
    ReceiverHealth,
    SampleClockHealth,
)
from node.messages.identity import event_id, recording_boot_id
from node.messages.incident import Incident
from node.messages.node import Array, Key, Microphone, Node, Privacy
from node.messages.schema import json_schema
from node.messages.snippet import SnippetMessage
from node.messages.status import Area, OutboxStatus, Status
from node.messages.topics import incident_topic, node_topic, subscription
from node.messages.wire import (
    parse_checkpoint,
    parse_detection,
    parse_health,
    parse_incident,
    parse_node,
    parse_snippet,
    parse_status,
    replay_json,
    to_json,
    with_transport,
)

__all__ = [
    "Area",
    "Array",
    "ArrayHealth",
    "BoardHealth",
    "CheckHealth",
    "Checkpoint",
    "ChronyHealth",
    "Detection",
    "Gap",
    "Health",
    "Incident",
    "Key",
    "Local",
    "Microphone",
    "Node",
    "Origin",
    "OutboxStatus",
    "Position",
    "Privacy",
    "ReceiverHealth",
    "SampleClockHealth",
    "SnippetMessage",
    "Status",
    "build_checkpoint",
    "build_detection",
    "build_health",
    "build_node",
    "build_status",
    "event_id",
    "incident_topic",
    "json_schema",
    "node_topic",
    "numbered",
    "parse_checkpoint",
    "parse_detection",
    "parse_health",
    "parse_incident",
    "parse_node",
    "parse_snippet",
    "parse_status",
    "recording_boot_id",
    "replay_json",
    "subscription",
    "to_json",
    "with_transport",
]
