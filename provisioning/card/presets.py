"""The reference set-ups of docs/do/wire-a-node.md, and how a first-boot file is written for one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import tomli_w

from provisioning.invitation import Invitation


@dataclass(frozen=True)
class Preset:
    """What a set-up says of sound and time."""

    about: str
    capture: Mapping[str, Any]
    timing: Mapping[str, Any] = field(default_factory=dict)
    receiver: str = "none"


PRESETS: Final = {
    "A": Preset(
        "tetrahedron on a sound card's inputs 1 to 4, the receiver's pulse on input 5",
        {"device": "USB Audio", "channels": 5, "array": "tetrahedron_200mm"},
        {"pps_channel": 4},
        "pulse",
    ),
    "B": Preset(
        "square on the header, the receiver's pulse on a pin",
        {"device": "seeed", "channels": 4, "array": "square_65mm"},
        {},
        "pulse",
    ),
    "C": Preset("one USB microphone, no receiver", {"device": "USB", "channels": 1, "bits": 16}),
}


def wifi_key(ssid: str, passphrase: str) -> str:
    """Make the key of a Wi-Fi of its passphrase, as IEEE 802.11i says (annex H.4)."""
    return hashlib.pbkdf2_hmac("sha1", passphrase.encode(), ssid.encode(), 4096, 32).hex()


@dataclass(frozen=True)
class Wish:
    """What a card's file is to say beside its preset."""

    node_id: str
    site: str
    preset: Preset
    broker: str
    receiver: str
    device: str | None = None
    position: tuple[float, float, float, float] | None = None
    network: Mapping[str, Any] = field(default_factory=dict)
    invitation: Invitation | None = None


def first_boot_text(wish: Wish) -> str:
    """Write the file; it is still to be checked."""
    capture = dict(wish.preset.capture)
    if wish.device is not None:
        capture["device"] = wish.device
    parts = [
        "# First-boot file of a node: gunfire-node.toml on the card's first partition. What may\n"
        "# stand here: docs/look-up/first-boot.md. It is private while it holds a token.\n",
        _table("node", {"id": wish.node_id, "site": wish.site}),
    ]
    if wish.position is not None:
        names = ("lat_deg", "lon_deg", "alt_m", "sigma_m")
        parts.append(_table("node.position", dict(zip(names, wish.position, strict=True))))
    parts.append(_table("capture", capture))
    timing = dict(wish.preset.timing)
    if wish.receiver != "none":
        timing = {"gpsd": "localhost:2947", **timing}
    if timing:
        parts.append(_table("timing", timing))
    parts.append(_table("board", {"enabled": True}, "light and button are fitted"))
    parts.append(_table("mqtt", {"url": wish.broker}))
    parts.append(_table("receiver", {"kind": wish.receiver}))
    if wish.network:
        parts.append(_table("network", wish.network))
    if (way := wish.invitation) is not None:
        given = {"url": way.enrolment_url, "token": way.token, "ca": way.ca}
        comment = f"the token ends {way.expires_utc}" if way.token and way.expires_utc else ""
        parts.append(_table("enrolment", {k: v for k, v in given.items() if v}, comment))
        if way.update_url and way.update_root:
            parts.append(_table("update", {"url": way.update_url, "root": way.update_root}))
    return "\n".join(parts)


def _table(name: str, values: Mapping[str, Any], comment: str = "") -> str:
    head = f"[{name}]" + (f"  # {comment}" if comment else "")
    return f"{head}\n{tomli_w.dumps(dict(values), multiline_strings=True)}"
