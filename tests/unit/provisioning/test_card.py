"""The laptop's side: what is made, what is refused, what is printed; and what Imager takes."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import zstandard
from click.testing import CliRunner, Result

from node.errors import ProvisioningError
from node.settings import Settings
from provisioning.card import cli as card_cli
from provisioning.card import disks, imager
from provisioning.card.cli import PASSPHRASE, cli, main
from provisioning.card.disks import look, refusal
from provisioning.card.image import Image
from provisioning.card.label import Label, authority_print, draw
from provisioning.card.presets import PRESETS, wifi_key
from provisioning.first_boot_file import parse
from provisioning.invitation import Invitation
from tests.evidence import ROOT
from tests.unit.provisioning.cards import (
    NOW_NS,
    TOKEN,
    authority,
    release_root,
    right_text,
)

SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJUrlFgL4oLEy9t6kdh8UcuMmknwRVx9mq1bnP8OWMVQ me"
GIVEN = ("--id", "node-0001", "--site", "riverside", "--broker", "mqtt://broker.local")


def run(*words: object, **environment: str) -> Result:
    return CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False, env=environment)


def invitation(folder: Path, **other: Any) -> Path:
    values = {
        "node_id": "node-0001",
        "site": "riverside",
        "broker": "mqtts://broker.local:8883",
        "ca": authority(),
        "enrolment_url": "https://broker.local:8885",
        "token": TOKEN,
        "expires_utc": "2200-01-01T00:00:00Z",
        "update_url": "https://broker.local:8885/releases",
        "update_root": release_root(),
        **other,
    }
    file = folder / "invitation.json"
    invitation = Invitation.model_validate({k: v for k, v in values.items() if v is not None})
    file.write_text(invitation.text())
    return file


# Making a file.


@pytest.mark.parametrize("which", PRESETS)
def test_a_set_up_is_what_the_page_on_installing_says(which: str, tmp_path: Path) -> None:
    file = tmp_path / "gunfire-node.toml"
    done = run("new", *GIVEN, "--array", which, "-o", file)
    assert done.exception is None, done.exception
    made = parse(file.read_bytes(), "x", NOW_NS)
    page = (ROOT / "docs/do/install-a-node.md").read_text("utf-8")
    block = page[page.index(f"\n**{which}**") :].split("```toml\n")[1].split("```")[0]
    said = Settings.model_validate(tomllib.loads(block))
    for table in ("capture", "timing", "board"):
        assert getattr(made.settings, table) == getattr(said, table)
    kinds = {"A": "pulse", "B": "pulse", "C": "none"}
    assert made.settings.receiver.kind == kinds[which]


def test_an_invitation_says_all_of_a_node_but_its_array(tmp_path: Path) -> None:
    file = tmp_path / "gunfire-node.toml"
    done = run("new", "--invitation", invitation(tmp_path), "--array", "A", "-o", file)
    assert done.exception is None, done.exception
    made = parse(file.read_bytes(), "x", NOW_NS).settings
    assert (made.node.id, made.node.site) == ("node-0001", "riverside")
    assert made.mqtt.url == "mqtts://broker.local:8883"
    assert made.enrolment is not None
    assert made.update is not None
    assert (made.enrolment.token, made.enrolment.ca) == (TOKEN, authority())
    assert made.update.root == release_root()
    # It holds a token.
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert TOKEN not in done.output


def test_an_invitation_without_a_place_to_ask_is_for_carrying_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "gunfire-node.toml"
    given = invitation(tmp_path, enrolment_url=None, token=None, update_url=None, update_root=None)
    done = run("new", "--invitation", given, "--array", "C", "-o", file)
    assert done.exception is None, done.exception
    assert "by hand: its request will lie on the card" in done.output


def test_an_invitation_that_has_ended_is_told(tmp_path: Path) -> None:
    given = invitation(tmp_path, expires_utc="2026-01-01T00:00:00Z")
    done = run("new", "--invitation", given, "--array", "A", "-o", tmp_path / "x.toml")
    assert "ended on 2026-01-01T00:00:00Z; have it made anew" in str(done.exception)
    assert not (tmp_path / "x.toml").exists()


def test_an_invitation_for_another_node_is_told(tmp_path: Path) -> None:
    given = invitation(tmp_path)
    done = run("new", "--invitation", given, "--id", "node-0002", "--array", "A")
    assert "the invitation is for node-0001" in str(done.exception)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"token": "abc"}, "token: is no token"),
        ({"ca": "abc"}, "ca: is no certificate"),
        ({"broker": "mqtt://b"}, "broker: must start with mqtts://"),
        ({"enrolment_url": "http://b"}, "enrolment_url: must start with https://"),
        ({"schema": "x"}, "schema: Input should be"),
        ({"more": 1}, "more: Extra inputs"),
    ],
)
def test_an_invitation_that_is_wrong_is_told(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    file = invitation(tmp_path)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ProvisioningError, match="have it made anew") as told:
        Invitation.read(file)
    assert words in str(told.value)


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b"1", b" " * 300_000])
def test_what_is_no_invitation_is_told(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(data)
    with pytest.raises(ProvisioningError, match="gunfire-fleet invite"):
        Invitation.read(file)


def test_the_key_of_a_wifi_is_the_one_of_the_standards_example() -> None:
    # IEEE 802.11i, annex H.4.2.
    assert wifi_key("IEEE", "password").startswith("f42c6fc52df0ebef9ebb4b90b38a5f90")


def test_a_passphrase_becomes_a_key_and_stands_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "gunfire-node.toml"
    wifi = ("--wifi", "IEEE", "--country", "mn")
    words = ("new", *GIVEN, "--array", "C", *wifi, "-o", file)
    done = run(*words, **{PASSPHRASE: "password"})
    assert done.exception is None, done.exception
    network = parse(file.read_bytes(), "x", NOW_NS).settings.network
    assert network.wifi_psk == wifi_key("IEEE", "password")
    assert network.country == "MN"
    assert "password" not in file.read_text() + done.output
    short = run(*words, "--force", **{PASSPHRASE: "secret"})
    assert "8 to 63" in str(short.exception)
    assert "secret" not in str(short.exception)


def test_network_position_and_key_are_taken_from_options(tmp_path: Path) -> None:
    file, key = tmp_path / "gunfire-node.toml", tmp_path / "id.pub"
    key.write_text(f"{SSH_KEY}\n")
    fixed = ("--address", "10.0.0.5/24", "--gateway", "10.0.0.1", "--dns", "10.0.0.1")
    more = ("--ntp", "10.0.0.1", "--ssh-key", key, "--position", "47.85", "106.2", "1310", "5")
    done = run("new", *GIVEN, "--array", "C", *fixed, *more, "--device", "UMIK", "-o", file)
    assert done.exception is None, done.exception
    made = parse(file.read_bytes(), "x", NOW_NS).settings
    assert made.network.model_dump(exclude_defaults=True) == {
        "address": "10.0.0.5/24",
        "gateway": "10.0.0.1",
        "dns": ("10.0.0.1",),
        "ntp": ("10.0.0.1",),
        "ssh_key": SSH_KEY,
    }
    assert made.capture.device == "UMIK"
    assert made.node.position is not None
    assert made.node.position.alt_m == 1310


def test_what_would_be_wrong_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "gunfire-node.toml"
    done = run("new", *GIVEN, "--array", "C", "--address", "10.0.0.5", "-o", file)
    assert "must say how long its net is" in str(done.exception)
    assert "was not written" in str(done.exception)
    assert not file.exists()


def test_a_file_that_is_there_is_not_written_over_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "gunfire-node.toml"
    file.write_text("mine")
    words = ("new", *GIVEN, "--array", "C", "-o", file)
    assert "is there already" in str(run(*words).exception)
    assert file.read_text() == "mine"
    assert run(*words, "--force").exception is None


def test_without_a_terminal_what_is_missing_is_named(tmp_path: Path) -> None:
    done = run("new", "-o", tmp_path / "x")
    assert "--id is missing" in str(done.exception)


def test_check_tells_what_a_node_will_be_and_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "gunfire-node.toml"
    file.write_text(right_text().replace("mqtts://", "mqtts://me:secret@"))
    done = run("check", file)
    assert done.exception is None, done.exception
    for words in ("node-0001, site riverside", "with a token", "receiver with its pulse"):
        assert words in done.output
    assert TOKEN not in done.output
    assert "secret" not in done.output
    assert "0f0f" not in done.output


# Which disk may be written to.


def disk(**other: Any) -> dict[str, Any]:
    part = {"name": "sdb1", "type": "part", "size": 10**9, "mountpoints": [None]}
    return {
        **{"name": "sdb", "path": "/dev/sdb", "type": "disk", "rm": True, "hotplug": True},
        **{"ro": False, "size": 32 * 10**9, "model": "SD Reader", "mountpoints": [None]},
        **{"children": [part]},
        **other,
    }


def child(kind: str, mounted: str | None, below: list[Any] | None = None) -> dict[str, Any]:
    more = {} if below is None else {"children": below}
    return {"name": "x", "type": kind, "size": 1, "mountpoints": [mounted], **more}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (disk(), ""),
        (disk(rm=False), ""),  # a card in a slot of its own (mmcblk0)
        (disk(type="loop", rm=False, hotplug=False), ""),
        (disk(rm=False, hotplug=False), "is not removable"),
        (disk(type="part"), "name the whole disk"),
        (disk(type="crypt"), "is a crypt and no card"),
        (disk(ro=True), "push the lock"),
        (disk(size=0), "holds no card"),
        (disk(size=4 * 10**12), "4.0 TB and is no card"),
        (disk(size=10**9), "take a larger card"),
        (disk(children=[child("part", "/media/me/GUNFIRE")]), "unmount it: sudo umount /media/me/"),
        (disk(mountpoints=["/mnt"]), "is mounted at /mnt"),
        (disk(children=[child("part", "/boot/efi")]), "of this machine"),
        (disk(children=[child("part", None, [child("crypt", "/")])]), "of this machine"),
        (disk(children=[child("part", "[SWAP]")]), "of this machine"),
        (disk(children=[child("part", None, [child("lvm", None)])]), "is in use (lvm)"),
        (disk(children=[child("part", None, [child("raid1", None)])]), "is in use (raid1)"),
        (disk(mountpoints=["/"], rm=False, hotplug=False), "of this machine"),
    ],
)
def test_only_a_card_that_nothing_uses_may_be_written_to(what: dict[str, Any], words: str) -> None:
    why = refusal(what, 2 * 10**9)
    assert words in why
    assert bool(why) == bool(words)


def reader(**other: Any) -> dict[str, Any]:
    return disk(**{"children": [], **other})


BACKUP = reader(
    path="/dev/sdc", name="sdc", children=[dict(child("part", None), label="my copies")]
)
TWO = [reader(), reader(path="/dev/mmcblk0", name="mmcblk0", rm=False, model="Slot")]


@pytest.mark.parametrize(
    ("there", "typed", "words"),
    [
        ([], "", "there is no card in a reader; put it in"),
        ([reader(rm=False, hotplug=False)], "", "there is no card in a reader"),
        ([reader(type="loop")], "", "there is no card in a reader"),
        ([reader(size=None)], "", "/dev/sdb (SD Reader, 0.0 GB): holds no card"),
        ([reader(size=10**12)], "", "/dev/sdb (SD Reader, 1000.0 GB): is larger than cards are"),
        (
            [reader(children=[child("part", "/media/me/MY CARD"), child("part", "/media/me/x")])],
            "",
            "/dev/sdb (SD Reader, 32.0 GB): is mounted at /media/me/MY CARD, /media/me/x; unmount "
            "it: sudo umount '/media/me/MY CARD' /media/me/x",
        ),
        ([reader()], "", "takes /dev/sdb"),
        (TWO, "/dev/sda\n/dev/mmcblk0\n", "takes /dev/mmcblk0"),
        (TWO, None, "--to is missing"),
        # What is left when the card is mounted need not be the card.
        ([reader(mountpoints=["/mnt"]), BACKUP], "/dev/sdc\n", "takes /dev/sdc"),
        ([reader(mountpoints=["/mnt"]), BACKUP], None, "--to is missing"),
        ([reader(size=0), BACKUP], None, "--to is missing"),
        ([reader(path="/dev/mmcblk0", name="mmcblk0", soldered=True)], "", "there is no card in a"),
        ([reader(name="mmcblk0boot0", soldered=True)], "", "there is no card in a"),
        ([reader(mountpoints=["/"], label="\x1b[1A\x1b[2KSD")], "", "with �[1A�[2KSD)"),
    ],
)
def test_the_card_in_a_reader_is_found_and_of_several_disks_one_is_chosen(
    there: list[Any], typed: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("mcopy") is None:
        pytest.skip("needs mtools")
    image, file = tmp_path / "x.img", tmp_path / "gunfire-node.toml"
    image.write_bytes(bytes(512))
    file.write_text(right_text())
    for one in there:
        kind = tmp_path / "sys" / one["name"].removesuffix("boot0") / "device" / "type"
        kind.parent.mkdir(parents=True)
        kind.write_text("MMC\n" if one.get("soldered") else "SD\n")
    terminal = SimpleNamespace(isatty=lambda: typed is not None)
    monkeypatch.setattr(card_cli, "sys", SimpleNamespace(stdin=terminal))
    monkeypatch.setattr(disks, "_SYSFS", tmp_path / "sys")
    monkeypatch.setattr(disks, "_lsblk", lambda *_: there)
    monkeypatch.setattr(card_cli, "target_of", taken)
    done = CliRunner().invoke(
        cli, ["write", str(image), str(file)], standalone_mode=False, input=typed
    )
    assert words in str(done.exception)
    if len(there) > 1:
        for one in there:
            assert one["path"] in done.output
        assert ("my copies" in done.output) == (BACKUP in there)


def taken(path: Path, _: int | None) -> NoReturn:
    raise ProvisioningError(f"takes {path}")


def test_a_label_that_another_system_gave_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = b'{"blockdevices": [{"name": "sdb", "path": "/dev/sdb", "type": "disk", "rm": true, '
    said += b'"size": 9, "label": "S\x9aD", "mountpoints": [null]}]}'
    program = tmp_path / "lsblk"
    program.write_bytes(b"#!/bin/sh\ncat <<'END'\n" + said + b"\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert disks.about(disks.cards()[0]) == "disk, 0.0 GB, with S\N{REPLACEMENT CHARACTER}D"


def test_nobody_erases_a_card_that_was_not_named_without_being_asked(tmp_path: Path) -> None:
    if shutil.which("mcopy") is None:
        pytest.skip("needs mtools")
    image, file = tmp_path / "x.img", tmp_path / "gunfire-node.toml"
    image.write_bytes(bytes(512))
    file.write_text(right_text())
    assert "--to is missing; with --yes" in str(run("write", image, file, "--yes").exception)


def test_the_disk_that_this_machine_runs_from_is_refused() -> None:
    at = subprocess.run(
        ["findmnt", "-n", "-o", "SOURCE", "/"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not at.startswith("/dev/") or not Path(at).is_block_device():
        pytest.skip(f"/ lies on no disk here ({at or 'unknown'})")
    own = look(Path(at))
    assert refusal(own, None)
    assert own["path"] not in [d["path"] for d in disks.cards() if not disks.not_proposed(d, None)]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/dev/sdzz9", "there is no such disk"),
        ("/dev/null", "neither a disk nor a file"),
        ("/no/such/folder/card.img", "there is no folder"),
    ],
)
def test_a_target_that_is_none_is_told(target: str, words: str, tmp_path: Path) -> None:
    image, file = tmp_path / "x.img", tmp_path / "gunfire-node.toml"
    image.write_bytes(bytes(512))
    file.write_text(right_text())
    if shutil.which("mcopy") is None:
        pytest.skip("needs mtools")
    done = run("write", image, file, "--to", target)
    assert words in str(done.exception)


# The label.


def test_the_code_of_a_label_names_node_and_fleet_and_holds_no_secret() -> None:
    label = Label.of(parse(right_text().encode(), "x", NOW_NS))
    print_ = authority_print(authority())
    assert label.code == f"gunfire-node/1 site=riverside id=node-0001 ca={print_}"
    assert len(print_) == 64


def test_without_a_fleet_a_label_names_the_node_alone() -> None:
    assert Label("node-0001", "riverside", "").code == "gunfire-node/1 site=riverside id=node-0001"


@pytest.mark.parametrize("node_id", ["node-0001", "n" * 64])
def test_a_camera_reads_a_label(node_id: str, tmp_path: Path) -> None:
    if shutil.which("zbarimg") is None:
        pytest.skip("needs zbarimg (apt-get install zbar-tools)")
    label = Label(node_id, "riverside", authority_print(authority()))
    file = tmp_path / "label.png"
    draw(label, file)
    read = subprocess.run(
        ["zbarimg", "--quiet", "--raw", file], capture_output=True, text=True, check=True
    )
    assert read.stdout.strip() == label.code


@pytest.mark.parametrize(("ending", "magic"), [(".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_a_label_is_drawn_for_a_printer(ending: str, magic: bytes, tmp_path: Path) -> None:
    file, drawn = tmp_path / "gunfire-node.toml", tmp_path / f"label{ending}"
    file.write_text(right_text())
    done = run("label", file, "-o", drawn)
    assert done.exception is None, done.exception
    assert drawn.read_bytes().startswith(magic)
    assert "must end with" in str(run("label", file, "-o", tmp_path / "label.bmp").exception)


def test_a_label_is_drawn_with_the_file(tmp_path: Path) -> None:
    file, drawn = tmp_path / "gunfire-node.toml", tmp_path / "node-0001.pdf"
    wish = ("new", "--invitation", invitation(tmp_path), "--array", "A", "-o", file)
    assert "must end with" in str(run(*wish, "--label", tmp_path / "label.bmp").exception)
    drawn.write_text("mine")
    assert "say --force" in str(run(*wish, "--label", drawn).exception)
    assert not file.exists()
    done = run(*wish, "--label", drawn, "--force")
    assert done.exception is None, done.exception
    assert "id=node-0001 ca=" in done.output
    assert TOKEN not in done.output
    assert drawn.read_bytes().startswith(b"%PDF")
    assert file.exists()


def test_a_label_that_is_there_is_not_drawn_over_unless_forced(tmp_path: Path) -> None:
    file, drawn = tmp_path / "gunfire-node.toml", tmp_path / "label.PDF"
    file.write_text(right_text())
    drawn.write_text("mine")
    assert "say --force" in str(run("label", file, "-o", drawn).exception)
    assert drawn.read_text() == "mine"
    assert run("label", file, "-o", drawn, "--force").exception is None
    assert drawn.read_bytes().startswith(b"%PDF")


def test_a_label_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProvisioningError, match="cannot be written: No space left"):
        draw(Label("node-0001", "riverside", ""), tmp_path / "label.pdf")
    assert not list(tmp_path.iterdir())


# What goes wrong is one line, and exit code 2.


def main_says(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gunfire-card", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 2
    said = capfd.readouterr().err.removesuffix("\n")
    assert said.startswith("gunfire-card: ")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("folder", [".", "/"])
def test_a_folder_in_place_of_the_file_is_told(
    folder: str, capfd: pytest.CaptureFixture[str]
) -> None:
    said = main_says(capfd, "new", *GIVEN, "--array", "C", "--force", "-o", folder)
    assert f"{folder}: cannot be written: Is a directory" in said


@pytest.mark.parametrize("option", ["--device", "--wifi"])
def test_what_is_no_utf_8_is_told(
    option: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PASSPHRASE, "password")
    words = ("new", *GIVEN, "--array", "C", "--country", "MN", "-o", tmp_path / "x.toml")
    assert "give it in UTF-8" in main_says(capfd, *words, option, "\udce9cole")
    assert not (tmp_path / "x.toml").exists()


def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    file = tmp_path / "gunfire-node.toml"
    file.write_text(right_text())
    command = "import sys; from provisioning.card.cli import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", command, "check", file],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (2, "gunfire-card: No space left on device\n")


@pytest.mark.parametrize(
    ("said", "words"), [("utf-16", "holds no SHA-256"), ("folder", "Is a directory")]
)
def test_a_checksum_that_cannot_be_read_is_told(
    said: str, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, file = tmp_path / "x.img", tmp_path / "gunfire-node.toml"
    image.write_bytes(bytes(512))
    file.write_text(right_text())
    sums = tmp_path / "x.img.sha256"
    sums.mkdir() if said == "folder" else sums.write_text("0" * 64, "utf-16")
    told = main_says(capfd, "imager", image, file, "-o", tmp_path / "imager")
    assert str(sums) in told
    assert words in told


# Raspberry Pi Imager.

# What its doc/json-schema/os-list-schema.json asks of an entry, and the formats of Imager 2.
REQUIRED = {
    "name": str,
    "description": str,
    "icon": str,
    "url": str,
    "extract_size": int,
    "extract_sha256": str,
    "image_download_size": int,
    "release_date": str,
}
FORMATS = {"none", "systemd", "cloudinit", "cloudinit-rpi"}


def imager_folder(tmp_path: Path, *options: str, text: str | None = None) -> Path:
    image, file, folder = tmp_path / "x.img.xz", tmp_path / "mine.toml", tmp_path / "imager"
    plain = tmp_path / "x.img"
    plain.write_bytes(bytes(2**20))
    subprocess.run(["xz", "--keep", "--force", plain], check=True)
    file.write_text(text or right_text())
    done = run("imager", image, file, "-o", folder, *options)
    assert done.exception is None, done.exception
    return folder


def test_the_nodes_own_image_takes_no_customisation_of_imagers(tmp_path: Path) -> None:
    folder = imager_folder(tmp_path)
    manifest = json.loads((folder / imager.MANIFEST).read_text())
    assert set(manifest) == {"os_list"}
    (entry,) = manifest["os_list"]
    assert {key: type(entry[key]) for key in REQUIRED} == REQUIRED
    assert entry["init_format"] == "none"
    assert entry["url"] == (tmp_path / "x.img.xz").as_uri()
    assert entry["extract_size"] == 2**20
    assert entry["image_download_size"] == (tmp_path / "x.img.xz").stat().st_size
    assert (folder / "gunfire-node.toml").read_text() == right_text()
    assert stat.S_IMODE((folder / "gunfire-node.toml").stat().st_mode) == 0o600
    assert sorted(f.name for f in folder.iterdir()) == [
        "gunfire-node.rpi-imager-manifest",
        "gunfire-node.toml",
        "icon.png",
    ]


def test_imager_gets_no_image_that_is_not_the_one_of_its_checksum(tmp_path: Path) -> None:
    image, file, folder = tmp_path / "x.img", tmp_path / "mine.toml", tmp_path / "imager"
    image.write_bytes(bytes(512))
    file.write_text(right_text())
    Path(f"{image}.sha256").write_text("0" * 64)
    assert "broken or another" in str(run("imager", image, file, "-o", folder).exception)
    assert not folder.exists()
    Path(f"{image}.sha256").unlink()
    assert "was not checked" in run("imager", image, file, "-o", folder).output


def test_imager_gets_no_image_that_is_cut_short(tmp_path: Path) -> None:
    image, file, folder = tmp_path / "x.img.zst", tmp_path / "mine.toml", tmp_path / "imager"
    image.write_bytes(zstandard.compress(os.urandom(2**20))[:-1000])
    file.write_text(right_text())
    assert "cut short" in str(run("imager", image, file, "-o", folder).exception)
    assert not folder.exists()


def test_an_image_of_another_size_than_it_tells_is_told(tmp_path: Path) -> None:
    image = tmp_path / "x.img"
    image.write_bytes(bytes(512))
    told = dataclasses.replace(Image.of(image), size_bytes=1024)
    with pytest.raises(ProvisioningError, match="is 512 bytes, not the 1024"):
        list(told.chunks(lambda _: None))


def test_what_imager_gets_for_another_node_is_not_written_over_unless_forced(
    tmp_path: Path,
) -> None:
    folder = imager_folder(tmp_path, *PI_OS)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    imager_folder(tmp_path, *PI_OS)  # the same again is no harm
    other = right_text().replace("node-0001", "node-0002")
    (tmp_path / "mine.toml").write_text(other)
    words = ("imager", tmp_path / "x.img.xz", tmp_path / "mine.toml", "-o", folder, *PI_OS)
    assert "say --force" in str(run(*words).exception)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert run(*words, "--force").exception is None
    assert (folder / "gunfire-node.toml").read_text() == other


PI_OS = ("--raspberry-pi-os", "--source", "https://example.org/gunfire-node.git")


def test_raspberry_pi_os_is_told_to_install_the_node(tmp_path: Path) -> None:
    folder = imager_folder(tmp_path, *PI_OS, "--version", "v1")
    (entry,) = json.loads((folder / imager.MANIFEST).read_text())["os_list"]
    assert entry["init_format"] == "cloudinit-rpi"
    assert entry["init_format"] in FORMATS
    head, told = (folder / "user-data").read_text().split("\n", 1)
    assert head == "#cloud-config"
    commands = json.loads(told.split("\n", 1)[1])["runcmd"]
    assert commands[0][:5] == ["git", "clone", "--depth", "1", "--branch"]
    assert commands[1][0].endswith("/provisioning/install")
    assert commands[1][1:3] == ["--receiver", "pulse"]
    assert any(words[1:4] == ["-m", "provisioning.first_boot", "apply"] for words in commands)
    usage = subprocess.run(
        [ROOT / "provisioning/install", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert {w for w in commands[1] if w.startswith("--")} <= set(
        usage.replace("]", " ").split()
    ) | {
        "--boot",
        "--no-start",
        "--receiver",
    }
    assert TOKEN not in told
    assert "0f0f" not in told


def test_another_file_is_another_instance_for_cloud_init(tmp_path: Path) -> None:
    one = parse(right_text().encode(), "x", NOW_NS)
    other = parse(right_text().replace("riverside", "hillside").encode(), "x", NOW_NS)
    assert imager.meta_data(one) != imager.meta_data(other)


def test_raspberry_pi_os_needs_to_know_where_the_software_is(tmp_path: Path) -> None:
    (tmp_path / "x.img").write_bytes(bytes(512))
    (tmp_path / "mine.toml").write_text(right_text())
    done = run("imager", tmp_path / "x.img", tmp_path / "mine.toml", "-o", tmp_path, PI_OS[0])
    assert "--source is missing" in str(done.exception)


KEY = f'[network]\nssh_key = "{SSH_KEY}"'


@pytest.mark.parametrize("text", [right_text(), right_text().replace("[network]", KEY)])
def test_cloud_init_itself_takes_the_files(text: str, tmp_path: Path) -> None:
    if shutil.which("cloud-init") is None:
        pytest.skip("needs cloud-init")
    folder = imager_folder(tmp_path, *PI_OS, text=text)
    checked = subprocess.run(
        ["cloud-init", "schema", "--config-file", folder / "user-data"],
        capture_output=True,
        text=True,
        check=False,
    )
    said = checked.stdout + checked.stderr
    assert checked.returncode == 0, said
    assert "Valid" in said


WIRED = right_text().replace(right_text().split("[network]")[1].split("[enrolment]")[0], "\n")


@pytest.mark.parametrize("text", [right_text(), WIRED])
def test_netplan_takes_the_network_of_raspberry_pi_os(text: str, tmp_path: Path) -> None:
    if shutil.which("netplan") is None:
        pytest.skip("needs netplan (apt-get install netplan.io)")
    network = json.loads(imager.network_config(parse(text.encode(), "x", NOW_NS)))
    file = tmp_path / "etc/netplan/50-cloud-init.yaml"  # as cloud-init hands it on
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"network": network}))
    file.chmod(0o600)
    made = subprocess.run(
        ["netplan", "generate", "--root-dir", tmp_path], capture_output=True, text=True, check=False
    )
    assert (made.returncode, made.stderr) == (0, "")
    wpa = tmp_path / "run/netplan/wpa-wlan0.conf"
    assert wpa.exists() == (text == right_text())
    if wpa.exists():
        assert f"psk={'0f' * 32}" in wpa.read_text()
        assert "country=MN" in wpa.read_text()


def test_every_command_shows_an_example() -> None:
    for name in (*cli.commands, ""):
        done = CliRunner().invoke(cli, [*name.split(), "--help"])
        assert done.exit_code == 0
        assert "Example: " in done.output
