"""What Raspberry Pi Imager takes: a manifest of a local image, and cloud-init's files.

Imager 2 asks nothing about an image that it does not know: a manifest (OS list) with `init_format`
tells it. Our image takes no customisation of Imager's (`none`): its one file goes onto the FAT
partition. Raspberry Pi OS since trixie takes cloud-init's files from there (`cloudinit-rpi`); they
bring the same file along and install the node by provisioning/install. See Imager's
doc/json-schema/os-list-schema.json and doc/os_customisation_formats.md.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import segno

from provisioning.card.image import CHUNK_BYTES, Image
from provisioning.card.label import Label
from provisioning.first_boot_file import NAME, FirstBootFile

MANIFEST: Final = "gunfire-node.rpi-imager-manifest"
ICON: Final = "icon.png"
_TAGS: Final = ("pi5-64bit", "pi4-64bit", "pi3-64bit")
_BOOT: Final = "/boot/firmware"
_SOURCE: Final = "/opt/gunfire-node-source"


def manifest(
    image: Image,
    file: FirstBootFile,
    icon: Path,
    *,
    raspberry_pi_os: bool,
    read: Callable[[int], None],
) -> dict[str, Any]:
    """Make the manifest of an image on this disk.

    Parameters
    ----------
    image
        The image.
    file
        The first-boot file of the card that it is for.
    icon
        A picture, which Imager asks for.
    raspberry_pi_os
        Whether it is Raspberry Pi OS, and not the node's own image.
    read
        Told of each packed byte.
    """
    unpacked, size = hashlib.sha256(), 0
    for chunk in image.chunks(read):
        unpacked.update(chunk)
        size += len(chunk)
    packed = hashlib.sha256()
    with image.path.open("rb") as raw:
        while chunk := raw.read(CHUNK_BYTES):
            packed.update(chunk)
    node = file.settings.node
    what = "Raspberry Pi OS with the node" if raspberry_pi_os else "The node's own image"
    made = datetime.fromtimestamp(image.path.stat().st_mtime, UTC)
    return {
        "os_list": [
            {
                "name": f"gunfire-node: {node.id}",
                "description": f"{what}, for {node.id} at {node.site}",
                "icon": icon.resolve().as_uri(),
                "url": image.path.resolve().as_uri(),
                "extract_size": size,
                "extract_sha256": unpacked.hexdigest(),
                "image_download_size": image.packed_bytes,
                "image_download_sha256": packed.hexdigest(),
                "release_date": made.date().isoformat(),
                "init_format": "cloudinit-rpi" if raspberry_pi_os else "none",
                "devices": list(_TAGS),
                "architecture": "armv8",
            }
        ]
    }


def text_of(manifest: dict[str, Any]) -> str:
    """Write a manifest as its file has it."""
    return json.dumps(manifest, indent=2) + "\n"


def user_data(file: FirstBootFile, source: str, version: str) -> str:
    """Make cloud-init's user-data for Raspberry Pi OS: YAML, of which JSON is a part.

    Parameters
    ----------
    source, version
        Where git finds this software, and which branch or tag.
    """
    settings = file.settings
    kind = settings.receiver.kind
    python = "/opt/gunfire-node/bin/python"
    commands: list[list[str]] = [
        ["git", "clone", "--depth", "1", "--branch", version, "--", source, _SOURCE],
        [f"{_SOURCE}/provisioning/install", "--receiver", kind, "--boot", "--no-start"],
        [python, "-m", "provisioning.first_boot", "apply"],
    ]
    if settings.enrolment is not None:
        units = [f"gunfire-node-enrol.{end}" for end in ("service", "timer")]
        folder = f"{_SOURCE}/systemd/image/etc/systemd/system"
        commands += [
            [
                "install",
                "-m",
                "644",
                *(f"{folder}/{unit}" for unit in units),
                "/etc/systemd/system",
            ],
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "gunfire-node-enrol.timer"],
        ]
    told: dict[str, Any] = {
        "hostname": _host_name(settings.node.id),
        "manage_etc_hosts": True,
        "ssh_pwauth": False,
        "package_update": True,
        "packages": ["git"],
        "runcmd": commands,
        "power_state": {"mode": "reboot", "message": "the node starts", "condition": True},
    }
    if settings.network.ssh_key is not None:
        commands.append(["systemctl", "enable", "--now", "ssh"])
        told["users"] = [
            {
                "name": "operator",
                "groups": ["sudo"],
                "shell": "/bin/bash",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [settings.network.ssh_key],
            }
        ]
    if settings.network.ntp:
        told["ntp"] = {
            "enabled": True,
            "ntp_client": "chrony",
            "servers": list(settings.network.ntp),
        }
    return f"#cloud-config\n# For {settings.node.id}; holds no secret: those are in {NAME}.\n" + (
        json.dumps(told, indent=2) + "\n"
    )


def network_config(file: FirstBootFile) -> str:
    """Make cloud-init's network-config, version 2: cable, and Wi-Fi where the file has one."""
    network = file.settings.network
    fixed: dict[str, Any] = {"dhcp4": True}
    if network.address is not None:
        fixed = {"dhcp4": False, "addresses": [network.address]}
        if network.gateway is not None:
            fixed["routes"] = [{"to": "default", "via": network.gateway}]
    if network.dns:
        fixed["nameservers"] = {"addresses": list(network.dns)}
    wired = fixed if network.wifi_ssid is None else {"dhcp4": True}
    told: dict[str, Any] = {"version": 2, "ethernets": {"eth0": {**wired, "optional": True}}}
    if network.wifi_ssid is not None:
        # Sixty-four hexadecimal digits are taken as the key itself.
        point = {} if network.wifi_psk is None else {"password": network.wifi_psk}
        told["wifis"] = {
            "wlan0": {
                **fixed,
                "optional": True,
                "regulatory-domain": network.country,
                "access-points": {network.wifi_ssid: point},
            }
        }
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def meta_data(file: FirstBootFile) -> str:
    """Make cloud-init's meta-data: another file is another instance, and is applied."""
    return json.dumps({"instance-id": f"{file.settings.node.id}-{file.sha256[:12]}"}) + "\n"


def icon(label: Label) -> bytes:
    """Draw the picture that Imager shows beside the name, as PNG: the node's code."""
    drawn = io.BytesIO()
    segno.make(label.code, micro=False).save(drawn, kind="png", scale=4)
    return drawn.getvalue()


def _host_name(node_id: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in node_id).strip("-")[:63]
