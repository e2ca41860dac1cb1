"""Names that can be computed again: of an event, and of the boot that a recording stands for.

Both are UUIDv5 (RFC 9562 §5.5) under one fixed namespace, so whoever knows the parts can check
the whole, and replaying a recording names its events as it did before.
"""

import uuid
from typing import Final

NAMESPACE: Final = uuid.UUID("48a8588f-23ca-5228-9285-6502406e9f22")
"""UUIDv5(URL, "urn:gunfire:v1"). Never to change: every event ever published was named under it."""


def event_id(node_id: str, boot_id: str, first_sample: int) -> str:
    """Name an event by who heard it, in which boot, and its first sample.

    The name is UUIDv5(NAMESPACE, "event/<node_id>/<boot_id>/<first_sample>").
    """
    return str(uuid.uuid5(NAMESPACE, f"event/{node_id}/{boot_id}/{first_sample}"))


def recording_boot_id(node_id: str, start_utc_ns: int) -> str:
    """Name the boot that a recording stands for by its node and its start.

    The name is UUIDv5(NAMESPACE, "recording/<node_id>/<start_utc_ns>").
    """
    return str(uuid.uuid5(NAMESPACE, f"recording/{node_id}/{start_utc_ns}"))
