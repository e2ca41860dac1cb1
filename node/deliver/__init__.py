"""The way out: what was heard is on disk before it is sent, and until the broker has it.

Messages come in from the pipeline as bytes; the outbox keeps them, the publisher sends them.
"""

from node.deliver.address import BrokerAddress
from node.deliver.batch import check_broker, publish_batch
from node.deliver.database import is_full
from node.deliver.gaps import Gap
from node.deliver.handler import SessionOptions
from node.deliver.mqtt import Delivery, MqttPublisher
from node.deliver.outbox import Appended, Chain, Link, Outbox, OutboxRow, Rendered
from node.deliver.spool import Spool
from node.deliver.tls import is_of_certificates

__all__ = [
    "Appended",
    "BrokerAddress",
    "Chain",
    "Delivery",
    "Gap",
    "Link",
    "MqttPublisher",
    "Outbox",
    "OutboxRow",
    "Rendered",
    "SessionOptions",
    "Spool",
    "check_broker",
    "is_full",
    "is_of_certificates",
    "publish_batch",
]
