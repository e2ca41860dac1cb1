"""First boot: what it makes of the card's file, at each boot, with the power cut at any step."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory

from node.board import Board, Code
from node.board.service import Service
from node.settings import load
from provisioning import first_boot, whole
from provisioning.first_boot import apply, show
from provisioning.first_boot_file import FILLED, NetworkSettings
from provisioning.machine import machine_id
from provisioning.memory import Memory, Named, forget_token, read_memory, without_token
from provisioning.places import Places
from tests.unit.provisioning.cards import (
    BOARD,
    OTHER_BOARD,
    OTHER_TOKEN,
    SSH_KEY,
    TOKEN,
    authority,
    enrolled,
    node,
    now_ns,
    put,
    right_text,
)


def run_file(places: Places, name: str) -> str:
    return (places.root / "run" / name).read_text("utf-8")


def state(places: Places) -> dict[str, bytes]:
    """Give all that a node keeps over a boot."""
    kept = [*places.settings_file.parent.glob("*"), *places.memory.glob("*")]
    return {str(path.relative_to(places.root)): path.read_bytes() for path in kept}


def test_a_file_becomes_the_daemons_settings(tmp_path: Path) -> None:
    places = node(tmp_path, right_text())
    assert apply(places, now_ns, BOARD) is None
    settings = load(places.settings_file, {}).settings
    assert (settings.node.id, settings.node.site) == ("node-0001", "riverside")
    assert settings.timing.gpsd == "localhost:2947"
    assert str(settings.mqtt.key_file) == FILLED["mqtt"]["key_file"]
    assert places.authority_file.read_text() == authority()
    # It may hold a password for the broker.
    assert stat.S_IMODE(places.settings_file.stat().st_mode) == 0o640
    assert TOKEN not in places.settings_file.read_text()
    assert not places.error_file.exists()


def test_the_places_filled_in_are_those_that_enrolment_writes() -> None:
    places = Places()
    assert FILLED["mqtt"] == {
        "ca_file": str(places.authority_file),
        "cert_file": str(places.mqtt_certificate),
        "key_file": str(places.mqtt_key),
    }
    assert FILLED["integrity"] == {"certificate_file": str(places.signing_certificate)}


def test_what_enrolment_and_update_need_is_remembered_by_root_alone(tmp_path: Path) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    memory = read_memory(places)
    assert memory.node is not None
    assert memory.enrolment is not None
    assert memory.update is not None
    assert (memory.node.id, memory.machine) == ("node-0001", BOARD)
    assert (memory.enrolment.url, memory.enrolment.token, memory.enrolment.ca) == (
        "https://broker.local:8885",
        TOKEN,
        authority(),
    )
    assert memory.update.url == "https://broker.local:8885/releases"
    file = places.memory / "first-boot.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_at_the_next_boot_nothing_is_written_but_this_boots_configuration(tmp_path: Path) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    before, inodes = state(places), places.settings_file.stat().st_ino
    (places.root / "run/gunfire-node-setup/gpsd").unlink()
    assert apply(places, now_ns, BOARD) is None
    assert state(places) == before
    assert places.settings_file.stat().st_ino == inodes
    assert 'DEVICES="/dev/gunfire-gps /dev/pps0"' in run_file(places, "gunfire-node-setup/gpsd")


def test_settings_that_are_gone_are_made_again(tmp_path: Path) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    before = state(places)
    places.settings_file.unlink()
    apply(places, now_ns, BOARD)
    assert state(places) == before


def test_this_boots_configuration_is_what_the_file_says(tmp_path: Path) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    wifi = run_file(places, "systemd/network/20-gunfire-node-wifi.network")
    wired = run_file(places, "systemd/network/20-gunfire-node-wired.network")
    for line in ("Type=wlan", "DHCP=no", "Address=192.168.1.20/24", "Gateway=192.168.1.1"):
        assert f"\n{line}\n" in wifi
    assert "\nDHCP=yes\n" in wired
    assert "MulticastDNS=resolve" in wifi  # broker.local
    wpa = places.root / "run/gunfire-node-setup/wpa_supplicant.conf"
    assert f"  ssid={b'yard'.hex()}\n" in wpa.read_text()
    assert stat.S_IMODE(wpa.stat().st_mode) == 0o600
    chrony = places.root / "run/gunfire-node-setup/chrony"
    assert {f.name for f in chrony.iterdir()} == {
        "gunfire-node.conf",
        "gunfire-node-servers.conf",
    }
    assert "server ntp.local iburst" in (chrony / "gunfire-node-servers.conf").read_text()
    assert (places.root / "proc/sys/kernel/hostname").read_text() == "node-0001"


def test_what_the_file_no_longer_says_goes_from_this_boots_configuration(tmp_path: Path) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    put(
        places,
        '[node]\nid = "a.b_c"\nsite = "there"\n[capture]\nchannels = 1\n'
        '[mqtt]\nurl = "mqtt://10.0.0.1"\n',
    )
    assert apply(places, now_ns, BOARD) is None
    run = places.root / "run"
    assert {str(f.relative_to(run)) for f in run.rglob("*") if f.is_file()} == {
        "systemd/network/20-gunfire-node-wired.network",
        "gunfire-node-setup/chrony/gunfire-node-no-receiver.conf",
        "gunfire-node-setup/chrony/gunfire-node-servers.conf",
    }
    assert "MulticastDNS=no" in run_file(places, "systemd/network/20-gunfire-node-wired.network")
    assert (places.root / "proc/sys/kernel/hostname").read_text() == "a-b-c"


def test_a_key_of_ssh_is_root_s_and_without_one_there_is_none(tmp_path: Path) -> None:
    text = right_text().replace("[network]", '[network]\nssh_key = "' + SSH_KEY + '"')
    places = node(tmp_path, text)
    apply(places, now_ns, BOARD)
    keys = places.root / "run/gunfire-node-setup/authorized_keys"
    assert keys.read_text() == f"{SSH_KEY}\n"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    put(places, right_text())
    apply(places, now_ns, BOARD)
    assert not keys.exists()


def test_an_open_wifi_and_a_receiver_by_usb() -> None:
    wpa = first_boot.wpa_supplicant(NetworkSettings(wifi_ssid="yärd", wifi_open=True, country="MN"))
    assert f"ssid={'yärd'.encode().hex()}\n" in wpa
    assert "key_mgmt=NONE" in wpa
    assert "psk" not in wpa
    assert 'DEVICES="/dev/ttyACM0"' in first_boot.gpsd("/dev/ttyACM0", pulse=False)


@pytest.mark.parametrize("kind", ["pulse", "no-pulse", "none"])
def test_chrony_itself_takes_what_is_written_for_it(kind: str, tmp_path: Path) -> None:
    if (chronyd := shutil.which("chronyd", path="/usr/sbin")) is None:
        pytest.skip("needs chrony")
    text = right_text().replace('kind = "pulse"', f'kind = "{kind}"')
    places = node(tmp_path, text)
    assert apply(places, now_ns, BOARD) is None
    whole_file = tmp_path / "chrony.conf"
    whole_file.write_text(f"confdir {places.reports / 'chrony'}\n")
    read = subprocess.run(
        [chronyd, "-p", "-f", whole_file], capture_output=True, text=True, check=True
    ).stdout
    assert "server ntp.local iburst" in read
    assert ("refclock PPS" in read, "refclock SHM" in read) == (kind == "pulse", kind != "none")


@pytest.mark.parametrize("secured", [True, False])
def test_wpa_supplicant_itself_takes_what_is_written_for_it(secured: bool, tmp_path: Path) -> None:
    if (program := shutil.which("wpa_supplicant", path="/usr/sbin:/sbin")) is None:
        pytest.skip("needs wpa_supplicant (apt-get install wpasupplicant)")
    network = NetworkSettings(
        wifi_ssid="yärd",
        wifi_psk="0f" * 32 if secured else None,
        wifi_open=not secured,
        country="MN",
    )
    file = tmp_path / "wpa_supplicant.conf"
    file.write_text(first_boot.wpa_supplicant(network))
    # An interface that is not there ends it once it has read.
    done = subprocess.run(
        [program, "-dd", "-D", "none", "-i", "none0", "-c", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert "id=0 ssid=" in done.stdout
    assert "Failed to read or parse configuration" not in done.stdout


# What is wrong.


def test_after_a_mistake_the_node_goes_on_with_the_settings_before(tmp_path: Path) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    before = state(places)
    put(places, right_text().replace("channels = 5", "channels = 50"))
    fault = apply(places, now_ns, BOARD)
    assert fault is not None
    assert (fault.code, fault.starts) == ("SETTINGS", True)
    assert state(places) == before
    words = places.error_file.read_bytes()
    assert words.startswith(b"\xef\xbb\xbf")
    assert b"line 8: capture.channels = 50" in words
    assert b"goes on with the settings from before" in words
    assert words.count(b"\n") == words.count(b"\r\n")
    assert "DHCP=no" in run_file(places, "systemd/network/20-gunfire-node-wifi.network")


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ('array = "/data/nope.toml"', "capture.array"),
        ('[classify]\nmodel = "/data/nope.toml"', "classify.model"),
    ],
)
def test_a_file_that_is_named_has_to_be_on_the_node(
    line: str, setting: str, tmp_path: Path
) -> None:
    places = node(tmp_path, right_text().replace('array = "tetrahedron_200mm"', line))
    fault = apply(places, now_ns, BOARD)
    assert fault is not None
    at = right_text()[: right_text().index("array =")].count("\n") + line.count("\n") + 1
    assert fault.sentences == (
        f'gunfire-node.toml, line {at}: {setting} = "/data/nope.toml": is not on this node; name '
        "a file that is, or take the line out",
    )
    assert not places.settings_file.exists()
    board_file(places, "data/nope.toml", "")
    assert apply(places, now_ns, BOARD) is None


def test_a_file_nested_without_end_is_told_on_the_card(tmp_path: Path) -> None:
    places = node(tmp_path, "a" + ".a" * 3000 + " = 1")
    assert apply(places, now_ns, BOARD) is not None
    assert b"is nested too deep" in places.error_file.read_bytes()


def test_the_name_of_a_time_server_is_found_in_the_net_too(tmp_path: Path) -> None:
    text = right_text().replace("broker.local", "192.168.1.2")
    places = node(tmp_path, text)
    assert apply(places, now_ns, BOARD) is None
    assert read_memory(places).mdns


def test_words_on_the_card_go_away_once_it_is_mended(tmp_path: Path) -> None:
    places = node(tmp_path, "x")
    assert apply(places, now_ns, BOARD) is not None
    assert places.error_file.exists()
    assert (places.reports / "first-boot-fault").exists()
    put(places, right_text())
    assert apply(places, now_ns, BOARD) is None
    assert not places.error_file.exists()
    assert not (places.reports / "first-boot-fault").exists()


def test_the_same_words_are_not_written_again_at_each_boot(tmp_path: Path) -> None:
    places = node(tmp_path, "x")
    apply(places, now_ns, BOARD)
    written = places.error_file.stat()
    apply(places, now_ns, BOARD)
    assert places.error_file.stat().st_ino == written.st_ino


def test_a_card_that_is_full_or_locked_keeps_no_node_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    put(places, "x")
    real = whole.write_whole

    def full(path: Path, *rest: Any) -> None:
        if path.is_relative_to(places.boot):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, *rest)

    monkeypatch.setattr(first_boot, "write_whole", full)
    fault = apply(places, now_ns, BOARD)
    assert fault is not None
    assert fault.starts
    assert (places.reports / "first-boot-fault").exists()


def test_a_data_partition_that_takes_nothing_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = node(tmp_path, right_text())
    real = whole.write_whole

    def locked(path: Path, *rest: Any) -> None:
        if path == places.settings_file:
            raise OSError(errno.EROFS, "Read-only file system")
        real(path, *rest)

    monkeypatch.setattr(first_boot, "write_whole", locked)
    fault = apply(places, now_ns, BOARD)
    assert fault is not None
    assert (fault.code, fault.starts) == ("DISK", False)
    assert b"2 long, 6 short" in places.error_file.read_bytes()


def test_a_memory_that_is_spoilt_counts_as_none(tmp_path: Path) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    before = state(places)
    (places.memory / "first-boot.json").write_bytes(b'{"sha256": "')
    assert apply(places, now_ns, BOARD) is None
    assert state(places) == before


def test_a_defect_of_ours_does_not_silence_a_node_that_has_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    places = node(tmp_path, right_text())
    monkeypatch.setattr(first_boot, "machine_id", lambda _: BOARD)
    assert first_boot._apply_here(places) == 0
    monkeypatch.setattr(first_boot, "apply", broken)
    assert first_boot._apply_here(places) == 0
    assert "ZeroDivisionError" in caplog.text
    places.settings_file.unlink()
    assert first_boot._apply_here(places) == 1


# A cut of power, at each step.

STEPS = ("open", "fsync", "replace", "unlink")


class PowerCut(BaseException):
    """No code of ours runs any more."""


def strike(
    monkeypatch: pytest.MonkeyPatch, at: int, strikes: Callable[[], None]
) -> Callable[[], int]:
    """Count what is done to the disk, and strike before one of it; give how many there were."""
    done = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done == at:
                strikes()
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: done


def cut_power() -> None:
    raise PowerCut


def fill_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("what", ["apply", "mistake", "token"])
def test_a_cut_of_power_at_any_step_leaves_the_old_state_or_the_new(
    what: str, tmp_path: Path
) -> None:
    new_text = right_text().replace("riverside", "hillside")
    act: dict[str, Callable[[Places], object]] = {
        "apply": lambda places: apply(places, now_ns, BOARD),
        "mistake": lambda places: apply(places, now_ns, BOARD),
        "token": forget_token,
    }
    cuts = 0
    while True:
        places = node(tmp_path / str(cuts), right_text())
        apply(places, now_ns, BOARD)
        old = state(places)
        if what != "token":
            put(
                places,
                new_text if what == "apply" else new_text.replace("channels = 5", "channels = 50"),
            )
        with pytest.MonkeyPatch.context() as patch:
            strike(patch, cuts + 1, cut_power)
            try:
                act[what](places)
            except PowerCut:
                cut = True
            else:
                cut = False
        # Whole at any time: nobody reads half a file.
        site = load(places.settings_file, {}).settings.node.site
        assert site in ("riverside", "hillside")
        json.loads((places.memory / "first-boot.json").read_bytes())
        act[what](places)  # power is back
        assert apply(places, now_ns, BOARD) == apply(places, now_ns, BOARD)
        if what == "apply":
            assert load(places.settings_file, {}).settings.node.site == "hillside"
            assert read_memory(places).node == Named(id="node-0001", site="hillside")
        elif what == "mistake":
            assert {k: v for k, v in state(places).items() if not k.endswith(".new")} == old
            assert b"line 8" in places.error_file.read_bytes()
        else:
            assert TOKEN.encode() not in places.card_file.read_bytes()
            assert TOKEN not in (places.memory / "first-boot.json").read_text()
        if not cut:
            break
        cuts += 1
    assert cuts >= 8


@pytest.mark.parametrize("what", ["apply", "token"])
def test_a_disk_that_is_full_at_any_step_leaves_the_old_state_or_the_new(
    what: str, tmp_path: Path
) -> None:
    at = 0
    while True:
        at += 1
        places = node(tmp_path / str(at), right_text())
        apply(places, now_ns, BOARD)
        if what == "apply":
            put(places, right_text().replace("riverside", "hillside"))
        with pytest.MonkeyPatch.context() as patch:
            done = strike(patch, at, fill_disk)
            with suppress(OSError):
                apply(places, now_ns, BOARD) if what == "apply" else forget_token(places)
        assert load(places.settings_file, {}).settings.node.site in ("riverside", "hillside")
        assert read_memory(places).node is not None
        if done() < at:
            break
    assert at > 8


def test_a_file_that_is_not_in_force_yet_keeps_its_token(tmp_path: Path) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    another = TOKEN[::-1]
    put(places, right_text().replace(TOKEN, another))
    forget_token(places)
    assert another.encode() in places.card_file.read_bytes()
    assert apply(places, now_ns, BOARD) is None
    enrolment = read_memory(places).enrolment
    assert enrolment is not None
    assert enrolment.token == another


# A card that was copied.


def copied(tmp_path: Path) -> Places:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    enrolled(places)
    forget_token(places)
    assert apply(places, now_ns, BOARD) is None
    return places


def test_a_card_in_another_board_is_refused_in_words_and_by_the_light(tmp_path: Path) -> None:
    places = copied(tmp_path)
    before = state(places)
    fault = apply(places, now_ns, OTHER_BOARD)
    assert fault is not None
    assert (fault.code, fault.starts) == ("KEY", False)
    words = places.error_file.read_text("utf-8-sig")
    for part in (
        "2 long, 5 short",
        "node-0001, site riverside",
        BOARD,
        OTHER_BOARD,
        "moved = true",
    ):
        assert part in words
    assert state(places) == before
    assert apply(places, now_ns, BOARD) is None  # back where it belongs
    assert not places.error_file.exists()


def test_a_copy_with_a_mistake_in_its_file_is_still_a_copy(tmp_path: Path) -> None:
    places = copied(tmp_path)
    put(places, "x")
    fault = apply(places, now_ns, OTHER_BOARD)
    assert fault is not None
    assert fault.code == "KEY"


def test_a_card_that_moved_on_purpose_is_taken_once(tmp_path: Path) -> None:
    places = copied(tmp_path)
    text = places.card_file.read_text().replace("[enrolment]", "[enrolment]\nmoved = true")
    put(places, text)
    assert apply(places, now_ns, OTHER_BOARD) is None
    assert read_memory(places).machine == OTHER_BOARD
    fault = apply(places, now_ns, BOARD)  # a copy of that card
    assert fault is not None
    assert fault.code == "KEY"


def test_a_new_token_takes_a_card_into_another_board_and_an_old_one_does_not(
    tmp_path: Path,
) -> None:
    places = copied(tmp_path)
    put(places, right_text())  # the token that was spent
    assert apply(places, now_ns, OTHER_BOARD) is not None
    put(places, right_text().replace(TOKEN, OTHER_TOKEN))
    assert apply(places, now_ns, OTHER_BOARD) is None
    memory = read_memory(places)
    assert memory.enrolment is not None
    assert (memory.machine, memory.enrolment.token) == (OTHER_BOARD, OTHER_TOKEN)


@pytest.mark.parametrize("machine", [OTHER_BOARD, None])
def test_a_card_that_is_not_enrolled_yet_may_go_into_any_board(
    machine: str | None, tmp_path: Path
) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    assert apply(places, now_ns, machine) is None


def test_a_board_that_cannot_say_who_it_is_is_no_reason_to_refuse(tmp_path: Path) -> None:
    places = copied(tmp_path)
    assert apply(places, now_ns, None) is None
    assert read_memory(places).machine == BOARD


# Which board.


def board_file(places: Places, name: str, text: str) -> None:
    file = places.root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def card(
    places: Places, name: str, address: str, *, assigned: str = "0", real: bool = True
) -> None:
    board_file(places, f"sys/class/net/{name}/address", f"{address}\n")
    board_file(places, f"sys/class/net/{name}/addr_assign_type", f"{assigned}\n")
    if real:
        (places.root / f"sys/class/net/{name}/device").mkdir()


def test_a_board_is_known_by_its_serial_number_else_by_its_first_network_card(
    tmp_path: Path,
) -> None:
    places = Places(tmp_path)
    assert machine_id(places, 0) is None
    card(places, "lo", "00:00:00:00:00:00", real=False)
    card(places, "br0", "52:54:00:00:00:09", real=False)
    card(places, "eth0", "52:54:00:00:00:01", assigned="1")  # made up at each boot
    card(places, "eth1", "52:54:00:AA:00:02")
    card(places, "wlan0", "52:54:00:00:00:03")
    assert machine_id(places, 0) == "mac:52:54:00:aa:00:02"
    board_file(places, "sys/class/dmi/id/board_serial", "Default string\n")
    assert machine_id(places, 0) == "mac:52:54:00:aa:00:02"
    board_file(places, "sys/class/dmi/id/product_serial", "VM-7\n")
    assert machine_id(places, 0) == "dmi:VM-7"
    board_file(places, "proc/device-tree/serial-number", "10000000abcdef01\0")
    assert machine_id(places, 0) == BOARD
    board_file(places, "proc/device-tree/serial-number", "0000000000000000\0")
    assert machine_id(places, 0) == "dmi:VM-7"


def test_a_network_card_whose_driver_comes_late_is_waited_for(tmp_path: Path) -> None:
    places = Places(tmp_path)
    late = threading.Timer(0.2, card, (places, "eth0", "52:54:00:00:00:01"))
    late.start()
    try:
        assert machine_id(places, 10) == "mac:52:54:00:00:00:01"
    finally:
        late.join()


# The token.


def test_the_token_goes_from_card_and_memory_and_nothing_else_does(tmp_path: Path) -> None:
    text = right_text().replace("\n", "\r\n")
    places = node(tmp_path, text)
    apply(places, now_ns, BOARD)
    forget_token(places)
    line = f'token = "{TOKEN}"  # ends soon\r\n'
    assert places.card_file.read_bytes().decode() == text.replace(line, "")
    memory = read_memory(places)
    assert memory.enrolment is not None
    assert memory.enrolment.token is None
    before = state(places)
    assert apply(places, now_ns, BOARD) is None
    assert state(places) == before


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('enrolment.token = "x"\na = 1\n', "a = 1\n"),
        ('a = 1\nenrolment = { token = "x", moved = true }\nb = 2\n', None),
        ('[enrolment]\n# kept\ntoken = """\nx"""\nurl = "y"\n', '[enrolment]\n# kept\nurl = "y"\n'),
        ('[enrolment]\ntoken = "x"\n[a]\ntoken = "kept"\n', '[enrolment]\n[a]\ntoken = "kept"\n'),
        ('[a]\ntoken = "kept"\n', '[a]\ntoken = "kept"\n'),
        ('\ufeff[enrolment]\ntoken = "x"\n[a', "\ufeff[enrolment]\n[a"),
    ],
)
def test_a_token_is_found_however_it_is_written(text: str, left: str | None) -> None:
    without = without_token(text.encode()).decode()
    if left is not None:
        assert without == left
    assert '"x"' not in without
    assert ("moved = true" in without) == ("moved" in text)


def test_a_token_that_was_used_is_not_taken_up_again_from_a_card_that_kept_it(
    tmp_path: Path,
) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    forget_token(places)
    put(places, right_text() + "# another remark\n")
    assert apply(places, now_ns, BOARD) is None
    memory = read_memory(places)
    assert memory.enrolment is not None
    assert memory.enrolment.token is None


def test_without_a_card_s_file_there_is_no_token_to_forget(tmp_path: Path) -> None:
    places = node(tmp_path)
    forget_token(places)
    assert read_memory(places) == Memory()


# The light.


class ToldService(Service):
    """A service manager that only listens."""

    def __init__(self) -> None:
        super().__init__({})
        self.readies = 0

    def ready(self) -> None:
        self.readies += 1


@pytest.fixture
def pins() -> Iterator[MockFactory]:
    Device.pin_factory = MockFactory()
    yield Device.pin_factory
    Device.pin_factory.reset()
    Device.pin_factory = None


@pytest.mark.usefixtures("pins")
def test_a_fault_is_shown_for_a_while_where_the_node_starts_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = node(tmp_path, right_text())
    apply(places, now_ns, BOARD)
    put(places, "x")
    apply(places, now_ns, BOARD)
    shown: list[Code] = []
    monkeypatch.setattr(Board, "show", lambda _board, code: shown.append(code))
    service = ToldService()
    show(places, service, lambda: False, light_s=0.6)
    assert set(shown) == {Code.SETTINGS}
    assert service.readies == 1


def test_a_fault_is_shown_for_good_where_it_does_not_and_the_boot_waits_for_nothing(
    pins: MockFactory, tmp_path: Path
) -> None:
    text = right_text().replace("channels = 5", "channels =")
    places = node(tmp_path, text)
    assert apply(places, now_ns, BOARD) is not None
    service = ToldService()
    asked: list[float] = []

    def stopped() -> bool:
        assert service.readies == 1  # before the first look
        asked.append(pins.pin(17).state)
        return len(asked) > 8

    show(places, service, stopped, light_s=0.1)
    assert any(asked), "the light of a file that is wrong elsewhere is on its own pin"


def test_where_nothing_is_wrong_the_light_is_the_nodes(tmp_path: Path) -> None:
    service = ToldService()
    show(Places(tmp_path), service, lambda: False)
    assert service.readies == 1
