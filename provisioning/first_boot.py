"""On the node, at each boot: apply the file of the FAT partition.

`python -m provisioning.first_boot apply` reads `gunfire-node.toml`; if it is new, it becomes the
daemon's settings and what is remembered (provisioning/memory.py). From what is remembered the
configuration of network, chrony and gpsd is made in `/run` at each boot, so that nothing of the
read-only root is written. A mistake is written back to the FAT partition in words, and told by the
light (`… first_boot light`, a unit of its own, so that nothing but the node waits for it); the node
goes on with the settings before if there are such. A card that was copied to another board is
refused.

Each file is written whole or not at all, and the memory last: a cut of power at any step leaves the
old state or the new one, and the next boot goes on from it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from node.errors import ProvisioningError, SettingsError
from node.settings import BoardSettings, load_board
from node.settings import load as load_settings
from provisioning.first_boot_file import FirstBootFile, NetworkSettings, key_lines, load
from provisioning.machine import machine_id
from provisioning.memory import Memory, Named, read_memory, write_memory
from provisioning.places import Places
from provisioning.whole import fat_writable, write_whole

if TYPE_CHECKING:
    from node.board.service import Service

log = logging.getLogger("first-boot")

FAULT: Final = "first-boot-fault"
LIGHT_S: Final = 60.0
_LOOK_S: Final = 0.25
GROUP: Final = "gunfire-node"
_FRAGMENTS: Final = {
    "pulse": "gunfire-node.conf",
    "no-pulse": "gunfire-node-no-pulse.conf",
    "none": "gunfire-node-no-receiver.conf",
}
_DEVICES: Final = {"pulse": "/dev/gunfire-gps", "no-pulse": "/dev/ttyACM0"}
_MADE: Final = "# Made by first boot of gunfire-node.toml on the card; change it there.\n"


@dataclass(frozen=True)
class Fault:
    """What keeps the file, or the card, from being taken.

    Attributes
    ----------
    code
        What the light says.
    sentences
        A line for each.
    starts
        Whether the node starts all the same, with the settings before.
    """

    code: Literal["SETTINGS", "KEY", "DISK"]
    sentences: tuple[str, ...]
    starts: bool


def apply(places: Places, now_ns: Callable[[], int], machine: str | None) -> Fault | None:
    """Apply the card's file, and make this boot's configuration; None where all is well.

    Parameters
    ----------
    now_ns
        Gives UTC as the host's clock has it, ns since 1970.
    machine
        Which board this is; None where that cannot be said.
    """
    memory = read_memory(places)
    file: FirstBootFile | None = None
    fault: Fault | None = None
    known = _is_known(places, memory)
    if not known:
        try:
            file = _with_its_files(places, load(places.card_file, now_ns()))
        except ProvisioningError as error:
            told = str(error).replace(f"{places.card_file}", places.card_file.name)
            fault = Fault("SETTINGS", tuple(told.splitlines()), _has_settings(places))
    if _is_copy(places, memory, file, machine):
        fault = Fault("KEY", _copied(memory, machine), False)
    elif known or file is not None:
        try:
            memory = (
                _stay(places, memory, machine)
                if file is None
                else (_take(places, memory, file, machine))
            )
        except OSError as error:
            fault = Fault(
                "DISK",
                (
                    f"the card's data partition cannot be written: {error}; switch the power off "
                    "and on once; then write the card anew",
                ),
                _has_settings(places),
            )
    _make_volatile(places, memory)
    _tell(places, fault)
    return fault


def _with_its_files(places: Places, file: FirstBootFile) -> FirstBootFile:
    """Refuse what names a file that this node has not; the laptop cannot know."""
    capture, classify = file.settings.capture, file.settings.classify
    named = {
        "capture.array": capture.array if capture.array.endswith(".toml") else None,
        "classify.model": classify.model,
    }
    lines = key_lines(file.text)
    gone = [
        f"{places.card_file}, line {lines[key]}: {key} = {json.dumps(str(path))}: is not on this "
        "node; name a file that is, or take the line out"
        for key, path in named.items()
        if path is not None and not os.path.exists(places.root / str(path).lstrip("/"))
    ]
    if gone:
        raise ProvisioningError("\n".join(gone))
    return file


def _is_known(places: Places, memory: Memory) -> bool:
    """Say whether the card's file is the one in force."""
    try:
        data = places.card_file.read_bytes()
    except OSError:
        return False
    return memory.sha256 == hashlib.sha256(data).hexdigest() and places.settings_file.exists()


def _stay(places: Places, memory: Memory, machine: str | None) -> Memory:
    """Go on with what is in force; a card that is not enrolled may stand in another board now."""
    if machine not in (None, memory.machine):
        memory = memory.model_copy(update={"machine": machine})
        write_memory(places, memory)
    return memory


def _take(places: Places, memory: Memory, file: FirstBootFile, machine: str | None) -> Memory:
    """Make a file that is right the one in force."""
    import tomli_w

    settings = file.settings
    token = settings.enrolment.token if settings.enrolment else None
    fresh = Memory(
        sha256=file.sha256,
        machine=machine or memory.machine,
        token_sha256=_sha256(token) if token else memory.token_sha256,
        node=Named(id=settings.node.id, site=settings.node.site),
        network=settings.network,
        receiver=settings.receiver,
        enrolment=settings.enrolment,
        update=settings.update,
        mdns=any(host.endswith(".local") for host in file.hosts),
    )
    if token and fresh.enrolment and memory.token_sha256 == fresh.token_sha256 and memory.enrolment:
        # It is known; where it was used and forgotten, it stays so.
        known = fresh.enrolment.model_copy(update={"token": memory.enrolment.token})
        fresh = fresh.model_copy(update={"enrolment": known})
    places.settings_file.parent.mkdir(parents=True, exist_ok=True)
    if settings.enrolment:
        write_whole(places.authority_file, settings.enrolment.ca)
    # The broker's URL may hold a password.
    write_whole(places.settings_file, _MADE + tomli_w.dumps(file.node_values), 0o640, GROUP)
    write_memory(places, fresh)
    log.info("applied %s for node %s", places.card_file.name, settings.node.id)
    return fresh


def _is_copy(
    places: Places, memory: Memory, file: FirstBootFile | None, machine: str | None
) -> bool:
    """Say whether an enrolled card stands in another board, and nobody said that it should."""
    if machine is None or memory.machine in (None, machine):
        return False
    if not places.mqtt_certificate.exists():
        return False
    if file is None or file.settings.enrolment is None or file.sha256 == memory.sha256:
        return True
    token = file.settings.enrolment.token
    is_new_token = token is not None and _sha256(token) != memory.token_sha256
    return not (file.settings.enrolment.moved or is_new_token)


def _copied(memory: Memory, machine: str | None) -> tuple[str, ...]:
    who = f"{memory.node.id}, site {memory.node.site}" if memory.node else "a node"
    return (
        f"this card is {who}, and was enrolled in another board ({memory.machine}; this one is "
        f"{machine}): two boards with one identity would be refused by the fleet, so this one does "
        "not start.",
        "If the card was copied: write a card of its own for this board (gunfire-card new).",
        "If it moved here for good: write moved = true below [enrolment] in gunfire-node.toml, or "
        "put a new token there.",
    )


def _has_settings(places: Places) -> bool:
    """Say whether there are settings from before that the node can start with."""
    if not places.settings_file.exists():
        return False
    try:
        load_settings(places.settings_file, {})
    except SettingsError:
        return False
    return True


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# This boot's configuration.


def _make_volatile(places: Places, memory: Memory) -> None:
    """Write into /run what network, chrony and gpsd read; take away what is not wanted."""
    run = places.reports
    run.mkdir(mode=0o755, parents=True, exist_ok=True)
    wanted: dict[Path, tuple[str, int]] = {
        places.root / "run/systemd/network" / name: (text, 0o644)
        for name, text in networks(memory.network, memory.mdns).items()
    }
    if memory.mdns:
        resolved = places.root / "run/systemd/resolved.conf.d/20-gunfire-node.conf"
        wanted[resolved] = (_MADE + "[Resolve]\nMulticastDNS=resolve\n", 0o644)
    kind = memory.receiver.kind
    fragment = places.root / "usr/share/gunfire-node/chrony" / _FRAGMENTS[kind]
    try:
        wanted[run / "chrony" / fragment.name] = (fragment.read_text("utf-8"), 0o644)
    except OSError as error:
        log.error("%s: %s", fragment, error.strerror)
    wanted[run / "chrony/gunfire-node-servers.conf"] = (servers(memory.network.ntp), 0o644)
    if kind != "none":
        serial = memory.receiver.device or _DEVICES[kind]
        wanted[run / "gpsd"] = (gpsd(serial, pulse=kind == "pulse"), 0o644)
    if memory.network.wifi_ssid is not None:
        wanted[run / "wpa_supplicant.conf"] = (wpa_supplicant(memory.network), 0o600)
    if memory.network.ssh_key is not None:
        wanted[run / "authorized_keys"] = (memory.network.ssh_key + "\n", 0o600)
    for old in (
        *(places.root / "run/systemd/network").glob("*-gunfire-node-*.network"),
        *(run / "chrony").glob("gunfire-node*.conf"),
        places.root / "run/systemd/resolved.conf.d/20-gunfire-node.conf",
        *(run / name for name in ("gpsd", "wpa_supplicant.conf", "authorized_keys")),
    ):
        if old not in wanted:
            old.unlink(missing_ok=True)
    for path, (text, mode) in wanted.items():
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_whole(path, text, mode)
    if memory.node is not None:
        with suppress(OSError):
            # As sethostname(2) would; in memory, as the root is read-only.
            (places.root / "proc/sys/kernel/hostname").write_text(host_name(memory.node.id))


def host_name(node_id: str) -> str:
    """Make a host's name of a node's."""
    return re.sub("[^A-Za-z0-9-]", "-", node_id).strip("-")[:63] or "gunfire-node"


def networks(network: NetworkSettings, mdns: bool) -> dict[str, str]:
    """Give networkd's files: cable and Wi-Fi, of which one may have a fixed address."""
    fixed = []
    if network.address is not None:
        fixed = [f"Address={network.address}"]
        if network.gateway is not None:
            fixed.append(f"Gateway={network.gateway}")
    dns = [f"DNS={server}" for server in network.dns]

    def text(kind: str, own: list[str], metric: int) -> str:
        lines = [
            "[Match]",
            f"Type={kind}",
            "Kind=!*",
            "",
            "[Link]",
            "RequiredForOnline=no",
            "",
            "[Network]",
            f"DHCP={'no' if own else 'yes'}",
            *own,
            *dns,
            "LLMNR=no",
            f"MulticastDNS={'resolve' if mdns else 'no'}",
            "",
            "[DHCPv4]",
            "ClientIdentifier=mac",
            f"RouteMetric={metric}",
            "",
            "[DHCPv6]",
            "DUIDType=link-layer",
            "",
            "[IPv6AcceptRA]",
            f"RouteMetric={metric}",
        ]
        return _MADE + "\n".join(lines) + "\n"

    wifi = network.wifi_ssid is not None
    files = {"20-gunfire-node-wired.network": text("ether", [] if wifi else fixed, 100)}
    if wifi:
        files["20-gunfire-node-wifi.network"] = text("wlan", fixed, 600)
    return files


def wpa_supplicant(network: NetworkSettings) -> str:
    """Give wpa_supplicant's configuration; name and key as hexadecimal, so nothing is quoted."""
    lines = [
        f"country={network.country}",
        "network={",
        f"  ssid={(network.wifi_ssid or '').encode().hex()}",
    ]
    lines.append("  scan_ssid=1")
    if network.wifi_psk is None:
        lines.append("  key_mgmt=NONE")
    else:
        lines += [
            "  key_mgmt=WPA-PSK WPA-PSK-SHA256",
            "  ieee80211w=1",
            f"  psk={network.wifi_psk}",
        ]
    return _MADE + "\n".join([*lines, "}"]) + "\n"


def servers(ntp: tuple[str, ...]) -> str:
    """Give chrony's servers: those that the file names, else Debian's pool."""
    lines = [f"server {name} iburst" for name in ntp] or ["pool 2.debian.pool.ntp.org iburst"]
    return _MADE + "\n".join(lines) + "\n"


def gpsd(device: str, *, pulse: bool) -> str:
    """Give gpsd's variables, as /etc/default/gpsd has them; why so: systemd/gpsd/gpsd."""
    devices = f"{device} /dev/pps0" if pulse else device
    return f'{_MADE}DEVICES="{devices}"\nGPSD_OPTIONS="-n"\nUSBAUTO="false"\n'


# What is wrong, told.


def _tell(places: Places, fault: Fault | None) -> None:
    """Leave what is wrong for the light, and in words on the card; take it away once it is mended.

    The card may be full or locked: that is no reason not to start.
    """
    run_file = places.reports / FAULT
    if fault is None:
        run_file.unlink(missing_ok=True)
    else:
        for sentence in fault.sentences:
            log.error("%s", sentence)
        write_whole(run_file, json.dumps({"code": fault.code, "starts": fault.starts}))
    words = None if fault is None else words_of(fault).encode("utf-8-sig")
    try:
        before = places.error_file.read_bytes()
    except OSError:
        before = None
    if words == before:
        return
    try:
        with fat_writable(places):
            if words is None:
                places.error_file.unlink(missing_ok=True)
            else:
                write_whole(places.error_file, words)
    except OSError as error:
        log.error("%s cannot be written: %s", places.error_file.name, error)


def words_of(fault: Fault) -> str:
    """Give what is written to the card, as Notepad shows it."""
    from node.board.light import Code

    code = Code[fault.code]
    head = {
        "SETTINGS": "gunfire-node.toml is not right, and was not taken.",
        "KEY": "This card was refused.",
        "DISK": "gunfire-node.toml could not be taken.",
    }[fault.code]
    goes_on = (
        "The node goes on with the settings from before."
        if fault.starts
        else f"The node does not start. Its light: {code.long} long, {code.short} short."
    )
    mend = "Mend it, put the card back, and switch on: this file goes away by itself."
    lines = [head, "", *fault.sentences, "", goes_on, mend]
    return "\r\n".join(lines) + "\r\n"


def show(
    places: Places, service: Service, stopped: Callable[[], bool], light_s: float = LIGHT_S
) -> None:
    """Show the fault that was left, by the light: for a while where the node starts, else for good.

    The service manager is told "ready" when the node may have the light. It ends, too, once another
    run of first boot has found all well.
    """
    from node.board import Board, Code

    file = places.reports / FAULT
    try:
        said = json.loads(file.read_bytes())
        code, starts = Code[said["code"]], bool(said["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        service.ready()
        return
    if not starts:
        service.ready()
    until_s = time.monotonic() + light_s
    with Board(_board(places)) as board:
        while file.exists() and not stopped() and not (starts and time.monotonic() >= until_s):
            board.show(code)
            time.sleep(_LOOK_S)
    service.ready()


def _board(places: Places) -> BoardSettings:
    """Give the pins by the card's file, wrong as it is, or by the settings before."""
    for file in (places.card_file, places.settings_file):
        board = load_board(file)
        if board.enabled:
            return board
    return BoardSettings()


def _apply_here(places: Places) -> int:
    """Give the exit code: 0 where the node may start."""

    def now_ns() -> int:
        from node.timing.host import utc_now_ns  # and numpy with it

        return utc_now_ns()

    try:
        fault = apply(places, now_ns, machine_id(places))
    except Exception:  # a defect of ours must not silence a node that could hear
        log.exception("first boot has failed")
        return 0 if _has_settings(places) else 1
    return 0 if fault is None or fault.starts else 1


def _show_here(places: Places) -> int:
    from node.board.service import Service

    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    show(places, Service(), lambda: bool(asked))
    return 0


def main() -> int:
    """Run one of the two."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    match sys.argv[1:]:
        case ["apply"]:
            return _apply_here(Places())
        case ["light"]:
            return _show_here(Places())
    log.error("usage: python -m provisioning.first_boot apply|light")
    return 2


if __name__ == "__main__":
    sys.exit(main())
