"""The way out: what was heard is on disk before it is sent, and until the broker has it.

Messages come in from the pipeline as bytes; the outbox keeps them, the publisher sends them.
"""

from node.deliver.outbox import Appended, Outbox, OutboxRow

__all__ = ["Appended", "Outbox", "OutboxRow"]
