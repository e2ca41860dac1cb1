"""Who may do what, as nats-server wants it: a line for each name, where Mosquitto has patterns."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

from provisioning.fleet.inventory import Inventory, Member

_INCIDENT: Final = "gunfire.v1.*.incident"
_WEATHER: Final = "gunfire.v1.*.weather"
# "$MQTT.sub.>" is where nats-server itself hands a subscriber of QoS 1 its messages.
_OWN: Final = "$MQTT.sub.>"
_READS: Final[dict[str, tuple[str, ...]]] = {
    "operator": ("detection", "status", "health", "node", "checkpoint"),
    "map": ("detection", "status", "health", "node"),
    "auditor": ("detection", "status", "node", "checkpoint"),
    "evidence": ("snippet", "status"),
}
_HEAD: Final = """\
# Who may publish and read what: made by `gunfire-fleet nats-users`. A name is the whole subject of
# a certificate. Whoever is not named is not let in: revoked ones are left out.
"""


def users(inventory: Inventory, now: datetime) -> str:
    """Write users.conf."""
    lines = []
    for name, member in sorted(inventory.members.items()):
        if member.role != "broker" and member.state(now) in ("enrolled", "expired"):
            line = {"user": f"CN={name},O={member.site}", "permissions": _rights(name, member)}
            lines.append(f"  {json.dumps(line)}")
    return _HEAD + "users: [\n" + "\n".join(lines) + "\n]\n"


def _rights(name: str, member: Member) -> dict[str, Any]:
    if member.role == "node":
        return {"publish": [f"gunfire.v1.*.{name}.*"], "subscribe": {"deny": ">"}}
    reads = [f"gunfire.v1.*.*.{kind}" for kind in _READS.get(name, ("status",))]
    if name in ("operator", "map", "auditor"):
        reads.append(_INCIDENT)
    if name == "operator":
        reads.append(_WEATHER)
    return {
        "publish": [_INCIDENT, _WEATHER] if name == "operator" else {"deny": ">"},
        "subscribe": [*reads, _OWN],
    }
